"""What a chart shows and how it looks, drawn so that its labels fit and its values can be read."""

from __future__ import annotations

import math
import random
from itertools import accumulate

from .canvas import canvas_size
from .colours import VIVID, ground, named
from .drawn import Stock
from .plots import NUMBERS_AT, Chart, Key, Look, line_height, plot_area

GROUPS = (
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug"),
    ("Q1", "Q2", "Q3", "Q4"),
    ("Apples", "Pears", "Plums", "Grapes", "Lemons", "Melons"),
    ("Spain", "Italy", "Japan", "Brazil", "Kenya", "Peru", "India"),
    ("Cars", "Trains", "Ships", "Bikes", "Buses"),
    ("North", "South", "East", "West"),
    ("Coal", "Gas", "Wind", "Solar", "Hydro"),
    ("Alpha", "Beta", "Gamma", "Delta"),
)
GROUPS_HELD_OUT = (
    ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
    ("Bread", "Milk", "Eggs", "Rice", "Salt"),
    ("Chile", "Egypt", "Nepal", "Cuba", "Oman"),
    ("Gold", "Iron", "Zinc", "Tin"),
)
YEARS, YEARS_HELD_OUT = tuple(range(1960, 2012)), tuple(range(2012, 2025))
TITLES = (
    "Sales of {}", "{} by group", "Number of {}", "Income from {}", "Survey: {}", "{} in the city", "Cost of {}",
    "{} over time", "Share of {}", "Results: {}",
)  # fmt: skip
TITLES_HELD_OUT = ("Overview of {}", "How {} changed", "Report on {}")
STYLES, STYLES_HELD_OUT = ("plain", "grid", "grid", "boxed"), ("grid", "panel")
LEGENDS, LEGENDS_HELD_OUT = ("right", "top"), ("right", "bottom")
STEPS = (1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000)
LEAST = 0.15
"""A value is at least this share of the axis, so that 5 % of it can be seen."""
CLEAR = 0.07
"""The largest and the smallest differ from the next by this share of the axis."""


def make_chart(rng: random.Random, stock: Stock, kind: str) -> tuple[Chart, Look]:
    """Draw what a chart shows and how, until its labels fit."""
    while True:
        chart, look = _chart(rng, stock, kind), _look(rng, stock)
        if _fits(chart, look):
            return chart, look


def _look(rng: random.Random, stock: Stock) -> Look:
    size, points = canvas_size(rng), rng.randint(10, 15)
    return Look(
        size=size,
        paper=(255, 255, 255) if rng.random() < 0.4 else ground(rng, stock),
        style=stock.one_of(rng, STYLES, STYLES_HELD_OUT),
        legend=stock.one_of(rng, LEGENDS, LEGENDS_HELD_OUT),
        letters=stock.font(rng, points),
        title=stock.font(rng, points + rng.randint(1, 5)),
        thickness=rng.random(),
        smooth=rng.random() < 0.7,
    )


def _chart(rng: random.Random, stock: Stock, kind: str) -> Chart:
    n_series = 1 if kind == "pie" else rng.choice((2, 3, 3)) if kind == "stacked" else rng.choice((1, 1, 1, 2, 3))
    n = rng.randint(2, 6 if kind in ("pie", "stacked") or n_series > 1 else 8)
    if kind == "line":
        n = max(n, 3)
    categories = _categories(rng, stock, n, kind == "line")
    names = list(categories) if kind == "pie" else _names(rng, stock, n_series, categories)
    inks = named(rng, stock, len(names), VIVID, least=80)
    step = rng.choice(STEPS)
    top = step * rng.randint(4, 6)
    digits = 1 if step < 10 else 0
    title = stock.one_of(rng, TITLES, TITLES_HELD_OUT).format(rng.choice(stock.words))
    return Chart(
        kind=kind,
        title=title[0].upper() + title[1:],
        categories=tuple(categories),
        keys=tuple(Key(name, *ink) for name, ink in zip(names, inks, strict=True)),
        values=_values(rng, kind, n_series, n, top, digits),
        top=top,
        step=step,
        digits=digits,
        printed=rng.random() < (0.75 if kind == "pie" else 0.4) and (n_series == 1 or kind == "stacked"),
        across=kind in ("bar", "stacked") and rng.random() < 0.35,
    )


