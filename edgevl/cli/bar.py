"""Progress on stderr: a bar at a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

OnStep = Callable[[int, int, str], None]


@contextmanager
def bar(every_s: float | None = None) -> Iterator[OnStep | None]:
    """Yield a callback that draws `done` of `total` and what is done.

    Where stderr is not a terminal, the callback writes that in a line every `every_s` seconds; without, it is None.
    """
    if not sys.stderr.isatty():
        yield None if every_s is None else _lines(every_s)
        return

    def draw(done: int, total: int, what: str) -> None:
        filled = 24 * done // total
        click.echo(f"\r\033[K[{'#' * filled}{'-' * (24 - filled)}] {done}/{total} {what}", nl=False, err=True)

    try:
        yield draw
    finally:
        click.echo("\r\033[K", nl=False, err=True)


def _lines(every_s: float) -> OnStep:
    last = time.monotonic()

    def tell(done: int, total: int, what: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= every_s:
            last = now
            click.echo(f"{done}/{total} {what}", err=True)

    return tell
