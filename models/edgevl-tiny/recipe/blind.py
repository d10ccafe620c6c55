"""The seven tasks of BlindTest, drawn by rules of our own in a wide range of styles.

Source: Rahmanzadehgervi et al. 2024, "Vision language models are blind". No picture of theirs is used. What is asked
for is drawn first (a number of crossings, a yes), then a picture that shows it by a clear margin.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import pairwise
from string import ascii_lowercase

from PIL.ImageFont import FreeTypeFont

from .asking import ask, ask_number, more_than, several
from .canvas import Canvas, Point, canvas_size
from .colours import RGB, distance, ground, named, shade
from .counted import grid, nested_squares, overlapping_shapes
from .drawn import Drawn, Stock, Task
from .geometry import Whole, angle_between, apart, cross, crossing
from .questions import vary
from .subway import subway
from .wording import spelled

CROSSINGS = spelled(
    "how often do the {a} line and the {b} line [cross|touch|intersect]?",
    "how many times do the {a} and {b} lines [touch each other|cross|touch|intersect|meet]?",
    "how many [crossings|intersections|crossing points] do the {a} and {b} lines have?",
    "[count|count up] the [points|places] where the {a} and {b} lines [meet|cross].",
    "how many [intersections|crossings] [are there|do you see] [between|of] the {a} and the {b} line?",
    "in how many places [does the {a} line cross the {b} one|do the {a} and the {b} line cross]?",
    "[what is|what's|give] the number of crossings of the {a} and the {b} line?",
)
CROSSINGS_HELD_OUT = (
    "at how many points do the lines in {a} and {b} intersect?",
    "tell the number of times the {a} line meets the {b} line.",
)
TOUCHING = spelled(
    "[are|do you see that] the [two|] circles [are|] touching?",
    "[do|can you see whether] the [two|] circles touch [each other|one another|]?",
    "[is|does] one circle [touching|touch] the other?",
    "do these two circles touch? [answer with|say] yes or no.",
    "is one circle touching the other? answer with yes or no.",
    "the [two|] circles: do they touch?",
    "is there no gap between the [two|] circles?",
)
TOUCHING_HELD_OUT = ("are these circles in contact with each other?", "do both circles share any point?")
OVERLAPPING = spelled(
    "are the [two|] circles [overlapping|partly on top of each other]?",
    "do the [two|] circles overlap [each other|]?",
    "do the circles overlap each other? [answer with|say] yes or no.",
    "[is|lies] one circle partly on top of the other?",
    "does one circle cover part of the other?",
    "the [two|] circles: do they overlap?",
)
OVERLAPPING_HELD_OUT = ("is there an area that both circles cover?", "do these circles overlap one another?")
CIRCLED = spelled(
    "[which|what] [letter|character] is circled?",
    "[which|what] [letter|character] [is|stands|lies] [inside|in|within] the {colour} {mark}?",
    "[which|what] letter does the {colour} {mark} [mark|surround|enclose]?",
    "[which|what] character is highlighted [with|by] a {colour} {mark}?",
    "[name|give|find|say] the letter with the {mark} around it.",
    "the {colour} {mark} is around which letter?",
)
CIRCLED_HELD_OUT = ("around which letter is the {colour} {mark} drawn?", "read the letter in the {mark}.")
AT_ALL = spelled(
    "do the {a} and the {b} line [cross|meet|touch|intersect] [at all|anywhere|]?",
    "[is|do you see] there [a|any] [crossing|intersection] of the {a} and the {b} line?",
    "does the {a} line [cross|touch|meet] the {b} one?",
)
IS_CIRCLED = spelled(
    "is the [letter|] {letter} [circled|marked|highlighted]?", "[lies|is] the {mark} around the letter {letter}?"
)
LONG = spelled("how many [letters|characters] [are there|are written|has the word]?", "[count|count up] the letters.")
"""What training asks as well, so that a picture tells it more."""
LINES_APART = 9
LINED, LINED_HELD_OUT = ("plain",), ("plain", "dots")
MARKS, MARKS_HELD_OUT = ("circle", "oval"), ("circle", "oval", "box")


# Lines


def crossings(rng: random.Random, stock: Stock) -> Drawn:
    """Draw two polylines that cross 0, 1 or 2 times; each goes across the picture, or (rarely) down it."""
    n, size = rng.randrange(3), canvas_size(rng)
    width = rng.uniform(1.5, 7)
    upright = rng.random() < 0.25
    first, second = lines_that_cross(rng, n, (size[1], size[0]) if upright else size, width)
    inks = named(rng, stock, 2, least=120)
    style = stock.one_of(rng, LINED, LINED_HELD_OUT)
    canvas = Canvas(size, ground(rng, stock, [ink for _, ink in inks], least=120), rng.random() < 0.75)
    for (_, ink), points in zip(inks, (first, second), strict=True):
        placed = [(y, x) if upright else (x, y) for x, y in points]
        canvas.line(placed, ink, width)
        if style == "dots":
            for point in placed:
                canvas.disc(point, width + 1.5, ink)
    if rng.random() < 0.5:
        inks.reverse()
    names = {"a": inks[0][0], "b": inks[1][0]}
    pairs = [ask_number(rng, stock, stock.one_of(rng, CROSSINGS, CROSSINGS_HELD_OUT).format(**names), n, 5)]
    if not stock.is_held_out:
        pairs.append((vary(rng, rng.choice(AT_ALL).format(**names)), "yes" if n else "no"))
        pairs.append(more_than(rng, n, "crossings"))
    return Drawn(canvas.picture(), tuple(pairs), told={"crossings": n})


def lines_that_cross(
    rng: random.Random, n: int, size: tuple[int, int], width: float
) -> tuple[list[Whole], list[Whole]]:
    """Draw two polylines from left to right that cross `n` times (0 to 2), and are clearly apart everywhere else."""
    height, breadth = size
    margin = math.ceil(width) + 6
    while True:
        n_points = rng.choice((2, 3, 3, 3, 4, 5)) if n < 2 else rng.choice((3, 3, 4, 5))
        lines = []
        for _ in range(2):
            columns = _columns(rng, n_points, margin, breadth - margin)
            lines.append([(x, rng.randint(margin, height - margin)) for x in columns])
        if count_crossings(lines[0], lines[1], width) == n:
            return lines[0], lines[1]


def _columns(rng: random.Random, n: int, start: int, end: int) -> list[int]:
    """Draw `n` places from left to right, evenly spread and then moved a little."""
    step = (end - start) / (n - 1)
    loose = rng.choice((0.0, 0.25)) * step
    return [round(min(end, max(start, start + i * step + rng.uniform(-loose, loose)))) for i in range(n)]


def count_crossings(first: Sequence[Whole], second: Sequence[Whole], width: float) -> int | None:
    """Count where two polylines cross; None where a crossing is too flat or too near an end, or they nearly touch."""
    ours, theirs = list(pairwise(first)), list(pairwise(second))
    met = []
    for one in ours:
        for other in theirs:
            if not cross(one, other):
                if apart(one, other) < width + LINES_APART:
                    return None
                continue
            place = crossing(one, other)
            if angle_between(one, other) < 20 or min(math.dist(place, end) for end in (*one, *other)) < width + 8:
                return None
            met.append(place)
    near = any(math.dist(a, b) < 3 * width + 16 for i, a in enumerate(met) for b in met[:i])
    return None if near else len(met)


# Circles


def two_circles(rng: random.Random, stock: Stock) -> Drawn:
    """Draw two circles apart, just touching or overlapping; ask whether they touch (overlapping ones do) or overlap."""
    size = canvas_size(rng)
    about_touching, yes = rng.random() < 0.5, rng.random() < 0.5
    just = rng.random() < 0.35 and about_touching == yes
    width = rng.uniform(1.5, 5)
    radii = _radii(rng, min(size))
    gap = _gap(rng, radii, width, yes, just)
    places = _two_places(rng, size, radii, sum(radii) + gap)
    filled = rng.random() < 0.5
    inks = [ink for _, ink in named(rng, stock, 2, least=60)]
    if rng.random() < 0.4 and not filled:
        inks[1] = inks[0]
    canvas = Canvas(size, ground(rng, stock, inks), rng.random() < 0.8)
    for place, radius, ink in zip(places, radii, inks, strict=True):
        canvas.disc(place, radius, ink if filled else None, ink, width)
    if filled:  # the outline of the lower one stays visible
        canvas.disc(places[0], radii[0], None, inks[0], width)
    touching = stock.one_of(rng, TOUCHING, TOUCHING_HELD_OUT), "yes" if yes or just else "no"
    overlapping = stock.one_of(rng, OVERLAPPING, OVERLAPPING_HELD_OUT), "yes" if yes and not just else "no"
    first, second = (touching, overlapping) if about_touching else (overlapping, touching)
    told = {"touching": int(yes or just), "overlapping": int(yes and not just)}
    return Drawn(canvas.picture(), several(rng, first, () if stock.is_held_out else (second,)), told=told)


def _radii(rng: random.Random, side: int) -> list[float]:
    radius = rng.uniform(0.09, 0.2) * side
    return [radius, radius if rng.random() < 0.5 else max(0.07 * side, radius * rng.uniform(0.55, 1))]


def _gap(rng: random.Random, radii: list[float], width: float, yes: bool, just: bool) -> float:
    """Draw the gap between two outer edges: -1 pixel where they just touch, below that where they overlap."""
    if just:
        return -1.0
    if yes:
        return -rng.uniform(2 * width + 4, max(2 * width + 6, 0.7 * min(radii)))
    return rng.uniform(4, 4 + rng.choice((0.15, 0.5, 1)) * min(radii))


def _two_places(rng: random.Random, size: tuple[int, int], radii: list[float], length: float) -> list[Point]:
    """Find two centres `length` apart with both circles inside of the canvas."""
    while True:
        turn = rng.choice((0.0, math.pi / 2, rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi)))
        dx, dy = length * math.cos(turn), length * math.sin(turn)
        spans = []
        for offset, side in ((dx, size[1]), (dy, size[0])):
            low = max(radii[0], radii[1] - offset) + 2
            high = side - 2 - max(radii[0], radii[1] + offset)
            spans.append((low, high))
        if all(low <= high for low, high in spans):
            x, y = (rng.uniform(*span) for span in spans)
            return [(x, y), (x + dx, y + dy)]


# Letters


def circled_letter(rng: random.Random, stock: Stock) -> Drawn:
    """Write a word, or letters without a sense, with one letter marked; each letter is marked as often as others."""
    letter = rng.choice(ascii_lowercase)
    word, place = _word_with(rng, stock, letter)
    if rng.random() < 0.25:
        word, letter = word.upper(), letter.upper()
    height, width = canvas_size(rng)
    letters, lefts = _fitting(rng, stock, word, width)
    name, ink = named(rng, stock, 1, ("red", "red", "blue", "green", "orange", "purple"))[0]
    written = shade(rng, stock, rng.choice(("black", "black", "blue", "brown", "grey", "purple")))
    if distance(written, ink) < 100:
        written = shade(rng, stock, "black")
    canvas = Canvas((height, width), ground(rng, stock, (ink, written), least=150), smooth=True)
    top, bottom = letters.getbbox(word)[1::2]
    reach = 0.85 * letters.size
    y = rng.uniform(reach, max(reach, height - reach - (bottom - top))) - top
    for x, character in zip(lefts, word, strict=True):
        canvas.text((x, y), character, letters, written)
    mark = stock.one_of(rng, MARKS, MARKS_HELD_OUT)
    left, over, right, under = letters.getbbox(word[place])
    centre = (lefts[place] + (left + right) / 2, y + (over + under) / 2)
    radii = ((right - left) / 2 + 0.13 * letters.size + 2, (under - over) / 2 + 0.16 * letters.size + 2)
    _mark(canvas, mark, centre, radii, ink, rng.uniform(1.5, 4))
    question = stock.one_of(rng, CIRCLED, CIRCLED_HELD_OUT).format(colour=name, mark=mark)
    pairs = [ask(rng, stock, question, letter, rng.choice(ascii_lowercase), "letter")]
    if not stock.is_held_out:
        asked = rng.choice((letter, *word))
        question = vary(rng, rng.choice(IS_CIRCLED).format(letter=asked, mark=mark))
        pairs.append((question, "yes" if asked == letter else "no"))
        pairs.append((vary(rng, rng.choice(LONG)), str(len(word))))
    return Drawn(canvas.picture(), tuple(pairs), told={"circled": ascii_lowercase.index(letter.lower())})


def _word_with(rng: random.Random, stock: Stock, letter: str) -> tuple[str, int]:
    """Draw a word of 3 to 13 letters with `letter` in it, and the place of one."""
    for _ in range(100 if rng.random() < 0.7 else 0):
        word = rng.choice(stock.words).lower()
        places = [place for place, character in enumerate(word) if character == letter]
        if places and 3 <= len(word) <= 13 and word.isascii() and word.isalpha():
            return word, rng.choice(places)
    n = rng.randint(4, 10)
    place = rng.randrange(n)
    word = "".join(letter if i == place else rng.choice(ascii_lowercase) for i in range(n))
    return word, place


def _fitting(rng: random.Random, stock: Stock, word: str, width: int) -> tuple[FreeTypeFont, list[float]]:
    """Draw a font and each letter's left edge, with room between letters for a mark, within `width`."""
    size = rng.randint(22, 64)
    while True:
        letters = stock.font(rng, size)
        space = rng.uniform(0.16, 0.5) * size
        steps = [letters.getlength(character) + space for character in word]
        rest = width - sum(steps) - size
        if rest >= 0 or size <= 12:
            start = size / 2 + space / 2 + rng.uniform(0, max(0.0, rest))
            return letters, [start + sum(steps[:i]) for i in range(len(word))]
        size = max(12, int(size * 0.85))


def _mark(canvas: Canvas, mark: str, centre: Point, radii: Point, ink: RGB, width: float) -> None:
    (x, y), (rx, ry) = centre, radii
    if mark == "box":
        canvas.box((x - rx, y - ry, x + rx, y + ry), None, ink, width)
    else:
        canvas.oval(centre, (rx, 1.1 * ry), None, ink, width)


TASKS = {
    "line_crossings": Task(crossings, "exact"),
    "two_circles": Task(two_circles, "exact"),
    "circled_letter": Task(circled_letter, "exact"),
    "overlapping_shapes": Task(overlapping_shapes, "exact"),
    "nested_squares": Task(nested_squares, "exact"),
    "grid": Task(grid, "exact"),
    "subway": Task(subway, "exact"),
}
"""The tasks, each a row of the accuracy table."""
