"""A checkpoint's text decoder as the GGUF file that llama.cpp runs, and its quantizer.

The `gguf` package holds the format's names and block types; which of them llama.cpp looks for is in the tables of the
modules `architectures`, `vocabulary` and `mmproj`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray

from edgevl.engine.gguf import library as llama_library
from edgevl.engine.gguf import said
from edgevl.errors import ExportError

from . import vocabulary
from .architectures import architecture, metadata, rope_factors, weights
from .checkpoint import Checkpoint
from .ggml import package

Written = Literal["F32", "F16", "BF16", "Q8_0"]
"""What matrices are written as; vectors stay float32."""
Quantized = Literal["Q4_0", "Q8_0", "Q4_K_M"]
"""What llama.cpp's own quantizer makes of a written decoder: blocks of 32 weights (Q4_K_M: 256) with their scales."""


def export_decoder(source: Checkpoint, text: Any, precision: str, path: Path, work: Path) -> None:
    """Write `text` to `path` in "f16", or quantized in the mix that llama.cpp calls `precision`, by way of `work`.

    Raises like `write_decoder` and `quantize`.
    """
    if precision == "f16":
        return write_decoder(source, text, path)
    plain = work / "decoder-f16.gguf"
    write_decoder(source, text, plain)
    quantize(plain, path, cast("Quantized", precision.upper()), pure=False)
    plain.unlink()
    return None


def write_decoder(source: Checkpoint, text: Any, path: Path, kind: Written = "F16") -> None:
    """Write `text`, the checkpoint's decoder as a causal language model of transformers, to `path`.

    Its tokenizer and chat template go with it. Raises BackendMissing without the gguf package, ExportError for what
    llama.cpp would compute otherwise.
    """
    config = text.config
    row = architecture(config)
    file = File(row.name, source.name, kind)
    file.settings({f"{row.name}.{key}": value for key, value in metadata(config, source.context_length).items()})
    _add_tokenizer(file.writer, source, config.vocab_size)
    names = package().get_tensor_name_map(package().MODEL_ARCH[row.table], config.num_hidden_layers)
    suffixes = (".weight", ".bias")
    file.tensors((names.get_name(name, try_suffixes=suffixes), name, weight) for name, weight in weights(text))
    if (factors := rope_factors(text)) is not None:
        file.writer.add_tensor("rope_freqs.weight", factors.numpy())
    file.save(path)


def quantize(decoder: Path, path: Path, kind: Quantized, threads: int | None = None, *, pure: bool = True) -> None:
    """Quantize a written decoder with llama.cpp's own quantizer.

    `pure` makes every matrix a `kind`, head and embedding table too; else some get more bits, as llama.cpp sees fit.
    Raises BackendMissing without llama-cpp-python, ExportError if llama.cpp refuses the file.
    """
    llama = llama_library()
    settings = llama.llama_model_quantize_default_params()
    settings.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{kind}")
    settings.pure = pure
    settings.nthread = threads or os.cpu_count() or 1
    code = llama.llama_model_quantize(os.fsencode(decoder), os.fsencode(path), ctypes.byref(settings))
    if code != 0:
        path.unlink(missing_ok=True)
        raise ExportError(
            f"{decoder}: llama.cpp's quantizer ended with {code} ({said()}); is it a decoder in F16 or F32?"
        )


class File:
    """One GGUF file in the making."""

    def __init__(self, architecture: str, name: str, kind: Written) -> None:
        self._gguf = gguf = package()
        self._kind = gguf.GGMLQuantizationType[kind]
        self.writer = gguf.GGUFWriter(None, architecture)
        self.writer.add_name(name)
        self.writer.add_file_type(gguf.LlamaFileType["ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"])
        self.writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    def settings(self, values: Mapping[str, int | float | bool | list[int]]) -> None:
        """Add metadata: switches, unsigned numbers, float32, lists of int32."""
        for key, value in values.items():
            if isinstance(value, bool):
                self.writer.add_bool(key, value)
            elif isinstance(value, list):
                self.writer.add_array(key, value)
            elif isinstance(value, int):
                self.writer.add_uint32(key, value)
            else:
                self.writer.add_float32(key, value)

    def tensors(self, weights: Iterable[tuple[str | None, str, torch.Tensor]], exact: tuple[str, ...] = ()) -> None:
        """Add weights, each with its name in the file and that in PyTorch: matrices in this file's kind.

        Those whose names hold one of `exact` stay float32. Raises ExportError for a weight without a name in the file.
        """
        for name, torch_name, weight in weights:
            if name is None:
                raise ExportError(f"{torch_name}: llama.cpp has no such weight; this checkpoint cannot be GGUF")
            plain = weight.ndim < 2 or any(part in name for part in exact)
            kind = self._gguf.GGMLQuantizationType.F32 if plain else self._kind
            array = np.ascontiguousarray(weight.detach().float().numpy())
            self.writer.add_tensor(name, self._packed(array, kind, torch_name), raw_dtype=kind)

    def _packed(self, array: NDArray[np.float32], kind: Any, name: str) -> NDArray[Any]:
        try:
            packed: NDArray[Any] = self._gguf.quants.quantize(array, kind)
        except self._gguf.quants.QuantError as error:
            raise ExportError(f"{name}: {list(array.shape)} cannot be {kind.name} ({error}); use F16") from error
        return packed

    def save(self, path: Path) -> None:
        """Write the file."""
        try:
            self.writer.write_header_to_file(path)
            self.writer.write_kv_data_to_file()
            self.writer.write_tensors_to_file()
        finally:
            self.writer.close()


def _add_tokenizer(writer: Any, source: Checkpoint, vocab_size: int) -> None:
    """Add the tokenizer, its special tokens' ids, and the chat template."""
    document = vocabulary.add(writer, source.folder / "tokenizer.json", vocab_size)
    ids = {token: token_id for token_id, token in enumerate(vocabulary.tokens_of(document, vocab_size)[0])}
    if source.bos_token in ids:
        writer.add_bos_token_id(ids[source.bos_token])
    writer.add_eos_token_id(ids[source.eos_token] if source.eos_token in ids else source.eos_token_ids[0])
    writer.add_chat_template(source.chat_template)
