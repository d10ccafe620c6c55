"""Charts: deterministic, legible, and their answers read again off what was drawn."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from edgevl.recipe import chart_data, charts, plots
from edgevl.recipe.chart_data import make_chart
from edgevl.recipe.charts import TASKS
from edgevl.recipe.drawn import Stock
from edgevl.recipe.plots import Chart
from tests.recipe.tracing import Call, Traced, phrasings, plain, tracing

KINDS = ("bar", "stacked", "line", "pie")


def drawn_chart(kind: str, seed: int, stock: Stock) -> tuple[Chart, Traced]:
    chart, look = make_chart(random.Random(f"{kind}-{seed}"), stock, kind)
    with tracing(plots) as made:
        plots.draw(chart, look)
    return chart, made[0]


def text_box(call: Call) -> tuple[float, ...]:
    (x, y), text, font = call.args[:3]
    anchor = call.args[4] if len(call.args) > 4 else "la"
    left, top, right, bottom = font.getbbox(text, anchor=anchor)
    return x + left, y + top, x + right, y + bottom


@pytest.mark.parametrize("task", TASKS)
def test_one_seed_one_picture(task: str, training: Stock, held_out: Stock) -> None:
    first, again, kept = (TASKS[task].make(random.Random(7), stock) for stock in (training, training, held_out))
    assert first.pairs == again.pairs
    assert first.picture.tobytes() == again.picture.tobytes()
    assert len(kept.pairs) == 1
    assert len(first.pairs) > 1
    assert all(256 <= side <= 512 for drawn in (first, kept) for side in drawn.picture.size)
    assert all(question and answer for question, answer in (*first.pairs, *kept.pairs))


@pytest.mark.parametrize("module", [charts, chart_data])
def test_what_is_held_out_is_not_in_training(module: object) -> None:
    parts = phrasings(module)  # type: ignore[arg-type]
    assert len(parts) >= 4
    for name, (known, kept) in parts.items():
        assert set(kept) - set(known), name
        if name not in ("STYLES", "LEGENDS"):
            assert not {plain(str(text)) for text in known} & {plain(str(text)) for text in kept}, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(10))
def test_texts_are_inside_and_apart(kind: str, seed: int, training: Stock, held_out: Stock) -> None:
    _, canvas = drawn_chart(kind, seed, (training, held_out)[seed % 2])
    boxes = [text_box(call) for call in canvas.of("text")]
    height, width = canvas.size
    for number, (left, top, right, bottom) in enumerate(boxes):
        assert left >= 0
        assert top >= 0
        assert right <= width
        assert bottom <= height
        for other in boxes[:number]:
            apart = max(left - other[2], other[0] - right, top - other[3], other[1] - bottom)
            assert apart > -1


def scale(canvas: Traced, chart: Chart) -> Callable[[float], float]:
    """Read the axis off its numbers: from pixels along it to values."""
    texts = canvas.of("text")[1:]  # the first is the title
    anchor, along = ("ma", 0) if chart.across else ("rm", 1)
    ticks = [call for call in texts if len(call.args) > 4 and call.args[4] == anchor]
    ticks = ticks[: round(chart.top / chart.step) + 1]
    pixels, values = [call.args[0][along] for call in ticks], [float(call.args[1]) for call in ticks]
    slope, start = np.polyfit(pixels, values, 1)
    assert np.allclose(np.polyval((slope, start), pixels), values, atol=1e-6 * chart.top)
    return lambda pixel: float(slope * pixel + start)


@pytest.mark.parametrize("kind", ["bar", "stacked"])
@pytest.mark.parametrize("seed", range(10))
def test_bars_are_as_long_as_their_values(kind: str, seed: int, training: Stock, held_out: Stock) -> None:
    chart, canvas = drawn_chart(kind, seed, (training, held_out)[seed % 2])
    read = scale(canvas, chart)
    inks = {key.colour for key in chart.keys}
    bars = [call.args[0] for call in canvas.of("box") if call.args[1] in inks]
    bars = bars[len(chart.keys) if chart.has_legend else 0 :]  # the legend's squares come first
    ends = [(box[0], box[2]) if chart.across else (box[3], box[1]) for box in bars]
    lengths = np.array([read(end) - read(start) for start, end in ends])
    if kind == "stacked":
        lengths = lengths.reshape(len(chart.categories), len(chart.keys)).T.ravel()
    assert np.allclose(lengths, np.ravel(chart.values), atol=1e-6 * chart.top)
    assert lengths.min() > 0.1 * chart.top / len(chart.keys)


@pytest.mark.parametrize("seed", range(10))
def test_lines_go_through_their_values(seed: int, training: Stock, held_out: Stock) -> None:
    chart, canvas = drawn_chart("line", seed, (training, held_out)[seed % 2])
    read, n = scale(canvas, chart), len(chart.categories)
    lines = [call.args[0] for call in canvas.of("line") if len(call.args[0]) == n][-len(chart.keys) :]
    for points, values in zip(lines, chart.values, strict=True):
        assert np.allclose([read(y) for _, y in points], values, atol=1e-6 * chart.top)
        assert all(np.diff([x for x, _ in points]) > 5)


@pytest.mark.parametrize("seed", range(10))
def test_slices_are_as_wide_as_their_values(seed: int, training: Stock, held_out: Stock) -> None:
    chart, canvas = drawn_chart("pie", seed, (training, held_out)[seed % 2])
    turns = np.array([np.subtract(*call.args[2][::-1]) for call in canvas.of("slice")])
    assert np.allclose(turns / 360, np.array(chart.values[0]) / sum(chart.values[0]))
    assert [call.args[3] for call in canvas.of("slice")] == [key.colour for key in chart.keys]


def named_in(question: str, names: tuple[str, ...]) -> list[int]:
    """Return which names stand in a question, each as words of its own."""
    spaced = f" {question.rstrip('?.').replace(',', '').replace(':', '')} "
    return [number for number, name in enumerate(names) if f" {name} " in spaced]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_answers_are_those_of_the_chart(kind: str, seed: int, training: Stock, held_out: Stock) -> None:
    stock = (training, held_out)[seed % 2]
    rng = random.Random(f"{kind}-{seed}")
    chart, _ = make_chart(rng, stock, kind)
    table, names = np.array(chart.values), tuple(key.name for key in chart.keys)
    if pair := charts.value(rng, stock, chart):
        (column,) = named_in(pair[0], chart.categories)
        row = named_in(pair[0], names)[0] if len(table) > 1 else 0
        assert float(pair[1]) == pytest.approx(table[row, column])
    if pair := charts.extreme(rng, stock, chart):
        row = named_in(pair[0], names)[0] if len(table) > 1 else 0
        column = chart.categories.index(pair[1])
        low = any(word in pair[0] for word in ("small", "low", "least", "last", "minimum"))
        order = np.sort(table[row])
        assert table[row, column] == (order[0] if low else order[-1])
        assert order[-1] - order[0] > 0.02 * chart.top
    if pair := charts.difference(rng, stock, chart):
        first, second = named_in(pair[0], chart.categories)
        assert float(pair[1]) == pytest.approx(abs(table[0, first] - table[0, second]))
    if pair := charts.legend(rng, stock, chart):
        by_colour = [key.colour_name for key in chart.keys if f" {key.colour_name}" in pair[0]]
        colours = {key.name: key.colour_name for key in chart.keys}
        if pair[1] in names:
            assert by_colour == [colours[pair[1]]]
        else:
            assert [colours[names[number]] for number in named_in(pair[0], names)] == [pair[1]]
    n = {"bar": table.size, "stacked": table.shape[1], "line": table.shape[0], "pie": table.shape[1]}[kind]
    assert charts.count(rng, stock, chart)[1] == str(n)


def test_a_trend_is_that_of_the_straight_line_through_the_points(training: Stock) -> None:
    answers: Counter[str] = Counter()
    for seed in range(200):
        rng = random.Random(seed)
        chart, _ = make_chart(rng, training, "line")
        pair = charts.trend(rng, training, chart)
        if pair is None:
            continue
        answers[pair[1]] += 1
        rows = named_in(pair[0], tuple(key.name for key in chart.keys)) if chart.has_legend else [0]
        values = chart.values[rows[0]]
        slope = np.polyfit(range(len(values)), values, 1)[0]
        assert pair[1] == ("rising" if slope > 0 else "falling")
    assert set(answers) == {"rising", "falling"}
    assert 0.4 < answers["rising"] / answers.total() < 0.6
    assert answers.total() > 100


def test_the_extreme_is_as_often_in_either_half(training: Stock) -> None:
    halves: Counter[bool] = Counter()
    for seed in range(400):
        rng = random.Random(seed)
        chart, _ = make_chart(rng, training, "bar")
        if len(chart.categories) % 2 == 0 and (pair := charts.extreme(rng, training, chart)):
            halves[chart.categories.index(pair[1]) < len(chart.categories) / 2] += 1
    assert halves.total() > 80
    assert 0.35 < halves[True] / halves.total() < 0.65
