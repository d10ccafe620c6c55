"""Where the parts of a decoder lie in its graph's file, for the decoder that is computed without the graph.

A graph that is Llama's from end to end (Touvron et al. 2023: RMS norms, grouped queries, rotated halves, SwiGLU; biases
as in Qwen2), all of whose products are MatMulNBits, is described in a file beside it. Every node must be one that was
expected: a graph with any other one is not described, and runs as it is.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from edgevl.engine.native.plan import FORM, LayerPlan, ModelPlan, ProductPlan, plan_path, problems

_FIRST_NORM, _NORM = "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"
_PLAIN = {"local_window_size": -1, "softcap": 0.0, "rotary_interleaved": 0, "smooth_softmax": 0, "qk_output": 0}
"""What attention must be, where it says anything."""


class _Other(Exception):
    """Something else stands where the message says."""


def write_plan(path: Path) -> str | None:
    """Describe the decoder graph `path` in a file beside it; return why it cannot be, None where it was."""
    data = path.with_name(f"{path.name}.data")
    try:
        plan = _Reader(path).plan()
    except _Other as other:
        return str(other)
    if (problem := next(problems(plan, data.stat().st_size), None)) is not None:
        return problem
    plan_path(path).write_text(json.dumps({"form": FORM, **asdict(plan)}) + "\n", encoding="utf-8", newline="\n")
    return None


class _Reader:
    """Follows a graph from its scores to its input, and keeps count of the nodes that it meets."""

    def __init__(self, path: Path) -> None:
        self._graph = onnx.load(path, load_external_data=False).graph
        self._weights = {weight.name: weight for weight in self._graph.initializer}
        self._makers = {name: node for node in self._graph.node for name in node.output if name}
        self._met: list[str] = []

    def plan(self) -> ModelPlan:
        """Return what was found; raise _Other where anything else was."""
        head = self._node("logits", "MatMulNBits")
        last = self._node(self._node(head.input[0], "Unsqueeze").input[0], "Gather")
        final = norm = self._node(last.input[0], _NORM, _FIRST_NORM)
        layers: list[LayerPlan] = []
        attention = None
        while norm.op_type == _NORM:
            layer, attention, norm = self._layer(norm)
            layers.insert(0, layer)
        if norm.input[0] != "inputs_embeds" or attention is None:
            raise _Other(f"{norm.name}: is not the first norm")
        self._check_rest(attention)
        form = _attributes(attention)
        cos, sin = (self._weights[name] for name in attention.input[7:9])
        n_heads, n_kv_heads = form["num_heads"], form["kv_num_heads"]
        head_dim = layers[0].qkv.n // (n_heads + 2 * n_kv_heads)
        return ModelPlan(
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            n_positions=cos.dims[0],
            half_rotary=cos.dims[1],
            scale=form.get("scale") or 1 / math.sqrt(head_dim),
            epsilon=_attributes(final)["epsilon"],
            cos=self._floats(cos.name),
            sin=self._floats(sin.name),
            final_norm=self._floats(final.input[-1]),
            head=self._product(head, None),
            layers=tuple(layers),
        )

    def _layer(self, after: onnx.NodeProto) -> tuple[LayerPlan, onnx.NodeProto, onnx.NodeProto]:
        """Read the layer that the norm `after` follows; return it, its attention, and its first norm."""
        down, gated = self._found_product(after.input[1])
        gate_up, fed = self._found_product(self._gate(gated))
        middle = self._node(fed, _NORM)
        out, mixed = self._found_product(middle.input[1])
        attention = self._node(mixed, "GroupQueryAttention")
        form = _attributes(attention)
        if any(attention.input[i] for i in (1, 2, *range(9, len(attention.input)))) or form.get("do_rotary") != 1:
            raise _Other(f"{attention.name}: takes more than queries, keys and values in one, turned by position")
        if other := {name: form[name] for name, plain in _PLAIN.items() if form.get(name, plain) != plain}:
            raise _Other(f"{attention.name}: has {other}")
        qkv, normed = self._found_product(attention.input[0])
        first = self._node(normed, _NORM, _FIRST_NORM)
        # What is added up: the layer's input, what attention gave, and what was fed forward.
        begun = first.input[0] if first.op_type == _FIRST_NORM else first.output[3]
        if middle.input[0] != begun or after.input[0] != middle.output[3]:
            raise _Other(f"{after.name}: adds up something else")
        norms = (self._floats(norm.input[-1]) for norm in (first, middle))
        layer = LayerPlan(next(norms), qkv, out, next(norms), gate_up, down)
        return layer, attention, first

    def _gate(self, gated: str) -> str:
        """Return what SwiGLU takes: gate * sigmoid(gate) * up, of the halves of one tensor (Shazeer 2020)."""
        opened, up = self._node(gated, "Mul").input
        gate, sigmoid = self._node(opened, "Mul").input
        halves = self._node(gate, "Split")
        if self._node(sigmoid, "Sigmoid").input[0] != gate or list(halves.output) != [gate, up]:
            raise _Other(f"{gated}: is no SwiGLU")
        return str(halves.input[0])

    def _found_product(self, name: str) -> tuple[ProductPlan, str]:
        """Return the product, with its bias if it has one, that gives a tensor, and the tensor that it takes."""
        node = self._node(name, "MatMulNBits", "Add")
        bias = None
        if node.op_type == "Add":
            bias = node.input[1]
            node = self._node(node.input[0], "MatMulNBits")
        return self._product(node, bias), node.input[0]

    def _product(self, node: onnx.NodeProto, bias: str | None) -> ProductPlan:
        form = _attributes(node)
        if any(node.input[3:]):
            raise _Other(f"{node.name}: has zero points or a bias of its own")
        return ProductPlan(
            n=form["N"],
            k=form["K"],
            bits=form["bits"],
            block=form["block_size"],
            weights=self._offset(node.input[1], TensorProto.UINT8),
            scales=self._floats(node.input[2]),
            bias=None if bias is None else self._floats(bias),
        )

    def _floats(self, name: str) -> int:
        return self._offset(name, TensorProto.FLOAT)

    def _offset(self, name: str, kind: int) -> int:
        """Return where a weight begins in the file of weights."""
        weight = self._weights.get(name)
        if weight is None or weight.data_type != kind or weight.data_location != TensorProto.EXTERNAL:
            raise _Other(f"{name}: is no such weight, or does not lie beside the graph")
        return int({entry.key: entry.value for entry in weight.external_data}.get("offset", 0))

    def _node(self, name: str, *kinds: str) -> onnx.NodeProto:
        """Return the node that makes a tensor; raise _Other unless it is of one of some kinds."""
        node = self._makers.get(name)
        if node is None or node.op_type not in kinds:
            raise _Other(f"{name}: is made by {node.op_type if node else 'nothing'}, not by {' or '.join(kinds)}")
        self._met.append(node.name)
        return node

    def _check_rest(self, attention: onnx.NodeProto) -> None:
        """Raise _Other unless all nodes were met, or count the tokens for attention, or are constants."""
        counting, left = set(self._met), list(attention.input[5:7])
        while left:
            node = self._makers.get(left.pop())
            if node is not None:
                counting.add(node.name)
                left += node.input
        rest = [node.name for node in self._graph.node if node.name not in counting and node.op_type != "Constant"]
        if rest:
            raise _Other(f"{rest[0]}: is not expected")


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
