"""A vision graph laid out anew for OpenVINO's kernels.

Where a file quantizes activations on the fly, by the range of each picture, OpenVINO's integer kernels want ranges that
are known beforehand; the export measured them. A MatMul without one gets its int8 weights widened instead.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVELS = 256
FORM = 3
"""Which form graphs are brought to: one that was compiled in another form is not used."""

Range = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Least and greatest value of a tensor: one number each, or one for each of its columns."""
Ranges = Mapping[str, Range]
"""Ranges by the tensor's name in the graph: of each that is quantized on the fly, one number; of scaled queries and
keys, as attention multiplies them, one for each column [h * d], where int8 is exact enough for them."""


def lay_out(openvino: Any, model: Any, ranges: Ranges, *, int8_scores: bool = False) -> None:
    """Lay a model out for its kernels, in place; one without `ranges` keeps all but its int8 products.

    With `int8_scores` queries and keys are multiplied as int8 where `ranges` has both: for processors that are quicker
    at it, inside attention that is one kernel.
    """
    replace_dynamic(openvino, model, ranges)
    if ranges:
        fuse_attention(openvino, model, ranges if int8_scores else {})
        use_erf(openvino, model)
    model.validate_nodes_and_infer_types()


def replace_dynamic(openvino: Any, model: Any, ranges: Ranges) -> None:
    """Replace each MatMulInteger over a dynamically quantized tensor by what OpenVINO's int8 kernels know.

    That is a FakeQuantize with the tensor's range, and a MatMul with the int8 weights and their scales; without a
    range, the MatMul alone. The FakeQuantize gives what lies above the range's lower end, so that no zero point is left
    to subtract: what the lower end makes of the weights is added behind the product, where it becomes part of the bias.
    The pattern is the one that onnxruntime's dynamic quantizer
    writes, as OpenVINO's reader lays it out: Multiply(Convert(MatMul(x - zero point, weights - zero point)), scales).
    """
    opset = openvino.opset13
    quantized: dict[str, Any] = {}
    products = [node for node in model.get_ordered_ops() if _is_integer_product(openvino, node)]
    for product in products:
        x = _quantized_tensor(product.input_value(0).get_node())
        name = next((name for name in x.get_names() if name in ranges), None)
        if name is not None:
            if name not in quantized:
                quantized[name] = _rounded(opset, x, *ranges[name], LEVELS, above=True).output(0)
            x = quantized[name]
        weights, zero_points = (_constant(v.get_node()) for v in product.input_value(1).get_node().input_values())
        if zero_points.any():
            raise ValueError("int8 weights with zero points")
        scaled = _only_user(_only_user(product))  # the Convert, then the Multiply by both scales
        scales = _weight_scales(scaled)
        widened = opset.convert(opset.constant(np.ascontiguousarray(weights.T)), "f32")
        matmul = opset.matmul(x, opset.multiply(widened, opset.constant(scales.reshape(-1, 1))), False, True)
        matmul.set_friendly_name(scaled.get_friendly_name())
        total = matmul
        if name is not None and ranges[name][0] < 0:
            of_ones = weights.sum(axis=0, dtype=np.int64) * scales.astype(np.float64)
            total = opset.add(matmul, opset.constant((ranges[name][0] * of_ones).astype(np.float32)))
        scaled.output(0).replace(total.output(0))


def fuse_attention(openvino: Any, model: Any, ranges: Ranges) -> None:
    """Give attention the form that OpenVINO computes in one kernel, without transposes on the way to it.

    PyTorch's exporter multiplies queries and keys with the root of the scale each, and turns the keys by two reshapes
    around a transpose. Here the queries are scaled once, before they are cut into heads, where the product that they
    come from takes it along; and the keys stay as they are, to be turned by the product with the queries. Attention of
    another form stays.

    Queries and keys that both have `ranges` are rounded to int8 (`balance`), before they are cut into heads, where the
    products that they come from do it.
    """
    opset = openvino.opset13
    for softmax in [node for node in model.get_ordered_ops() if node.get_type_name() == "Softmax"]:
        scores = softmax.input_value(0).get_node()
        if scores.get_type_name() != "MatMul" or any(_turns(scores)):
            continue
        (queries, first), (keys, second) = (_scaled(value.get_node()) for value in scores.input_values())
        rows, straight = _rows(queries), _turned_back(keys)
        if rows is None or straight is None:
            continue
        of_queries, of_keys = (_range_of(value, ranges) for value in scores.input_values())
        key_rows = _rows(straight.get_node())
        if of_queries is not None and of_keys is not None and key_rows is not None:
            share, middle, limit = balance(of_queries, of_keys)
            scaled = opset.multiply(rows, opset.constant(np.float32(first) * share))
            scaled = _rounded(opset, scaled, -limit, limit, LEVELS - 1)
            centred = opset.subtract(opset.multiply(key_rows, np.float32(second)), opset.constant(middle))
            centred = opset.multiply(centred, opset.constant(1 / share))
            straight = _cut_like(opset, straight.get_node(), _rounded(opset, centred, -limit, limit, LEVELS - 1))
        else:
            scaled = opset.multiply(rows, opset.constant(np.float32(first * second)))
        product = opset.matmul(_cut_like(opset, queries, scaled), straight, False, True)
        scores.output(0).replace(product.output(0))


