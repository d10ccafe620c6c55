"""Pictures to count in: overlapping shapes, nested squares, and the rows and columns of a grid.

Source of the tasks: as in blind.py.
"""

from __future__ import annotations

import math
import random
from itertools import accumulate, pairwise

from PIL import ImageFont

from .asking import ask_number, more_than
from .canvas import Canvas, Point, canvas_size
from .colours import RGB, VIVID, distance, ground, mix, shade, text_on
from .drawn import Drawn, Stock
from .questions import QA, vary
from .wording import spelled

COUNTED = spelled(
    "how many {} [are in the picture|are there|do you see in the image|do you see|are drawn|can you count|]?",
    "[count|count up] [the|all] {}.",
    "[what is|what's|find|give] the number of {}?",
    "number of {}?",
    "[there are|you see] how many {}?",
)
COUNTED_HELD_OUT = ("tell how many {} were drawn here.", "what number of {} does the image contain?")
ROWS_COLUMNS = spelled(
    "how many rows and columns [has the table|has the grid|are there]? answer as rows={{{r}}} columns={{{c}}}.",
    "count the rows and the columns and write them [like|as] rows={{{r}}} columns={{{c}}}.",
    "[what is|find] the number of rows and columns? [answer|write it] [like|as] rows={{{r}}} columns={{{c}}}.",
)
ROWS_COLUMNS_HELD_OUT = ("state the size of the grid in the form rows={{{r}}} columns={{{c}}}.",)
PAIR = spelled(
    "how many rows and columns are in the [grid|table]? answer with a pair such as ({r},{c}).",
    "count [the|] rows and columns. write only (rows,columns), for example ({r},{c}).",
    "[rows and columns|the number of rows and of columns], as a pair [like|such as] ({r},{c})?",
)
PAIR_HELD_OUT = ("give the table's rows and columns in brackets, like ({r},{c}).",)
CORNERS = {"circle": 0, "triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6}
SHAPES = ("circle", "circle", "pentagon", "pentagon", "square", "triangle", "hexagon")
ARRANGED, ARRANGED_HELD_OUT = ("rings", "rings", "row", "cluster"), ("rings", "wheel")
NESTED, NESTED_HELD_OUT = ("one", "many", "turned"), ("one", "filled")
RULED, RULED_HELD_OUT = ("lines", "lines", "header", "stripes"), ("lines", "dashes")
MOST_SHAPES = 9


def overlapping_shapes(rng: random.Random, stock: Stock) -> Drawn:
    """Draw 2 to 9 outlines of one kind and size that overlap their neighbours, as the Olympic rings do."""
    n, size = rng.randint(2, MOST_SHAPES), canvas_size(rng)
    shape = rng.choice(SHAPES)
    arranged = stock.one_of(rng, ARRANGED, ARRANGED_HELD_OUT)
    centres, radius = _within(rng, size, _arrangement(rng, arranged, n))
    width = min(rng.uniform(1.5, 6), radius / 6)
    inks = [shade(rng, stock, name) for name in rng.choices(VIVID, k=n)]
    if rng.random() < 0.5:
        inks = inks[:1] * n
    filling = rng.random() < 0.2
    turn = rng.choice((0.0, rng.uniform(0, 2 * math.pi)))
    canvas = Canvas(size, ground(rng, stock, set(inks)), rng.random() < 0.8)
    paint = [mix(ink, (255, 255, 255), 0.6) for ink in inks]
    if filling:
        for centre, fill in zip(centres, paint, strict=True):
            _shape(canvas, shape, centre, radius, turn, fill, None, width)
    for centre, ink in zip(centres, inks, strict=True):
        _shape(canvas, shape, centre, radius, turn, None, ink, width)
    return Drawn(canvas.picture(), _asked(rng, stock, f"{shape}s", n), told={"shapes": n})


def _asked(rng: random.Random, stock: Stock, many: str, n: int) -> tuple[QA, ...]:
    """Ask how many there are and, in training, twice whether there are more than some."""
    first = ask_number(rng, stock, stock.one_of(rng, COUNTED, COUNTED_HELD_OUT).format(many), n, MOST_SHAPES)
    return (first,) if stock.is_held_out else (first, *(more_than(rng, n, many) for _ in range(2)))


def _arrangement(rng: random.Random, arranged: str, n: int) -> list[Point]:
    """Place `n` centres of shapes of radius 1, each overlapping another, none hiding another."""
    if arranged == "row":
        step = rng.uniform(0.6, 1.6)
        return [(step * i, rng.uniform(-0.2, 0.2)) for i in range(n)]
    if arranged == "rings":
        step, drop = rng.uniform(1.5, 1.85) / 2, rng.uniform(0.6, 1.1)
        return [(step * i, drop * (i % 2)) for i in range(n)]
    if arranged == "wheel":
        around = rng.uniform(1.2, 1.7) / (2 * math.sin(math.pi / n))
        start = rng.uniform(0, math.pi)
        return [
            (around * math.cos(start + 2 * math.pi * i / n), around * math.sin(start + 2 * math.pi * i / n))
            for i in range(n)
        ]
    centres = [(0.0, 0.0)]
    while len(centres) < n:
        (x, y), turn, reach = rng.choice(centres), rng.uniform(0, 2 * math.pi), rng.uniform(0.9, 1.5)
        new = (x + reach * math.cos(turn), y + reach * math.sin(turn))
        if all(math.dist(new, other) > 0.85 for other in centres):
            centres.append(new)
    return centres


def _within(rng: random.Random, size: tuple[int, int], centres: list[Point]) -> tuple[list[Point], float]:
    """Scale and move an arrangement of shapes of radius 1 into the canvas; return the centres and the radius."""
    if rng.random() < 0.25 and size[0] >= size[1]:
        centres = [(y, x) for x, y in centres]
    low = [min(values) - 1 for values in zip(*centres, strict=True)]
    high = [max(values) + 1 for values in zip(*centres, strict=True)]
    room = min((side - 12) / (b - a) for a, b, side in zip(low, high, (size[1], size[0]), strict=True))
    scale = min(room, rng.uniform(max(13, 0.6 * room), max(13, room)), 0.24 * min(size))
    shift = [
        rng.uniform(6 - scale * a, max(6 - scale * a, side - 6 - scale * b))
        for a, b, side in zip(low, high, (size[1], size[0]), strict=True)
    ]
    return [(scale * x + shift[0], scale * y + shift[1]) for x, y in centres], scale


def _shape(
    canvas: Canvas,
    shape: str,
    centre: Point,
    radius: float,
    turn: float,
    fill: RGB | None,
    ink: RGB | None,
    width: float,
) -> None:
    n = CORNERS[shape]
    if not n:
        canvas.disc(centre, radius, fill, ink, width)
        return
    inner = radius - width / 2
    angles = [turn - math.pi / 2 + 2 * math.pi * i / n for i in range(n)]
    canvas.polygon(
        [(centre[0] + inner * math.cos(a), centre[1] + inner * math.sin(a)) for a in angles], fill, ink, width
    )


def nested_squares(rng: random.Random, stock: Stock) -> Drawn:
    """Draw 1 to 7 squares, each inside of the one before, with a clear gap between their lines."""
    n, size = rng.randint(1, 7), canvas_size(rng)
    style = stock.one_of(rng, NESTED, NESTED_HELD_OUT)
    turn = rng.uniform(-0.7, 0.7) if style == "turned" else 0.0
    width = rng.uniform(1.2, 4)
    sides, places = _nest(rng, n, size, width, turn)
    inks = [shade(rng, stock, name) for name in (rng.sample(VIVID, n) if style != "one" else [rng.choice(VIVID)] * n)]
    if style == "filled":
        inks = _alternating(rng, stock, n)
    canvas = Canvas(size, ground(rng, stock, inks[:1] if style == "filled" else set(inks)), rng.random() < 0.8)
    for side, (x, y), ink in zip(sides, places, inks, strict=True):
        corners = [(x + _turned(dx, dy, side, turn)[0], y + _turned(dx, dy, side, turn)[1])
                   for dx, dy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]  # fmt: skip
        canvas.polygon(corners, ink if style == "filled" else None, ink, width)
    return Drawn(canvas.picture(), _asked(rng, stock, "squares", n), told={"squares": n})


def _alternating(rng: random.Random, stock: Stock, n: int) -> list[RGB]:
    """Draw a colour for each square, none like the one around it."""
    inks: list[RGB] = []
    while len(inks) < n:
        ink = shade(rng, stock, rng.choice((*VIVID, "white")))
        if not inks or distance(ink, inks[-1]) > 110:
            inks.append(ink)
    return inks


def _turned(dx: int, dy: int, side: float, turn: float) -> Point:
    cos, sin = math.cos(turn) * side / 2, math.sin(turn) * side / 2
    return dx * cos - dy * sin, dx * sin + dy * cos


def _nest(
    rng: random.Random, n: int, size: tuple[int, int], width: float, turn: float
) -> tuple[list[float], list[Point]]:
    """Draw the sides and centres of `n` squares, from the outermost to the innermost."""
    least = 2 * (width + 4)  # what a square is smaller than the one around it, in all
    reach = abs(math.cos(turn)) + abs(math.sin(turn))
    room = (min(size) - 2 * width - 8) / reach
    side = rng.uniform(max(0.45 * room, n * least + 10), room)
    x, y = (
        rng.uniform(side * reach / 2 + width + 2, full - side * reach / 2 - width - 2) for full in (size[1], size[0])
    )
    sides, places = [side], [(x, y)]
    concentric = rng.random() < 0.4
    for left in range(n - 1, 0, -1):
        most = max(least, (side - 10 - (left - 1) * least) / left * 1.3)
        smaller = rng.uniform(least, min(most, side - 10 - (left - 1) * least))
        slack = 0.0 if concentric else (smaller - least) / 2
        moved = _turned(1, 0, 2 * rng.uniform(-slack, slack), turn), _turned(0, 1, 2 * rng.uniform(-slack, slack), turn)
        side, x, y = side - smaller, x + moved[0][0] + moved[1][0], y + moved[0][1] + moved[1][1]
        sides.append(side)
        places.append((x, y))
    return sides, places


def grid(rng: random.Random, stock: Stock) -> Drawn:
    """Draw a grid of 2 to 9 rows and columns, empty or with words in it."""
    rows, columns, size = rng.randint(2, 9), rng.randint(2, 9), canvas_size(rng)
    style = stock.one_of(rng, RULED, RULED_HELD_OUT)
    ink = shade(rng, stock, rng.choice(("black", "black", "grey", "blue", "red", "green", "brown", "purple")))
    paper = ground(rng, stock, [ink], least=150)
    canvas = Canvas(size, paper, rng.random() < 0.6)
    across, down = _rules(rng, columns, size[1]), _rules(rng, rows, size[0])
    _cells(canvas, style, across, down, paper, ink)
    _lines(canvas, style, across, down, ink, rng.choice((1, 1, 2, 3)))
    if rng.random() < 0.5:
        _write(rng, stock, canvas, across, down, text_on(paper), rng.choice((1.0, 1.0, 0.6)))
    pairs = [_ask_grid(rng, stock, rows, columns) for _ in range(1 if stock.is_held_out else 3)]
    return Drawn(canvas.picture(), tuple(dict.fromkeys(pairs)), told={"rows": rows, "columns": columns})


def _rules(rng: random.Random, n: int, side: int) -> list[int]:
    """Draw where the lines of `n` cells are along a side, evenly or not."""
    room = rng.randint(max(26 * n, side * 5 // 10), side - 10) if side - 10 > 26 * n else side - 10
    parts = [rng.uniform(0.7, 1.4) if rng.random() < 0.5 else 1.0] * n
    if rng.random() < 0.3:
        parts = [rng.uniform(0.75, 1.35) for _ in range(n)]
    start = rng.randint(4, side - room - 5)
    return [start + round(room * part / sum(parts)) for part in accumulate(parts, initial=0.0)]


def _cells(canvas: Canvas, style: str, across: list[int], down: list[int], paper: RGB, ink: RGB) -> None:
    if style == "header":
        canvas.box((across[0], down[0], across[-1], down[1]), mix(paper, ink, 0.25))
    if style == "stripes":
        for top, bottom in list(pairwise(down))[::2]:
            canvas.box((across[0], top, across[-1], bottom), mix(paper, ink, 0.15))


def _lines(canvas: Canvas, style: str, across: list[int], down: list[int], ink: RGB, width: int) -> None:
    for number, x in enumerate(across):
        _rule(canvas, (x, down[0]), (x, down[-1]), ink, width, style == "dashes" and 0 < number < len(across) - 1)
    for number, y in enumerate(down):
        _rule(canvas, (across[0], y), (across[-1], y), ink, width, style == "dashes" and 0 < number < len(down) - 1)


def _rule(canvas: Canvas, start: Point, end: Point, ink: RGB, width: int, broken: bool) -> None:
    if broken:
        canvas.dashes(start, end, ink, width, 5, 4)
    else:
        canvas.line((start, end), ink, width)


def _write(
    rng: random.Random, stock: Stock, canvas: Canvas, across: list[int], down: list[int], ink: RGB, share: float
) -> None:
    """Write a word or a number into a share of the cells, where it fits."""
    room = min(b - a for a, b in pairwise(down)), min(b - a for a, b in pairwise(across))
    letters = stock.font(rng, max(8, min(rng.randint(9, 18), int(0.55 * room[0]))))
    for top, bottom in pairwise(down):
        for left, right in pairwise(across):
            text = _fitting(rng, stock, letters, right - left - 6)
            if text and rng.random() < share:
                canvas.text(((left + right) / 2, (top + bottom) / 2), text, letters, ink, "mm")


def _fitting(rng: random.Random, stock: Stock, letters: ImageFont.FreeTypeFont, room: float) -> str:
    for _ in range(3):
        text = rng.choice(stock.words) if rng.random() < 0.7 else str(rng.randint(0, 999))
        if letters.getlength(text) <= room:
            return text
    return ""


def _ask_grid(rng: random.Random, stock: Stock, rows: int, columns: int) -> tuple[str, str]:
    style = rng.random()
    example = {"r": rng.randint(2, 9), "c": rng.randint(2, 9)}
    if style < 0.3:
        return vary(rng, stock.one_of(rng, ROWS_COLUMNS, ROWS_COLUMNS_HELD_OUT).format(**example)), (
            f"rows={{{rows}}} columns={{{columns}}}"
        )
    if style < 0.6:
        return vary(rng, stock.one_of(rng, PAIR, PAIR_HELD_OUT).format(**example)), f"({rows},{columns})"
    kind, n = rng.choice((("rows", rows), ("columns", columns)))
    return ask_number(rng, stock, stock.one_of(rng, COUNTED, COUNTED_HELD_OUT).format(kind), n, 9)
