"""How the bundled model's pictures are cut into tiles: as the runtime cuts them."""

from __future__ import annotations

from edgevl.image import tiling

TILE = 128
LONGEST_EDGE = 384
"""A picture becomes at most 3x3 tiles and the overview."""


def plan(size: tuple[int, int]) -> tiling.TilePlan:
    """Plan the tiles of a picture of `size` (height, width)."""
    return tiling.split_grid(size, tile=TILE, longest_edge=LONGEST_EDGE)
