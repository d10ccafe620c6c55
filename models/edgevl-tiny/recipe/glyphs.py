"""Tiles full of text with the letter that lies in each half of every patch: what the encoder learns letters from.

Shapes were learned from crowded scenes with a label for every patch, and so are letters. A patch is split into halves
because small letters are narrower than a patch.
"""

from __future__ import annotations

import math
import random
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from . import drawn, values
from .drawn import Drawn, Stock
from .phrasings import ABOVE, BELOW, ORDINALS, READ_LINE, READ_NTH, ask
from .plan import GRID, IGNORE, PATCH, TILE
from .printed import cased
from .questions import QA
from .sheet import Palette, legible_font, palette, text_height, text_width, worn

GLYPHS = ascii_lowercase + digits + ascii_uppercase + ".,:;!?-/$€£%()[]{}'\"#&+=*@_"
HALVES = ("left_glyph", "right_glyph")
"""The labels of a patch's halves: int64 [256] each; 0 no letter, 1 + index into `GLYPHS`, -100 unsure."""
MARKED = ("{},", "{}.", "({})", "{}:", '"{}"', "{}!", "{}?", "{}-", "{};", "'{}'", "[{}]")
TURNED_SIDE = 160
"""A tile that is turned is cut from the middle of one of this many pixels a side."""
SIZES = (9, 64)
"""Least and largest font size in pixels; sizes of equal ratio are equally likely."""
MOST_WORDS = 6
"""Words of a tile that is asked about, at most."""
MEASURED = 64
"""Letters are measured once a font, at this size in pixels, and the rest is proportion."""
UNKNOWN = 255  # in a map of letters: one that has no label


class _Lines:
    """Lines written on a square, and beside it the map of their letters: each pixel's letter, 0 for none."""

    def __init__(self, side: int, colours: Palette) -> None:
        self.side, self.colours, self.finest = side, colours, math.inf
        self.picture = Image.new("RGB", (side, side), colours.paper)
        self.letters = np.zeros((side, side), np.uint8)
        self._draw = ImageDraw.Draw(self.picture)

    def write(self, rng: random.Random, text: str, y: int, x: int, font: ImageFont.FreeTypeFont) -> None:
        """Write a line whose upper left corner is (y, x), which may lie outside."""
        self._draw.text((x, y), text, rng.choice(self.colours.inks), font)
        self.finest = min(self.finest, font.size)
        widths = _widths(font, text)
        stretch = font.getlength(text) / max(1.0, sum(widths))  # kerning and hinting, spread over the line
        start = float(x)
        for letter, width in zip(text, widths, strict=True):
            end = start + width * stretch
            if letter != " " and end > 0 and start < self.side:
                top, bottom = _rows(font, letter)
                rows = slice(max(0, y + top), max(0, y + bottom))
                self.letters[rows, max(0, round(start)) : max(0, round(end))] = _number(letter)
            start = end

    def cut(self, rng: random.Random, angle: float) -> tuple[Image.Image, NDArray[np.uint8]]:
        """Turn all by `angle` degrees, cut out the middle, and wear the picture."""
        picture, letters = self.picture, Image.fromarray(self.letters)
        if angle:
            picture = picture.rotate(angle, Image.Resampling.BILINEAR, fillcolor=self.colours.paper)
            letters = letters.rotate(angle, Image.Resampling.NEAREST)
        edge = (self.side - TILE) // 2
        box = (edge, edge, edge + TILE, edge + TILE)
        return worn(rng, picture.crop(box), self.finest), np.asarray(letters.crop(box))


def page_tile(rng: random.Random, stock: Stock) -> Drawn:
    """Draw a tile from the middle of a page, which nothing is asked about."""
    lines, angle = _sheet(rng, stock)
    _full(rng, stock, lines)
    picture, letters = lines.cut(rng, angle)
    return Drawn(picture, labels=patch_labels(letters))


def text_tile(rng: random.Random, stock: Stock) -> Drawn:
    """Draw a tile of a few whole words, which are asked about."""
    lines, angle = _sheet(rng, stock)
    rows = _few(rng, stock, lines, angle)
    picture, letters = lines.cut(rng, angle)
    return Drawn(picture, _asked(rng, stock, rows), patch_labels(letters))


def _sheet(rng: random.Random, stock: Stock) -> tuple[_Lines, float]:
    """Draw an empty square, and by how many degrees it is going to be turned."""
    angle = 0.0 if rng.random() < 0.6 else rng.uniform(-3, 3) if rng.random() < 0.7 else rng.uniform(-8, 8)
    colours = palette(rng, stock, n_inks=rng.choice((1, 1, 2)), dark=0.3)
    return _Lines(TURNED_SIDE if angle else TILE, colours), angle


