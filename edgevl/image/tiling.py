"""How an image is cut into tiles: pure arithmetic on sizes, no pixels.

A strategy is a function `(size, *, tile, longest_edge, detail) -> TilePlan`; `TILINGS` names it for the family
table. All sizes are (height, width) in pixels. Every plan ends with the overview, the image in one tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from numbers import Integral
from typing import Literal, Protocol

from edgevl.errors import ImageError, InputError
from edgevl.model.manifest import ImageSpec
from edgevl.types import Detail

Size = tuple[int, int]
Box = tuple[float, float, float, float]

MAX_EDGE = 4096
"""`split_grid`'s reference plan resizes no image past this edge (pixels), whatever the model's longest edge is."""

MAX_RESIZED = 1 << 26
"""No image is resized to more pixels than this before its middle is cut out, however long and thin it is."""


@dataclass(frozen=True)
class TilePlan:
    """What becomes of one image: the sizes it is resized to in turn, and the grid that is then cut from it.

    `size` is the image's own size. The grid lies at `offset`, (top, left), in the last of `steps`, which is as large
    as the grid wherever nothing is cut off. Where the overview is the only tile, `grid` is (0, 0) and the overview lies
    there; else it is resized from `overview_of`: the resized image, or the image as it came.
    """

    size: Size
    steps: tuple[Size, ...]
    grid: Size
    tile: int
    offset: Size = (0, 0)
    overview_of: Literal["resized", "image"] = "resized"

    @property
    def n_tiles(self) -> int:
        """Tiles of the grid and the overview."""
        rows, cols = self.grid
        return rows * cols + 1

    @property
    def resizes(self) -> tuple[tuple[Size, Size], ...]:
        """Every resizing that cutting takes, as (from, to)."""
        steps = tuple(pairwise((self.size, *self.steps)))
        if not any(self.grid):
            return steps
        source = self.size if self.overview_of == "image" else self.steps[-1]
        return (*steps, (source, (self.tile, self.tile)))

    @property
    def boxes(self) -> tuple[Box, ...]:
        """Each tile's (top, left, bottom, right) in the image's own pixels: the grid row by row, then the overview."""
        rows, cols = self.grid
        if not any(self.grid):
            return (self._box(0, 0),)
        cells = tuple(self._box(row, col) for row in range(rows) for col in range(cols))
        return (*cells, (0.0, 0.0, float(self.size[0]), float(self.size[1])))

    def _box(self, row: int, col: int) -> Box:
        top, left = self.offset[0] + row * self.tile, self.offset[1] + col * self.tile
        (height, width), (resized_height, resized_width) = self.size, self.steps[-1]
        return (
            top * height / resized_height,
            left * width / resized_width,
            (top + self.tile) * height / resized_height,
            (left + self.tile) * width / resized_width,
        )

    def __str__(self) -> str:
        rows, cols = self.grid
        if rows:
            return f"{rows}x{cols} tiles and the overview of {self.tile} px"
        is_whole = self.steps[-1] == (self.tile, self.tile)
        return f"{'the overview' if is_whole else 'the middle'} alone of {self.tile} px"


class Tiling(Protocol):
    """A tiling strategy."""

    def __call__(self, size: Size, *, tile: int, longest_edge: int, detail: Detail = "auto") -> TilePlan: ...


def plan(size: Size, spec: ImageSpec, tiling: str, detail: Detail = "auto") -> TilePlan:
    """Return the tile plan of an image of `size` by the strategy called `tiling`.

    Raises ImageError for an image without pixels and InputError for a `detail` that is not "auto", "high", "low"
    or a number of tiles of at least 1, and for a size that is none.
    """
    if len(size) != 2:
        raise InputError(f"size is {repr(size)[:60]}; it must be a height and a width")
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
    match checked_detail(detail):
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


def closest_grid(size: Size, *, tile: int, longest_edge: int, detail: Detail = "auto") -> TilePlan:
    """Stretch the image onto the grid of nearest proportions, at most `longest_edge` of tiles, and add the overview.

    "high" is the reference plan; "low" the overview alone; "auto" the grid of nearest proportions among those that
    have no more tiles than the reference's and are no larger than the image's own pixels fill; a number n the reference
    plan with at most n tiles. Raises InputError for any other detail.
    """
    most = max(longest_edge // tile, 1)
    match checked_detail(detail):
        case "high":
            grid = _closest(size, tile, _grids(most))
        case "low":
            return _whole(size, tile)
        case "auto":
            rows, cols = _closest(size, tile, _grids(most))
            grid = _closest(size, tile, [grid for grid in _grids(rows * cols) if _is_filled(size, tile, grid)])
        case int(n):
            grid = _closest(size, tile, _grids(max(min(most, n - 1), 1)))
        case _:  # pragma: no cover
            raise AssertionError(detail)
    if grid == (1, 1):
        return _whole(size, tile)
    return TilePlan(size, ((grid[0] * tile, grid[1] * tile),), grid, tile, overview_of="image")


def centre_square(size: Size, *, tile: int, longest_edge: int, detail: Detail = "auto") -> TilePlan:
    """Take the middle square of the image as the only tile, for every detail.

    The shorter side becomes a tile long, and what sticks out of the longer one is cut off, half on each side.
    `longest_edge` is not used: there is one tile. Raises InputError for an unknown detail.
    Source: transformers 5.23, image_transforms.py, `get_resize_output_image_size` and `center_crop`.
    """
    checked_detail(detail)
    height, width = size
    longer = min(int(tile * max(size) / min(size)), MAX_RESIZED // tile)
    resized = (longer, tile) if width <= height else (tile, longer)
    offset = ((resized[0] - tile) // 2, (resized[1] - tile) // 2)
    return TilePlan(size, (resized,), (0, 0), tile, offset)


TILINGS: dict[str, Tiling] = {
    "split_grid": split_grid,
    "closest_grid": closest_grid,
    "centre_square": centre_square,
}


def checked_detail(detail: Detail) -> Detail:
    """Return a checked detail; a number may also come as text, as it does from a command line.

    Raises InputError for anything else.
    """
    given: object = detail
    if isinstance(given, str):
        if given in ("auto", "high", "low"):
            return detail
        if given.isascii() and given.isdigit() and len(given) < 10:
            given = int(given)
    if not isinstance(given, bool) and isinstance(given, Integral) and 1 <= int(given) < 10**9:
        return int(given)
    raise InputError(
        f"detail is {repr(detail)[:60]}; it must be auto, high, low, or a number of tiles from 1 to 999999999"
    )


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
    """Round the longer side up to whole tiles, scale the shorter one with it, and round that up too.

    One pixel stays at least one: for some lengths, n * (1 / n) is less.
    """
    height, width = size
    aspect = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        return math.ceil(max(int(width / aspect), 1) / tile) * tile, width
    height = math.ceil(height / tile) * tile
    return height, math.ceil(max(int(height * aspect), 1) / tile) * tile


@lru_cache(maxsize=64)
def _grids(most: int) -> tuple[Size, ...]:
    """Return every grid of at most `most` tiles, the fewest tiles first and then the fewest columns."""
    grids = [(rows, cols) for cols in range(1, most + 1) for rows in range(1, most // cols + 1)]
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))


def _is_filled(size: Size, tile: int, grid: Size) -> bool:
    """Return whether an image has the pixels that a grid shows in both directions; one tile always counts as filled."""
    return all(n == 1 or n * tile <= side for n, side in zip(grid, size, strict=True))


def _closest(size: Size, tile: int, grids: Sequence[Size]) -> Size:
    """Return the grid of nearest proportions; of two that are as near, the later one if the image is large enough.

    That is the one with more tiles, as long as they show less than twice the image's own pixels.
    Source: transformers 5.23, models/got_ocr2/image_processing_pil_got_ocr2.py, `get_optimal_tiled_canvas`.
    """
    aspect, area = size[1] / size[0], size[0] * size[1]
    best, nearest = (1, 1), math.inf
    for rows, cols in grids:
        distance = abs(aspect - cols / rows)
        if distance < nearest or (distance == nearest and area > 0.5 * tile * tile * cols * rows):
            best, nearest = (rows, cols), distance
    return best
