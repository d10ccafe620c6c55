"""From a Hugging Face checkpoint to a model folder that the runtime opens.

Needs torch, transformers and onnxruntime-genai's model builder (`pip install 'edgevl[export]'`); importing this
module does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edgevl.errors import BackendMissing, InputError

if TYPE_CHECKING:
    from edgevl.model.manifest import Manifest

__all__ = ["BLOCK_SIZES", "DECODER_PRECISIONS", "VISION_PRECISIONS", "Progress", "export_model"]

VISION_PRECISIONS = ("fp32", "fp16", "int8")
DECODER_PRECISIONS = ("fp32", "fp16", "int8", "int4", "gguf:f16", "gguf:q8_0", "gguf:q4_0", "gguf:q4_k_m")
BLOCK_SIZES = (16, 32, 64, 128)
Progress = Callable[[str, float], None]
"""Called with a stage's name and the share of the whole export that is done, 0 to 1."""

_NEEDED = ("torch", "transformers", "safetensors", "onnx", "onnxscript", "onnxruntime_genai")
_GGUF_NEEDED = ("torch", "transformers", "safetensors", "onnx", "onnxscript", "gguf", "llama_cpp")


def export_model(
    checkpoint: Path,
    out: Path,
    *,
    vision: str = "int8",
    decoder: str = "int4",
    block_size: int = 32,
    fidelity: float | None = None,
    name: str | None = None,
    samples: Sequence[Path] = (),
    progress: Progress | None = None,
    force: bool = False,
) -> Manifest:
    """Export the checkpoint folder `checkpoint` to the model folder `out` and return its manifest.

    `vision` and `decoder` are precisions of VISION_PRECISIONS and DECODER_PRECISIONS; those that begin with "gguf:"
    make a decoder for llama.cpp. `block_size`, one of BLOCK_SIZES, is how many weights of an int8 or int4 decoder share
    a scale: smaller is nearer and larger.
    `fidelity` is the mean cosine between exported and PyTorch image features that an int8 vision graph must reach;
    the MatMuls that cost most are kept in float32 until it does. `name` is the model's name (default: the folder's).
    `samples` are pictures to measure on. `force` replaces a model folder that is there; nothing is seen of `out`
    until all is done.

    Raises BackendMissing where the export extra is not installed, InputError for an unknown precision or block size,
    ExportError or UnsupportedFamily for a checkpoint that cannot be exported, ImageError for a sample that is no
    picture.
    """
    needed, extra = (_GGUF_NEEDED, "export,gguf") if decoder.startswith("gguf:") else (_NEEDED, "export")
    missing = [module for module in needed if find_spec(module) is None]
    if missing:
        raise BackendMissing(f"export needs {', '.join(missing)}: pip install 'edgevl[{extra}]'")
    for option, value, known in (("vision", vision, VISION_PRECISIONS), ("decoder", decoder, DECODER_PRECISIONS)):
        if value not in known:
            raise InputError(f"{option} precision is {value!r}; it must be one of {', '.join(known)}")
    if block_size not in BLOCK_SIZES:
        raise InputError(f"block size is {block_size!r}; it must be one of {', '.join(map(str, BLOCK_SIZES))}")
    if fidelity is not None and not 0 < fidelity < 1:
        raise InputError(f"fidelity is {fidelity!r}; it must be between 0 and 1, such as 0.999")
    from .build import Options, build

    options = Options(vision, decoder, block_size, fidelity, name, tuple(samples))
    return build(checkpoint, out, options, progress or _silent, force=force)


def _silent(stage: str, done: float) -> None:
    """Report nothing."""
