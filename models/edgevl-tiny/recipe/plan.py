"""How the bundled model's pictures are cut into tiles: as the runtime cuts them."""

from __future__ import annotations

from edgevl.image import tiling

TILE = 128
LONGEST_EDGE = 384
"""Training cuts a picture into 3x3 tiles at most, and the overview."""
SHIPPED_EDGE = 256
"""The checkpoint asks for 2x2: as long as print is not read, nine tiles were worth no more than four (of 300 held-out
questions each, counting 72.7 % against 76.7 %, relations 96.0 % against 94.7 %) and cost a large picture
twice the time."""


def plan(size: tuple[int, int]) -> tiling.TilePlan:
    """Plan the tiles of a picture of `size` (height, width)."""
    return tiling.split_grid(size, tile=TILE, longest_edge=LONGEST_EDGE)
