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
