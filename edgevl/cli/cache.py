"""`edgevl cache`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from edgevl.cli.streams import print_json
from edgevl.machine import known

_MEANING = {
    "tiles": "image features of tiles",
    "prefixes": "KV caches of images",
    "graphs": "compiled graphs",
    "other_versions": "entries of other versions of edgevl",
}


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def cache(context: click.Context, as_json: bool) -> None:
    """Show what is remembered about images on disk; `edgevl cache clear` deletes it.

    EDGEVL_STORE_DIR sets the folder, EDGEVL_STORE_MB the size limit.
    """
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError("--json is for `edgevl cache` alone; clear says in one line what it freed")
        return
    from edgevl.store.disk import KINDS, OTHERS, Disk, default_max_bytes

    disk = Disk(_folder(), default_max_bytes())
    disk.check()
    found: dict[str, Any] = {kind: {"n_entries": 0, "n_bytes": 0} for kind in (*KINDS, OTHERS)}
    for entry in disk.entries():
        found[entry.kind]["n_entries"] += 1
        found[entry.kind]["n_bytes"] += entry.n_bytes
    if as_json:
        document = {"folder": str(disk.folder.parent), "max_bytes": disk.max_bytes, **found}
        print_json(document)
        return
    click.echo(f"{disk.folder.parent}: at most {_mb(disk.max_bytes)}")
    for kind, counts in found.items():
        if kind == OTHERS and not counts["n_entries"]:
            continue
        click.echo(f"{counts['n_entries']:>7}  {_MEANING[kind]}, {_mb(counts['n_bytes'])}")


@cache.command()
def clear() -> None:
    """Delete everything that is remembered; it is computed again when it is needed."""
    from edgevl.store.disk import Disk

    disk = Disk(_folder())
    click.echo(f"{disk.folder.parent}: {_mb(disk.clear())} freed")


def _folder() -> Path:
    from edgevl.store.disk import default_folder

    return known(default_folder(), "EDGEVL_STORE_DIR")


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB"
