"""Charts to be read: bars, lines, pies and stacked bars, with questions on values, extremes, trends and legends.

A picture of the training part is asked about in every way that it allows, one of the held-out part as its task says.
What cannot be seen clearly is not asked: small differences, and values that no axis or number tells to 5 %.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from itertools import pairwise

from .asking import several
from .chart_data import CLEAR, LEAST, make_chart
from .drawn import Drawn, Stock, Task
from .plots import Chart, draw
from .questions import QA

VALUE = (
    "what is the value of {c}?",
    "what value does {c} have?",
    "how much is {c}?",
    "what number does the chart show for {c}?",
    "read the value for {c}.",
)
VALUE_HELD_OUT = ("which value belongs to {c}?", "what figure is given for {c}?")
VALUE_OF = (
    "what is the value of {s} for {c}?",
    "what value does {s} have in {c}?",
    "how much is {s} at {c}?",
    "read the value of {s} for {c}.",
)
VALUE_OF_HELD_OUT = ("for {c}, what does the chart show for {s}?", "which figure does {s} reach at {c}?")
LARGEST = (
    "which {part} is the largest?",
    "which {part} has the highest value?",
    "what has the largest value?",
    "name the {part} with the greatest value.",
)
LARGEST_HELD_OUT = ("which {part} comes first by size?", "where does the chart reach its maximum?")
SMALLEST = (
    "which {part} is the smallest?",
    "which {part} has the lowest value?",
    "what has the smallest value?",
    "name the {part} with the least value.",
)
SMALLEST_HELD_OUT = ("which {part} comes last by size?", "where does the chart reach its minimum?")
LARGEST_OF = ("for which {part} is {s} the highest?", "where is {s} the largest?", "at which {part} is {s} greatest?")
LARGEST_OF_HELD_OUT = ("where does {s} reach its maximum?",)
SMALLEST_OF = ("for which {part} is {s} the lowest?", "where is {s} the smallest?", "at which {part} is {s} least?")
SMALLEST_OF_HELD_OUT = ("where does {s} reach its minimum?",)
TREND = (
    "is {s} rising or falling?",
    "does {s} rise or fall overall?",
    "what is the trend of {s}, rising or falling?",
    "does {s} go up or down from left to right? answer with rising or falling.",
)
TREND_HELD_OUT = (
    "how does {s} develop: is it rising or falling?",
    "from the first point to the last, is {s} rising or falling?",
)
COLOUR = (
    "which colour is {s}?",
    "what colour stands for {s}?",
    "in which color is {s} drawn?",
    "what is the colour of {s}?",
)
COLOUR_HELD_OUT = ("by what colour is {s} shown?", "with which colour does the legend mark {s}?")
NAMED = ("what does {colour} stand for?", "what is shown in {colour}?", "which name does the legend give for {colour}?")
NAMED_HELD_OUT = ("what is the meaning of {colour} in this chart?",)
DIFFERENCE = (
    "what is the difference between {a} and {b}?",
    "by how much do {a} and {b} differ?",
    "how far apart are the values of {a} and {b}?",
)
DIFFERENCE_HELD_OUT = ("subtract the smaller of {a} and {b} from the larger.", "what separates {a} from {b} in value?")
COUNT = ("how many {parts} are there?", "count the {parts}.", "how many {parts} does the chart show?")
COUNT_HELD_OUT = ("what is the number of {parts} in this chart?",)
TITLE = ("what is the title of the chart?", "what is the chart called?", "read the title.")
TITLE_HELD_OUT = ("what stands above the chart?",)
Asker = Callable[[random.Random, Stock, Chart], QA | None]
Phrasings = tuple[tuple[str, ...], tuple[str, ...]]
PART = {"bar": "bar", "stacked": "bar", "line": "point", "pie": "slice"}


def value(rng: random.Random, stock: Stock, chart: Chart) -> QA | None:
    """Ask for a value that the chart tells: printed, or of a length that can be read at the axis."""
    if chart.kind == "pie" and not chart.printed:
        return None
    row, column = rng.randrange(len(chart.values)), rng.randrange(len(chart.categories))
    number, category = chart.values[row][column], chart.categories[column]
    if len(chart.values) == 1:
        return stock.one_of(rng, VALUE, VALUE_HELD_OUT).format(c=category), chart.text(number)
    if chart.kind == "stacked" and not chart.printed and (row or number < LEAST * chart.top):
        return None  # only the lowest part stands at the axis
    question = stock.one_of(rng, VALUE_OF, VALUE_OF_HELD_OUT).format(s=chart.keys[row].name, c=category)
    return question, chart.text(number)


def extreme(rng: random.Random, stock: Stock, chart: Chart) -> QA | None:
    """Ask where a series is clearly the largest or the smallest."""
    row, largest = rng.randrange(len(chart.values)), rng.random() < 0.5
    numbers = chart.values[row]
    order = sorted(range(len(numbers)), key=lambda column: numbers[column], reverse=largest)
    clear = CLEAR * (sum(numbers) if chart.kind == "pie" else chart.top)
    if abs(numbers[order[0]] - numbers[order[1]]) < clear * (0.5 if chart.printed else 1):
        return None
    if len(chart.values) == 1:
        phrasings: Phrasings = (LARGEST, LARGEST_HELD_OUT) if largest else (SMALLEST, SMALLEST_HELD_OUT)
    else:
        phrasings = (LARGEST_OF, LARGEST_OF_HELD_OUT) if largest else (SMALLEST_OF, SMALLEST_OF_HELD_OUT)
    question = stock.one_of(rng, *phrasings).format(part=PART[chart.kind], s=chart.keys[row].name)
    return question, chart.categories[order[0]]


def trend(rng: random.Random, stock: Stock, chart: Chart) -> QA | None:
    """Ask whether a line rises or falls, where most of its steps and its ends agree clearly."""
    if chart.kind != "line":
        return None
    row = rng.randrange(len(chart.values))
    numbers = chart.values[row]
    steps = [after - before for before, after in pairwise(numbers)]
    overall = numbers[-1] - numbers[0]
    against = max((-step if overall > 0 else step for step in steps), default=0.0)
    if abs(overall) < 0.25 * chart.top or against > 0.4 * abs(overall):
        return None
    name = chart.keys[row].name if chart.has_legend else "the line"
    return stock.one_of(rng, TREND, TREND_HELD_OUT).format(s=name), "rising" if overall > 0 else "falling"


def legend(rng: random.Random, stock: Stock, chart: Chart) -> QA | None:
    """Ask for the colour of a name, or the name of a colour."""
    if not chart.has_legend:
        return None
    key = rng.choice(chart.keys)
    if rng.random() < 0.5:
        return stock.one_of(rng, COLOUR, COLOUR_HELD_OUT).format(s=key.name), key.colour_name
    return stock.one_of(rng, NAMED, NAMED_HELD_OUT).format(colour=key.colour_name), key.name


def difference(rng: random.Random, stock: Stock, chart: Chart) -> QA | None:
    """Ask for the difference of two values, where both are printed or it is large enough to be read."""
    if len(chart.values) > 1 or (chart.kind == "pie" and not chart.printed):
        return None
    first, second = rng.sample(range(len(chart.categories)), 2)
    apart = abs(chart.values[0][first] - chart.values[0][second])
    if apart < (0.05 if chart.printed else 0.4) * chart.top:
        return None
    question = stock.one_of(rng, DIFFERENCE, DIFFERENCE_HELD_OUT)
    return question.format(a=chart.categories[first], b=chart.categories[second]), chart.text(apart)


def count(rng: random.Random, stock: Stock, chart: Chart) -> QA:
    """Ask how many bars, slices or lines there are."""
    parts, n = {
        "bar": ("bars", len(chart.values) * len(chart.categories)),
        "stacked": ("bars", len(chart.categories)),
        "line": ("lines", len(chart.values)),
        "pie": ("slices", len(chart.categories)),
    }[chart.kind]
    return stock.one_of(rng, COUNT, COUNT_HELD_OUT).format(parts=parts), str(n)


def title(rng: random.Random, stock: Stock, chart: Chart) -> QA:
    """Ask for the title."""
    return stock.one_of(rng, TITLE, TITLE_HELD_OUT), chart.title


ALL: tuple[Asker, ...] = (value, value, extreme, trend, legend, difference, count, title)


def picture(rng: random.Random, stock: Stock, ask: Asker, kinds: tuple[str, ...]) -> Drawn:
    """Draw a chart of one of `kinds` that `ask` has a question about."""
    kind = rng.choice(kinds)
    while True:
        chart, look = make_chart(rng, stock, kind)
        pair = ask(rng, stock, chart)
        if pair is not None:
            break
    others = () if stock.is_held_out else rng.sample(ALL, 5)
    pairs = several(rng, pair, (other(rng, stock, chart) for other in others))
    return Drawn(draw(chart, look), pairs)


def _task(ask: Asker, *kinds: str) -> Task:
    return Task(partial(picture, ask=ask, kinds=kinds), "relaxed")


TASKS = {
    "chart_value": _task(value, "bar", "line", "pie", "stacked"),
    "chart_extreme": _task(extreme, "bar", "line", "pie", "stacked"),
    "chart_trend": _task(trend, "line"),
    "chart_legend": _task(legend, "bar", "line", "pie", "stacked"),
    "chart_difference": _task(difference, "bar", "line", "pie"),
    "chart_count": _task(count, "bar", "line", "pie", "stacked"),
    "chart_title": _task(title, "bar", "line", "pie", "stacked"),
}
"""The tasks, each a row of the accuracy table."""
