"""Typed reads of a checkpoint's JSON files: each fails with the file, the key, what was expected and what is there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgevl.errors import ExportError

DOWNLOAD_AGAIN = "download the whole checkpoint folder again"


def read_json(path: Path, remedy: str = DOWNLOAD_AGAIN) -> dict[str, Any]:
    """Return the object that a file holds; raise ExportError, with the `remedy` where the file is missing."""
    if not path.is_file():
        raise ExportError(f"{path}: is missing; {remedy}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{path}: is not valid JSON ({error}); {DOWNLOAD_AGAIN}") from error
    except OSError as error:
        raise ExportError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if not isinstance(value, dict):
        raise ExportError(f"{path}: must hold a JSON object; {DOWNLOAD_AGAIN}")
    return value


def optional_json(path: Path) -> dict[str, Any]:
    """Return the object that a file holds, {} where there is no such file; raise ExportError like `read_json`."""
    return read_json(path) if path.exists() else {}


def section(settings: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    """Return the object under `key` of the file at `path`; raise ExportError for anything else."""
    value = settings.get(key)
    if not isinstance(value, dict):
        raise ExportError(f"{path}: {key}: expected object, got {value!r}; {DOWNLOAD_AGAIN}")
    return value


def positive(settings: Mapping[str, Any], key: str, path: Path) -> int:
    """Return the int of at least 1 under `key` of the file at `path`; raise ExportError for anything else."""
    value = settings.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ExportError(f"{path}: {key}: expected a positive int, got {value!r}; {DOWNLOAD_AGAIN}")
    return value


def square(settings: Mapping[str, Any], key: str, path: Path) -> int:
    """Return the side of the square, an object of height and width, under `key`; raise ExportError for another."""
    sides = section(settings, key, path)
    height, width = (positive(sides, side, path) for side in ("height", "width"))
    if height != width:
        raise ExportError(f"{path}: {key}: is {height}x{width} pixels (height x width); only squares can be exported")
    return height
