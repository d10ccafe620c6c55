"""Reads the photo packs: zip files of pictures with a `labels.jsonl` each."""

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CACHE_SIDE = 160


@dataclass(frozen=True)
class Pack:
    """How one pack is used: the share held out, its label fields, and whether mirroring keeps its meaning.

    `kind` is the field of a coarser label, of packs that have one.
    """

    name: str
    held_out: float
    field: str = "label"
    kind: str = ""
    mirror: bool = True
    turn: bool = False  # whether quarter turns keep the meaning (satellite pictures)


PACKS = {
    pack.name: pack
    for pack in (
        Pack("eurosat", 0.15, turn=True),
        Pack("flowers", 0.25),
        Pack("objects", 0.15),
        Pack("grocery", 0.25, kind="coarse"),
        Pack("trash", 0.27),
        Pack("signs", 0.30, mirror=False),
        Pack("cards", 0.25, field="cards", mirror=False),
    )
}


OTHERS = ("emoji", "nlvr")
"""Packs that generators draw from."""


def require(folder: Path) -> None:
    """Raise FileNotFoundError, naming what is missing, unless every pack is in `folder`."""
    missing = [f"{name}.zip" for name in (*PACKS, *OTHERS) if not (folder / f"{name}.zip").exists()]
    if missing:
        raise FileNotFoundError(f"{folder}: lacks {', '.join(missing)}; put every pack of the recipe there")


@dataclass(frozen=True)
class Photo:
    """One picture of a pack; `row` is its place in labels.jsonl, `label` its answer in words.

    `kind` is the coarser answer, of packs that have one.
    """

    pack: str
    row: int
    file: str
    label: str
    kind: str


def is_held_out(pack: Pack, file: str) -> bool:
    """Decide by a hash of the file name, so that the split never moves."""
    digest = hashlib.sha256(f"{pack.name}/{file}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < pack.held_out * 2**32


def _label(value: Any) -> str:
    return " ".join(sorted(value)) if isinstance(value, list) else value.lower()


@lru_cache
def left_out(name: str) -> frozenset[str]:
    """Return the files of a pack that training must not show: a held-out picture shows the same (duplicates.py)."""
    listed = json.loads(Path(__file__).with_name("duplicates.json").read_text(encoding="utf-8"))
    return frozenset(listed.get(name, ()))


def is_in_part(name: str, file: str, file_is_held_out: bool, held_out: bool) -> bool:
    """Tell whether a file is in the training part or the held-out part; what is left out is in neither."""
    return file_is_held_out == held_out and (held_out or file not in left_out(name))


@lru_cache
def photos(folder: Path, name: str, held_out: bool | None) -> list[Photo]:
    """List the pictures of a pack: its training part, its held-out part, or (None) all of it."""
    pack = PACKS[name]
    with zipfile.ZipFile(folder / f"{name}.zip") as archive:
        lines = archive.read("labels.jsonl").decode().splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    return [
        Photo(name, number, row["file"], _label(row[pack.field]), _label(row[pack.kind] if pack.kind else ""))
        for number, row in enumerate(rows)
        if held_out is None or is_in_part(name, row["file"], is_held_out(pack, row["file"]), held_out)
    ]


@lru_cache
def classes(folder: Path, name: str) -> list[str]:
    """List the distinct labels of a pack in alphabetical order."""
    return sorted({photo.label for photo in photos(folder, name, None)})


@lru_cache
def _archive(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def open_photo(folder: Path, photo: Photo) -> Image.Image:
    """Decode one picture at its own size."""
    content = _archive(folder / f"{photo.pack}.zip").read(photo.file)
    return Image.open(io.BytesIO(content)).convert("RGB")


def build_cache(folder: Path, cache: Path, name: str) -> np.ndarray:
    """Decode a pack once, squeezed to squares: uint8 `[n, 160, 160, 3]`, memory-mapped."""
    path = cache / f"{name}.npy"
    if not path.exists():
        everything = photos(folder, name, None)
        squares = np.empty((len(everything), CACHE_SIDE, CACHE_SIDE, 3), np.uint8)
        for photo in everything:
            picture = open_photo(folder, photo)
            squares[photo.row] = np.asarray(picture.resize((CACHE_SIDE, CACHE_SIDE), Image.Resampling.LANCZOS))
        cache.mkdir(parents=True, exist_ok=True)
        np.save(path.with_suffix(".part.npy"), squares)
        path.with_suffix(".part.npy").replace(path)
    cached: np.ndarray = np.load(path, mmap_mode="r")
    return cached
