"""A canvas to draw on in pixels of the finished picture: lines and shapes with smooth edges, and text.

Positions are (x, y) as Pillow has them, in the pixels of the finished picture; fractions are kept. Sizes are
(height, width).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .colours import RGB
from .drawn import font

Point = tuple[float, float]
Corners = tuple[float, float, float, float]
"""Left, top, right, bottom."""
SMOOTH = 2
"""A smooth canvas is drawn this many times larger, and reduced."""


def canvas_size(rng: random.Random, least: int = 256, most: int = 512) -> tuple[int, int]:
    """Draw a size, square three times out of five."""
    side = rng.randint(least, most)
    return (side, side) if rng.random() < 0.6 else (rng.randint(least, most), rng.randint(least, most))


class Canvas:
    """Draws on a ground of one colour; one that is not smooth has hard edges."""

    def __init__(self, size: tuple[int, int], ground: RGB, smooth: bool = True) -> None:
        self.size = size
        self.scale = SMOOTH if smooth else 1
        self._image = Image.new("RGB", (size[1] * self.scale, size[0] * self.scale), ground)
        self._draw = ImageDraw.Draw(self._image)

    def picture(self) -> Image.Image:
        """Return what was drawn."""
        return self._image.reduce(self.scale) if self.scale > 1 else self._image

    def line(self, points: Sequence[Point], colour: RGB, width: float) -> None:
        """Draw a polyline with round joints and ends."""
        thick = self._thick(width)
        scaled = self._scaled(points)
        self._draw.line(scaled, fill=colour, width=thick)
        if thick > 2:
            half = thick / 2 - 0.5
            for x, y in scaled:
                self._draw.ellipse((x - half, y - half, x + half, y + half), fill=colour)

    def dashes(self, start: Point, end: Point, colour: RGB, width: float, dash: float, gap: float) -> None:
        """Draw a broken line."""
        length = math.dist(start, end)
        along = ((end[0] - start[0]) / length, (end[1] - start[1]) / length) if length else (0.0, 0.0)
        place = 0.0
        while place < length:
            until = min(place + dash, length)
            self.line([(start[0] + along[0] * at, start[1] + along[1] * at) for at in (place, until)], colour, width)
            place += dash + gap

    def disc(
        self, centre: Point, radius: float, fill: RGB | None, outline: RGB | None = None, width: float = 1
    ) -> None:
        """Draw a circle; `radius` reaches to the outer edge of its outline."""
        self.oval(centre, (radius, radius), fill, outline, width)

    def oval(self, centre: Point, radii: Point, fill: RGB | None, outline: RGB | None = None, width: float = 1) -> None:
        """Draw an ellipse by its horizontal and vertical radius, to the outer edge of its outline."""
        (x, y), (rx, ry) = centre, radii
        self._draw.ellipse(self._box((x - rx, y - ry, x + rx, y + ry)), fill, outline, self._thick(width))

    def box(
        self, corners: Corners, fill: RGB | None, outline: RGB | None = None, width: float = 1, radius: float = 0
    ) -> None:
        """Draw a rectangle, with round corners of `radius`."""
        if radius:
            scaled = self._box(corners)
            bent = min(radius * self.scale, (scaled[2] - scaled[0]) / 2, (scaled[3] - scaled[1]) / 2)
            self._draw.rounded_rectangle(scaled, bent, fill, outline, self._thick(width))
        else:
            self._draw.rectangle(self._box(corners), fill, outline, self._thick(width))

    def polygon(self, points: Sequence[Point], fill: RGB | None, outline: RGB | None = None, width: float = 1) -> None:
        """Draw a closed shape, its outline centred on the edge."""
        if fill is not None:
            self._draw.polygon(self._scaled(points), fill=fill)
        if outline is not None:
            self.line([*points, points[0]], outline, width)

    def slice(self, centre: Point, radius: float, angles: Point, fill: RGB, outline: RGB | None, width: float) -> None:
        """Draw a slice of a pie between two angles in degrees, clockwise from the right."""
        x, y = centre
        around = self._box((x - radius, y - radius, x + radius, y + radius))
        self._draw.pieslice(around, *angles, fill, outline, self._thick(width))

    def text(self, at: Point, text: str, letters: ImageFont.FreeTypeFont, colour: RGB, anchor: str = "la") -> None:
        """Write a line of text; `anchor` as Pillow has it."""
        scaled = letters if self.scale == 1 else font(Path(str(letters.path)), round(letters.size * self.scale))
        self._draw.text((at[0] * self.scale, at[1] * self.scale), text, fill=colour, font=scaled, anchor=anchor)

    def _thick(self, width: float) -> int:
        return max(1, round(width * self.scale))

    def _scaled(self, points: Iterable[Point]) -> list[Point]:
        return [(x * self.scale, y * self.scale) for x, y in points]

    def _box(self, corners: Corners) -> Corners:
        left, top, right, bottom = (value * self.scale for value in corners)
        return left, top, max(left, right - 1), max(top, bottom - 1)
