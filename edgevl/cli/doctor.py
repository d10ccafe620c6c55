"""`edgevl doctor`: what this machine has to run models on, and what is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgevl.cli import options
from edgevl.cli.streams import print_json

if TYPE_CHECKING:
    from edgevl.engine.devices import Device, Part
    from edgevl.placement import Placement

_ENGINES = ("onnxruntime", "openvino", "llama.cpp")
_NATIVE = "native"
_SWITCHED_OFF = "switched off by EDGEVL_NATIVE: decoders run as graphs"
_NOT_NATIVE = "not here: decoders run as graphs; a C compiler when edgevl is installed, and AVX2 or ARM, make it"


@click.command()
@click.argument("model", required=False, metavar="[MODEL]")
@options.threads
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def doctor(model: str | None, threads: int | None, as_json: bool) -> None:
    """Say what is installed, which devices are here, what is missing and how to add it, and what runs MODEL here.

    Where there is a choice it is measured, once, and kept.
    """
    from edgevl import machine, placement
    from edgevl.engine.devices import DEVICES
    from edgevl.engine.native.decoder import backend
    from edgevl.model import hub, manifest

    about, folder = machine.describe(), hub.find(model)
    placement.look("vision")  # a driver may have been added since OpenVINO was last asked
    spec = manifest.read(folder)
    placed = placement.Placement(folder, spec, device="auto", threads=threads)
    found: dict[str, Any] = {
        "machine": dict(about.rows()),
        "engines": {**{name: placement.installed(name) for name in _ENGINES}, _NATIVE: backend()},
        "devices": {name: _device(placed, row) for name, row in DEVICES.items()},
        "model": {
            "name": spec.name,
            "folder": str(folder),
            "vision": placed.encoder().backend,
            "seconds_per_tile": placed.measured("vision"),
            "decoder": _decoder(placed),
            "seconds_per_trial": placed.measured(placed.decoder_part),
        },
    }
    if as_json:
        print_json(found)
    else:
        _show(found)


def _device(placed: Placement, row: Device) -> dict[str, Any]:
    """Return what a device runs here, why it cannot, the commands that add what it lacks, or where there is one."""
    from edgevl import placement
    from edgevl.engine.devices import SYSTEMS

    if placement.SYSTEM not in row.systems:
        return {"runs": [], "trouble": None, "missing": {}, "systems": [SYSTEMS[name] for name in row.systems]}
    missing = row.missing({need for part in row.needs for need in placement.found(part)})
    runs = [part for part in row.needs if part not in missing]
    return {"runs": runs, "trouble": placed.trouble(row), "missing": missing, "systems": []}


def _decoder(placed: Placement) -> str | None:
    """Return what runs the decoder, None where nothing here does; it is opened only where there is a choice."""
    if len(placed.choices(placed.decoder_part)) > 1:
        return placed.decoder().backend
    return placed.likely_decoder()


def _show(found: dict[str, Any]) -> None:
    from edgevl.engine.devices import COMMANDS, LLAMA
    from edgevl.engine.native.library import is_switched_off

    for name, value in found["machine"].items():
        click.echo(f"{name + ':':<16} {value}")
    click.echo()
    for name, has in found["engines"].items():
        lacks = "not installed" if name != _NATIVE else _SWITCHED_OFF if is_switched_off() else _NOT_NATIVE
        click.echo(f"{name + ':':<16} {has or lacks}")
    click.echo()
    for name, device in found["devices"].items():
        _show_device(name, device)
    click.echo()
    about = found["model"]
    click.echo(f"{'model:':<16} {about['name']} ({about['folder']})")
    click.echo(f"{'image encoder:':<16} {about['vision']}{_times('tile', about['seconds_per_tile'])}")
    decoder = about["decoder"] or f"nothing here runs it; to add llama.cpp: {COMMANDS[LLAMA]}"
    click.echo(f"{'decoder:':<16} {decoder}{_times('short prompt', about['seconds_per_trial'])}")


def _show_device(name: str, device: dict[str, Any]) -> None:
    lines = [f"present for {_listed(device['runs'])}"] if device["runs"] else []
    lines += [f"does not work: {device['trouble']}"] if device["trouble"] else []
    commands: dict[str, list[Part]] = {}
    for part, command in device["missing"].items():
        commands.setdefault(command, []).append(part)
    lines += [f"missing for {_listed(parts)}; to add it: {command}" for command, parts in commands.items()]
    for line in lines or [f"needs {' or '.join(device['systems'])}"]:
        click.echo(f"{name + ':':<16} {line}")


def _listed(parts: list[Part]) -> str:
    from edgevl.engine.devices import PARTS

    return ", ".join(f"{PARTS[part]}s" for part in parts)


def _times(what: str, seconds: dict[str, float]) -> str:
    return f"; a {what} on each: {', '.join(f'{n} {s:.3f} s' for n, s in seconds.items())}" if seconds else ""
