"""Draws charts: bars upright or lying, stacked or side by side, lines, and pies, with axes, legend and title."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise

from PIL import Image, ImageFont

from .canvas import Canvas, Corners, Point
from .colours import RGB, mix, text_on

Letters = ImageFont.FreeTypeFont
NUMBERS_AT = 0.72
"""Numbers of a pie stand so far from its centre, in parts of the radius."""


@dataclass(frozen=True)
class Key:
    """A row of a legend: what it stands for, and its colour with the name of that."""

    name: str
    colour_name: str
    colour: RGB


@dataclass(frozen=True)
class Chart:
    """What a chart shows: `values[series][category]`.

    `keys` are the series, of a pie its categories. The axis goes from 0 to `top` in steps of `step`; with `printed`
    every value stands at its mark; with `across` bars lie. `digits` are those behind the point.
    """

    kind: str  # bar, stacked, line or pie
    title: str
    categories: tuple[str, ...]
    keys: tuple[Key, ...]
    values: tuple[tuple[float, ...], ...]
    top: float
    step: float
    digits: int = 0
    printed: bool = False
    across: bool = False

    def text(self, value: float) -> str:
        """Write a value as the chart does."""
        return f"{value:.{self.digits}f}"

    @property
    def has_legend(self) -> bool:
        """Whether colours tell series or slices apart."""
        return self.kind == "pie" or len(self.keys) > 1


@dataclass(frozen=True)
class Look:
    """How a chart is drawn: sizes are (height, width), letters for text and for the title."""

    size: tuple[int, int]
    paper: RGB
    style: str  # plain, grid, boxed or panel
    legend: str  # right, top or bottom
    letters: Letters
    title: Letters
    thickness: float  # of bars and lines, 0 to 1
    smooth: bool

    @property
    def ink(self) -> RGB:
        """The colour of axes and text."""
        return text_on(self.paper)


def line_height(letters: Letters) -> int:
    """Return the height of a line of text."""
    return math.ceil(1.25 * letters.size)


def legend_width(chart: Chart, look: Look) -> float:
    """Return the width of a legend's rows, with their squares."""
    return max(look.letters.getlength(key.name) for key in chart.keys) + 1.6 * look.letters.size + 10


def plot_area(chart: Chart, look: Look) -> Corners:
    """Return what title, legend and labels leave for the plot."""
    height, width = look.size
    row = line_height(look.letters)
    left, top, right, bottom = 8.0, 6.0 + line_height(look.title) + 6, width - 10.0, height - 8.0
    if chart.has_legend:
        if look.legend == "right":
            right -= legend_width(chart, look) + 4
        elif look.legend == "top":
            top += _legend_rows(chart, look) * row + 4
        else:
            bottom -= _legend_rows(chart, look) * row + 6
    if chart.kind == "pie":
        return left, top, right, bottom
    names = max(look.letters.getlength(name) for name in chart.categories)
    ticks = look.letters.getlength(chart.text(chart.top))
    left += (names if chart.across else ticks) + 6
    right -= ticks / 2 if chart.across else 0
    return left, top + 0.7 * row, right, bottom - row - 4


