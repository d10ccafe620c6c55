"""Where the parts of a decoder lie in the file of its graph's weights.

The export writes it beside the graph (`edgevl.export.native`). It is read strictly and every place is checked against
the file's size before anything is computed from it: C does not ask again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_type_hints

from edgevl.errors import ManifestError

FORM = 1
"""Which form such files have; one of another form is not used."""
LANES = 16
"""Floats of a vector: what is multiplied is as long as some of them."""
CHUNK_BYTES = 64
"""Bytes of a row of weights that are multiplied at once: a block lies within them."""
MAX_SHARING = 16
"""The most query heads that share a key head."""
LARGEST = 1 << 24
"""What no size exceeds: C counts values and bytes of a row in 32 bits."""


@dataclass(frozen=True)
class ProductPlan:
    """`n` rows of `k` weights of `bits` bits, in blocks of `block` with a float32 scale each, and a bias or none.

    As MatMulNBits stores them. `weights`, `scales` and `bias` are offsets in bytes.
    """

    n: int
    k: int
    bits: int
    block: int
    weights: int
    scales: int
    bias: int | None


@dataclass(frozen=True)
class LayerPlan:
    """One layer: offsets of its two norms, and its four products."""

    norm: int
    qkv: ProductPlan
    out: ProductPlan
    post_norm: int
    gate_up: ProductPlan
    down: ProductPlan


@dataclass(frozen=True)
class ModelPlan:
    """A decoder: its sizes, and offsets in the file of its weights.

    `cos` and `sin` are float32 [n_positions, half_rotary].
    """

    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_positions: int
    half_rotary: int
    scale: float
    epsilon: float
    cos: int
    sin: int
    final_norm: int
    head: ProductPlan
    layers: tuple[LayerPlan, ...]

    @property
    def hidden(self) -> int:
        """Width of an embedding."""
        return self.head.k

    @property
    def intermediate(self) -> int:
        """Width within the feed-forward part."""
        return self.layers[0].down.k if self.layers else 0


def plan_path(path: Path) -> Path:
    """Return where the plan of the decoder graph `path` lies."""
    return path.with_name(f"{path.name}.native.json")


def data_path(path: Path) -> Path:
    """Return where the weights of the decoder graph `path` lie."""
    return path.with_name(f"{path.name}.data")


def read_plan(path: Path) -> ModelPlan | None:
    """Read the plan of the decoder graph `path`; None where there is none, or one of another form.

    Raises ManifestError for one that is damaged or points outside of the weights.
    """
    where = plan_path(path)
    try:
        text = where.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{where}: cannot be read ({error}); export the model again") from error
    try:
        document = json.loads(text)
        if not isinstance(document, dict) or document.pop("form", None) != FORM:
            return None
        plan: ModelPlan = _typed(ModelPlan, document)
        problem = next(problems(plan, data_path(path).stat().st_size), None)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        problem = f"is damaged ({error})"
    except OSError as error:
        problem = f"is without its weights ({error})"
    if problem is not None:
        raise ManifestError(f"{where}: {problem}; export or download the model again")
    return plan


def _typed(kind: Any, value: Any) -> Any:
    """Return a JSON value as `kind`; raise TypeError or OverflowError where it is none."""
    if isinstance(kind, UnionType):
        options = [option for option in get_args(kind) if option is not NoneType]
        return None if value is None else _typed(options[0], value)
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind is int and type(value) is int:
        return value
    if isinstance(value, list) and getattr(kind, "__origin__", None) is tuple:
        return tuple(_typed(get_args(kind)[0], one) for one in value)
    if isinstance(value, Mapping) and hasattr(kind, "__dataclass_fields__"):
        hints = _hints(kind)
        if set(value) != set(hints):
            raise TypeError(f"expected the keys {sorted(hints)}, got {str(sorted(value))[:200]}")
        return kind(**{name: _typed(hints[name], one) for name, one in value.items()})
    raise TypeError(f"expected {getattr(kind, '__name__', kind)}, got {str(value)[:40]!r}")


_hints = cache(get_type_hints)


def problems(plan: ModelPlan, n_bytes: int) -> Iterator[str]:
    """Yield what makes a plan unfit for weights of `n_bytes` bytes."""
    sizes: tuple[int, ...] = (
        plan.n_heads,
        plan.n_kv_heads,
        plan.head_dim,
        plan.n_positions,
        plan.half_rotary,
        len(plan.layers),
    )
    products = [plan.head, *(one for layer in plan.layers for one in (layer.qkv, layer.out, layer.gate_up, layer.down))]
    sizes += tuple(size for one in products for size in (one.n, one.k))
    if min(sizes) < 1:
        yield "has sizes below 1"
        return
    if max(sizes) > LARGEST:
        yield f"has sizes above {LARGEST}"
        return
    if plan.n_heads % plan.n_kv_heads or plan.n_heads // plan.n_kv_heads > MAX_SHARING:
        yield f"has {plan.n_heads} heads for {plan.n_kv_heads} of keys"
    if 2 * plan.half_rotary > plan.head_dim:
        yield f"turns {2 * plan.half_rotary} of {plan.head_dim} values"
    if any(width % LANES for width in (plan.hidden, plan.head_dim, plan.intermediate)):
        yield f"has widths that are no multiples of {LANES}"
    if not (0 < plan.epsilon < 1 and 0 < plan.scale < 1e4):
        yield "has an epsilon or scale that is none"
    for one in products:
        if one.bits not in (4, 8) or one.block not in (16, 32, 64, 128) or one.block * one.bits > 8 * CHUNK_BYTES:
            yield f"has blocks of {one.block} weights of {one.bits} bits"
            return
        if one.k % one.block:
            yield f"has rows of {one.k} weights in blocks of {one.block}"
    width, queries = plan.hidden, plan.n_heads * plan.head_dim
    wanted = (queries + 2 * plan.n_kv_heads * plan.head_dim, width), (width, queries), (2 * plan.intermediate, width)
    for layer in plan.layers:
        found = [(one.n, one.k) for one in (layer.qkv, layer.out, layer.gate_up, layer.down)]
        if found != [*wanted, (width, plan.intermediate)]:
            yield f"has layers of other sizes ({found})"
    for start, length in _places(plan, products):
        if start % 4 or not 0 <= start <= n_bytes - length:
            yield f"points to {length} bytes at {start}, of {n_bytes}"


def _places(plan: ModelPlan, products: list[ProductPlan]) -> Iterator[tuple[int, int]]:
    """Yield offset and length of everything that a plan points to, in bytes."""
    for start in (plan.cos, plan.sin):
        yield start, 4 * plan.n_positions * plan.half_rotary
    for start in (plan.final_norm, *(norm for layer in plan.layers for norm in (layer.norm, layer.post_norm))):
        yield start, 4 * plan.hidden
    for one in products:
        yield one.weights, one.n * one.k * one.bits // 8
        yield one.scales, 4 * one.n * one.k // one.block
        if one.bias is not None:
            yield one.bias, 4 * one.n
