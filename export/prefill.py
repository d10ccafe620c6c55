"""A second decoder graph, for prompts: chunks of several tokens are multiplied as int8 matrices.

MatMulNBits takes its weights apart again for every few rows, which is right for single tokens and slow for many. Here
weights are int8 with one scale a column and activations int8 with one scale a row (token), both symmetric, so that a
product is one of integers (MatMulIntegerToFloat): the kernel that uses a processor's integer or matrix units in full.
Source of the scheme: Dettmers et al. 2022, "LLM.int8()", section 2.1, vector-wise quantization, without its outliers.
Attention is computed whole, not in tiles; see `_SINK`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from .graphs import save_beside

LARGEST = 127
_LOGITS = "logits"
_HEAD_SINK = 11
"""Which input of GroupQueryAttention the sinks are."""
_SINK = -1e30
"""The score of a head's sink, to which nothing is paid: with a sink, onnxruntime (1.31) computes attention over all
scores of a chunk at once and not in tiles, to the same bits as its older kernel. Tiles took 1.1 to 2.4 times as long
(chunks of 70 to 320 tokens behind up to 8,192, heads of 64 and 128, two cores); chunks are short enough for that."""
_CONSTANTS = {
    "prefill.zero": np.array(LARGEST + 1, np.uint8),  # rows are shifted, because kernels want them unsigned
    "prefill.one": np.array(1, np.float32),
    "prefill.step": np.array(1 / LARGEST, np.float32),
    "prefill.axis": np.array([-1], np.int64),
}


def write_prefill(source: Path, path: Path) -> None:
    """Write the decoder graph `source`, whose products are MatMulNBits, with int8 products to `path` and `path`.data.

    The output head stays as it is: it is multiplied with one row.
    """
    model = onnx.load(source)
    weights = {weight.name: weight for weight in model.graph.initializer}
    halves = _split_products(model.graph)
    nodes: list[onnx.NodeProto] = []
    added = {name: numpy_helper.from_array(value, name) for name, value in _CONSTANTS.items()}
    dropped: set[str] = set()
    for node in model.graph.node:
        if _is_product(node):
            columns, scales = _per_column(_widened(node, weights))
            names = halves.get(node.output[0], [node.output[0]])
            pairs = zip(np.split(columns, len(names), 1), np.split(scales, len(names)), strict=True)
            for name, (weight, scale) in zip(names, pairs, strict=True):
                made = {f"{name}.weight": np.ascontiguousarray(weight), f"{name}.scales": scale}
                added |= {key: numpy_helper.from_array(value, key) for key, value in made.items()}
            nodes += _products(node.input[0], names)
            dropped.update(node.input[1:])
        elif node.op_type == "GroupQueryAttention":
            nodes.append(_whole(node, added))
        elif node.op_type != "Split" or node.input[0] not in halves:
            nodes.append(node)
    kept = [weight for weight in model.graph.initializer if weight.name not in dropped]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend([*kept, *added.values()])
    save_beside(model, path)


def _split_products(graph: onnx.GraphProto) -> dict[str, list[str]]:
    """Return the equal parts of columns that a product's output is split into, where nothing else is done with it."""
    products = {node.output[0] for node in graph.node if _is_product(node)}
    users = Counter(name for node in graph.node for name in node.input)
    return {
        node.input[0]: list(node.output)
        for node in graph.node
        if node.op_type == "Split" and node.input[0] in products and users[node.input[0]] == 1
        if len(node.input) == 1 and _attributes(node).get("axis") == -1
    }


def _whole(attention: onnx.NodeProto, added: dict[str, onnx.TensorProto]) -> onnx.NodeProto:
    """Return a GroupQueryAttention node with a sink, which is `added` to the weights; one that has a sink stays."""
    whole = onnx.NodeProto()
    whole.CopyFrom(attention)
    whole.input.extend([""] * (_HEAD_SINK + 1 - len(whole.input)))
    form = _attributes(attention)
    if not whole.input[_HEAD_SINK] and not form.get("smooth_softmax"):
        name = f"prefill.sink.{form['num_heads']}"
        added[name] = numpy_helper.from_array(np.full(form["num_heads"], _SINK, np.float32), name)
        whole.input[_HEAD_SINK] = name
    return whole


def _is_product(node: onnx.NodeProto) -> bool:
    return bool(node.op_type == "MatMulNBits" and node.output[0] != _LOGITS)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _widened(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> NDArray[np.float32]:
    """Return the weights of a MatMulNBits [N, K]: packed from the low bits up, in blocks along K with a scale each.

    Source: onnxruntime's description of the operator. Without zero points the middle of the range is zero.
    """
    form = _attributes(node)
    n_rows, n_columns, bits = form["N"], form["K"], form["bits"]
    packed = numpy_helper.to_array(weights[node.input[1]]).reshape(n_rows, -1)
    scales = numpy_helper.to_array(weights[node.input[2]]).reshape(n_rows, -1).astype(np.float32)
    values = _unpacked(packed, bits).astype(np.float32).reshape(n_rows, scales.shape[1], -1)
    zeros: Any = 1 << (bits - 1)
    if len(node.input) > 3 and node.input[3]:
        packed_zeros = numpy_helper.to_array(weights[node.input[3]]).reshape(n_rows, -1)
        zeros = _unpacked(packed_zeros, bits)[:, : scales.shape[1], None].astype(np.float32)
    widened: NDArray[np.float32] = ((values - zeros) * scales[:, :, None]).reshape(n_rows, -1)[:, :n_columns]
    return widened


def _unpacked(packed: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return the numbers of `bits` bits (4 or 8) in each row of bytes."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], -1).reshape(len(packed), -1)


def _per_column(weights: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return weights [N, K] as int8 [K, N], and the scale of each of the N columns."""
    scales = np.maximum(np.abs(weights).max(1), np.finfo(np.float32).tiny * LARGEST) / LARGEST
    columns = np.rint(weights / scales[:, None]).astype(np.int8).T
    return np.ascontiguousarray(columns), scales.astype(np.float32)


def _products(rows: str, names: list[str]) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that multiply the tensor `rows` with the weights called after each of `names`.

    A row is divided by its greatest value; one of zeros then becomes some numbers, but these are multiplied by zero.
    """

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output], name=f"{output}/{kind}", **attributes)

    first = names[0]
    yield node("Abs", [rows], f"{first}.abs")
    yield node("ReduceMax", [f"{first}.abs", "prefill.axis"], f"{first}.greatest", keepdims=1)
    yield node("Div", [rows, f"{first}.greatest"], f"{first}.scaled")
    yield node("QuantizeLinear", [f"{first}.scaled", "prefill.step", "prefill.zero"], f"{first}.rows")
    for name in names:
        factors = [f"{first}.rows", f"{name}.weight", "prefill.step", f"{name}.scales", "prefill.zero"]
        yield node("MatMulIntegerToFloat", factors, f"{name}.of_column", domain="com.microsoft")
        yield node("Mul", [f"{name}.of_column", f"{first}.greatest"], name)