def _full(rng: random.Random, stock: Stock, lines: _Lines) -> None:
    """Fill a square with lines that run over its edges, of one size or of several."""
    size, one_size = _size(rng), rng.random() < 0.7
    path, gap = legible_font(rng, stock, size), rng.uniform(1.0, 1.5)
    y = -rng.randint(0, size)
    while y < lines.side:
        if not one_size:
            size = _size(rng)
            path = legible_font(rng, stock, size)
        font = drawn.font(path, size)
        if rng.random() < 0.93:
            x = rng.randint(-2 * size, size)
            end = lines.side if rng.random() < 0.8 else rng.randint(lines.side // 3, lines.side)
            lines.write(rng, _line(rng, stock, font, end - x), y, x, font)
        y += int(text_height(font) * gap)


def _line(rng: random.Random, stock: Stock, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Put parts side by side until they reach `width`."""
    case = rng.choice((str, str, str.capitalize, str.title, str.upper))
    parts: list[str] = []
    written = 0.0
    while written < width:
        parts.append(_part(rng, case(rng.choice(stock.words))))
        written += sum(_widths(font, parts[-1] + " "))
    return " ".join(parts)


def _part(rng: random.Random, word: str) -> str:
    """Return `word`, with a mark, or something else in its place: a number, a date, letters without a sense."""
    style = rng.random()
    if style < 0.55:
        return word
    if style < 0.67:
        return rng.choice(MARKED).format(word)
    if style < 0.85:
        make = rng.choice((values.number, values.code, values.phone, values.dated, values.timed))
        return make(rng)
    return "".join(rng.choice(GLYPHS) for _ in range(rng.randint(2, 7)))


def _few(rng: random.Random, stock: Stock, lines: _Lines, angle: float) -> list[str]:
    """Write one to six words in up to three rows that are seen as a whole; return the rows."""
    margin = (lines.side - TILE) // 2 + 2 + round(TILE / 2 * math.sin(math.radians(abs(angle))))
    room = lines.side - 2 * margin
    while True:
        rows = _rows_of_words(rng, stock)
        size = _size(rng)
        font = drawn.font(legible_font(rng, stock, size), size)
        height = text_height(font)
        if len(rows) * height <= room and all(text_width(font, row) <= room for row in rows):
            break
    y = margin + rng.randint(0, room - len(rows) * height)
    for row in rows:
        lines.write(rng, row, y, margin + rng.randint(0, room - text_width(font, row)), font)
        y += height
    return rows


def _asked(rng: random.Random, stock: Stock, rows: list[str]) -> tuple[QA, ...]:
    """Ask for all that is written and, of several rows, for each by its number and for one by its neighbour."""
    pairs = [ask(rng, stock, READ_LINE, " ".join(rows))]
    if len(rows) == 1:
        return tuple(pairs)
    for nth, row in enumerate(rows):
        is_last = nth == len(rows) - 1 and rng.random() < 0.5
        pairs.append(ask(rng, stock, READ_NTH, row, "last" if is_last else ORDINALS[nth]))
    upper, lower = rng.choice(tuple(pairwise(rows)))
    pairs.append(ask(rng, stock, BELOW, lower, upper) if rng.random() < 0.5 else ask(rng, stock, ABOVE, upper, lower))
    return tuple(pairs)


def _rows_of_words(rng: random.Random, stock: Stock) -> list[str]:
    n = rng.choice((1, 1, 2, 2, 3, 4, 5, MOST_WORDS))
    parts = [cased(rng, rng.choice(stock.words)) for _ in range(n)]
    if rng.random() < 0.5:
        nth = rng.randrange(n)
        parts[nth] = _part(rng, parts[nth])
    n_rows = rng.randint(1, min(3, n))
    ends = [round(n * row / n_rows) for row in range(n_rows + 1)]
    return [" ".join(parts[start:end]) for start, end in pairwise(ends)]


def _size(rng: random.Random) -> int:
    least, most = SIZES
    return round(least * (most / least) ** rng.random())


def patch_labels(letters: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
    """Label the halves of every patch from a map of letters [128, 128].

    A half is the letter that most of its middle shows if that is at least 40 % of it, nothing where no letter is near.
    """
    halves = letters.reshape(GRID, PATCH, 2 * GRID, PATCH // 2).transpose(0, 2, 1, 3)  # [row, half, y, x]
    middle = halves[:, :, 2:6].reshape(-1, 4 * PATCH // 2).astype(np.int64)
    n = len(middle)
    counts = np.bincount((middle + 256 * np.arange(n)[:, None]).ravel(), minlength=256 * n).reshape(n, 256)
    counts[:, 0] = 0
    best = counts.argmax(1)
    label = np.where((counts.max(1) >= 0.4 * middle.shape[1]) & (best != UNKNOWN), best, IGNORE)
    label[~halves.reshape(n, -1).any(1)] = 0
    sides = label.reshape(-1, 2).T  # a row's halves alternate
    return dict(zip(HALVES, np.ascontiguousarray(sides, np.int64), strict=True))


def _number(letter: str) -> int:
    return 1 + GLYPHS.index(letter) if letter in GLYPHS else UNKNOWN


def _widths(font: ImageFont.FreeTypeFont, text: str) -> list[float]:
    """Return about how wide each letter is, in pixels."""
    scale = font.size / MEASURED
    return [scale * _measured(str(font.path), letter)[0] for letter in text]


def _rows(font: ImageFont.FreeTypeFont, letter: str) -> tuple[int, int]:
    """Return from where to where a letter counts, below the line's top: its ink and the height of an x."""
    scale, path = font.size / MEASURED, str(font.path)
    (_, top, bottom), (_, x_top, x_bottom) = _measured(path, letter), _measured(path, "x")
    return math.floor(scale * min(top, x_top)), math.ceil(scale * max(bottom, x_bottom))


@lru_cache(maxsize=1 << 15)
def _measured(path: str, letter: str) -> tuple[float, float, float]:
    """Measure a letter's advance and where its ink begins and ends below the line's top, at a size of `MEASURED`."""
    font = drawn.font(Path(path), MEASURED)
    _, top, _, bottom = font.getbbox(letter)
    return font.getlength(letter), top, bottom
