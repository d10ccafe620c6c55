"""From upright RGB pixels and a tile plan to the pixel values that the vision graph takes, one tile at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgevl.errors import InputError
from edgevl.image.read import Picture, resize
from edgevl.image.tiling import TilePlan


def tiles(picture: Picture | NDArray[np.uint8], plan: TilePlan, resample: str) -> Iterator[NDArray[np.uint8]]:
    """Yield each tile of the plan, uint8 [tile, tile, 3]: the grid row by row, then the overview.

    The image is resized when the first tile is asked for, once. Raises InputError for a picture of another size than
    the plan's or an unknown `resample`.
    """
    rgb = picture.rgb if isinstance(picture, Picture) else picture
    if rgb.shape[:2] != plan.size:
        raise InputError(
            f"the tile plan is for {plan.size[0]}x{plan.size[1]} pixels (height x width), the picture is "
            f"{rgb.shape[0]}x{rgb.shape[1]}; plan it again"
        )
    resized = rgb
    for step in plan.steps:
        resized = resize(resized, step, resample)
    tile, (top, left) = plan.tile, plan.offset
    for row in range(top, top + plan.grid[0] * tile, tile):
        for col in range(left, left + plan.grid[1] * tile, tile):
            yield np.ascontiguousarray(resized[row : row + tile, col : col + tile])
    if any(plan.grid):
        yield resize(rgb if plan.overview_of == "image" else resized, (tile, tile), resample)
    else:
        yield np.ascontiguousarray(resized[top : top + tile, left : left + tile])


def normalise(
    tile_rgb: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]
) -> NDArray[np.float32]:  # [1, 3, tile, tile]
    """Turn a tile, uint8 [tile, tile, 3], into `pixel_values`, float32 [1, 3, tile, tile].

    A value v of channel c becomes (v / 255 - mean[c]) / std[c], rounded as the reference rounds it.
    """
    table = _table(mean, std)
    out = np.empty((1, 3, *tile_rgb.shape[:2]), dtype=np.float32)
    for channel in range(3):
        np.take(table[channel], tile_rgb[:, :, channel], out=out[0, channel])
    return out


@lru_cache(maxsize=8)
def _table(mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:  # [3, 256]
    """Normalise every possible value once: rescaled in float64, then normalised in float32.

    Source: transformers 5.23, image_transforms.py, `rescale` and `normalize`.
    """
    scaled = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    table: NDArray[np.float32] = (scaled - _column(mean)) / _column(std)
    table.flags.writeable = False
    return table


def _column(values: tuple[float, ...]) -> NDArray[np.float32]:  # [3, 1]
    return np.array(values, dtype=np.float32)[:, None]
