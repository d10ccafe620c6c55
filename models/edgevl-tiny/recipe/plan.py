"""How the bundled model's pictures are cut into tiles: as the runtime cuts them."""

from __future__ import annotations

from edgevl.image import tiling

TILE = 128
PATCH = 8
GRID = TILE // PATCH
"""Patches along a side of a tile."""
LONGEST_EDGE = 384
"""Training cuts a picture into 3x3 tiles at most, and the overview."""
SHIPPED_EDGE = 256
"""The checkpoint asks for 2x2: nine tiles were worth little more than four (letters of words 79 % against 77, of
numbers 56 against 52, of 200 held-out pictures each; sixteen other tasks within the noise) and cost a large picture
twice the time."""


def plan(size: tuple[int, int]) -> tiling.TilePlan:
    """Plan the tiles of a picture of `size` (height, width)."""
    return tiling.split_grid(size, tile=TILE, longest_edge=LONGEST_EDGE)
