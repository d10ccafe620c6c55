"""A second decoder graph, for prompts: chunks of several tokens are multiplied as int8 matrices.

MatMulNBits takes its weights apart again for every few rows, which is right for single tokens and slow for many. Here
weights are int8 with one scale a column and activations int8 with one scale a row (token), both symmetric, so that a
product is one of integers (MatMulIntegerToFloat): the kernel that uses a processor's integer or matrix units in full.
Source of the scheme: Dettmers et al. 2022, "LLM.int8()", section 2.1, vector-wise quantization, without its outliers.
"""

from __future__ import annotations

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
_CONSTANTS = {
    "prefill.zero": np.array(LARGEST + 1, np.uint8),  # rows are shifted, because kernels want them unsigned
    "prefill.one": np.array(1, np.float32),
    "prefill.step": np.array(1 / LARGEST, np.float32),
    "prefill.least": np.array(1e-12, np.float32),  # of a row of zeros
    "prefill.axis": np.array([-1], np.int64),
}


def write_prefill(source: Path, path: Path) -> None:
    """Write the decoder graph `source`, whose products are MatMulNBits, with int8 products to `path` and `path`.data.

    The output head stays as it is: it is multiplied with one row.
    """
    model = onnx.load(source)
    weights = {weight.name: weight for weight in model.graph.initializer}
    nodes, added, dropped = [], [numpy_helper.from_array(value, name) for name, value in _CONSTANTS.items()], set()
    for node in model.graph.node:
        if not _is_product(node):
            nodes.append(node)
            continue
        columns, scales = _per_column(_widened(node, weights))
        name = node.output[0]
        added += [numpy_helper.from_array(columns, f"{name}.weight"), numpy_helper.from_array(scales, f"{name}.scales")]
        nodes += _product(node.input[0], name)
        dropped.update(node.input[1:])
    kept = [weight for weight in model.graph.initializer if weight.name not in dropped]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept + added)
    save_beside(model, path)


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


def _product(rows: str, name: str) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that multiply the tensor `rows` with the weights called after `name`."""

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output], name=f"{output}/{kind}", **attributes)

    yield node("Abs", [rows], f"{name}.abs")
    yield node("ReduceMax", [f"{name}.abs", "prefill.axis"], f"{name}.greatest", keepdims=1)
    yield node("Mul", [f"{name}.greatest", "prefill.step"], f"{name}.any_scale")
    yield node("Max", [f"{name}.any_scale", "prefill.least"], f"{name}.row_scale")
    yield node("Div", [rows, f"{name}.row_scale"], f"{name}.scaled")
    yield node("QuantizeLinear", [f"{name}.scaled", "prefill.one", "prefill.zero"], f"{name}.rows")
    factors = [f"{name}.rows", f"{name}.weight", "prefill.one", f"{name}.scales", "prefill.zero"]
    yield node("MatMulIntegerToFloat", factors, f"{name}.of_column", domain="com.microsoft")
    yield node("Mul", [f"{name}.of_column", f"{name}.row_scale"], name)
