"""From what is published, checkpoints, llama.cpp's two files or ready graphs, to folders that the runtime opens.

Checkpoints need torch, transformers and onnxruntime-genai's model builder (`pip install 'edgevl[export]'`), llama.cpp's
files llama-cpp-python, gguf and onnx (`pip install 'edgevl[gguf]'`); importing this module needs none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edgevl.errors import BackendMissing, InputError

if TYPE_CHECKING:
    from edgevl.model.manifest import Manifest

__all__ = [
    "BLOCK_SIZES",
    "DECODER_PRECISIONS",
    "LAYOUT_PRECISIONS",
    "VISION_PRECISIONS",
    "Progress",
    "check_gguf",
    "export_model",
    "import_gguf",
    "import_layout",
    "pull_model",
]

VISION_PRECISIONS = ("fp32", "fp16", "int8")
DECODER_PRECISIONS = ("fp32", "fp16", "int8", "int4", "gguf:f16", "gguf:q8_0", "gguf:q4_0", "gguf:q4_k_m")
BLOCK_SIZES = (16, 32, 64, 128)
LAYOUT_PRECISIONS = ("q4", "q8", "fp32", "fp16", "int8", "uint8", "q4f16", "bnb4")
"""As transformers.js calls them, best first for a processor: four bits are what the models' own pages take, and half
precision is slow there."""
Progress = Callable[[str, float], None]
"""Called with a stage's name and the share of the whole export that is done, 0 to 1."""

_NEEDED = ("torch", "transformers", "safetensors", "onnx", "onnxscript", "onnxruntime_genai")
_GGUF_NEEDED = ("onnx", "gguf", "llama_cpp")
_BOTH_NEEDED = ("torch", "transformers", "safetensors", "onnxscript", *_GGUF_NEEDED)


def export_model(
    checkpoint: Path,
    out: Path,
    *,
    vision: str = "int8",
    decoder: str = "int4",
    block_size: int = 32,
    prefill: bool | None = None,
    fidelity: float | None = None,
    name: str | None = None,
    samples: Sequence[Path] = (),
    progress: Progress | None = None,
    force: bool = False,
) -> Manifest:
    """Export the checkpoint folder `checkpoint` to the model folder `out` and return its manifest.

    `vision` and `decoder` are precisions of VISION_PRECISIONS and DECODER_PRECISIONS; those that begin with "gguf:"
    make a decoder for llama.cpp. `block_size`, one of BLOCK_SIZES, is how many weights of an int8 or int4 decoder share
    a scale: smaller is nearer and larger. `prefill` writes a second graph of an int8 or int4 decoder, for prompts,
    which is quicker on them and takes a byte for each weight (default: for 32 million to a billion weights).
    `fidelity` is the mean cosine between exported and PyTorch image features that an int8 vision graph must reach;
    the MatMuls that cost most are kept in float32 until it does. `name` is the model's name (default: the folder's).
    `samples` are pictures to measure on. `force` replaces a model folder that is there; nothing is seen of `out`
    until all is done.

    Raises BackendMissing where the export extra is not installed, InputError for an unknown precision or block size,
    ExportError or UnsupportedFamily for a checkpoint that cannot be exported, ImageError for a sample that is no
    picture.
    """
    needed, extra = (_BOTH_NEEDED, "export,gguf") if decoder.startswith("gguf:") else (_NEEDED, "export")
    _check("export", needed, extra, vision, fidelity)
    if decoder not in DECODER_PRECISIONS:
        raise InputError(f"decoder precision is {decoder!r}; it must be one of {', '.join(DECODER_PRECISIONS)}")
    if block_size not in BLOCK_SIZES:
        raise InputError(f"block size is {block_size!r}; it must be one of {', '.join(map(str, BLOCK_SIZES))}")
    if prefill and decoder not in ("int8", "int4"):
        raise InputError(f"decoder precision is {decoder!r}; a graph for prompts is made for int8 and int4 alone")
    from .checkpoint import check_folder

    check_folder(checkpoint)  # before PyTorch is imported, which takes long
    from .assembly import Options
    from .build import build

    options = Options(vision, fidelity, name, tuple(samples))
    return build(
        checkpoint,
        out,
        options,
        progress or _silent,
        decoder=decoder,
        block_size=block_size,
        prefill=prefill,
        force=force,
    )


