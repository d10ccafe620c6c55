"""Decoders with random weights, written as their plan wants them, without a graph; and what numpy computes of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgevl.engine.native.decoder import N_AT_ONCE, NativeDecoder, backend
from edgevl.engine.native.library import instructions
from edgevl.engine.native.plan import FORM, LayerPlan, ModelPlan, ProductPlan, data_path, plan_path, read_plan
from edgevl.model.manifest import DecoderSpec
from tests.natively import MISSING

needs_library = pytest.mark.skipif(backend() is None, reason=MISSING)

FLIPPED = 0.03
"""How much scores may differ, of their length, where a value that lies between two steps of 1/127 was rounded to the
other one: a weight in a wrong place changes them by a tenth and more."""

Array = NDArray[Any]
Weights = NDArray[np.uint8]


@dataclass(frozen=True)
class Shape:
    """What a decoder is made in."""

    bits: int = 4
    block: int = 16
    n_heads: int = 4
    n_kv_heads: int = 2
    head_dim: int = 16
    hidden: int = 64
    intermediate: int = 96
    vocab: int = 61
    n_layers: int = 2
    n_positions: int = 512
    half_rotary: int | None = None
    has_biases: bool = False
    head_bits: int | None = None
    seed: int = 0


def shapes() -> list[Shape]:
    """Return shapes that meet every width of blocks, every kind of rest of a row, and every number of heads."""
    made = []
    for number, (bits, block, head_dim) in enumerate(
        (bits, block, head_dim)
        for bits, blocks in ((4, (16, 32, 64, 128)), (8, (16, 32, 64)))
        for block in blocks
        for head_dim in (16, 48, 64, 128)
    ):
        each, n_kv_heads = 1 + number * 5 % 16, 1 + number % 2
        while each * n_kv_heads * head_dim % block:
            n_kv_heads += 1
        made.append(
            Shape(
                bits=bits,
                block=block,
                n_heads=each * n_kv_heads,
                n_kv_heads=n_kv_heads,
                head_dim=head_dim,
                hidden=block * (1 + number % 3),
                intermediate=block * (1 + number // 3 % 3),
                vocab=40 + number,
                n_layers=1 + number % 2,
                half_rotary=(head_dim // 2, head_dim // 4, 3)[number % 3],
                has_biases=number % 2 == 1,
                head_bits=8 if block < 128 and number % 3 == 0 else None,
                seed=number,
            )
        )
    return made


@dataclass(frozen=True)
class Made:
    """A decoder on the disk: where its graph would lie, and its embedding table."""

    path: Path
    spec: DecoderSpec
    embeddings: Array

    def opened(self, n_threads: int = 2) -> NativeDecoder:
        """Open it, empty."""
        return NativeDecoder(self.path, self.spec, self.embeddings, n_threads=n_threads)

    def ids(self, n: int, seed: int = 0) -> NDArray[np.int64]:
        """Return random token ids."""
        return np.random.default_rng(seed).integers(0, self.spec.vocab_size, n)


class _File:
    """The file of weights as it grows."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.content = bytearray()

    def put(self, array: Array) -> int:
        """Put an array at the next place that is a multiple of 4 and of no more; return where that is."""
        self.content += bytes(-len(self.content) % 4 or 4)
        place = len(self.content)
        self.content += array.tobytes()
        return place

    def floats(self, *shape: int) -> int:
        """Put what a norm multiplies with."""
        return self.put(self.rng.uniform(0.5, 1.5, shape).astype(np.float32))

    def product(self, n: int, k: int, bits: int, shape: Shape) -> ProductPlan:
        """Put a product whose results are about as large as what it is given."""
        block = shape.block
        weights = self.put(self.rng.integers(0, 256, n * k * bits // 8, np.uint8))
        spread = np.sqrt(k) * 2**bits / np.sqrt(12)
        scales = self.put((self.rng.uniform(0.5, 1.5, n * k // block) / spread).astype(np.float32))
        bias = self.put(self.rng.normal(0, 0.3, n).astype(np.float32)) if shape.has_biases else None
        return ProductPlan(n, k, bits, block, weights, scales, bias)


def write(folder: Path, shape: Shape) -> Made:
    """Write the weights of a decoder and their plan into `folder`."""
    path, file = folder / "decoder.onnx", _File(shape.seed)
    queries, keys = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
    half = shape.head_dim // 2 if shape.half_rotary is None else shape.half_rotary
    turns = np.outer(np.arange(shape.n_positions), 100.0 ** -(np.arange(half) / half))
    layers = [
        LayerPlan(
            norm=file.floats(shape.hidden),
            qkv=file.product(queries + 2 * keys, shape.hidden, shape.bits, shape),
            out=file.product(shape.hidden, queries, shape.bits, shape),
            post_norm=file.floats(shape.hidden),
            gate_up=file.product(2 * shape.intermediate, shape.hidden, shape.bits, shape),
            down=file.product(shape.hidden, shape.intermediate, shape.bits, shape),
        )
        for _ in range(shape.n_layers)
    ]
    plan = ModelPlan(
        n_heads=shape.n_heads,
        n_kv_heads=shape.n_kv_heads,
        head_dim=shape.head_dim,
        n_positions=shape.n_positions,
        half_rotary=half,
        scale=1 / np.sqrt(shape.head_dim),
        epsilon=1e-5,
        cos=file.put(np.cos(turns).astype(np.float32)),
        sin=file.put(np.sin(turns).astype(np.float32)),
        final_norm=file.floats(shape.hidden),
        layers=tuple(layers),
        # the last, so that the file ends with its last row's bytes
        head=file.product(shape.vocab, shape.hidden, shape.head_bits or shape.bits, shape),
    )
    data_path(path).write_bytes(file.content)
    plan_path(path).write_text(json.dumps({"form": FORM, **asdict(plan)}), encoding="utf-8")
    embeddings = file.rng.normal(0, 1, (shape.vocab, shape.hidden)).astype(np.float16)
    return Made(path, _spec(shape), embeddings)


def _spec(shape: Shape) -> DecoderSpec:
    sizes = shape.n_layers, shape.n_kv_heads, shape.head_dim, shape.hidden, shape.vocab, shape.n_positions
    return DecoderSpec("onnx", "decoder.onnx", f"int{shape.bits}", *sizes, {}, {})


@dataclass(frozen=True)
class Computed:
    """What comes of feeding tokens: scores after each [n, vocab]; keys and values [2 * layers, n_kv_heads, n, dim]."""

    logits: Array
    cache: Array


def computed(made: Made, embeds: Array, *, rounds: bool = True) -> Computed:
    """Compute a decoder in float64, from its plan and the bytes of its file.

    `rounds`: what is multiplied with weights is rounded to 8 bits in blocks, keys and values to half precision, and
    what attention multiplies to bf16 where the processor's instructions for many tokens do so; in the last layer they
    are few, for the last token alone has scores.
    """
    brief = _brief if rounds and len(embeds) > N_AT_ONCE and instructions().endswith("bf16") else np.asarray
    plan, content = read_plan(made.path), data_path(made.path).read_bytes()
    assert plan is not None
    read = _Reader(content, rounds)
    n, dim = len(embeds), plan.head_dim
    x, cache = embeds.astype(np.float64), []
    cos, sin = (read.floats(start, plan.n_positions, plan.half_rotary)[:n] for start in (plan.cos, plan.sin))
    heads = plan.n_heads, plan.n_kv_heads
    for layer in plan.layers:
        qkv = read.times(layer.qkv, read.norm(layer.norm, x, plan)).reshape(n, -1, dim).transpose(1, 0, 2)
        queries, keys, values = np.split(qkv, np.cumsum([heads[0], heads[1]]))
        queries, keys = (_turned(each, cos, sin) for each in (queries, keys))
        if rounds:
            keys, values = (each.astype(np.float16).astype(np.float64) for each in (keys, values))
        cache += [keys, values]
        attends = np.asarray if layer is plan.layers[-1] else brief
        mixed = _attention(queries * plan.scale, keys, values, attends)
        x = x + read.times(layer.out, mixed.transpose(1, 0, 2).reshape(n, -1))
        gate, up = np.split(read.times(layer.gate_up, read.norm(layer.post_norm, x, plan)), 2, axis=-1)
        x = x + read.times(layer.down, gate / (1 + np.exp(-gate)) * up)
    return Computed(read.times(plan.head, read.norm(plan.final_norm, x, plan)), np.array(cache))


def instruction_sets() -> list[str]:
    """Return those that the processor has and that can be asked for."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("avx2", "avxvnni", "avx512", "avx512bf16", "neon"):
            patch.setenv("EDGEVL_NATIVE", name)
            if instructions() == name:
                found.append(name)
    return found


def difference(found: Array, wanted: Array) -> float:
    """Return how long the difference is, of what is wanted."""
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def _turned(heads: Array, cos: Array, sin: Array) -> Array:
    """Rotate the first and second half of what is turned of each head [heads, n, dim]."""
    half = cos.shape[1]
    first, second, rest = heads[..., :half], heads[..., half : 2 * half], heads[..., 2 * half :]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin, rest], -1)


def _brief(x: Array) -> Array:
    """Round to the nearest numbers of 8 bits, as bf16 has them, of which none is too small here."""
    fraction, exponent = np.frexp(x)
    return np.asarray(np.ldexp(np.round(fraction * 256) / 256, exponent))


def _attention(queries: Array, keys: Array, values: Array, attends: Callable[[Array], Array]) -> Array:
    each = len(queries) // len(keys)
    queries, keys, values = (attends(part) for part in (queries, keys, values))
    keys, values = (np.repeat(part, each, axis=0) for part in (keys, values))
    scores = _product(queries, keys)
    scores = np.where(np.tri(scores.shape[1], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(_product(attends(weights), values.transpose(0, 2, 1)) / weights.sum(-1, keepdims=True))


def _product(rows: Array, others: Array) -> Array:
    """Return the product of each row with each other row; with no library whose threads wait on a busy machine."""
    return np.asarray(np.einsum("...nk,...mk->...nm", rows, others))


class _Reader:
    """Reads the parts of a decoder as float64."""

    def __init__(self, content: bytes, rounds: bool) -> None:
        self._content, self._rounds = content, rounds

    def floats(self, start: int, *shape: int) -> Array:
        count = int(np.prod(shape))
        return np.frombuffer(self._content, np.float32, count, start).reshape(shape).astype(np.float64)

    def norm(self, start: int, x: Array, plan: ModelPlan) -> Array:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + plan.epsilon) * self.floats(start, plan.hidden)

    def times(self, product: ProductPlan, x: Array) -> Array:
        packed = np.frombuffer(self._content, np.uint8, product.n * product.k * product.bits // 8, product.weights)
        if product.bits == 4:
            packed = np.stack([packed & 15, packed >> 4], -1)
        n_blocks = product.k // product.block
        steps = packed.reshape(product.n, n_blocks, product.block).astype(np.float64) - 2 ** (product.bits - 1)
        weights = steps * self.floats(product.scales, product.n, n_blocks, 1)
        given = self._rounded(x, product.block) if self._rounds else x
        made = _product(given, weights.reshape(product.n, product.k))
        return np.asarray(made if product.bias is None else made + self.floats(product.bias, product.n))

    def _rounded(self, x: Array, block: int) -> Array:
        blocks = x.reshape(len(x), -1, block)
        scales = np.abs(blocks).max(-1, keepdims=True) / 127
        return np.asarray(np.round(blocks / np.maximum(scales, 1e-30)) * scales).reshape(x.shape)


def changed(made: Made, change: Callable[[dict[str, Any]], None]) -> Made:
    """Change the plan's document."""
    where = plan_path(made.path)
    document = json.loads(where.read_text("utf-8"))
    change(document)
    where.write_text(json.dumps(document), "utf-8")
    return made


def set_to(document: dict[str, Any], place: tuple[Any, ...], value: Any) -> None:
    """Put a value at a place, a key or index after the other."""
    for step in place[:-1]:
        document = document[step]
    document[place[-1]] = value


def places(document: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where anything stands in a document."""
    inner = document.items() if isinstance(document, dict) else enumerate(document)
    for step, value in inner:
        yield (*before, step)
        if isinstance(value, dict | list):
            yield from places(value, (*before, step))


def set_floats(made: Made, start: int, values: Any) -> None:
    """Write float32 values into the file of weights."""
    with data_path(made.path).open("r+b") as file:
        file.seek(start)
        file.write(np.asarray(values, np.float32).tobytes())
