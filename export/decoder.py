"""The text decoder as an ONNX graph with a KV cache, and its embedding table as a file of rows.

onnxruntime-genai's model builder writes the graph, from the text model saved as a checkpoint of its own. What is
quantized: int8 and int4 hold every linear layer, the output head among them, as MatMulNBits in blocks with one scale
each, multiplied with activations quantized to int8 on the fly (accuracy level 4). fp16 stores the float32
graph's weights in float16, which onnxruntime widens when it loads them: its CPU kernels compute in float32.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from edgevl.errors import BackendMissing, ExportError

from . import native, prefill
from .graphs import save_beside, store_half
from .reference import quiet

_OPTIONS = (
    "exclude_embeds=true",
    "prune_lm_head=true",
    "fuse_mlp_gate_up=true",
    "accuracy_level=4",
)
_BUILDER_PRECISION = {"fp32": "fp32", "fp16": "fp32", "int8": "int8", "int4": "int4"}


def export_decoder(
    text: Any,
    tokenizer_from: Path,
    precision: str,
    path: Path,
    work: Path,
    *,
    block_size: int = 32,
    for_prompts: Path | None = None,
) -> None:
    """Write the graph of `text` (see `TorchModel`) to `path`, its weights to `<path>.data`, by way of `work`.

    `tokenizer_from` is the checkpoint, whose tokenizer the builder wants to see; `block_size` is how many weights share
    a scale. With `for_prompts` a second graph goes there, made from the same weights in 8 bits. Where the weights of a
    quantized graph lie, if it can be computed without onnxruntime, is written beside it (`export.native`). Raises
    ExportError with the builder's last words if it fails.
    """
    plain, built = work / "text", work / "built"
    _save_plain(text, tokenizer_from, plain)
    try:
        wanted = _BUILDER_PRECISION[precision]
        first = wanted if for_prompts is None else "int8"
        _build(plain, built, first, block_size, work / "cache")
        if for_prompts is not None:
            prefill.write_prefill(built / "model.onnx", for_prompts)
        if first != wanted:
            shutil.rmtree(built)
            _build(plain, built, wanted, block_size, work / "cache")
        shutil.rmtree(plain)
        if precision == "fp16":
            store_half(built / "model.onnx", built / "half.onnx")
            save_beside(onnx.load(built / "half.onnx"), path)
        else:
            save_beside(onnx.load(built / "model.onnx"), path)
        native.write_plan(path)
    finally:
        for folder in (plain, built, work / "cache"):
            shutil.rmtree(folder, ignore_errors=True)


def write_embeddings(text: Any, precision: str, path: Path) -> str:
    """Write the table [vocab, hidden], row by row, for memory mapping; return its dtype.

    float32 for an fp32 decoder, float16 otherwise. Raises ExportError for values that float16 cannot hold.
    """
    table: NDArray[Any] = text.get_input_embeddings().weight.detach().numpy()
    dtype = np.float32 if precision == "fp32" else np.float16
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(table, dtype)
    if not np.isfinite(rows).all():
        raise ExportError(f"embedding table: holds values that {dtype.__name__} cannot; use --decoder fp32")
    np.save(path, rows, allow_pickle=False)
    return dtype.__name__


def _save_plain(text: Any, tokenizer_from: Path, folder: Path) -> None:
    """Save the text model as a checkpoint of its own; tied weights are written twice, once for each use."""
    head = text.lm_head
    if head.weight.data_ptr() == text.get_input_embeddings().weight.data_ptr():
        text.lm_head = torch.nn.Linear(head.in_features, head.out_features, bias=False)
        text.lm_head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    try:
        with quiet():
            text.save_pretrained(folder)
    finally:
        text.lm_head = head
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (tokenizer_from / name).is_file():
            shutil.copyfile(tokenizer_from / name, folder / name)


def _build(plain: Path, built: Path, precision: str, block_size: int, cache: Path) -> None:
    said = io.StringIO()
    chosen = (*_OPTIONS, f"block_size={block_size}")
    try:
        with quiet(), _builder() as builder, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            options = builder.parse_extra_options("", str(plain), str(built), precision, "cpu", str(cache), chosen)
            builder.create_model("", str(plain), str(built), precision, "cpu", str(cache), **options)
    except Exception as error:  # the builder raises many kinds
        last = (said.getvalue().strip().splitlines() or ["nothing"])[-1]
        raise ExportError(
            f"text decoder: the model builder failed ({type(error).__name__}: {error}; it said last: {last}); "
            "report this with the checkpoint's name"
        ) from error
    _forget_commit(built / "model.onnx")


def _forget_commit(path: Path) -> None:
    """Take from a graph the commit that the builder adds to its own version.

    It is that of whatever repository the builder is installed below: the user's, who need not want it told, and equal
    models would differ by it.
    """
    model = onnx.load(path, load_external_data=False)
    model.producer_version = model.producer_version.partition("+")[0]
    onnx.save_model(model, path)


@contextlib.contextmanager
def _builder() -> Iterator[Any]:
    """Import the builder, whose modules want its folder on the import path, and take it off the path again."""
    before = list(sys.path)
    try:
        yield importlib.import_module("onnxruntime_genai.models.builder")
    except ImportError as error:
        raise BackendMissing(
            f"onnxruntime-genai's model builder cannot be imported ({error}): pip install 'edgevl[export]'"
        ) from error
    finally:
        sys.path[:] = before
