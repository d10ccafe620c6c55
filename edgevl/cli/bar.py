"""A bar of progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def bar() -> Iterator[Callable[[int, int, str], None] | None]:
    """Yield a callback that draws `done` of `total` and what is done, or None where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return

    def draw(done: int, total: int, what: str) -> None:
        filled = 24 * done // total
        click.echo(f"\r\033[K[{'#' * filled}{'-' * (24 - filled)}] {done}/{total} {what}", nl=False, err=True)

    try:
        yield draw
    finally:
        click.echo("\r\033[K", nl=False, err=True)