def _per_row(chart: Chart, look: Look) -> int:
    return max(1, int((look.size[1] - 20) // legend_width(chart, look)))


def _legend_rows(chart: Chart, look: Look) -> int:
    return -(-len(chart.keys) // _per_row(chart, look))


def draw(chart: Chart, look: Look) -> Image.Image:
    """Draw a chart."""
    canvas = Canvas(look.size, look.paper, look.smooth)
    area = plot_area(chart, look)
    canvas.text((look.size[1] / 2, 6), chart.title, look.title, look.ink, "ma")
    if chart.has_legend:
        _legend(canvas, chart, look)
    if chart.kind == "pie":
        _pie(canvas, chart, look, area)
    else:
        _axes(canvas, chart, look, area)
        {"bar": _bars, "stacked": _stacks, "line": _lines}[chart.kind](canvas, chart, look, area)
    return canvas.picture()


def _legend(canvas: Canvas, chart: Chart, look: Look) -> None:
    height, width = look.size
    row, across = line_height(look.letters), legend_width(chart, look)
    n = 1 if look.legend == "right" else min(_per_row(chart, look), len(chart.keys))
    left = width - across - 4 if look.legend == "right" else (width - n * across) / 2
    top = 12.0 + line_height(look.title)
    if look.legend == "bottom":
        top = height - _legend_rows(chart, look) * row - 4
    for number, key in enumerate(chart.keys):
        x, y = left + number % n * across, top + number // n * row
        side = 0.8 * look.letters.size
        canvas.box((x, y + 0.15 * side, x + side, y + 1.15 * side), key.colour)
        canvas.text((x + 1.4 * side, y + 0.65 * side), key.name, look.letters, look.ink, "lm")


def _axes(canvas: Canvas, chart: Chart, look: Look, area: Corners) -> None:
    """Draw axes, ticks with their numbers, and the categories' names."""
    left, top, right, bottom = area
    faint = mix(look.paper, look.ink, 0.18)
    if look.style == "panel":
        faint = look.paper
        canvas.box(area, mix(look.paper, look.ink, 0.1))
    for number in range(round(chart.top / chart.step) + 1):
        value = number * chart.step
        x, y = place(chart, area, 0, value)
        if chart.across:
            ends: tuple[Point, Point] = (x, top), (x, bottom)
            canvas.text((x, bottom + 5), chart.text(value), look.letters, look.ink, "ma")
        else:
            ends = (left, y), (right, y)
            canvas.text((left - 5, y), chart.text(value), look.letters, look.ink, "rm")
        if look.style != "plain":
            canvas.line(ends, faint, 1)
        elif chart.across:
            canvas.line(((x, bottom), (x, bottom + 4)), look.ink, 1)
        else:
            canvas.line(((left - 4, y), (left, y)), look.ink, 1)
    for number, name in enumerate(chart.categories):
        x, y = place(chart, area, number + 0.5, 0)
        canvas.text((left - 5, y) if chart.across else (x, bottom + 5), name, look.letters, look.ink,
                    "rm" if chart.across else "ma")  # fmt: skip
    if look.style == "boxed":
        canvas.box(area, None, look.ink)
    elif look.style != "panel":
        canvas.line(((left, top), (left, bottom), (right, bottom)), look.ink, 1)


def place(chart: Chart, area: Corners, along: float, value: float) -> Point:
    """Return where a value stands, `along` the axis of categories (0 to their number)."""
    left, top, right, bottom = area
    share, height = along / len(chart.categories), value / chart.top
    if chart.across:
        return left + height * (right - left), top + share * (bottom - top)
    return left + share * (right - left), bottom - height * (bottom - top)


def _bar(canvas: Canvas, chart: Chart, area: Corners, span: Point, values: Point, colour: RGB) -> Corners:
    """Draw a bar between two places of the axis of categories and two values."""
    (x0, y0), (x1, y1) = place(chart, area, span[0], values[0]), place(chart, area, span[1], values[1])
    corners = min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)
    canvas.box(corners, colour)
    return corners


def _bars(canvas: Canvas, chart: Chart, look: Look, area: Corners) -> None:
    wide = (0.45 + 0.45 * look.thickness) / len(chart.keys)
    for row, (key, values) in enumerate(zip(chart.keys, chart.values, strict=True)):
        for column, value in enumerate(values):
            start = column + 0.5 + wide * (row - len(chart.keys) / 2)
            corners = _bar(canvas, chart, area, (start, start + wide), (0, value), key.colour)
            if chart.printed:
                _number(canvas, chart, look, corners, value)


def _number(canvas: Canvas, chart: Chart, look: Look, corners: Corners, value: float) -> None:
    """Write a value at the end of its bar."""
    left, top, right, bottom = corners
    if chart.across:
        canvas.text((right + 3, (top + bottom) / 2), chart.text(value), look.letters, look.ink, "lm")
    else:
        canvas.text(((left + right) / 2, top - 2), chart.text(value), look.letters, look.ink, "mb")


def _stacks(canvas: Canvas, chart: Chart, look: Look, area: Corners) -> None:
    half = (0.45 + 0.45 * look.thickness) / 2
    for column in range(len(chart.categories)):
        totals = list(accumulate((values[column] for values in chart.values), initial=0.0))
        for key, span in zip(chart.keys, pairwise(totals), strict=True):
            corners = _bar(canvas, chart, area, (column + 0.5 - half, column + 0.5 + half), span, key.colour)
            if chart.printed:
                middle = (corners[0] + corners[2]) / 2, (corners[1] + corners[3]) / 2
                canvas.text(middle, chart.text(span[1] - span[0]), look.letters, text_on(key.colour), "mm")


def _lines(canvas: Canvas, chart: Chart, look: Look, area: Corners) -> None:
    width = 1.3 + 2.2 * look.thickness
    for key, values in zip(chart.keys, chart.values, strict=True):
        points = [place(chart, area, column + 0.5, value) for column, value in enumerate(values)]
        canvas.line(points, key.colour, width)
        for point, value in zip(points, values, strict=True):
            if look.thickness < 0.6 or chart.printed:
                canvas.disc(point, 1.2 + width, key.colour)
            if chart.printed:
                canvas.text((point[0], point[1] - 5), chart.text(value), look.letters, look.ink, "mb")


def _pie(canvas: Canvas, chart: Chart, look: Look, area: Corners) -> None:
    """Draw slices clockwise from the top, and the values on or beside them."""
    left, top, right, bottom = area
    centre = (left + right) / 2, (top + bottom) / 2
    radius = min(right - left, bottom - top) / 2 - 4
    total = sum(chart.values[0])
    turns = [360 * part / total - 90 for part in accumulate(chart.values[0], initial=0.0)]
    for key, angles in zip(chart.keys, pairwise(turns), strict=True):
        canvas.slice(centre, radius, angles, key.colour, look.paper if look.thickness > 0.3 else None, 1)
    if look.style == "panel":  # a ring
        canvas.disc(centre, 0.45 * radius, look.paper)
    if chart.printed:
        for key, (start, end), value in zip(chart.keys, pairwise(turns), chart.values[0], strict=True):
            angle = math.radians((start + end) / 2)
            reach = NUMBERS_AT * radius
            at = centre[0] + reach * math.cos(angle), centre[1] + reach * math.sin(angle)
            canvas.text(at, chart.text(value), look.letters, text_on(key.colour), "mm")
