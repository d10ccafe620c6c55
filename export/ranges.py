"""The ranges of what an int8 graph rounds, measured, for engines that want them beforehand.

Those are the tensors that the graph itself quantizes on the fly, and queries and keys of attention, which an engine may
multiply as int8 too where that hardly moves attention.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgevl.engine.kernels import LEVELS, Range, balance
from edgevl.engine.openvino import ranges_path

MARGIN = 0.1
"""How much wider than measured a range is made, as a share of itself: other pictures reach further."""
MAX_MOVED = 0.02
"""The share of its attention that a query may give to other keys because of rounding, on average over a head's queries.
Where it is more, queries and keys get no range. In the bundled model, whose attention is sharp, it is at most 0.010."""
N_TRIED = 2
"""Tiles on which that is tried."""

Array = NDArray[np.float32]


def write_ranges(path: Path, tiles: Iterable[Array]) -> None:
    """Run the graph `path` on `tiles` [1, 3, tile, tile] and write the ranges that were met beside it.

    A graph that quantizes nothing on the fly gets no file. The ranges of what it does quantize are those by which it
    does so: the quantizer's scale and zero point are its outputs.
    """
    import onnxruntime as ort

    model = onnx.load(path)
    quantizers = [node for node in model.graph.node if node.op_type == "DynamicQuantizeLinear"]
    if not quantizers:
        return
    names = [name for node in quantizers for name in node.output[1:]]
    heads = _multiplied(model)
    del model.graph.output[:]
    for at, name in enumerate(names):
        dtype = onnx.TensorProto.UINT8 if at % 2 else onnx.TensorProto.FLOAT
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, dtype, []))
    for name in heads:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    part = path.with_name(f"part-{path.name}")
    met, columns, tried = [], [], list[list[Array]]()
    try:
        onnx.save_model(model, part, save_as_external_data=True, location=f"{part.name}.data")
        session = ort.InferenceSession(str(part), providers=["CPUExecutionProvider"])
        for tile in tiles:
            found = session.run([*names, *heads], {"pixel_values": tile})
            met.append(found[: len(names)])
            columns.append([_columns(x, at % 2 == 1) for at, x in enumerate(found[len(names) :])])
            if len(tried) < N_TRIED:
                tried.append(found[len(names) :])
    finally:
        part.unlink(missing_ok=True)
        part.with_name(f"{part.name}.data").unlink(missing_ok=True)
    ranges: dict[str, Any] = {node.input[0]: _widest(met, 2 * index) for index, node in enumerate(quantizers)}
    for at in range(0, len(heads), 2):
        both = [_widened([one[side] for one in columns]) for side in (at, at + 1)]
        if all(_is_exact_enough(one[at], one[at + 1], *both) for one in tried):
            ranges |= {heads[at + side]: [_short(end) for end in ends] for side, ends in enumerate(both)}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(ends)}" for name, ends in ranges.items())
    ranges_path(path).write_text(f"{{\n{lines}\n}}\n", encoding="utf-8", newline="\n")


def moved(queries: Array, keys: Array, of_queries: Range, of_keys: Range) -> float:
    """Return how much of its attention a query gives to other keys when both are rounded to int8.

    It is a share from 0 to 1, the mean of all queries of a head, and that of the head where it is largest. `queries`
    [1, h, n, d] and `keys` [1, h, d, n] are as attention multiplies them, with the ranges of their columns [h * d].
    """
    width = queries.shape[-1]
    share, middle, limit = balance(of_queries, of_keys)
    step = limit / (LEVELS // 2 - 1)

    def rounded(x: Array) -> Array:
        whole: Array = np.clip(np.rint(x / step), 1 - LEVELS // 2, LEVELS // 2 - 1) * step
        return whole

    found = []
    heads = zip(queries[0], keys[0].swapaxes(1, 2), share.reshape(-1, width), middle.reshape(-1, width), strict=True)
    for one, other, of_head, lost in heads:
        exact = _softmax(one @ other.T)
        near = _softmax(rounded(one * of_head) @ rounded((other - lost) / of_head).T)
        found.append(float(np.abs(exact - near).sum(axis=-1).mean()) / 2)
    return max(found)


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights: Array = powers / powers.sum(axis=-1, keepdims=True)
    return weights


def _is_exact_enough(queries: Array, keys: Array, of_queries: Range, of_keys: Range) -> bool:
    """Return whether int8 hardly moves an attention; never of one that has not the form that `moved` takes."""
    is_usual = queries.ndim == keys.ndim == 4 and len(queries) == len(keys) == 1
    return is_usual and moved(queries, keys, of_queries, of_keys) <= MAX_MOVED


def _multiplied(model: onnx.ModelProto) -> list[str]:
    """Return the names of queries and keys, in turn, as each attention multiplies them: Softmax(MatMul(these))."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    products = [made_by.get(node.input[0]) for node in model.graph.node if node.op_type == "Softmax"]
    return [
        name
        for product in products
        if product is not None and product.op_type == "MatMul" and all(name in made_by for name in product.input)
        for name in product.input
    ]


def _columns(heads: Array, is_turned: bool) -> Range:
    """Return the range of each column [h * d] of queries [1, h, n, d] or, turned, keys [1, h, d, n]."""
    axis = -1 if is_turned else -2
    return heads.min(axis=axis).reshape(-1), heads.max(axis=axis).reshape(-1)


def _widened(met: Sequence[Range]) -> Range:
    """Return ranges that hold those of all runs and the margin, and are not empty."""
    low, high = np.min([one[0] for one in met], axis=0), np.max([one[1] for one in met], axis=0)
    extra = MARGIN / 2 * np.maximum(high - low, 1e-3 * np.abs([low, high]).max())
    return low - extra, high + extra


def _short(ends: Array) -> list[float]:
    """Return numbers of few digits: there are thousands of them in a file that people may read."""
    return [float(f"{end:.6g}") for end in ends.tolist()]


def _widest(met: Iterable[list[Any]], at: int) -> tuple[float, float]:
    """Return the range that holds those of all runs, which give scale and zero point at `at`, and the margin."""
    ends = [[(level - float(run[at + 1])) * float(run[at]) for level in (0, LEVELS - 1)] for run in met]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    extra = MARGIN / 2 * (high - low)
    return low - extra if low < 0 else low, high + extra if high > 0 else high
