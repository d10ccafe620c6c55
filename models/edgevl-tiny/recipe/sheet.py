"""A sheet that keeps what is printed on it, and how it comes into a picture: paper, turning, blur, noise, JPEG.

Positions are (y, x) in pixels with y downwards, boxes (top, left, bottom, right). Texts and marks lie in the sheet's
own coordinates; a `View` says where the sheet's corner lies in the picture and by how much the whole is turned.
"""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from .drawn import Stock
from .scenes import texture

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]

JITTER = 4
"""A palette's colours vary by this much a channel; training and held-out ones lie further apart."""
CONTRAST = 105
"""The least difference in brightness (luma, of 255) between ink and paper."""
SMALLEST = 11
"""The least font size in pixels: from the top of an l to the foot of a p it is about 10 px."""
THIN = ("Thin", "Light", "Hairline")
THIN_FROM = 24

LIGHTS: tuple[tuple[Colour, ...], tuple[Colour, ...]] = (
    ((255, 255, 255), (250, 248, 240), (242, 242, 242), (255, 246, 214), (228, 238, 252), (232, 246, 232),
     (252, 232, 236), (236, 230, 246), (222, 214, 198), (206, 214, 220), (246, 226, 200), (214, 232, 226),
     (240, 214, 90), (170, 214, 240), (255, 190, 120), (176, 226, 150), (200, 200, 200)),
    ((226, 252, 250), (255, 222, 248), (212, 206, 174), (186, 240, 190), (250, 205, 205), (246, 248, 226)),
)  # fmt: skip
DARKS: tuple[tuple[Colour, ...], tuple[Colour, ...]] = (
    ((0, 0, 0), (30, 30, 34), (60, 60, 64), (20, 40, 110), (120, 20, 30), (10, 80, 50), (86, 40, 120), (90, 56, 24),
     (0, 92, 120), (150, 60, 0), (40, 60, 80), (170, 0, 90), (0, 70, 190), (190, 30, 30)),
    ((24, 16, 62), (66, 74, 10), (104, 0, 60), (0, 62, 66), (46, 34, 18)),
)  # fmt: skip


@dataclass(frozen=True)
class Palette:
    """The paper's colour and inks that can be read on it."""

    paper: Colour
    inks: tuple[Colour, ...]


def palette(rng: random.Random, stock: Stock, n_inks: int = 1, dark: float = 0.2, white: float = 0.0) -> Palette:
    """Draw a palette of this part; `dark` is the chance of light ink on dark paper, `white` of the first paper."""
    lights, darks = (part[stock.is_held_out] for part in (LIGHTS, DARKS))
    papers, inks = (darks, lights) if rng.random() < dark else (lights, darks)
    paper = papers[0] if rng.random() < white else rng.choice(papers)
    readable = [ink for ink in inks if abs(luma(ink) - luma(paper)) >= CONTRAST]
    return Palette(_near(rng, paper), tuple(_near(rng, rng.choice(readable)) for _ in range(n_inks)))


def luma(colour: Colour) -> float:
    """Return how bright a colour looks, from 0 to 255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def mixed(a: Colour, b: Colour, share: float) -> Colour:
    """Mix two colours, `share` of them the second."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def _near(rng: random.Random, colour: Colour) -> Colour:
    red, green, blue = (max(0, min(255, value + rng.randint(-JITTER, JITTER))) for value in colour)
    return red, green, blue


@lru_cache
def least_size(path: Path) -> int:
    """Return the least size in pixels at which a font is used; thin letters fade away sooner."""
    return THIN_FROM if any(thin in path.name for thin in THIN) else SMALLEST


def legible_font(rng: random.Random, stock: Stock, size: int) -> Path:
    """Draw a font of this part that can be read at `size`, or any where this part has none."""
    return rng.choice([path for path in stock.fonts if least_size(path) <= size] or stock.fonts)


def text_height(font: ImageFont.FreeTypeFont) -> int:
    """Return the height of a line of text in pixels."""
    return sum(font.getmetrics())


@lru_cache(maxsize=4096)
def text_width(font: ImageFont.FreeTypeFont, text: str) -> int:
    """Return the width that a line of text takes, in pixels."""
    return math.ceil(font.getlength(text))


@lru_cache(maxsize=1024)
def _ink(font: ImageFont.FreeTypeFont, text: str) -> tuple[float, float, float, float]:
    return font.getbbox(text)


@dataclass(frozen=True)
class Text:
    """One printed line; (y, x) is the upper left corner of its line, which lies above the ink."""

    text: str
    y: int
    x: int
    font: ImageFont.FreeTypeFont
    ink: Colour

    @property
    def box(self) -> Box:
        """Where its ink is."""
        left, top, right, bottom = _ink(self.font, self.text)
        return (
            math.floor(self.y + top),
            math.floor(self.x + left),
            math.ceil(self.y + bottom),
            math.ceil(self.x + right),
        )


