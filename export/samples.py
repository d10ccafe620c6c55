"""Pictures to measure on: the caller's, those that come with edgevl, or drawn ones.

Drawn pictures are arithmetic on arrays, the same on every machine.
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
