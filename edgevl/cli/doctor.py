"""`edgevl doctor`: what this machine has to run models on, and what is used."""

from __future__ import annotations

import json
from typing import Any

import click

_REMEDIES = {
    "onnxruntime": "pip install onnxruntime",
    "openvino": "pip install 'edgevl[openvino]'",
    "llama.cpp": "pip install 'edgevl[gguf]'",
}


@click.command()
@click.argument("model", required=False, metavar="[MODEL]")
@click.option("--threads", type=int, metavar="N", help="Default: one per physical core.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def doctor(model: str | None, threads: int | None, as_json: bool) -> None:
    """Say what is installed, what is missing and how to add it, and what runs MODEL's image encoder here.

    Where there is a choice it is measured, once, and kept.
    """
    from edgevl import machine, placement
    from edgevl.model import hub, manifest

    about, folder = machine.describe(), hub.find(model)
    spec = manifest.read(folder)
    encoder = placement.open_encoder(folder, spec, device="auto", threads=threads)
    found: dict[str, Any] = {
        "machine": dict(about.rows()),
        "engines": {name: placement.installed(name) for name in _REMEDIES},
        "model": {
            "name": spec.name,
            "folder": str(folder),
            "vision": encoder.backend,
            "decoder": spec.decoder.kind,
            "seconds_per_tile": placement.measured(spec, threads),
        },
    }
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for name, value in found["machine"].items():
        click.echo(f"{name + ':':<16} {value}")
    click.echo()
    for name, has in found["engines"].items():
        click.echo(f"{name + ':':<16} {has or f'not installed; to add it: {_REMEDIES[name]}'}")
    click.echo()
    _show_model(found["model"])


def _show_model(found: dict[str, Any]) -> None:
    click.echo(f"{'model:':<16} {found['name']} ({found['folder']})")
    seconds = ", ".join(f"{name} {value:.3f} s" for name, value in found["seconds_per_tile"].items())
    click.echo(f"{'image encoder:':<16} {found['vision']}" + (f"; a tile on each: {seconds}" if seconds else ""))
    click.echo(f"{'decoder:':<16} {'llama.cpp' if found['decoder'] == 'gguf' else 'onnxruntime'}")
