"""Pictures to measure on: the caller's, those that come with edgevl, or drawn ones.

Drawn pictures are arithmetic on arrays, the same on every machine. Textures are what few pictures show: they are to go
as far as a tile's activations may.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevl.image.read import Picture, read
from edgevl.model import hub

MAX_SAMPLES = 8
"""More pictures are not measured: each costs a pass of the reference."""


def pictures(paths: Sequence[Path] = ()) -> list[Picture]:
    """Return the pictures at `paths`, else the samples that come with edgevl, else four drawn ones.

    Raises ImageError for a path that is no image.
    """
    if paths:
        return [read(path, reduce=True) for path in paths]
    folder = hub.installed_folder() / "samples"
    found = sorted(folder.glob("*.png"))[:MAX_SAMPLES] if folder.is_dir() else []
    if found:
        return [read(path) for path in found]
    return [read(drawn(size, seed)) for seed, size in enumerate(((96, 96), (128, 192), (160, 120), (200, 200)))]


def drawn(size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """Draw a gradient with discs and boxes on it, uint8 [height, width, 3]; `size` is (height, width)."""
    height, width = size
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) % 256], axis=-1)
    rgb = (0.5 * ramp + 0.5 * rng.integers(0, 256, 3)).astype(np.uint8)
    for _ in range(4):
        row, col, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0.08, 0.25) * min(size)
        disc = (y - row) ** 2 + (x - col) ** 2 <= radius**2
        box = np.maximum(np.abs(y - row), np.abs(x - col)) <= radius
        rgb[disc if rng.random() < 0.5 else box] = rng.integers(0, 256, 3)
    return rgb


def textures(side: int) -> list[NDArray[np.uint8]]:
    """Return tiles uint8 [side, side, 3] at the edge of what a picture may hold.

    They are noise of all colours and of black and white, a checkerboard, and the three full colours.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:side, 0:side]
    grey = [rng.integers(0, 2, (side, side)) * 255, (x // 2 + y // 2) % 2 * 255]
    full = [np.broadcast_to(colour, (side, side, 3)) for colour in np.eye(3, dtype=int) * 255]
    tiles = [rng.integers(0, 256, (side, side, 3)), *(np.stack([one] * 3, axis=-1) for one in grey), *full]
    return [tile.astype(np.uint8) for tile in tiles]
