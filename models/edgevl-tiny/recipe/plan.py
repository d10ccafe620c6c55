"""How the bundled model's pictures are cut into tiles, as the runtime cuts them, and tiles into patches."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from edgevl.image import tiling

TILE = 128
PATCH = 8
GRID = TILE // PATCH
"""Patches along a side of a tile."""
N_PATCHES = GRID**2
IGNORE = -100
"""The label of a patch of which it is not sure what it shows."""
LONGEST_EDGE = 256
"""A picture is cut into 2x2 tiles at most, and the overview.

A model that had learned from 3x3 too read little more with them than with 2x2 (letters of words 79 % against 77, of
numbers 56 against 52, of 200 held-out pictures each; sixteen other tasks within the noise). They cost a large picture
twice the time, and took a third of the tiles that training had to spend.
"""


def plan(size: tuple[int, int]) -> tiling.TilePlan:
    """Plan the tiles of a picture of `size` (height, width)."""
    return tiling.split_grid(size, tile=TILE, longest_edge=LONGEST_EDGE)


def by_patch(values: NDArray[Any]) -> NDArray[Any]:
    """Turn a map of a tile, [n * GRID, n * GRID], into what each patch holds: [GRID * GRID, n * n]."""
    n = len(values) // GRID
    return values.reshape(GRID, n, GRID, n).transpose(0, 2, 1, 3).reshape(GRID * GRID, n * n)