@dataclass(frozen=True)
class Mark:
    """A rectangle below the text: a line, a band, a frame, a page."""

    box: Box
    fill: Colour | None = None
    outline: Colour | None = None
    thickness: int = 1


@dataclass(frozen=True)
class View:
    """Where a sheet is seen: the picture's (height, width), the place of the sheet's corner, the angle in degrees."""

    size: tuple[int, int]
    origin: tuple[int, int] = (0, 0)
    angle: float = 0.0

    def corners(self, box: Box) -> list[tuple[float, float]]:
        """Return the corners of a box of the sheet as they lie in the picture."""
        top, left, bottom, right = box
        return [self._turned(y, x) for y, x in ((top, left), (top, right), (bottom, left), (bottom, right))]

    def centre(self, box: Box) -> tuple[float, float]:
        """Return the centre of a box of the sheet as it lies in the picture."""
        return self._turned((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)

    def _turned(self, y: float, x: float) -> tuple[float, float]:
        centre_y, centre_x = self.size[0] / 2, self.size[1] / 2
        y, x = y + self.origin[0] - centre_y, x + self.origin[1] - centre_x
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        return centre_y + y * cos - x * sin, centre_x + x * cos + y * sin


def frame(size: tuple[int, int], angle: float, margin: int = 2) -> tuple[int, int]:
    """Return the largest rectangle (height, width) of a picture's proportions that, turned, stays inside of it."""
    height, width = size[0] - 2 * margin, size[1] - 2 * margin
    turned_height, turned_width = turned((height, width), angle)
    shrink = min(height / turned_height, width / turned_width)
    return int(height * shrink), int(width * shrink)


def turned(size: tuple[float, float], angle: float) -> tuple[float, float]:
    """Return the (height, width) that a rectangle takes when it is turned by `angle` degrees."""
    cos, sin = (abs(value) for value in (math.cos(math.radians(angle)), math.sin(math.radians(angle))))
    return size[0] * cos + size[1] * sin, size[1] * cos + size[0] * sin


@dataclass
class Sheet:
    """What is printed, in the order in which it was written."""

    texts: list[Text] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)

    def write(self, text: str, y: int, x: int, font: ImageFont.FreeTypeFont, ink: Colour) -> Text:
        """Print a line of text."""
        self.texts.append(Text(text, y, x, font, ink))
        return self.texts[-1]

    def mark(self, box: Box, fill: Colour | None = None, outline: Colour | None = None, thickness: int = 1) -> None:
        """Draw a rectangle; its right and bottom edges belong to it."""
        self.marks.append(Mark(box, fill, outline, thickness))

    def rule(self, y: int, x: int, width: int, ink: Colour, thickness: int = 1) -> None:
        """Draw a line from (y, x) to the right."""
        self.mark((y, x, y + thickness - 1, x + width), fill=ink)

    def painted(self, view: View, paper: Colour) -> Image.Image:
        """Print everything on plain paper."""
        picture = Image.new("RGB", (view.size[1], view.size[0]), paper)
        draw = ImageDraw.Draw(picture)
        down, right = view.origin
        for mark in self.marks:
            box = (mark.box[1] + right, mark.box[0] + down, mark.box[3] + right, mark.box[2] + down)
            draw.rectangle(box, mark.fill, mark.outline, mark.thickness)
        for text in self.texts:
            draw.text((text.x + right, text.y + down), text.text, text.ink, text.font)
        if view.angle:
            picture = picture.rotate(view.angle, Image.Resampling.BILINEAR, fillcolor=paper)
        return picture


def worn(rng: random.Random, picture: Image.Image, finest: float) -> Image.Image:
    """Give a picture uneven light or grain, blur and JPEG artefacts, as much as text of `finest` pixels can bear."""
    if rng.random() < 0.4:
        picture = _uneven(rng, picture)
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.BoxBlur(rng.uniform(0.2, min(1.6, 0.04 * finest))))
    if rng.random() < 0.25:
        picture = _grainy(rng, picture)
    if rng.random() < 0.35:
        picture = _compressed(picture, rng.randint(60 if finest < 16 else 35, 92))
    return picture


def _uneven(rng: random.Random, picture: Image.Image) -> Image.Image:
    pattern = texture(rng, (picture.height, picture.width))
    if pattern is None:
        return picture
    values = np.asarray(picture, np.float32) + pattern
    return Image.fromarray(np.clip(values, 0, 255, out=values).astype(np.uint8))


def _grainy(rng: random.Random, picture: Image.Image) -> Image.Image:
    numbers, reach = np.random.default_rng(rng.getrandbits(32)), rng.randint(4, 20)
    grain = numbers.integers(-reach, reach, (picture.height, picture.width, 1), np.int16, endpoint=True)
    return Image.fromarray(np.clip(np.asarray(picture, np.int16) + grain, 0, 255).astype(np.uint8))


def _compressed(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")
