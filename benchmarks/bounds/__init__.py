"""What a figure of the comparison needs at least on a machine, and which kernels take its time instead.

A figure needs operations, by the numbers that are multiplied, and bytes that have to be read. Over what this machine
reached in large pieces of the same work (`peaks`), these give the seconds below which no kernel can come here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

INT8, BF16, FLOAT32, READ = "int8", "bf16", "float32", "read"
"""What there are peaks of: operations (a multiplication and an addition are two) in each kind of number, and bytes."""
FLOATS = (BF16, FLOAT32)

Needs = Mapping[str, float]
"""Operations and bytes, by the name of their peak."""


@dataclass(frozen=True)
class Kind:
    """What kernels of one kind took of a figure: seconds in each turn, and what they need of the machine."""

    seconds: Sequence[float]
    needs: Needs = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """One figure: seconds in each turn, what it needs, and its parts.

    `by` computed it. `kinds` are kernels by kind, or parts of a first word, as `kinds_by` ran them; a profiler makes
    kernels slower, so that they may add up to more than `seconds`.
    """

    what: str
    by: str
    seconds: Sequence[float]
    needs: Needs
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    kinds_by: str = ""


def total(needs: Sequence[Needs]) -> dict[str, float]:
    """Return the sum of what several things need."""
    names = dict.fromkeys(name for one in needs for name in one)
    return {name: sum(one.get(name, 0.0) for one in needs) for name in names}


def times(needs: Needs, factor: float) -> dict[str, float]:
    """Return `factor` times what something needs."""
    return {name: value * factor for name, value in needs.items()}


def least_s(needs: Needs, peaks: Mapping[str, float]) -> float:
    """Return the seconds that `needs` take one after the other at `peaks`, operations or bytes a second."""
    return sum(value / peaks[name] for name, value in needs.items())
