"""Ctrl-C, wherever a test wants it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import edgevl

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


@contextmanager
def at_line(number: int) -> Iterator[None]:
    """Let Ctrl-C come before the line of that number, from 1, that this thread runs of edgevl in the block.

    The KeyboardInterrupt ends there, if it gets so far; code that catches it for good, or fewer lines, end well too.
    """
    package, before, lines = f"{Path(edgevl.__file__).parent}{os.sep}", sys.gettrace(), count(1)

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        return follow if frame.f_code.co_filename.startswith(package) else None

    def follow(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" and next(lines) == number:
            raise KeyboardInterrupt
        return follow

    sys.settrace(enter)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        sys.settrace(before)
