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
from .wording import spelled

VALUE = spelled(
    "[what is|what's|give|find|read] the [value|number] [of|for] {c}?",
    "[what|which] [value|number] does {c} have?",
    "how [much|high|large] is {c}?",
    "[what|which] number does the chart [show|give] for {c}?",
    "{c} [is|has] [which|what] value?",
    "{c}: how much?",
)
VALUE_HELD_OUT = ("which value belongs to {c}?", "what figure is given for {c}?")
VALUE_OF = spelled(
    "[what is|what's|give|find|read] the value of {s} [for|at|in] {c}?",
    "[what|which] value does {s} have [in|at|for] {c}?",
    "how [much|high|large] is {s} [at|in|for] {c}?",
    "{s} at {c}: how much?",
)
VALUE_OF_HELD_OUT = ("for {c}, what does the chart show for {s}?", "which figure does {s} reach at {c}?")
LARGEST = spelled(
    "[which|what] {part} is [the largest|the highest|the biggest|largest]?",
    "[which|what] {part} has the [highest|largest|greatest|biggest] value?",
    "what has the [largest|highest] value?",
    "[name|give|find] the {part} with the [greatest|highest|largest] value.",
    "[what is|what's] the [largest|highest|biggest] {part}?",
)
LARGEST_HELD_OUT = ("which {part} comes first by size?", "where does the chart reach its maximum?")
SMALLEST = spelled(
    "[which|what] {part} is [the smallest|the lowest|smallest]?",
    "[which|what] {part} has the [lowest|smallest|least] value?",
    "what has the [smallest|lowest] value?",
    "[name|give|find] the {part} with the [least|lowest|smallest] value.",
    "[what is|what's] the [smallest|lowest] {part}?",
)
SMALLEST_HELD_OUT = ("which {part} comes last by size?", "where does the chart reach its minimum?")
LARGEST_OF = spelled(
    "[for|at] which {part} is {s} [the highest|the largest|greatest]?",
    "where is {s} [the largest|the highest|highest]?",
    "[which|what] {part} has the [highest|largest] {s}?",
)
LARGEST_OF_HELD_OUT = ("where does {s} reach its maximum?",)
SMALLEST_OF = spelled(
    "[for|at] which {part} is {s} [the lowest|the smallest|least]?",
    "where is {s} [the smallest|the lowest|lowest]?",
    "[which|what] {part} has the [lowest|smallest] {s}?",
)
SMALLEST_OF_HELD_OUT = ("where does {s} reach its minimum?",)
TREND = spelled(
    "is {s} rising or falling [overall|in all|]?",
    "does {s} [rise or fall|fall or rise] [overall|in all|]? [rising or falling|]?",
    "[what is|what's] the trend of {s}, rising or falling?",
    "does {s} go up or down from left to right? answer with rising or falling.",
    "{s}: rising or falling?",
)
TREND_HELD_OUT = (
    "how does {s} develop: is it rising or falling?",
    "from the first point to the last, is {s} rising or falling?",
)
COLOUR = spelled(
    "[which|what] [colour|color] [is|has] {s}?",
    "[which|what] [colour|color] stands for {s}?",
    "in [which|what] [colour|color] is {s} drawn?",
    "[what is|what's|give] the [colour|color] of {s}?",
)
COLOUR_HELD_OUT = ("by what colour is {s} shown?", "with which colour does the legend mark {s}?")
NAMED = spelled(
    "what does {colour} stand for?",
    "what is [shown|drawn|given] in {colour}?",
    "[which|what] name does the legend give for {colour}?",
    "[what|which] is the {colour} one?",
)
NAMED_HELD_OUT = ("what is the meaning of {colour} in this chart?",)
DIFFERENCE = spelled(
    "[what is|what's|give|find] the difference [between|of] {a} and {b}?",
    "by how much do {a} and {b} differ?",
    "how far apart are [the values of|] {a} and {b}?",
)
DIFFERENCE_HELD_OUT = ("subtract the smaller of {a} and {b} from the larger.", "what separates {a} from {b} in value?")
COUNT = spelled(
    "how many {parts} [are there|do you see|does the chart show|does the chart have|]?",
    "[count|count up] [the|all] {parts}.",
    "number of {parts}?",
)
COUNT_HELD_OUT = ("what is the number of {parts} in this chart?",)
TITLE = spelled(
    "[what is|what's|read|give] the [title|heading] [of the chart|of this chart|]?",
    "what is [the|this] chart called?",
    "what does the title say?",
)
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
