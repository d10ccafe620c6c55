"""Plots as SVG text: made here, so that a page needs no library, no script and no network to show them.

Colours are variables of the page's style (`--c0` to `--c5`, and the text's own colour), so that light and dark work.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from edgevl.bench.report import number
from edgevl.bench.result import Spread

N_COLOURS = 6
_WIDTH, _HEIGHT = 460, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 14, 46
_MARKS = ("circle", "square", "diamond", "triangle")


@dataclass(frozen=True)
class Series:
    """A line of a plot: its name, and for each category a spread, or None where nothing was measured."""

    name: str
    points: Sequence[Spread | None]


@dataclass(frozen=True)
class Bar:
    """A stacked bar: its name, the lengths of its parts in order, and a value to mark, such as a measured total."""

    name: str
    parts: Sequence[float]
    mark: float | None = None


def lines(categories: Sequence[str], series: Sequence[Series], *, x_label: str, y_label: str) -> str:
    """Plot medians over categories, a line per series, with quartiles as whiskers; the y axis begins at 0."""
    highest = max((point.high for line in series for point in line.points if point is not None), default=1.0)
    steps = ticks(highest)
    scale = (_HEIGHT - _TOP - _BOTTOM) / steps[-1]
    step_x = (_WIDTH - _LEFT - _RIGHT) / len(categories)
    xs = [_LEFT + step_x * (i + 0.5) for i in range(len(categories))]
    parts = [
        _grid(steps, scale),
        *(_text(x, _HEIGHT - _BOTTOM + 18, name) for x, name in zip(xs, categories, strict=True)),
    ]
    for index, line in enumerate(series):
        spread_x = (index - (len(series) - 1) / 2) * 6  # side by side, so that whiskers do not hide one another
        parts.append(_line(line, [x + spread_x for x in xs], scale, index))
    label = f"{y_label} over {x_label}"
    return _svg(_WIDTH, _HEIGHT, label, [*parts, *_labels(x_label, y_label)])


def bars(rows: Sequence[Bar], *, x_label: str) -> str:
    """Plot horizontal bars, each of coloured parts; a value to mark is a line across its bar."""
    left, row_height = 150, 26
    height = _TOP + row_height * len(rows) + _BOTTOM
    steps = ticks(max((max(sum(row.parts), row.mark or 0.0) for row in rows), default=1.0))
    scale = (2 * _WIDTH - left - _RIGHT) / steps[-1]
    bottom = height - _BOTTOM
    parts = []
    for step in steps:
        x = left + step * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(_text(x, bottom + 16, _tick(step, steps)))
    for index, row in enumerate(rows):
        y, x = _TOP + row_height * index, float(left)
        parts.append(_text(left - 8, y + row_height / 2 + 4, row.name, "end"))
        for colour, part in enumerate(row.parts):
            width = part * scale
            parts.append(
                f'<rect class="f{colour}" x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="{row_height - 8}"/>'
            )
            x += width
        if row.mark is not None:
            x = left + row.mark * scale
            parts.append(f'<line class="mark" x1="{x:.1f}" y1="{y + 1}" x2="{x:.1f}" y2="{y + row_height - 1}"/>')
    parts.append(_text((left + 2 * _WIDTH - _RIGHT) / 2, height - 10, x_label))
    return _svg(2 * _WIDTH, height, x_label, parts)


def ticks(highest: float) -> list[float]:
    """Return about five round numbers from 0 to at least `highest`."""
    if not highest > 0:
        return [0.0, 1.0]
    raw = highest / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * (1 - 1e-9))
    n_steps = math.ceil(highest / step * (1 - 1e-9))
    return [step * i for i in range(n_steps + 1)]


def _line(line: Series, xs: Sequence[float], scale: float, index: int) -> str:
    base = _HEIGHT - _BOTTOM
    found = [(x, point) for x, point in zip(xs, line.points, strict=True) if point is not None]
    path = " ".join(f"{x:.1f},{base - point.median * scale:.1f}" for x, point in found)
    colour = index % N_COLOURS
    parts = [f'<polyline class="l{colour}" points="{path}"/>']
    for x, point in found:
        low, middle, high = (base - value * scale for value in (point.low, point.median, point.high))
        told = f"{line.name}: {number(point.median)} ({number(point.low)}-{number(point.high)})"
        whisker = f"M{x:.1f} {low:.1f}V{high:.1f}M{x - 3:.1f} {low:.1f}h6M{x - 3:.1f} {high:.1f}h6"
        parts.append(
            f'<g class="l{colour}"><title>{escape(told)}</title><path d="{whisker}"/>{mark(x, middle, index)}</g>'
        )
    return "".join(parts)


def mark(x: float, y: float, index: int) -> str:
    """Return the mark of series `index` at a place: its shape tells series apart without colour."""
    shape, colour = _MARKS[index % len(_MARKS)], f"f{index % N_COLOURS}"
    if shape == "circle":
        return f'<circle class="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    corners = {
        "square": ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        "diamond": ((0, -5), (5, 0), (0, 5), (-5, 0)),
        "triangle": ((0, -5), (5, 4), (-5, 4)),
    }[shape]
    return f'<polygon class="{colour}" points="{" ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)}"/>'


def _grid(steps: Sequence[float], scale: float) -> str:
    parts = []
    for step in steps:
        y = _HEIGHT - _BOTTOM - step * scale
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 6, y + 4, _tick(step, steps), "end"))
    return "".join(parts)


def _labels(x_label: str, y_label: str) -> list[str]:
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    upright = f'<text transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    return [_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, x_label), upright]


def _tick(step: float, steps: Sequence[float]) -> str:
    unit = steps[1] - steps[0]
    digits = max(0, -math.floor(math.log10(unit)) + (0 if math.isclose(unit, float(f"{unit:.0e}")) else 1))
    return f"{step:,.{digits}f}"


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, label: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
