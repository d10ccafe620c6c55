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
from onnx import TensorProto, helper, numpy_helper

from edgevl.engine.native.plan import FORM, LayerPlan, ModelPlan, ProductPlan, data_path, plan_path, problems

_FIRST_NORM, _NORM = "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"
_PLAIN = {"local_window_size": -1, "softcap": 0.0, "rotary_interleaved": 0, "smooth_softmax": 0, "qk_output": 0}
"""What attention must be, where it says anything."""


_GIVEN = [True, False, False, True, True, True, True, True, True]
"""Which of its inputs attention takes: queries, keys and values in one, the cache, lengths, and turns by position."""


class _Other(Exception):
    """Something else stands where the message says."""


def write_plan(path: Path) -> str | None:
    """Describe the decoder graph `path` in a file beside it; return why it cannot be, None where it was.

    A description of an earlier graph there goes in any case.
    """
    plan_path(path).unlink(missing_ok=True)
    try:
        plan = _Reader(path).plan()
    except _Other as other:
        return str(other)
    if (problem := next(problems(plan, data_path(path).stat().st_size), None)) is not None:
        return problem
    plan_path(path).write_text(json.dumps({"form": FORM, **asdict(plan)}) + "\n", encoding="utf-8", newline="\n")
    return None


class _Reader:
    """Follows a graph from its scores to its input, and keeps count of the nodes that it meets, by what they give."""

    def __init__(self, path: Path) -> None:
        self._graph = onnx.load(path, load_external_data=False).graph
        self._file = data_path(path).name
        self._weights = {weight.name: weight for weight in self._graph.initializer}
        self._makers = {name: node for node in self._graph.node for name in node.output if name}
        self._met: set[str] = set()
        self._hidden = 0
        self._epsilons: set[Any] = set()

    def plan(self) -> ModelPlan:
        """Return what was found; raise _Other where anything else was."""
        head = self._node("logits", "MatMulNBits")
        self._hidden = _attributes(head)["K"]
        final = norm = self._norm(self._last(head.input[0]))
        layers: list[LayerPlan] = []
        attentions: list[onnx.NodeProto] = []
        while norm.op_type == _NORM:
            layer, attention, norm = self._layer(norm)
            layers.insert(0, layer)
            attentions.append(attention)
        if norm.input[0] != "inputs_embeds" or not attentions:
            raise _Other(f"{norm.name}: is not the first norm")
        attention = attentions[0]
        form = _attributes(attention)
        for other in attentions[1:]:
            if _attributes(other) != form or other.input[5:9] != attention.input[5:9]:
                raise _Other(f"{other.name}: attends in another way than {attention.name}")
        if len(self._epsilons) > 1 or None in self._epsilons:
            raise _Other(f"norms: have the epsilons {sorted(map(str, self._epsilons))}")
        self._check_rest(attention)
        cos, sin = (self._weight(name, TensorProto.FLOAT) for name in attention.input[7:9])
        if len(cos.dims) != 2 or cos.dims != sin.dims:
            raise _Other(f"{cos.name}: is no table of positions")
        n_heads, n_kv_heads = form["num_heads"], form["kv_num_heads"]
        head_dim = layers[0].qkv.n // (n_heads + 2 * n_kv_heads)
        return ModelPlan(
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            n_positions=cos.dims[0],
            half_rotary=cos.dims[1],
            scale=form.get("scale") or 1 / math.sqrt(head_dim),
            epsilon=self._epsilons.pop(),
            cos=_offset(cos),
            sin=_offset(sin),
            final_norm=self._floats(final.input[-1], self._hidden),
            head=self._product(head, None),
            layers=tuple(layers),
        )

    def _last(self, scored: str) -> str:
        """Return the tensor [1, n, hidden] whose last row is scored."""
        cut = self._node(scored, "Unsqueeze")
        last = self._node(cut.input[0], "Gather")
        places = _attributes(last).get("axis", 0), self._number(last.input[1]), self._number(cut.input[1])
        if places != (1, -1, 1):
            raise _Other(f"{last.name}: takes other tokens' scores than the last one's")
        return str(last.input[0])

    def _norm(self, name: str, *, is_first: bool = True) -> onnx.NodeProto:
        """Return the RMS norm that gives a tensor: the first of all, unless that cannot be, or of a sum."""
        node = self._node(name, _NORM, *([_FIRST_NORM] if is_first else []))
        if len(node.input) != (3 if node.op_type == _NORM else 2) or node.output[0] != name:
            raise _Other(f"{node.name}: is no RMS norm without a bias")
        self._epsilons.add(_attributes(node).get("epsilon"))
        return node

    def _layer(self, after: onnx.NodeProto) -> tuple[LayerPlan, onnx.NodeProto, onnx.NodeProto]:
        """Read the layer that the norm `after` follows; return it, its attention, and its first norm."""
        down, gated = self._found_product(after.input[1])
        gate_up, fed = self._found_product(self._gate(gated))
        middle = self._norm(fed, is_first=False)
        out, mixed = self._found_product(middle.input[1])
        attention = self._node(mixed, "GroupQueryAttention")
        form = _attributes(attention)
        given = [name != "" for name in attention.input]
        if given[:9] != _GIVEN or any(given[9:]) or attention.output[0] != mixed or form.get("do_rotary") != 1:
            raise _Other(f"{attention.name}: takes more than queries, keys and values in one, turned by position")
        if other := {name: form[name] for name, plain in _PLAIN.items() if form.get(name, plain) != plain}:
            raise _Other(f"{attention.name}: has {other}")
        qkv, normed = self._found_product(attention.input[0])
        first = self._norm(normed)
        # What is added up: the layer's input, what attention gave, and what was fed forward.
        begun = first.input[0] if first.op_type == _FIRST_NORM else _sum(first)
        if middle.input[0] != begun or after.input[0] != _sum(middle):
            raise _Other(f"{after.name}: adds up something else")
        norms = (self._floats(norm.input[-1], self._hidden) for norm in (first, middle))
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
        n, k, bits, block = (form[name] for name in ("N", "K", "bits", "block_size"))
        return ProductPlan(
            n=n,
            k=k,
            bits=bits,
            block=block,
            weights=_offset(self._weight(node.input[1], TensorProto.UINT8, n * k * bits // 8)),
            scales=self._floats(node.input[2], n * k // block),
            bias=None if bias is None else self._floats(bias, n),
        )

    def _floats(self, name: str, n: int) -> int:
        """Return where a weight of `n` float32 values begins in the file of weights."""
        return _offset(self._weight(name, TensorProto.FLOAT, n))

    def _weight(self, name: str, kind: int, n: int | None = None) -> onnx.TensorProto:
        """Return a weight of a kind, of `n` values if that is said, that lies in the file of weights."""
        weight = self._weights.get(name)
        if weight is None or weight.data_type != kind or _entries(weight).get("location") != self._file:
            raise _Other(f"{name}: is no such weight, or does not lie beside the graph")
        if n is not None and math.prod(weight.dims) != n:
            raise _Other(f"{name}: has {math.prod(weight.dims)} values, not {n}")
        return weight

    def _number(self, name: str) -> int | None:
        """Return the one number of a constant; None where it is none."""
        node, weight = self._makers.get(name), self._weights.get(name)
        value = weight if node is None or node.op_type != "Constant" else _attributes(node).get("value")
        if value is None or _entries(value) or math.prod(value.dims) != 1:
            return None
        return int(numpy_helper.to_array(value).item())

    def _node(self, name: str, *kinds: str) -> onnx.NodeProto:
        """Return the node that makes a tensor; raise _Other unless it is of one of some kinds."""
        node = self._makers.get(name)
        if node is None or node.op_type not in kinds:
            raise _Other(f"{name}: is made by {node.op_type if node else 'nothing'}, not by {' or '.join(kinds)}")
        self._met.add(node.output[0])
        return node

    def _check_rest(self, attention: onnx.NodeProto) -> None:
        """Raise _Other unless all nodes were met, or count the tokens for attention, or are constants."""
        counting, left = set(self._met), list(attention.input[5:7])
        while left:
            node = self._makers.get(left.pop())
            if node is not None:
                counting.add(node.output[0])
                left += node.input
        rest = [node for node in self._graph.node if node.output[0] not in counting and node.op_type != "Constant"]
        if rest:
            raise _Other(f"{rest[0].name or rest[0].output[0]}: is not expected")


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _sum(norm: onnx.NodeProto) -> str:
    """Return the tensor that a norm of a sum gives the sum as."""
    return str(norm.output[3]) if len(norm.output) > 3 else ""


def _entries(weight: onnx.TensorProto) -> dict[str, str]:
    """Return where a weight lies that is not in the graph's own file; nothing of one that is."""
    return {entry.key: entry.value for entry in weight.external_data}


def _offset(weight: onnx.TensorProto) -> int:
    return int(_entries(weight).get("offset", 0))
