"""Small ONNX graphs for tests of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def save(path: Path, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], **weights: Any) -> Path:
    """Write a graph of `nodes`; `weights` are its constants by name."""
    import onnx
    from onnx import helper, numpy_helper

    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(list(nodes), "test", list(inputs), list(outputs), constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def value(name: str, shape: Sequence[int | str], dtype: str = "FLOAT") -> Any:
    """Return a graph's input or output."""
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, getattr(TensorProto, dtype), list(shape))


def node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
    """Return one operation."""
    from onnx import helper

    return helper.make_node(kind, list(inputs), [output], **attributes)


def doubling(path: Path) -> Path:
    """Write a graph y = 2 x for x [1, n, 3]."""
    return save(
        path,
        [node("Mul", ("x", "two"), "y")],
        [value("x", (1, "n", 3))],
        [value("y", (1, "n", 3))],
        two=np.float32(2),
    )


def decoder(path: Path, *, hidden: int, dtype: str = "FLOAT", extra_input: bool = False) -> Path:
    """Write a decoder of one layer whose scores are the last token's embedding; its cache stays as it is."""
    cache = [value(f"past_key_values.0.{kind}", (1, 1, "past", 2), dtype) for kind in ("key", "value")]
    present = [value(f"present.0.{kind}", (1, 1, "total", 2), dtype) for kind in ("key", "value")]
    nodes = [
        node("Gather", ("inputs_embeds", "last"), "logits", axis=1),
        *(node("Identity", (f"past_key_values.0.{kind}",), f"present.0.{kind}") for kind in ("key", "value")),
    ]
    inputs = [value("inputs_embeds", (1, "n", hidden), dtype), value("attention_mask", (1, "total"), "INT64"), *cache]
    if extra_input:
        inputs.append(value("position_ids", (1, "n"), "INT64"))
    return save(path, nodes, inputs, [value("logits", (1, 1, hidden), dtype), *present], last=np.array([-1], np.int64))


def merged_decoder(path: Path, *, hidden: int, dtype: str = "FLOAT", positions: bool = True) -> Path:
    """Write a decoder of one layer that gives its cache anew: of each token two values of its embedding, and its place.

    Every token's scores are its embedding plus the length of the mask. Without `positions` the place is 7.
    """
    cache = [value(f"past_key_values.0.{kind}", (1, 1, "past", 2), dtype) for kind in ("key", "value")]
    present = [value(f"present.0.{kind}", (1, 1, "total", 2), dtype) for kind in ("key", "value")]
    kind = {"FLOAT": 1, "FLOAT16": 10}[dtype]
    nodes = [
        node("Gather", ("inputs_embeds", "first_two"), "part", axis=2),
        node("Unsqueeze", ("part", "head_axis"), "key"),
        node("Concat", ("past_key_values.0.key", "key"), "present.0.key", axis=2),
        node("Mul", ("key", "zero"), "blank"),
        node("Cast", ("position_ids",), "place", to=kind) if positions else node("Identity", ("seven",), "place"),
        node("Unsqueeze", ("place", "place_axes"), "column"),
        node("Add", ("blank", "column"), "value"),
        node("Concat", ("past_key_values.0.value", "value"), "present.0.value", axis=2),
        node("ReduceSum", ("attention_mask",), "total", keepdims=0),
        node("Cast", ("total",), "length", to=kind),
        node("Add", ("inputs_embeds", "length"), "logits"),
    ]
    inputs = [value("inputs_embeds", (1, "n", hidden), dtype), value("attention_mask", (1, "total"), "INT64"), *cache]
    if positions:
        inputs.append(value("position_ids", (1, "n"), "INT64"))
    float_type = {"FLOAT": np.float32, "FLOAT16": np.float16}[dtype]
    return save(
        path,
        nodes,
        inputs,
        [value("logits", (1, "n", hidden), dtype), *present],
        first_two=np.array([0, 1], np.int64),
        head_axis=np.array([1], np.int64),
        place_axes=np.array([1, 3], np.int64),
        zero=float_type(0),
        seven=np.full((1, 1), 7, float_type),
    )


def masked_vision(path: Path, *, tile: int, dtype: str = "FLOAT") -> Path:
    """Write a vision graph of images, tiles and a mask: of each tile the sum of what the mask lets through, twice."""
    pixels = value("pixel_values", ("images", "tiles", 3, tile, tile), dtype)
    mask = value("pixel_attention_mask", ("images", "tiles", tile, tile), "BOOL")
    nodes = [
        node("Unsqueeze", ("pixel_attention_mask", "axis"), "wide"),
        node("Where", ("wide", "pixel_values", "zero"), "seen"),
        node("ReduceSum", ("seen", "inner"), "sums", keepdims=0),
        node("Reshape", ("sums", "rows"), "column"),
        node("Concat", ("column", "column"), "image_features", axis=2),
    ]
    return save(
        path,
        nodes,
        [pixels, mask],
        [value("image_features", ("n", 1, 2), dtype)],
        axis=np.array([2], np.int64),
        inner=np.array([2, 3, 4], np.int64),
        rows=np.array([-1, 1, 1], np.int64),
        zero={"FLOAT": np.float32, "FLOAT16": np.float16}[dtype](0),
    )
