"""Where models are: the bundled one, the user's folders, and the registry of those that can be fetched.

The only module that may use the network; today it does not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from edgevl.errors import ModelNotFound
from edgevl.model import manifest

BUNDLED = "edgevl-tiny"


@dataclass(frozen=True)
class RegistryEntry:
    """A published model that can be exported: repository on the Hugging Face hub, licence, size of the export."""

    name: str
    repo: str
    licence: str
    n_parameters: int
    int4_bytes: int
    note: str


def installed_folder() -> Path:
    """Return the folder of the data that comes with edgevl."""
    return Path(str(files("edgevl.models")))


def user_folder() -> Path:
    """Return where the user's model folders live: EDGEVL_MODELS_DIR, else the platform's data folder."""
    if chosen := os.environ.get("EDGEVL_MODELS_DIR"):
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("edgevl", appauthor=False) / "models"


def find(name_or_dir: str | Path | None) -> Path:
    """Return a model's folder: a path, a name in the user's folder, a bundled name; None is the bundled model.

    A folder of the same name in the working directory comes first if it is a model folder, and last otherwise.
    Raises ModelNotFound that says where was looked.
    """
    if name_or_dir is None:
        return installed_folder() / BUNDLED
    name, path = str(name_or_dir), Path(name_or_dir).expanduser()
    if not name:
        raise ModelNotFound("the model's name is empty; `edgevl models` lists what is here")
    places = [path]
    if _is_name(name):
        places += [user_folder() / name, installed_folder() / name]
    for place in places:
        if (place / manifest.FILE_NAME).is_file():
            return place
    if path.is_dir():
        return path  # its reader will say what it lacks
    if len(places) == 1:
        raise ModelNotFound(f"{name}: no such model folder; `edgevl models` lists what is here")
    raise ModelNotFound(
        f"{name}: no model of this name in {places[1].parent} or among the bundled; `edgevl models` lists what is here"
    )


def local() -> Iterator[Path]:
    """Yield every model folder that `find` knows by name, the user's first."""
    for parent in (user_folder(), installed_folder()):
        if parent.is_dir():
            yield from sorted(path for path in parent.iterdir() if (path / manifest.FILE_NAME).is_file())


def registry() -> list[RegistryEntry]:
    """Return the registry that comes with edgevl."""
    raw = json.loads((installed_folder() / "registry.json").read_text(encoding="utf-8"))
    return [RegistryEntry(**entry) for entry in raw]


def _is_name(text: str) -> bool:
    return "/" not in text and "\\" not in text and text not in (".", "..")
