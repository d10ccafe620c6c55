"""`edgevl view` and `edgevl tokens`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from edgevl.cli import options


@click.command()
@click.argument("image")
@options.model
@options.image
@options.within
@options.machine
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Default: IMAGE-tiles.png here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def view(image: str, model: str | None, output: Path | None, as_json: bool, **settings: Any) -> None:
    """Draw how an IMAGE is cut into tiles to a PNG, and print its tokens and what it would cost here."""
    import edgevl
    from edgevl.image.draw import draw_plan
    from edgevl.image.read import save_png

    machine, request = options.split(settings)
    with edgevl.load(model, **machine) as vlm:
        preview = vlm.preview(image, **request)
        picture, plan, forecast = preview.picture, preview.plan, preview.forecast
        n_tokens = vlm.image_tokens(plan)
        name = vlm.name
    target = output or Path(f"{Path(picture.source).stem or 'image'}-tiles.png")
    save_png(draw_plan(picture.rgb, plan), target)
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
        click.echo(json.dumps(report, indent=1, ensure_ascii=False))
        return
    click.echo(f"{picture.source}: {_size(picture.size)}; {plan}, {n_tokens} tokens for {name}")
    pixels_s = forecast.read_s + forecast.tile_s
    click.echo(
        f"about {forecast.first_token_s:.2f} s to the first word here: {pixels_s:.2f} s to read and cut, "
        f"{forecast.encode_s:.2f} s to encode, {forecast.prefill_s:.2f} s to prefill"
    )
    click.echo(f"drawn to {target}")


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
        click.echo(json.dumps({"image": picture.source, "size": picture.size, "tokens": counts}, indent=1))
        return
    click.echo(f"{picture.source}: {_size(picture.size)}")
    for name, count in counts.items():
        click.echo(f"{count:>7}  {name}")


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]} pixels"
