"""Kernels by kind: one word for what several engines call differently."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.bounds import Kind, Needs, total

INT8_PRODUCTS, PRODUCTS, FLOAT_PRODUCTS = "int8 products", "products", "float products"
ATTENTION, NORMS, ACTIVATIONS, QUANTIZING, REST = "attention", "norms", "activations", "quantizing", "the rest"
ORDER = (INT8_PRODUCTS, PRODUCTS, FLOAT_PRODUCTS, ATTENTION, NORMS, ACTIVATIONS, QUANTIZING, REST)

Ran = tuple[str, float, Needs]
"""A kernel that ran: its kind, seconds, and what it needs."""


def by_kind(rounds: Sequence[Sequence[Ran]]) -> dict[str, Kind]:
    """Return the seconds of each kind in each round, and what it needs in one of them, which are all alike."""
    names = {kind for kernels in rounds for kind, _, _ in kernels}
    return {
        name: Kind(
            [sum(seconds for kind, seconds, _ in kernels if kind == name) for kernels in rounds],
            total([needs for kind, _, needs in rounds[0] if kind == name]),
        )
        for name in ORDER
        if name in names
    }
