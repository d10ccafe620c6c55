"""The pictures that are asked about: made here or the user's own, and with fresh pixels for every question."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevl.image.read import Picture, jpeg_bytes, read, resize
from edgevl.request import read_picture

Size = tuple[int, int]
_OCTAVES = (3, 6, 12, 24, 48, 96, 192)  # detail at every scale, as in photographs: cells along a side
_NOISE = 8  # levels; enough that no tile is the same after it has been made smaller


@dataclass(frozen=True)
class Subject:
    """A picture to ask about: where its encoded form lies, its (height, width), and the limit it is read under."""

    path: Path
    size: Size
    max_pixels: int | None = None
    reduce: bool = False

    def read(self) -> Picture:
        """Read the encoded form."""
        return read_picture(self.path, self.max_pixels, self.reduce)

    @property
    def options(self) -> list[str]:
        """What `edgevl ask` is to be told, so that it reads the picture so."""
        reduce = ["--reduce"] if self.reduce else []
        return reduce if self.max_pixels is None else [*reduce, "--max-pixels", str(self.max_pixels)]

    def fresh(self, picture: Picture, rng: np.random.Generator) -> Picture:
        """Return `picture` with noise over it: another image for every store, and the same amount of work."""
        noise = rng.integers(0, _NOISE, picture.rgb.shape, np.uint8)
        return read(np.where(picture.rgb < 256 - _NOISE, picture.rgb + noise, picture.rgb - noise))


def made(side: int, folder: Path) -> Subject:
    """Write a square JPEG photograph of nothing, `side` pixels wide, the same on every machine."""
    path = folder / f"{side}.jpg"
    path.write_bytes(jpeg_bytes(synthetic(side)))
    return Subject(path, (side, side))


def given(
    path: Path, sides: tuple[int, ...], folder: Path, max_pixels: int | None = None, reduce: bool = False
) -> list[Subject]:
    """Return the user's picture: at its own size, or as JPEG files of which the longer side has `sides` pixels.

    `max_pixels` and `reduce` are for the user's own file, as `edgevl.image.read.read` takes them. Raises ImageError
    for a file that cannot be read.
    """
    picture = read_picture(path, max_pixels, reduce)
    if not sides:
        return [Subject(path, picture.size, max_pixels, reduce)]
    return [_scaled(picture, side, folder) for side in sides]


def synthetic(side: int) -> NDArray[np.uint8]:  # [side, side, 3]
    """Return a deterministic picture with as much detail at every scale as photographs have."""
    rng = np.random.default_rng(0)
    total = np.zeros((side, side, 3), np.float32)
    for n_cells in _OCTAVES:
        cells = rng.integers(0, 256, (n_cells, n_cells, 3), np.uint8)
        if n_cells <= side:
            total += resize(cells, (side, side), "bicubic").astype(np.float32) / n_cells
    low, high = total.min(), total.max()
    picture: NDArray[np.uint8] = ((total - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    return picture


def _scaled(picture: Picture, side: int, folder: Path) -> Subject:
    height, width = picture.size
    scale = side / max(height, width)
    size = max(round(height * scale), 1), max(round(width * scale), 1)
    path = folder / f"{side}.jpg"
    path.write_bytes(jpeg_bytes(resize(picture.rgb, size, "lanczos")))
    return Subject(path, size)
