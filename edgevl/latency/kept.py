"""Profiles on disk, in the platform's cache folder: measured once for a machine, a model, a thread count and versions.

Nothing here raises for a file that is damaged, of another version or cannot be written: it is measured again.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from edgevl import machine
from edgevl.latency.profile import Profile

FORMAT = 1

Key = dict[str, str]


def folder() -> Path:
    """Return where profiles lie: EDGEVL_PROFILE_DIR, else in the platform's cache folder."""
    if chosen := os.environ.get("EDGEVL_PROFILE_DIR"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("edgevl", appauthor=False) / "profiles"


def key_of(model_id: str, *, device: str, threads: int | None) -> Key:
    """Return what a profile depends on: the model's content, how it runs, the machine and the versions."""
    about = machine.describe()
    return {
        "model": model_id,
        "device": device,
        "threads": str(threads or about.n_threads),
        "cpu": about.cpu,
        "features": ",".join(about.features or ()),
        "usable": str(about.n_usable),
        **about.versions,
    }


def read(key: Key) -> Profile | None:
    """Return the profile kept under `key`; None if there is none, or none that can be read."""
    try:
        raw = json.loads(_path(key).read_text(encoding="utf-8"))
        if raw["edgevl_profile"] != FORMAT or raw["key"] != key:
            return None
        return Profile.from_dict(raw["profile"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def write(key: Key, profile: Profile) -> bool:
    """Keep a profile, readable by its owner only; return whether that could be done."""
    text = json.dumps({"edgevl_profile": FORMAT, "key": key, "profile": profile.to_dict()}, indent=1) + "\n"
    path = _path(key)
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
    """Drop the profile kept under `key`, if there is one."""
    with suppress(OSError):
        _path(key).unlink()


def _path(key: Key) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return folder() / f"{digest[:32]}.json"
