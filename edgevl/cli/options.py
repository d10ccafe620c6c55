"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgevl.engine.devices import NAMES
from edgevl.errors import InputError

if TYPE_CHECKING:
    from edgevl.types import Forecast

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_MACHINE = ("device", "threads", "store")


def _together(*decorators: Any) -> Decorator:
    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


class Duration(click.ParamType[float]):
    """A time such as 2s, 1.5s, 800ms or 2, in seconds; anything else is wrong usage."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        from edgevl.latency.choice import seconds

        try:
            return seconds(value)
        except InputError as error:
            self.fail(str(error).removeprefix("within is "), param, ctx)


class OutputFile(click.Path):
    """A file to be written, in a folder that is there; anything else is wrong usage, found before the work is done."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        if not str(value):
            self.fail("the name is empty; give a file", param, ctx)
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not path.absolute().parent.is_dir():
            self.fail(f"{path}: there is no such folder to write to", param, ctx)
        if not os.access(path if os.access(path, os.F_OK) else path.absolute().parent, os.W_OK):
            self.fail(f"{path}: may not be written; choose another place", param, ctx)
        return path


def _refusing(check: Callable[[str, Any], object]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Make what `check` raises for an option's name and value wrong usage, found before anything is loaded."""

    def callback(context: click.Context, param: click.Parameter, value: Any) -> Any:
        try:
            check(param.name or "", value)
        except InputError as error:
            raise click.BadParameter(str(error).removeprefix("sampling: "), context, param) from error
        return value

    return callback


def _check_sampling(name: str, value: Any) -> None:
    from edgevl.types import SamplingParams

    for one in value if isinstance(value, tuple) else (value,):
        SamplingParams(**{name: one})


def _check_detail(name: str, value: Any) -> None:
    from edgevl.image.tiling import checked_detail

    checked_detail(value)


def _check_threads(name: str, value: Any) -> None:
    from edgevl.machine import checked_threads

    checked_threads(value)


model = click.option(
    "-m", "--model", metavar="NAME|DIR", help="Model folder or a name that `edgevl models` lists; default: the bundled."
)

detail = click.option(
    "--detail",
    default="auto",
    show_default=True,
    metavar="auto|high|low|N",
    callback=_refusing(_check_detail),
    help="Tiles an image is worth, N at most.",
)

limit = _together(
    click.option("--reduce", is_flag=True, help="Reduce a JPEG over the limit while decoding, instead of refusing it."),
    click.option(
        "--max-pixels", type=click.IntRange(1), metavar="N", help="Refuse larger images; default: 100 million."
    ),
)

image = _together(detail, limit)

within = click.option(
    "--within",
    type=Duration(),
    metavar="TIME",
    help="Give images fewer tiles so that the first word comes in TIME, such as 2s or 800ms, by what is measured here.",
)

_sampled = partial(click.option, callback=_refusing(_check_sampling))

sampling = _together(
    _sampled("--max-tokens", type=int, default=512, show_default=True, help="End the answer after N tokens."),
    _sampled("--temperature", type=float, default=0.0, show_default=True, help="0 always takes the likeliest word."),
    _sampled("--top-k", type=int, default=0, help="Choose among the K likeliest; 0: all."),
    _sampled("--top-p", type=float, default=1.0, help="Choose among the likeliest that add up to P."),
    _sampled("--min-p", type=float, default=0.0, help="Drop what is less likely than P times the likeliest."),
    _sampled("--repetition-penalty", type=float, default=1.0, help="Above 1: repeat less."),
    _sampled("--seed", type=int, help="The same seed gives the same answer."),
    _sampled("--stop", multiple=True, metavar="TEXT", help="End the answer before TEXT; may be given several times."),
)

threads = click.option(
    "--threads",
    type=int,
    metavar="N",
    callback=_refusing(_check_threads),
    help="Default: one per physical core.",
)

machine = _together(
    click.option(
        "--device",
        type=click.Choice(NAMES),
        default="auto",
        show_default=True,
        metavar="NAME",
        help=f"What runs the model: {', '.join(NAMES)}; auto is measured once.",
    ),
    threads,
    click.option("--store/--no-store", default=True, help="Remember images on disk for later questions; default: yes."),
)


def split(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part a command's settings into those of `edgevl.load` and those of a request."""
    return {k: v for k, v in settings.items() if k in _MACHINE}, {
        k: v for k, v in settings.items() if k not in _MACHINE
    }


def note_forecast(forecast: Forecast | None) -> None:
    """Say on stderr, at a terminal or not, what a budget made of the images, if it changed or missed anything."""
    if forecast is not None and forecast.note:
        click.echo(f"note: {forecast.note}", err=True)
