"""What was measured about this machine, on disk: once for a model, what runs it, a thread count and versions.

Nothing here raises for a file that is damaged, of another version or cannot be written: it is measured again.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgevl import machine
from edgevl.engine.native.library import VERSION, instructions

FORMAT = 2

Key = dict[str, str]


def folder() -> Path | None:
    """Return where it lies: EDGEVL_PROFILE_DIR, else in the platform's cache folder; None where no home is known."""
    return machine.own_folder("EDGEVL_PROFILE_DIR", "cache", "profiles")


def key_of(what: str, model_id: str, *, device: str, threads: int | None) -> Key:
    """Return what a measurement depends on: what it is, the model's content, how it runs, machine and versions."""
    about = machine.describe()
    return {
        "what": what,
        "model": model_id,
        "device": device,
        "threads": str(threads or about.n_threads),
        "processor": about.processor,
        "usable": str(about.n_usable),
        "native": f"{VERSION} {instructions()}",
        **about.versions,
    }


def read(key: Key) -> dict[str, Any] | None:
    """Return what is kept under `key`; None if there is nothing, or nothing that can be read."""
    path = _path(key)
    if path is None:
        return None
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        found = raw["measured"] if raw["edgevl_measured"] == FORMAT and raw["key"] == key else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def write(key: Key, measured: dict[str, Any]) -> bool:
    """Keep a measurement, readable by its owner only; return whether that could be done."""
    text = json.dumps({"edgevl_measured": FORMAT, "key": key, "measured": measured}, indent=1) + "\n"
    path = _path(key)
    if path is None:
        return False
    part: Path | None = None
    try:
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=".part", dir=path.parent)  # 0600
        part = Path(name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        part.replace(path)
    except OSError:
        if part is not None:
            with suppress(OSError):
                part.unlink()
        return False
    return True


def forget(key: Key) -> None:
    """Drop what is kept under `key`, if there is anything."""
    path = _path(key)
    if path is not None:
        with suppress(OSError):
            path.unlink()


def _path(key: Key) -> Path | None:
    where = folder()
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return where and where / f"{digest[:32]}.json"