def _categories(rng: random.Random, stock: Stock, n: int, in_time: bool) -> list[str]:
    """Draw what the axis names: years or months in order, a group's members, or words."""
    style = rng.random()
    if style < (0.5 if in_time else 0.2):
        years = YEARS_HELD_OUT if stock.is_held_out else YEARS
        start = rng.randrange(len(years) - n)
        return [str(year) for year in years[start : start + n]]
    if style < 0.8:
        group = stock.one_of(rng, GROUPS, GROUPS_HELD_OUT)
        if len(group) >= n:
            start = rng.randint(0, len(group) - n)
            return list(group[start : start + n])
    if style < 0.9 or len(set(stock.words)) < 2 * n:
        return [f"{chr(65 + i)}" for i in range(n)]
    return [word.capitalize() for word in _distinct(rng, stock.words, n)]


def _names(rng: random.Random, stock: Stock, n: int, taken: list[str]) -> list[str]:
    """Draw names of series, none a category's."""
    group = stock.one_of(rng, GROUPS, GROUPS_HELD_OUT)
    if rng.random() < 0.6 and len(group) >= n and not set(group) & set(taken):
        return rng.sample(group, n)
    return [word.capitalize() for word in _distinct(rng, stock.words, n, {name.lower() for name in taken})]


def _distinct(rng: random.Random, words: tuple[str, ...], n: int, taken: set[str] | None = None) -> list[str]:
    found: list[str] = []
    while len(found) < n:
        word = rng.choice(words)
        if word not in found and word not in (taken or set()):
            found.append(word)
    return found


def _values(
    rng: random.Random, kind: str, n_series: int, n: int, top: float, digits: int
) -> tuple[tuple[float, ...], ...]:
    """Draw values of `LEAST` to the whole of the axis; of stacked bars, the sum stays on it."""
    if kind == "line":
        return tuple(_course(rng, n, top, digits) for _ in range(n_series))
    parts = n_series if kind == "stacked" else 1
    high = 0.97 * top / parts
    return tuple(
        tuple(round(rng.uniform(max(LEAST * top * 0.9, 0.2 * high), high), digits) for _ in range(n))
        for _ in range(n_series)
    )


def _course(rng: random.Random, n: int, top: float, digits: int) -> tuple[float, ...]:
    """Draw a line that rises or falls overall, with a few steps the other way, or has no trend."""
    if rng.random() < 0.25:
        return tuple(round(rng.uniform(LEAST, 0.97) * top, digits) for _ in range(n))
    low, high = rng.uniform(LEAST, 0.4), rng.uniform(0.7, 0.97)
    steps = [rng.uniform(-0.15, 1) for _ in range(n - 1)]
    while sum(steps) < 0.5:
        steps = [rng.uniform(-0.15, 1) for _ in range(n - 1)]
    shares = [low + (high - low) * part / sum(steps) for part in accumulate(steps, initial=0.0)]
    if rng.random() < 0.5:
        shares.reverse()
    return tuple(round(min(0.97, max(LEAST, share)) * top, digits) for share in shares)


def _fits(chart: Chart, look: Look) -> bool:
    """Tell whether names, numbers and title have room where they stand."""
    left, top, right, bottom = plot_area(chart, look)
    row = line_height(look.letters)
    if look.title.getlength(chart.title) > look.size[1] - 8 or right - left < 0.45 * look.size[1] or bottom - top < 90:
        return False
    if chart.kind == "pie":
        narrow = 2 * math.pi * min(chart.values[0]) / sum(chart.values[0])  # of the arc that numbers stand on
        arc = NUMBERS_AT * (min(right - left, bottom - top) / 2 - 4) * narrow
        number = max(look.letters.getlength(chart.text(value)) for value in chart.values[0])
        return look.size[0] > row * (len(chart.keys) + 3) and (not chart.printed or arc > number + 3)
    slot = ((bottom - top) if chart.across else (right - left)) / len(chart.categories)
    names = row if chart.across else max(look.letters.getlength(name) for name in chart.categories) + 5
    number = look.letters.getlength(chart.text(chart.top)) + 3
    printed = number if chart.kind != "stacked" or not chart.across else 0
    if chart.printed and chart.kind == "stacked":
        thin = min(map(min, chart.values)) / chart.top * ((right - left) if chart.across else (bottom - top))
        if thin < (number if chart.across else row):
            return False
    if chart.across:
        ticks = (right - left) / round(chart.top / chart.step)
        over = chart.printed and max(map(max, chart.values)) / chart.top * (right - left) + number > right - left + 8
        return slot > 1.3 * names and ticks > number and not over
    return slot > max(names, printed if chart.printed else 0) and slot / len(chart.keys) > 7
