"""Counts held-out pictures of generators that training draws too, as they are or nearly so.

    python -m edgevl.recipe.overlap PLACES --tasks grid words -n 500 --training 5000

where PLACES are the trainer's --packs, --fonts, --words and --work. Equal pictures would be a leak. Near ones, by the
hash of `duplicates`, are unavoidable where a picture shows one simple shape, and are counted so that they are known.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import scenes, subjects
from .data import Paths, stock
from .duplicates import NEAR, Grey, grey, nearness
from .heldout import GENERATED_TASKS, SCENE_TASKS, items, scene_question
from .plan import TILE

RGB = NDArray[np.uint8]


@dataclass(frozen=True)
class Overlap:
    """Of `n` held-out pictures, how many training draws to the last pixel, and how many it draws nearly so."""

    n: int
    n_equal: int
    n_near: int


def overlap(held_out: Iterable[RGB], training: Iterable[RGB]) -> Overlap:
    """Compare pictures [h, w, 3], at least one of each part."""
    (wanted, first), (known, second) = _read(held_out), _read(training)
    near = (nearness(first, second) <= NEAR).any(axis=1)
    return Overlap(len(wanted), sum(map(set(known).__contains__, wanted)), int(near.sum()))


def _read(pictures: Iterable[RGB]) -> tuple[list[bytes], Grey]:
    """Return a digest of each picture, size included, and its grey pixels."""
    found = [
        (sha256(repr(rgb.shape).encode() + rgb.tobytes()).digest(), grey(Image.fromarray(rgb))) for rgb in pictures
    ]
    return [digest for digest, _ in found], np.stack([picture for _, picture in found])


def drawn(paths: Paths, task: str, n: int) -> Iterator[RGB]:
    """Draw `n` pictures of a task as training draws them."""
    if task in SCENE_TASKS:
        for number in range(n):
            rng = random.Random(f"training-{task}-{number}")
            yield np.asarray(scenes.render(scene_question(rng, task, (TILE, TILE))[0], rng))
        return
    row = subjects.task(paths.packs, task)
    training = stock(paths, is_held_out=False)
    for number in range(n):
        picture = row.make(random.Random(f"training-{task}-{number}"), training).picture
        yield np.asarray(picture.convert("RGB"))


def main() -> None:
    """Count for some tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--packs", "--work", "--fonts", "--words"):
        parser.add_argument(option, type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=(*SCENE_TASKS, *GENERATED_TASKS), required=True)
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--training", type=int, default=5000)
    options = parser.parse_args()
    paths = Paths(options.packs, options.work / "packs", options.fonts, options.words)
    for task in options.tasks:
        held_out = (item.rgb for item in items(paths, task, options.n))
        found = overlap(held_out, drawn(paths, task, options.training))
        print(f"{task:<20} {found.n} held out: {found.n_equal} equal, {found.n_near} near", flush=True)


if __name__ == "__main__":
    main()
