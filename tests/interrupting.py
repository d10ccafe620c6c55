"""Ctrl-C, wherever a test wants it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def at_call(number: int, function: Callable[P, T]) -> Callable[P, T]:
    """Return `function` as one whose call of that number, from 1, ends with Ctrl-C instead."""
    calls = count(1)

    def call(*given: P.args, **named: P.kwargs) -> T:
        if next(calls) == number:
            raise KeyboardInterrupt
        return function(*given, **named)

    return call
