"""`edgevl view` and `edgevl tokens`."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgevl.cli import options
from edgevl.cli.streams import print_json

_SOFTWARE = "edgevl view"
"""Written into each drawing, so that a later one may take its place."""


@click.command()
@click.argument("image")
@options.model
@options.image
@options.within
@options.machine
@click.option(
    "-o",
    "--output",
    type=options.OutputFile(),
    help="Written anew if it is there, but never the IMAGE itself; default: IMAGE-tiles.png here.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def view(image: str, model: str | None, output: Path | None, as_json: bool, **settings: Any) -> None:
    """Draw how an IMAGE is cut into tiles to a PNG, and print its tokens and what it would cost here."""
    target = output or Path(_default_output(image))
    _check_output(image, target, is_asked_for=output is not None)
    import edgevl
    from edgevl.image.draw import draw_plan
    from edgevl.image.read import save_png

    machine, request = options.split(settings)
    with edgevl.load(model, **machine) as vlm:
        preview = vlm.preview(image, **request)
        picture, plan, forecast = preview.picture, preview.plan, preview.forecast
        n_tokens = vlm.image_tokens(plan)
        name = vlm.name
    save_png(draw_plan(picture.rgb, plan), target, software=_SOFTWARE)
    options.note_forecast(forecast)
    if as_json:
        report = {
            "image": picture.source,
            "size": picture.size,
            "resized": plan.steps[-1],
            "grid": plan.grid,
            "n_tiles": plan.n_tiles,
            "image_tokens": n_tokens,
            "forecast": asdict(forecast),
            "model": name,
            "output": str(target),
        }
        print_json(report)
        return
    click.echo(f"{picture.source}: {_size(picture.size)}; {plan}, {n_tokens} tokens for {name}")
    pixels_s = forecast.read_s + forecast.tile_s
    click.echo(
        f"about {forecast.first_token_s:.2f} s to the first word here: {pixels_s:.2f} s to read and cut, "
        f"{forecast.encode_s:.2f} s to encode, {forecast.prefill_s:.2f} s to prefill"
    )
    click.echo(f"drawn to {target}")


def _default_output(image: str) -> str:
    """Return the name of an image's drawing, in the working directory."""
    is_file = image != "-" and image[:5].lower() != "data:"
    return f"{(Path(image).stem if is_file else '') or 'image'}-tiles.png"


def _check_output(image: str, target: Path, *, is_asked_for: bool) -> None:
    """Refuse to draw over the image, and over a file that was neither asked for nor drawn by an earlier `view`."""
    if str(target) == "-":
        raise click.UsageError("the drawing cannot go to standard output; name a file with -o, such as plan.png")
    if is_same(image, target):
        raise click.UsageError(f"{target}: is the image itself and would be lost; name another file with -o")
    if not is_asked_for and target.exists() and not (target.is_file() and _is_drawing(target)):
        raise click.UsageError(f"{target}: is there already, and not a drawing of `edgevl view`; name a file with -o")


def is_same(image: str, target: Path) -> bool:
    """Return whether an image comes from the file `target`, by whatever path, link or redirection."""
    try:
        source = sys.stdin.fileno() if image == "-" else image
        return os.path.samefile(source, target)  # noqa: PTH121 - a Path cannot hold the number of an open file
    except (OSError, ValueError):  # one of them is not there, or is no path, such as a data URL
        return False


def _is_drawing(path: Path) -> bool:
    with path.open("rb") as file:
        return _SOFTWARE.encode() in file.read(200)  # it stands before the pixels


@click.command()
@click.argument("image")
@options.model
@options.image
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def tokens(image: str, model: str | None, as_json: bool, **settings: Any) -> None:
    """Count the tokens of an IMAGE: for the model here, and by the published GPT-4o and Claude formulas."""
    import edgevl
    from edgevl.image import costs
    from edgevl.request import read_picture

    picture = read_picture(image, settings["max_pixels"], settings["reduce"])
    with edgevl.load(model) as vlm:
        counts = {
            f"{vlm.name} --detail {detail}": vlm.image_tokens(vlm.plan(picture, detail))
            for detail in dict.fromkeys((settings["detail"], "auto", "high", "low"))
        }
    counts["GPT-4o, high detail"] = costs.gpt4o_tokens(picture.size, "high")
    counts["GPT-4o, low detail"] = costs.gpt4o_tokens(picture.size, "low")
    counts["Claude"] = costs.claude_tokens(picture.size)
    if as_json:
        print_json({"image": picture.source, "size": picture.size, "tokens": counts})
        return
    click.echo(f"{picture.source}: {_size(picture.size)}")
    for name, count in counts.items():
        click.echo(f"{count:>7}  {name}")


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]} pixels"
