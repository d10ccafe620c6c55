"""Draw a tile plan over the picture that it is for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgevl.image.read import Picture, draw_text
from edgevl.image.tiling import TilePlan

_LINE = (255, 0, 96)


def draw_plan(picture: Picture | NDArray[np.uint8], plan: TilePlan) -> NDArray[np.uint8]:
    """Return a copy of the picture, uint8 [h, w, 3], with each tile's border and number.

    Tiles are numbered from 1, row by row, as the model reads them; the overview is the outer border and has no
    number, since it shows the whole. Lines grow with the picture, so that they can still be seen when it is shrunk.
    """
    rgb = np.array(picture.rgb if isinstance(picture, Picture) else picture)
    height, width = rgb.shape[:2]
    line = max(1, round(max(height, width) / 400))
    for box in plan.boxes:
        _border(rgb, box, line)
    for number, (top, left, bottom, right) in enumerate(plan.boxes[:-1], start=1):
        text_height = int(min(bottom - top, right - left) / 5)
        if text_height >= 6:
            draw_text(rgb, str(number), (round(top) + line, round(left) + line), min(text_height, 12 * line + 8))
    return rgb


def _border(rgb: NDArray[np.uint8], box: tuple[float, float, float, float], line: int) -> None:
    top, left, bottom, right = (round(edge) for edge in box)
    area = rgb[top:bottom, left:right]
    for part in (area[:line], area[-line:], area[:, :line], area[:, -line:]):
        part[:] = _LINE