def balance(queries: Range, keys: Range) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Return how queries and keys, of whose columns [n] these are the ranges, are best multiplied as int8.

    Queries times `share` [n], and keys less `middle` [n] over `share`, lie within -`limit` and `limit`. What keys lose,
    all scores of a query lose alike, so that softmax gives the same; and in each column both reach equally far, so that
    one in which only either reaches far does not make all others coarse (Xiao et al. 2022, arXiv:2211.10438).
    """
    middle, half = (keys[0] + keys[1]) / 2, (keys[1] - keys[0]) / 2
    reach = np.maximum(-queries[0], queries[1])
    half, reach = (np.maximum(one, 1e-6 * one.max()) for one in (half, reach))
    share = np.sqrt(half / reach).astype(np.float32)
    return share, middle.astype(np.float32), float((reach * share).max())


def use_erf(openvino: Any, model: Any) -> None:
    """Compute GELU by the error function, in place of the hyperbolic tangent that approximates it.

    They differ by less than 0.0005 (Hendrycks and Gimpel 2016), a fraction of a step of the int8 numbers that they
    become, and behind an int8 product the error function is the quicker one: a sixth of that layer's time.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Gelu" and node.get_attributes()["approximation_mode"].upper() == "TANH":
            node.output(0).replace(openvino.opset13.gelu(node.input_value(0), "erf").output(0))


def _rounded(opset: Any, x: Any, low: Any, high: Any, levels: int, *, above: bool = False) -> Any:
    """Return `x` rounded to `levels` steps from `low` to `high`; how far it lies `above` the lower end."""
    ends = [opset.constant(np.float32(end)) for end in (low, high)]
    given = [opset.constant(np.float32(end - low)) for end in (low, high)] if above else ends
    return opset.fake_quantize(x, *ends, *given, levels)


def _range_of(value: Any, ranges: Ranges) -> Range | None:
    """Return the range of the columns of a tensor in heads, [1, h, n, d] or turned; None if it is not known."""
    found = next((ranges[name] for name in value.get_names() if name in ranges), None)
    return found if found is not None and found[0].ndim == 1 else None


def _cut_like(opset: Any, heads: Any, rows: Any) -> Any:
    """Return `rows` [1, n, h * d] cut into heads as `heads`, Transpose(Reshape(other rows)), is."""
    cut, order = heads.input_values()
    return opset.transpose(opset.reshape(rows, list(cut.get_shape()), False), order)


def _is_integer_product(openvino: Any, node: Any) -> bool:
    return node.get_type_name() == "MatMul" and bool(node.output(0).get_element_type() == openvino.Type.i32)


def _quantized_tensor(node: Any) -> Any:
    """Return the float tensor that was quantized into `node`: the one whose greatest value its scale is made from."""
    seen, left = set(), deque([node])
    while left:  # the nearest one: further up there are those of earlier layers
        node = left.popleft()
        if node.get_type_name() == "ReduceMax":
            return node.input_value(0)
        for value in node.input_values():
            above = value.get_node()
            if above.get_friendly_name() not in seen:
                seen.add(above.get_friendly_name())
                left.append(above)
    raise ValueError("a quantized tensor without a scale")


def _constant(node: Any) -> NDArray[Any]:
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    data: NDArray[Any] = node.data
    return data


def _only_user(node: Any) -> Any:
    [target] = node.output(0).get_target_inputs()
    return target.get_node()


def _weight_scales(scaled: Any) -> NDArray[np.float32]:
    """Return the weights' scales [n_columns], or [1], of Multiply(product, Multiply(x's scale, weights' scales))."""
    for value in scaled.input_values():
        factors = value.get_node()
        if factors.get_type_name() == "Multiply":
            constants = [v.get_node() for v in factors.input_values() if v.get_node().get_type_name() == "Constant"]
            return np.array(constants[0].data, np.float32).reshape(-1)
    raise ValueError("int8 weights without scales")


def _scaled(node: Any) -> tuple[Any, float]:
    """Return the node of a tensor and the number that it is multiplied with in `node`: itself and 1 if it is not."""
    factor = node.input_value(1).get_node() if node.get_type_name() == "Multiply" else None
    if factor is None or factor.get_type_name() != "Constant" or factor.data.size != 1:
        return node, 1.0
    return node.input_value(0).get_node(), float(factor.data.reshape(-1)[0])


def _turns(product: Any) -> tuple[bool, bool]:
    """Return whether a MatMul transposes its first and its second factor."""
    attributes = product.get_attributes()
    return attributes["transpose_a"], attributes["transpose_b"]


def _rows(heads: Any) -> Any:
    """Return the tensor [1, n, h * d] that `heads`, Transpose(Reshape(it)) [1, h, n, d], is cut from; else None."""
    if not _is_transpose(heads, (0, 2, 1, 3)):
        return None
    reshape = heads.input_value(0).get_node()
    if reshape.get_type_name() != "Reshape" or reshape.output(0).get_partial_shape().is_dynamic:
        return None
    return reshape.input_value(0)


def _turned_back(keys: Any) -> Any:
    """Return the tensor [1, h, n, d] that `keys` [1, h, d, n] is the transpose of, by way of [h, n, d]; else None."""
    turned = keys.input_value(0).get_node() if keys.get_type_name() == "Reshape" else None
    if turned is None or not _is_transpose(turned, (0, 2, 1)):
        return None
    flat = turned.input_value(0).get_node()
    if flat.get_type_name() != "Reshape":
        return None
    straight = flat.input_value(0)
    if any(value.get_partial_shape().is_dynamic for value in (straight, flat.output(0), keys.output(0))):
        return None
    one, h, n, d = [*straight.get_shape(), 0, 0, 0, 0][:4]
    is_it = (one, list(flat.output(0).get_shape()), list(keys.output(0).get_shape())) == (1, [h, n, d], [1, h, d, n])
    return straight if is_it else None


def _is_transpose(node: Any, order: Sequence[int]) -> bool:
    if node.get_type_name() != "Transpose":
        return False
    found = node.input_value(1).get_node()
    return bool(found.get_type_name() == "Constant" and tuple(found.data.tolist()) == tuple(order))
