"""A vision transformer with its projector as a float32 ONNX graph, written node by node from the weights alone.

Weights go by their names in llama.cpp's mmproj files. The operators are those that PyTorch's exporter chooses for the
modules of `vision`, so that both graphs are quantized and run alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from .graphs import INPUT, OPSET, OUTPUT

Weight = Callable[[str, tuple[int, ...]], NDArray[np.float32]]
"""Returns the weight of a name, which must be of that shape."""
Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]

IR_VERSION = 10
QUICK_GELU = 1.702
"""x * sigmoid(1.702 x) is what CLIP takes for GELU."""
PROJECTOR_EPS = 1e-5
"""Of the normalisation in front of a projector: PyTorch's default, which no file says."""


@dataclass(frozen=True)
class Encoder:
    """A vision transformer's sizes (`tile` and `patch` in pixels), and in what the kinds differ.

    `has_class`: a class token comes first. `pre_norm` and `post_norm`: before and after all blocks. `is_scaled`: what a
    block adds is scaled, value by value. `patch_bias`, `attention_bias`: whether those layers have one.
    """

    tile: int
    patch: int
    width: int
    inner: int
    n_layers: int
    n_heads: int
    eps: float
    activation: Activation
    has_class: bool = False
    pre_norm: bool = False
    post_norm: bool = False
    is_scaled: bool = False
    patch_bias: bool = True
    attention_bias: bool = True

    @property
    def side(self) -> int:
        """How many patches a side of a tile has."""
        return self.tile // self.patch

    @property
    def n_tokens(self) -> int:
        """How many tokens the blocks see."""
        return self.side**2 + self.has_class


