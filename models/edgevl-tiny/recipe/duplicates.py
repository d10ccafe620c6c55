"""Finds pictures of the packs that show the same as held-out ones, for training to leave out.

    python -m edgevl.recipe.duplicates find --packs PACKS --output duplicates.json
    python -m edgevl.recipe.duplicates measure --packs PACKS

The first writes what `duplicates.json` holds: for each pack, the training pictures that are too near to a held-out one.
The second prints how near a photo is to altered copies of itself and to the other photos, from which `NEAR` was chosen.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import nlvr, packs

SIDE = 32
WAVES = slice(1, 9)
NEAR = 8
"""Two pictures whose hashes differ in at most so many of 64 bits show the same.

Chosen by `measure`, on 200 photos of each pack. Within 8 lie 99 % or more of the copies that were recompressed,
resized, squeezed or darkened, 94 % or more of brightened ones, 81 to 89 % of those cropped by 3 % of a side, and 33 to
48 % of those cropped by 5 %. Of photos, up to 2.5 % have another one within 8, but 6 % of cards, 7 % of objects
(motorbikes and airplanes like one another) and 12 % of signs (hands before one wall); within 10 it is up to 38 %. Of
satellite pictures of even ground, such as the sea, the hash is noise: of that pack's recompressed or resized copies 80
to 98 % are found.
"""
PHOTOS_MEASURED = 200
Grey = NDArray[np.float32]
"""Pictures as 32x32 grey pixels [n, 32, 32]."""
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Pair:
    """A held-out photo and one of training that shows the same, perhaps mirrored; files of a pack."""

    held_out: str
    training: str
    distance: int


def grey(picture: Image.Image) -> Grey:
    """Return a picture as 32x32 grey pixels."""
    return np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)


def hashes(pictures: Grey) -> Hashes:
    """Return the perceptual hash of each picture: which of 64 slow waves in it are stronger than their median.

    Source: Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions", the DCT based hash:
    coefficients 1 to 8 in both directions of a 32x32 cosine transform. Averaging over areas takes the place of its
    7x7 mean filter.
    """
    places = np.arange(SIDE)
    waves = np.cos(np.pi * (2 * places[None] + 1) * places[:, None] / (2 * SIDE))[WAVES]  # [8, 32]
    found = (waves @ pictures @ waves.T).reshape(len(pictures), -1).round(3)  # [n, 64]
    bits = found > np.median(found, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").reshape(-1).astype(np.uint64)


def distances(first: Hashes, second: Hashes) -> NDArray[np.uint8]:
    """Return in how many bits each of `first` [n] differs from each of `second` [m]: [n, m]."""
    return np.bitwise_count(first[:, None] ^ second[None])


def nearness(held_out: Grey, training: Grey) -> NDArray[np.uint8]:
    """Return how far each held-out picture [n] is from each of training [m], as it is or mirrored: [n, m]."""
    wanted = hashes(held_out)
    return np.minimum(distances(wanted, hashes(training)), distances(wanted, hashes(training[:, :, ::-1])))


@lru_cache
def _grey_photos(folder: Path, name: str) -> Grey:
    """Return all photos of a pack, in its order."""
    return np.stack([grey(packs.open_photo(folder, photo)) for photo in packs.photos(folder, name, None)])


def pairs(folder: Path, name: str) -> list[Pair]:
    """List the held-out photos of a pack with each photo of the rest that shows the same."""
    photos, pictures = packs.photos(folder, name, None), _grey_photos(folder, name)
    is_held_out = np.array([packs.is_held_out(packs.PACKS[name], photo.file) for photo in photos])
    held_out, training = np.flatnonzero(is_held_out), np.flatnonzero(~is_held_out)
    found = nearness(pictures[held_out], pictures[training])
    return [
        Pair(photos[held_out[row]].file, photos[training[column]].file, int(found[row, column]))
        for row, column in zip(*np.nonzero(found <= NEAR), strict=True)
    ]


def same_boxes(pack: Path) -> list[str]:
    """List the training pictures of NLVR's pack that show the boxes of a held-out one, in whatever order.

    Its split is by sentences, and some pictures come with two.
    """
    with zipfile.ZipFile(pack) as archive:
        lines = archive.read("labels.jsonl").decode().splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    parts: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for row in rows:
        parts[nlvr.is_held_out(row["sentence"].strip())].append(row)
    held_out = {_content(row["structured_rep"]) for row in parts[True]}
    return sorted(row["file"] for row in parts[False] if _content(row["structured_rep"]) in held_out)


def _content(boxes: list[list[dict[str, Any]]]) -> str:
    """Return what three boxes show, their order and that of their items aside."""
    return json.dumps(sorted(json.dumps(sorted(json.dumps(item, sort_keys=True) for item in box)) for box in boxes))


def to_leave_out(folder: Path, names: Iterable[str] = tuple(packs.PACKS)) -> dict[str, list[str]]:
    """Return, for each pack, the files that training must not show because a held-out picture shows the same."""
    found = {name: sorted({pair.training for pair in pairs(folder, name)}) for name in names}
    return {**found, "nlvr": same_boxes(folder / "nlvr.zip")}


# How the threshold was chosen


Alter = Callable[[random.Random, Image.Image], Image.Image]


def _recompressed(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def _cropped(rng: random.Random, picture: Image.Image, share: float) -> Image.Image:
    """Cut `share` of each side off, anywhere."""
    width, height = (side - round(side * share) for side in picture.size)
    x, y = rng.randint(0, picture.width - width), rng.randint(0, picture.height - height)
    return picture.crop((x, y, x + width, y + height))


ALTERED: dict[str, Alter] = {
    "jpeg 50": lambda _, picture: _recompressed(picture, 50),
    "jpeg 20": lambda _, picture: _recompressed(picture, 20),
    "half": lambda _, picture: picture.resize((picture.width // 2, picture.height // 2)),
    "squeezed": lambda _, picture: picture.resize((100, 100)),
    "brighter": lambda _, picture: picture.point(lambda value: min(255, round(value * 1.2 + 15))),
    "darker": lambda _, picture: picture.point(lambda value: max(0, round(value * 0.8 - 15))),
    "cropped 3 %": lambda rng, picture: _cropped(rng, picture, 0.03),
    "cropped 5 %": lambda rng, picture: _cropped(rng, picture, 0.05),
    "cropped 10 %": lambda rng, picture: _cropped(rng, picture, 0.10),
}
"""What is done to a photo, which shows the same afterwards."""


def measure(folder: Path, name: str) -> Iterator[str]:
    """Yield lines: the share of altered copies, and of other photos, within 6, 8, 10 and 12 bits of a photo."""
    photos, pictures = packs.photos(folder, name, None), _grey_photos(folder, name)
    rng = random.Random(name)
    rows = rng.sample(range(len(photos)), min(PHOTOS_MEASURED, len(photos)))
    for what, alter in ALTERED.items():
        copies = np.stack([grey(alter(rng, packs.open_photo(folder, photos[row]))) for row in rows])
        yield _shares(f"{name}: {what}", np.bitwise_count(hashes(pictures[rows]) ^ hashes(copies)))
    found = distances(hashes(pictures[rows]), hashes(pictures))
    found[np.arange(len(rows)), rows] = 64
    yield _shares(f"{name}: nearest other photo", found.min(1))


def _shares(what: str, found: NDArray[np.uint8]) -> str:
    return f"{what:<30}" + "".join(f"  {(found <= most).mean():6.1%} within {most}" for most in (6, 8, 10, 12))


def main() -> None:
    """Find near-duplicates, or measure what is near."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("find", "measure"))
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if options.command == "measure":
        for name in packs.PACKS:
            print("\n".join(measure(options.packs, name)), flush=True)
        return
    text = json.dumps(to_leave_out(options.packs), indent=1) + "\n"
    if options.output is None:
        print(text, end="")
    else:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
