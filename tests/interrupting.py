"""Ctrl-C, wherever a test wants it."""

from __future__ import annotations

import dis
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count, dropwhile, islice
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

    Where it could not come there, it comes before the next line. The KeyboardInterrupt ends there, if it gets so far;
    code that catches it for good, or fewer lines, end well too.
    """
    package, before, lines = f"{Path(edgevl.__file__).parent}{os.sep}", sys.gettrace(), count(1)

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        return follow if frame.f_code.co_filename.startswith(package) else None

    def follow(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" and next(lines) >= number and _may_come(frame):
            raise KeyboardInterrupt
        return follow

    sys.settrace(enter)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        sys.settrace(before)


def _may_come(frame: FrameType) -> bool:
    """Return whether Ctrl-C may come before the next instruction: from Python 3.12 on there are lines of it between.

    It comes behind a call, in a loop or where a function begins: never between the last call within `with` and that of
    its end, nor at a `try`, which is a line and does nothing. What a trace raises there passes the `with` by.
    """
    ahead = dropwhile(lambda one: one.offset < frame.f_lasti, dis.get_instructions(frame.f_code))
    following = list(islice((one for one in ahead if one.opname != "SWAP"), 3))
    leaves_with = [one.argval for one in following if one.opname == "LOAD_CONST"] == [None] * 3
    return not leaves_with and following[0].opname != "NOP"
