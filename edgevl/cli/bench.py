"""`edgevl bench`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from edgevl.cli import options
from edgevl.cli.bar import bar
from edgevl.cli.images import is_same
from edgevl.machine import most_threads


class Numbers(click.ParamType[tuple[int, ...]]):
    """Whole numbers between `low` and `high`, with commas between them; repeated ones count once."""

    name = "numbers"

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> tuple[int, ...]:
        """Return the numbers; fail as wrong usage does."""
        parts = [part.strip() for part in str(value).split(",")]
        numbers = [int(part) if part.isascii() and part.isdigit() and len(part) < 10 else -1 for part in parts]
        if not all(self._low <= number <= self._high for number in numbers):
            self.fail(f"{value!r} must be whole numbers from {self._low} to {self._high}, such as 1,2", param, context)
        return tuple(dict.fromkeys(numbers))


@contextmanager
def _ending_well() -> Iterator[None]:
    """Let SIGTERM end a measurement so that its folder is removed, which holds what was computed."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_OUT = options.OutputFile()
_IN = click.Path(path_type=Path)  # whoever reads it says what is wrong with it


@click.command()
@click.argument("model", required=False, metavar="[MODEL]")
@click.option("--image", type=_IN, help="A picture of yours; default: made ones, squares of --sizes.")
@options.limit
@click.option(
    "--sizes",
    type=Numbers(16, 8192),
    metavar="N,N,...",
    help="Longer sides in pixels; default: 256,512,1024,2048, of a picture of yours its own.",
)
@click.option(
    "--threads", type=Numbers(1, most_threads()), metavar="N,N,...", help="Default: 1, 2, 4, ... up to all cores."
)
@click.option("--rounds", type=click.IntRange(1, 1000), default=5, show_default=True, help="More make finer verdicts.")
@click.option("--cold", is_flag=True, help="Time the cold start of a new process too, every round.")
@click.option("--compare", "old", type=_IN, metavar="OLD.json", help="Say what became slower or faster since then.")
@click.option(
    "--check",
    is_flag=True,
    help="With --compare: end with exit code 1 where something became slower or takes more memory.",
)
@click.option("--html", type=_OUT, metavar="FILE", help="Write a page with plots, to be opened offline.")
@click.option("--json", "as_json", type=_OUT, metavar="FILE", help="Write every value, for a later --compare.")
def bench(
    model: str | None,
    image: Path | None,
    reduce: bool,
    max_pixels: int | None,
    sizes: tuple[int, ...] | None,
    threads: tuple[int, ...] | None,
    rounds: int,
    cold: bool,
    old: Path | None,
    check: bool,
    html: Path | None,
    as_json: Path | None,
) -> None:
    """Measure how fast each stage of MODEL (default: the bundled one) is on this machine.

    A comparison takes the noise of both measurements into account, and how many figures it judges: where nothing has
    changed, it says otherwise at most once in 20 times.
    """
    from edgevl.bench import compare, measure, page, report, result
    from edgevl.errors import InputError
    from edgevl.model import hub

    if check and old is None:
        raise click.UsageError("--check needs --compare OLD.json")
    if image is None and (reduce or max_pixels is not None):
        raise click.UsageError("--reduce and --max-pixels are for a picture of yours; give --image FILE too")
    if html is not None and as_json is not None and html.resolve() == as_json.resolve():
        raise click.UsageError(f"{html}: is named for --json and for --html; give two files")
    for target in filter(None, (html, as_json)):
        if str(target) == "-":
            raise click.UsageError("the report goes to standard output; name a file for --json and --html")
        if image is not None and is_same(str(image), target):
            raise click.UsageError(f"{target}: is the picture itself and would be lost; name another file")
    if html is not None and old is not None and is_same(str(old), html):
        raise click.UsageError(f"{html}: is what --compare reads and would be lost; name another file for --html")
    then = result.load(old) if old is not None else None
    settings = measure.Settings(hub.find(model), image, sizes or (), threads or (), rounds, cold, max_pixels, reduce)
    with _ending_well(), bar() as on_step:
        found = measure.measure(settings, on_step)
    comparison = compare.compare(then, found) if then is not None else None
    click.echo(report.text(found, comparison))
    try:
        if as_json is not None:
            as_json.write_text(found.to_json(), encoding="utf-8")
    finally:  # a measurement takes long, and one of the two may be had
        if html is not None:
            html.write_text(page.page(found, comparison), encoding="utf-8")
    if check and comparison is not None:
        if not comparison.n_judged:
            raise InputError(f"{old}: nothing could be judged; --check needs the same figures in 4 rounds then and now")
        if comparison.is_worse:
            raise click.exceptions.Exit(1)
