"""How an image is cut into tiles: pure arithmetic on sizes, no pixels.

A strategy is a function `(size, *, tile, longest_edge, detail) -> TilePlan`; `TILINGS` names it for the family
table. All sizes are (height, width) in pixels. Every plan ends with the overview, the whole image in one tile.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

from edgevl.errors import ImageError, InputError
from edgevl.model.manifest import ImageSpec
from edgevl.types import Detail

Size = tuple[int, int]
Box = tuple[float, float, float, float]

MAX_EDGE = 4096
"""No image of the reference plan is resized past this edge (pixels), whatever the model's longest edge is."""


@dataclass(frozen=True)
class TilePlan:
    """What becomes of one image: the sizes it is resized to in turn, and the grid that it is then cut into.

    `size` is the image's own size. The last of `steps` is (rows * tile, cols * tile); where the overview is the
    only tile, it is (tile, tile) and `grid` is (0, 0).
    """

    size: Size
    steps: tuple[Size, ...]
    grid: Size
    tile: int

    @property
    def n_tiles(self) -> int:
        """Tiles of the grid and the overview."""
        rows, cols = self.grid
        return rows * cols + 1

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Each tile's (top, left, bottom, right) in the image's own pixels: the grid row by row, then the whole."""
        (rows, cols), (height, width) = self.grid, self.size
        cells = tuple(
            (row * height / rows, col * width / cols, (row + 1) * height / rows, (col + 1) * width / cols)
            for row in range(rows)
            for col in range(cols)
        )
        return (*cells, (0.0, 0.0, float(height), float(width)))

    def __str__(self) -> str:
        rows, cols = self.grid
        cells = f"{rows}x{cols} tiles and the overview" if rows else "the overview alone"
        return f"{cells} of {self.tile} px"


class Tiling(Protocol):
    """A tiling strategy."""

    def __call__(self, size: Size, *, tile: int, longest_edge: int, detail: Detail = "auto") -> TilePlan: ...


def plan(size: Size, spec: ImageSpec, tiling: str, detail: Detail = "auto") -> TilePlan:
    """Return the tile plan of an image of `size` by the strategy called `tiling`.

    Raises ImageError for an image without pixels and InputError for a `detail` that is not "auto", "high", "low"
    or a number of tiles of at least 1.
    """
    if min(size) < 1:
        raise ImageError(f"the image is {size[0]}x{size[1]} pixels (height x width); both must be at least 1")
    return TILINGS[tiling](size, tile=spec.tile, longest_edge=spec.longest_edge, detail=detail)


def coarser(size: Size, spec: ImageSpec, tiling: str, detail: Detail = "auto") -> tuple[TilePlan, ...]:
    """Return the plans there are when `detail` is too much: its own first, then ever fewer tiles, the overview last.

    Raises what `plan` raises.
    """
    edges = range((spec.longest_edge - 1) // spec.tile * spec.tile, 0, -spec.tile)
    found = [plan(size, spec, tiling, detail)]
    for edge in edges:
        smaller = plan(size, replace(spec, longest_edge=edge), tiling, detail)
        if smaller.n_tiles < found[-1].n_tiles:
            found.append(smaller)
    overview = plan(size, spec, tiling, "low")
    return (*found, overview) if overview.n_tiles < found[-1].n_tiles else tuple(found)


def split_grid(size: Size, *, tile: int, longest_edge: int, detail: Detail = "auto") -> TilePlan:
    """Cut the image into a grid of square tiles, and add the overview.

    "high" is the reference plan; "low" the overview alone; "auto" a grid no larger than the reference's and no
    larger than the image's own pixels fill; a number n the largest reference plan with at most n tiles.
    Raises InputError for any other detail.
    """
    match _detail(detail):
        case "high":
            return _reference(size, tile, longest_edge)
        case "low":
            return _whole(size, tile)
        case "auto":
            return _auto(size, tile, longest_edge)
        case int(most):
            return _at_most(size, tile, longest_edge, most)
        case _:  # pragma: no cover
            raise AssertionError(detail)


TILINGS: dict[str, Tiling] = {"split_grid": split_grid}


def _detail(detail: Detail) -> Detail:
    """Return a checked detail; a number may also come as text, as it does from a command line."""
    if detail in ("auto", "high", "low"):
        return detail
    if isinstance(detail, str) and detail.isascii() and detail.isdigit() and len(detail) < 10:
        detail = int(detail)
    if isinstance(detail, int) and not isinstance(detail, bool) and detail >= 1:
        return detail
    raise InputError(f"detail is {detail!r}; it must be auto, high, low, or a number of tiles of at least 1")


def _whole(size: Size, tile: int) -> TilePlan:
    return TilePlan(size, ((tile, tile),), (0, 0), tile)


def _auto(size: Size, tile: int, longest_edge: int) -> TilePlan:
    most = _reference(size, tile, longest_edge).grid
    rows, cols = (min(max(limit, 1), max(side // tile, 1)) for limit, side in zip(most, size, strict=True))
    if rows * cols == 1:
        return _whole(size, tile)
    return TilePlan(size, ((rows * tile, cols * tile),), (rows, cols), tile)


def _at_most(size: Size, tile: int, longest_edge: int, most: int) -> TilePlan:
    shorter = (k * tile for k in range(longest_edge // tile, 0, -1) if k * tile < longest_edge)
    for edge in (longest_edge, *shorter):
        candidate = _reference(size, tile, edge)
        if candidate.n_tiles <= most:
            return candidate
    return _whole(size, tile)  # an odd tile size is rounded up to two tiles, so the loop can end without one


def _reference(size: Size, tile: int, longest_edge: int) -> TilePlan:
    """Resize to the longest edge, then to whole tiles, and cut.

    The roundings are floating-point and in the reference's order: an exact version differs for some sizes.
    Source: transformers 5.23, models/idefics3/image_processing_pil_idefics3.py, `resize` to `split_images`.
    """
    first = _at_most_max_edge(_to_longest_edge(size, longest_edge))
    second = _to_whole_tiles(first, tile)
    rows, cols = second[0] // tile, second[1] // tile
    grid = (rows, cols) if max(rows, cols) > 1 else (0, 0)
    return TilePlan(size, (first, second), grid, tile)


def _to_longest_edge(size: Size, longest_edge: int) -> Size:
    """Make the longer side `longest_edge` and the shorter one even, also where that enlarges the image."""
    height, width = size
    aspect = width / height
    if width >= height:
        short = int(longest_edge / aspect)
        return max(short + short % 2, 1), longest_edge
    short = int(longest_edge * aspect)
    return longest_edge, max(short + short % 2, 1)


def _at_most_max_edge(size: Size) -> Size:
    height, width = size
    aspect = width / height
    if width >= height and width > MAX_EDGE:
        return max(int(MAX_EDGE / aspect), 1), MAX_EDGE
    if height > width and height > MAX_EDGE:
        return MAX_EDGE, max(int(MAX_EDGE * aspect), 1)
    return size


def _to_whole_tiles(size: Size, tile: int) -> Size:
    """Round the longer side up to whole tiles, scale the shorter one with it, and round that up too."""
    height, width = size
    aspect = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        return math.ceil(int(width / aspect) / tile) * tile, width
    height = math.ceil(height / tile) * tile
    return height, math.ceil(int(height * aspect) / tile) * tile