class Writer:
    """A graph that grows; what a node computes is called as the node is."""

    def __init__(self, weight: Weight) -> None:
        self._weight = weight
        self._names: set[str] = set()  # of weights and constants that are there
        self._model = helper.make_model(
            helper.make_graph([], "vision", [], []),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        self._graph = self._model.graph  # filled in place: large weights are copied as seldom as can be

    def node(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Add a node, called by `name` or by its kind and number; return the name of what it computes."""
        name = name or f"{op}_{len(self._graph.node)}"
        self._graph.node.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def weight(self, name: str, *shape: int) -> str:
        """Add a weight as it is in the file."""
        return self._add(name, self._weight(name, shape))

    def constant(self, value: float | list[int]) -> str:
        """Add a number in float32, or whole numbers; the same ones are there once."""
        dtype = np.float32 if isinstance(value, float) else np.int64
        return self._add(str(value).replace(" ", ""), np.array(value, dtype))

    def linear(self, x: str, name: str, n_in: int, n_out: int, *, bias: bool = True) -> str:
        """Add a layer from [..., n_in] to [..., n_out]; its MatMul is called as the layer is."""
        matrix = np.ascontiguousarray(self._weight(f"{name}.weight", (n_out, n_in)).T)
        x = self.node("MatMul", x, self._add(f"{name}.weight", matrix), name=name)
        return self.node("Add", x, self.weight(f"{name}.bias", n_out)) if bias else x

    def norm(self, x: str, name: str, width: int, eps: float) -> str:
        """Add a layer normalisation over the last axis."""
        scale, bias = (self.weight(f"{name}.{part}", width) for part in ("weight", "bias"))
        return self.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=eps, stash_type=1)

    def activation(self, x: str, kind: Activation) -> str:
        """Add a block's activation."""
        if kind == "quick_gelu":
            scaled = self.node("Mul", x, self.constant(QUICK_GELU))
            return self.node("Mul", x, self.node("Sigmoid", scaled))
        return self.node("Gelu", x, approximate="tanh" if kind == "gelu_tanh" else "none")

    def reshape(self, x: str, *shape: int) -> str:
        """Add a change of shape; -1 is what remains."""
        return self.node("Reshape", x, self.constant(list(shape)))

    def transpose(self, x: str, *order: int) -> str:
        """Add a change of the axes' order."""
        return self.node("Transpose", x, perm=order)

    def model(self, tile: int, n_features: int, width: int) -> onnx.ModelProto:
        """Return the graph from one tile to what the last node computes."""
        self._graph.node[-1].output[0] = OUTPUT
        sizes = {INPUT: [1, 3, tile, tile], OUTPUT: [1, n_features, width]}
        taken, given = (helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items())
        self._graph.input.append(taken)
        self._graph.output.append(given)
        return self._model

    def _add(self, name: str, values: NDArray[Any]) -> str:
        if name not in self._names:
            self._names.add(name)
            self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name


def encode(writer: Writer, encoder: Encoder) -> str:
    """Add a whole encoder; return the name of its tokens [1, n_tokens, width]."""
    x = _embed(writer, encoder)
    if encoder.pre_norm:
        x = writer.norm(x, "v.pre_ln", encoder.width, encoder.eps)
    for layer in range(encoder.n_layers):
        x = _block(writer, encoder, x, f"v.blk.{layer}")
    return writer.norm(x, "v.post_ln", encoder.width, encoder.eps) if encoder.post_norm else x


def _embed(writer: Writer, encoder: Encoder) -> str:
    """Add what makes a tile tokens: a row of patches, the class token before them, and positions."""
    width, patch = encoder.width, encoder.patch
    weights = [writer.weight("v.patch_embd.weight", width, 3, patch, patch)]
    if encoder.patch_bias:
        weights.append(writer.weight("v.patch_embd.bias", width))
    x = writer.node("Conv", INPUT, *weights, name="v.patch_embd", kernel_shape=[patch, patch], strides=[patch, patch])
    x = writer.transpose(writer.reshape(x, 1, width, encoder.side**2), 0, 2, 1)
    if encoder.has_class:
        x = writer.node("Concat", writer.weight("v.class_embd", 1, 1, width), x, axis=1)
    return writer.node("Add", x, writer.weight("v.position_embd.weight", encoder.n_tokens, width))


def _block(writer: Writer, encoder: Encoder, x: str, name: str) -> str:
    """Add one block: attention and MLP, each normalised before, scaled if need be, and added to what it was given."""
    width, eps = encoder.width, encoder.eps
    for part, number in ((_attention, 1), (_mlp, 2)):
        added = part(writer, encoder, writer.norm(x, f"{name}.ln{number}", width, eps), name)
        if encoder.is_scaled:
            added = writer.node("Mul", writer.weight(f"{name}.ls{number}.weight", width), added)
        x = writer.node("Add", x, added)
    return x


def _attention(writer: Writer, encoder: Encoder, x: str, name: str) -> str:
    """Add attention of every token to all; queries and keys are each scaled by the fourth root of the head's width."""
    n, width, n_heads = encoder.n_tokens, encoder.width, encoder.n_heads
    head = width // n_heads

    def heads(part: str) -> str:
        layer = writer.linear(x, f"{name}.attn_{part}", width, width, bias=encoder.attention_bias)
        return writer.transpose(writer.reshape(layer, 1, n, n_heads, head), 0, 2, 1, 3)

    scale = writer.constant(head**-0.25)
    queries, keys, values = heads("q"), heads("k"), heads("v")
    # turned around in the steps that PyTorch's exporter takes, so that the kernels are the same
    keys = writer.reshape(writer.transpose(writer.reshape(keys, -1, n, head), 0, 2, 1), 1, n_heads, head, n)
    scores = writer.node("MatMul", writer.node("Mul", queries, scale), writer.node("Mul", keys, scale))
    met = writer.node("MatMul", writer.node("Softmax", scores, axis=-1), values)
    joined = writer.reshape(writer.transpose(met, 0, 2, 1, 3), 1, n, width)
    return writer.linear(joined, f"{name}.attn_out", width, width)


def _mlp(writer: Writer, encoder: Encoder, x: str, name: str) -> str:
    x = writer.linear(x, f"{name}.ffn_up", encoder.width, encoder.inner)
    return writer.linear(writer.activation(x, encoder.activation), f"{name}.ffn_down", encoder.inner, encoder.width)


def without_class(writer: Writer, x: str) -> str:
    """Add what leaves out the first token."""
    one, end = writer.constant([1]), writer.constant([np.iinfo(np.int64).max])
    return writer.node("Slice", x, one, end, one, one)


def pixel_shuffle(writer: Writer, x: str, encoder: Encoder, factor: int) -> str:
    """Add what joins each square of `factor` x `factor` patches into one token, so much wider."""
    side, width = encoder.side, encoder.width
    small = side // factor
    x = writer.transpose(writer.reshape(x, 1, side, small, width * factor), 0, 2, 1, 3)
    x = writer.transpose(writer.reshape(x, 1, small, small, width * factor**2), 0, 2, 1, 3)
    return writer.reshape(x, 1, small**2, width * factor**2)


def idefics3(weight: Weight, encoder: Encoder, factor: int, n_out: int) -> onnx.ModelProto:
    """Return SigLIP, pixel shuffle and one layer."""
    writer = Writer(weight)
    x = pixel_shuffle(writer, encode(writer, encoder), encoder, factor)
    writer.linear(x, "mm.model.fc", encoder.width * factor**2, n_out, bias=False)
    return writer.model(encoder.tile, (encoder.side // factor) ** 2, n_out)


def llava(weight: Weight, encoder: Encoder, n_out: int) -> onnx.ModelProto:
    """Return CLIP without its class token, and two layers."""
    writer = Writer(weight)
    x = writer.linear(without_class(writer, encode(writer, encoder)), "mm.0", encoder.width, n_out)
    writer.linear(writer.activation(x, "gelu"), "mm.2", n_out, n_out)
    return writer.model(encoder.tile, encoder.side**2, n_out)


def internvl(weight: Weight, encoder: Encoder, factor: int, n_out: int) -> onnx.ModelProto:
    """Return InternViT without its class token, pixel shuffle, normalisation, and two layers."""
    writer, wide = Writer(weight), encoder.width * factor**2
    x = pixel_shuffle(writer, without_class(writer, encode(writer, encoder)), encoder, factor)
    x = writer.norm(x, "mm.model.mlp.0", wide, PROJECTOR_EPS)
    x = writer.activation(writer.linear(x, "mm.model.mlp.1", wide, n_out), "gelu")
    writer.linear(x, "mm.model.mlp.3", n_out, n_out)
    return writer.model(encoder.tile, (encoder.side // factor) ** 2, n_out)