def import_gguf(
    decoder: Path,
    mmproj: Path,
    out: Path,
    *,
    vision: str = "int8",
    fidelity: float | None = None,
    name: str | None = None,
    chat_template: Path | None = None,
    samples: Sequence[Path] = (),
    progress: Progress | None = None,
    force: bool = False,
) -> Manifest:
    """Make the model folder `out` of the two files of a llama.cpp user and return its manifest.

    The GGUF file `decoder` is used as it is, linked where the disk allows it, else copied; `mmproj` becomes a vision
    graph in the precision `vision`. Tokenizer and chat template are those of the decoder's metadata, unless the file
    `chat_template` is given. Fidelity is measured with this decoder on both sides. The rest is as in `export_model`.

    Raises BackendMissing where the extra gguf is not installed, InputError for an unknown precision, ModelError,
    ExportError or GraphError for files that are damaged, do not belong together or cannot be run.
    """
    _check("import", _GGUF_NEEDED, "gguf", vision, fidelity)
    from .assembly import Options
    from .pair import import_pair

    options = Options(vision, fidelity, name, tuple(samples))
    return import_pair(decoder, mmproj, out, options, chat_template, progress or _silent, force=force)


def import_layout(
    folder: Path, *, name: str | None = None, vision: str | None = None, decoder: str | None = None
) -> Manifest:
    """Make a model folder of one in the layout of transformers.js, in place, and return its manifest.

    `edgevl.json` is written beside its graphs, which stay as they are, and the table of embeddings. `vision` and
    `decoder` are precisions as transformers.js calls them, by default the best for a processor that is there. Needs
    no extra.

    Raises ExportError or UnsupportedFamily for a folder that cannot be used, GraphError for graphs that do not run.
    """
    from .published import describe

    return describe(folder, name=name, vision=vision, decoder=decoder)


def pull_model(
    what: str,
    *,
    name: str | None = None,
    vision: str | None = None,
    decoder: str | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> tuple[Path, Manifest]:
    """Fetch a published model into the user's folder of models; return its folder and manifest.

    `what` is a name of the registry or hf:owner/repository, with @revision if need be; `name` (default: that of the
    registry or the repository) is the folder's. Graphs in the layout of transformers.js run as they are; of a pair of
    GGUF files the vision half becomes a graph, which needs the extra gguf. `vision` and `decoder` choose among the
    precisions that are published. Nothing is seen of the model until all is done; a download that was interrupted
    goes on.

    Raises DownloadError for what cannot be fetched, ChecksumMismatch for a file that arrives damaged, and what
    `import_layout` and `import_gguf` raise.
    """
    from .pull import Wanted, pull

    return pull(what, Wanted(name, vision, decoder, force), progress or _silent)


def check_gguf(vision: str) -> None:
    """Raise BackendMissing or InputError where `import_gguf` would, before anything is read."""
    _check("import", _GGUF_NEEDED, "gguf", vision, None)


def _check(what: str, needed: Sequence[str], extra: str, vision: str, fidelity: float | None) -> None:
    missing = [module for module in needed if find_spec(module) is None]
    if missing:
        raise BackendMissing(f"{what} needs {', '.join(missing)}: pip install 'edgevl[{extra}]'")
    if vision not in VISION_PRECISIONS:
        raise InputError(f"vision precision is {vision!r}; it must be one of {', '.join(VISION_PRECISIONS)}")
    if fidelity is not None and not 0 < fidelity < 1:
        raise InputError(f"fidelity is {fidelity!r}; it must be between 0 and 1, such as 0.999")


def _silent(stage: str, done: float) -> None:
    """Report nothing."""
