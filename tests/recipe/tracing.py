"""A canvas that remembers what was drawn on it, so that tests can compute answers anew from that."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from edgevl.recipe.canvas import Canvas
from edgevl.recipe.drawn import Drawn, Stock

PARTS = ("line", "dashes", "oval", "disc", "box", "polygon", "slice", "text")


@dataclass(frozen=True)
class Call:
    """One part that was drawn: its kind and the arguments as they were given."""

    kind: str
    args: tuple[Any, ...]


class Traced(Canvas):
    """Remembers the calls of its makers; those that a call makes itself are not told again."""

    made: list[Traced]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.calls: list[Call] = []
        self._within = False
        self.made.append(self)

    def of(self, *kinds: str) -> list[Call]:
        """Return the calls of some kinds."""
        return [call for call in self.calls if call.kind in kinds]


def _traced(kind: str) -> Callable[..., None]:
    draw = getattr(Canvas, kind)

    def method(self: Traced, *args: Any) -> None:
        outermost = not self._within
        if outermost:
            self.calls.append(Call(kind, args))
        self._within = True
        try:
            draw(self, *args)
        finally:
            self._within = not outermost

    return method


for _kind in PARTS:
    setattr(Traced, _kind, _traced(_kind))


@contextmanager
def tracing(*modules: ModuleType) -> Iterator[list[Traced]]:
    """Let some modules draw on traced canvases, and yield the list that these are added to."""
    Traced.made = []
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, "Canvas", Traced)
        yield Traced.made


def trace(
    module: ModuleType, make: Callable[[random.Random, Stock], Drawn], stock: Stock, seed: object
) -> tuple[Drawn, Traced]:
    """Draw one picture of a module's maker, and return it with its canvas."""
    with tracing(module) as made:
        drawn = make(random.Random(f"{seed}"), stock)
    (canvas,) = made
    return drawn, canvas


def phrasings(module: ModuleType) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return a module's choices of words and styles: those of the training part and the held-out ones."""
    found = vars(module)
    return {
        name: (found[name], found[f"{name}_HELD_OUT"])
        for name in found
        if f"{name}_HELD_OUT" in found and isinstance(found[name], tuple)
    }


def plain(question: str) -> str:
    """Return a question without what varies in writing."""
    return question.lower().rstrip("?. ")
