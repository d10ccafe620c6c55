"""Statements about three boxes, each with the rule that tells whether it is true of a picture's structure.

Of towers one speaks of blocks, base and top; of scattered things of items, walls and corners. The kinds of statements
are those of NLVR's sentences, the wordings our own. Source: as in boxes.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise

from .boxes import COLOURS, SHAPES, Box, Boxes, Item
from .drawn import Stock
from .questions import NUMBERS

Truth = Callable[[Boxes], bool]
Statement = tuple[str, Truth]
Template = Callable[[random.Random, Stock], Statement]
Part = Callable[[Item], bool]
Test = Callable[[int], bool]

IN_ALL = ("there {is_} {n} {what}.", "the boxes hold {n} {what} in all.", "{n} {what} can be seen.")
IN_ALL_HELD_OUT = ("altogether one finds {n} {what}.",)
A_BOX = ("there is a box with {n} {what}.", "one of the boxes has {n} {what}.", "some box contains {n} {what}.")
A_BOX_HELD_OUT = ("in one of the grey squares are {n} {what}.",)
TOUCHING = ("there {is_} {n} {what} touching the {wall}.", "{n} {what} touching the {wall} can be seen.")
TOUCHING_HELD_OUT = ("{n} {what} stand against the {wall}.",)
FREE = ("there {is_} {n} {what} not touching any {wall}.", "{n} {what} can be seen that touch no {wall}.")
FREE_HELD_OUT = ("{n} {what} keep away from every {wall}.",)
EACH = ("each box has at least one {what}.", "there is a {what} in every box.", "all boxes contain a {what}.")
EACH_HELD_OUT = ("no box is without a {what}.",)
BOTH = ("there is a box with a {a} and a {b}.", "some box holds a {a} and also a {b}.")
BOTH_HELD_OUT = ("a {a} shares its box with a {b}.",)
ONE_COLOUR = ("there is a box with items of only one colour.", "in one box all items have the same color.")
ONE_COLOUR_HELD_OUT = ("some box is filled with a single colour.",)
TWO_COLOURS = (
    "there is a box with both {a} and {b} items but nothing else.",
    "one box has {a} and also {b} items and no others.",
)
TWO_COLOURS_HELD_OUT = ("the two colours {a} and {b}, and no third, are in some box.",)
ON_TOP = (
    "there is a box with a {a} item on top.",
    "in one box the highest item is {a}.",
    "a {a} item is on top of a box.",
)
ON_TOP_HELD_OUT = ("the uppermost thing in some box is {a}.",)
SAME_BOX = ("only one box has {a} items.", "exactly one of the boxes contains {a} items.")
SAME_BOX_HELD_OUT = ("{a} things are found in one single box.",)
CORNER = ("there is a {what} touching a corner.", "a {what} lies in a corner of a box.")
CORNER_HELD_OUT = ("some corner is filled by a {what}.",)
SIZED = ("there is a {size} {what}.", "one of the boxes has a {size} {what}.")
SIZED_HELD_OUT = ("a {what} of {size} size is there.",)
WALLS = ("wall", "edge")
SIZE_NAMES = {"small": 10, "medium": 20, "big": 30}

TOWER = (
    "there {is_} {n} {towers} with {what}.",
    "{n} {towers} with {what} can be seen.",
    "one sees {n} {towers} with {what}.",
)
TOWER_HELD_OUT = ("{n} {towers} can be found that have {what}.",)
ENDS = ("a {a} block at the {end}", "a {a} {end}", "a {a} block as the {end}")
ENDS_HELD_OUT = ("a {end} in {a}",)
HIGH = ("exactly {n} blocks", "{n} blocks in all", "just {n} blocks")
HIGH_HELD_OUT = ("a height of {n} blocks",)
OVER = ("there is a {a} block on a {b} block.", "some tower has a {a} block right on top of a {b} block.")
OVER_HELD_OUT = ("a {a} block rests on a {b} one.",)
UNDER = ("there is a {b} block directly below a {a} block.", "some tower has a {b} block right under a {a} block.")
UNDER_HELD_OUT = ("a {b} block carries a {a} one.",)
BLOCKS = ("there {is_} {n} {what}.", "the towers have {n} {what} in all.")
BLOCKS_HELD_OUT = ("put together, the towers consist of {n} {what}.",)
PLAIN = ("there is a tower of only one colour.", "all blocks of one tower have the same color.")
PLAIN_HELD_OUT = ("some tower is built in a single colour.",)
LEVEL = ("at least two towers have the same height.", "there are two towers of the same height.")
LEVEL_HELD_OUT = ("two towers or more are equally high.",)
SECOND = ("there is a tower whose second block from the base is {a}.", "in one tower the second block is {a}.")
SECOND_HELD_OUT = ("some tower has a {a} block next above its base.",)
PLACED = ("the tower {place} has {what}.", "there is {what} in the tower {place}.")
PLACED_HELD_OUT = ("{what} belongs to the tower {place}.",)
WHERE = ("on the left", "in the middle", "on the right")
TOP_OF = ("the tower with {n} blocks has a {a} top.", "there is a tower of {n} blocks with a {a} block at the top.")
TOP_OF_HELD_OUT = ("a {a} block crowns a tower of {n} blocks.",)


def amount(rng: random.Random, most: int) -> tuple[str, Test, bool]:
    """Draw a quantity: its words, what numbers fit it, and whether its noun is in the singular."""
    n = rng.randint(1, most)
    number = str(n) if rng.random() < 0.4 else NUMBERS[n]
    style = rng.random()
    if style < 0.08:
        return "no", lambda found: found == 0, False
    if style < 0.3:
        return f"exactly {number}", lambda found: found == n, n == 1
    if style < 0.45:
        return f"only {number}", lambda found: found == n, n == 1
    if style < 0.75:
        return f"at least {number}", lambda found: found >= n, n == 1
    if style < 0.85:
        return f"at most {number}", lambda found: found <= n, n == 1
    return f"more than {number}", lambda found: found > n, n == 1


def be(singular: bool) -> str:
    """Return the verb for a quantity."""
    return "is" if singular else "are"


def noun(rng: random.Random, thing: str) -> tuple[str, Part]:
    """Draw a kind of thing: a colour, a shape (of a tower always `block`), or both; its noun in the singular."""
    colour, style = rng.choice(COLOURS), rng.random()
    if thing == "block":
        return f"{colour} block", lambda item: item.colour == colour
    shape = rng.choice(SHAPES)
    if style < 0.35:
        return f"{colour} {rng.choice(('item', 'object'))}", lambda item: item.colour == colour
    if style < 0.6:
        return shape, lambda item: item.shape == shape
    return f"{colour} {shape}", lambda item: (item.colour, item.shape) == (colour, shape)


def plural(name: str, singular: bool) -> str:
    """Put a noun into the plural, unless it is one."""
    return name if singular else f"{name}s"


def n_of(box: Sequence[Item], part: Part) -> int:
    """Count the items of a box that a test fits."""
    return sum(map(part, box))


def n_boxes(scene: Boxes, test: Callable[[Box], bool]) -> int:
    """Count the boxes that a test fits."""
    return sum(map(test, scene.boxes))


def everything(scene: Boxes) -> list[Item]:
    """Return the items of all boxes."""
    return [item for box in scene.boxes for item in box]


def _in_all(rng: random.Random, stock: Stock) -> Statement:
    (n, test, one), (what, part) = amount(rng, 6), noun(rng, "item")
    text = stock.one_of(rng, IN_ALL, IN_ALL_HELD_OUT).format(n=n, what=plural(what, one), is_=be(one))
    return text, lambda scene: test(n_of(everything(scene), part))


def _a_box(rng: random.Random, stock: Stock) -> Statement:
    (n, test, one), (what, part) = amount(rng, 4), noun(rng, "item")
    if rng.random() < 0.3:
        what, part = "item", lambda item: True
    text = stock.one_of(rng, A_BOX, A_BOX_HELD_OUT).format(n=n, what=plural(what, one))
    return text, lambda scene: n_boxes(scene, lambda box: test(n_of(box, part))) > 0


def _touching(rng: random.Random, stock: Stock) -> Statement:
    (n, test, one), (what, part), against = amount(rng, 3), noun(rng, "item"), rng.random() < 0.6
    phrasings = (TOUCHING, TOUCHING_HELD_OUT) if against else (FREE, FREE_HELD_OUT)
    text = stock.one_of(rng, *phrasings).format(n=n, what=plural(what, one), is_=be(one), wall=rng.choice(WALLS))
    return text, lambda scene: test(n_of(everything(scene), lambda item: part(item) and (item.walls > 0) == against))


def _each(rng: random.Random, stock: Stock) -> Statement:
    what, part = noun(rng, "item")
    text = stock.one_of(rng, EACH, EACH_HELD_OUT).format(what=what)
    return text, lambda scene: n_boxes(scene, lambda box: n_of(box, part) > 0) == 3


def _both(rng: random.Random, stock: Stock) -> Statement:
    (a, first), (b, second) = noun(rng, "item"), noun(rng, "item")
    text = stock.one_of(rng, BOTH, BOTH_HELD_OUT).format(a=a, b=b)

    def holds(box: Box) -> bool:  # two things: one does not count as both
        firsts, seconds = ([i for i, item in enumerate(box) if part(item)] for part in (first, second))
        return any(i != j for i in firsts for j in seconds)

    return text, lambda scene: n_boxes(scene, holds) > 0


def _one_colour(rng: random.Random, stock: Stock) -> Statement:
    text = stock.one_of(rng, ONE_COLOUR, ONE_COLOUR_HELD_OUT)
    return text, lambda scene: n_boxes(scene, lambda box: len({item.colour for item in box}) == 1) > 0


def _two_colours(rng: random.Random, stock: Stock) -> Statement:
    a, b = rng.sample(COLOURS, 2)
    text = stock.one_of(rng, TWO_COLOURS, TWO_COLOURS_HELD_OUT).format(a=a, b=b)
    return text, lambda scene: n_boxes(scene, lambda box: {item.colour for item in box} == {a, b}) > 0


def _on_top(rng: random.Random, stock: Stock) -> Statement:
    colour = rng.choice(COLOURS)
    text = stock.one_of(rng, ON_TOP, ON_TOP_HELD_OUT).format(a=colour)
    return text, lambda scene: n_boxes(scene, lambda box: min(box, key=lambda item: item.y).colour == colour) > 0


def _same_box(rng: random.Random, stock: Stock) -> Statement:
    colour = rng.choice(COLOURS)
    text = stock.one_of(rng, SAME_BOX, SAME_BOX_HELD_OUT).format(a=colour)
    return text, lambda scene: n_boxes(scene, lambda box: n_of(box, lambda item: item.colour == colour) > 0) == 1


def _corner(rng: random.Random, stock: Stock) -> Statement:
    what, part = noun(rng, "item")
    text = stock.one_of(rng, CORNER, CORNER_HELD_OUT).format(what=what)
    return text, lambda scene: any(part(item) and item.walls == 2 for item in everything(scene))


def _sized(rng: random.Random, stock: Stock) -> Statement:
    (what, part), size = noun(rng, "item"), rng.choice(tuple(SIZE_NAMES))
    text = stock.one_of(rng, SIZED, SIZED_HELD_OUT).format(what=what, size=size)
    return text, lambda scene: any(part(item) and item.size == SIZE_NAMES[size] for item in everything(scene))


def _tower(rng: random.Random, stock: Stock) -> Statement:
    """Count the towers with a colour at an end, of a height, or with a number of blocks of a colour."""
    n, test, one = amount(rng, 2)
    colour, end, height = rng.choice(COLOURS), rng.choice(("base", "top")), rng.randint(1, 4)
    style = rng.random()
    if style < 0.6:
        what = stock.one_of(rng, ENDS, ENDS_HELD_OUT).format(a=colour, end=end)

        def holds(box: Box) -> bool:
            return box[0 if end == "base" else -1].colour == colour

    elif style < 0.8:
        what = stock.one_of(rng, HIGH, HIGH_HELD_OUT).format(n=NUMBERS[height]).replace("one blocks", "one block")

        def holds(box: Box) -> bool:
            return len(box) == height

    else:
        number, fits, single = amount(rng, 3)
        what = f"{number} {colour} {plural('block', single)}"

        def holds(box: Box) -> bool:
            return fits(n_of(box, lambda item: item.colour == colour))

    text = stock.one_of(rng, TOWER, TOWER_HELD_OUT).format(n=n, towers=plural("tower", one), what=what, is_=be(one))
    return text, lambda scene: test(n_boxes(scene, holds))


def _over(rng: random.Random, stock: Stock) -> Statement:
    a, b = rng.choice(COLOURS), rng.choice(COLOURS)
    phrasings = (OVER, OVER_HELD_OUT) if rng.random() < 0.6 else (UNDER, UNDER_HELD_OUT)
    text = stock.one_of(rng, *phrasings).format(a=a, b=b)
    return text, lambda scene: any(
        (upper.colour, lower.colour) == (a, b) for box in scene.boxes for lower, upper in pairwise(box)
    )


def _blocks(rng: random.Random, stock: Stock) -> Statement:
    (n, test, one), (what, part) = amount(rng, 5), noun(rng, "block")
    text = stock.one_of(rng, BLOCKS, BLOCKS_HELD_OUT).format(n=n, what=plural(what, one), is_=be(one))
    return text, lambda scene: test(n_of(everything(scene), part))


def _plain(rng: random.Random, stock: Stock) -> Statement:
    text = stock.one_of(rng, PLAIN, PLAIN_HELD_OUT)
    return text, lambda scene: n_boxes(scene, lambda box: len({item.colour for item in box}) == 1) > 0


def _level(rng: random.Random, stock: Stock) -> Statement:
    return stock.one_of(rng, LEVEL, LEVEL_HELD_OUT), lambda scene: len({len(box) for box in scene.boxes}) < 3


def _second(rng: random.Random, stock: Stock) -> Statement:
    colour = rng.choice(COLOURS)
    text = stock.one_of(rng, SECOND, SECOND_HELD_OUT).format(a=colour)
    return text, lambda scene: n_boxes(scene, lambda box: len(box) > 1 and box[1].colour == colour) > 0


def _placed(rng: random.Random, stock: Stock) -> Statement:
    number, (what, part) = rng.randrange(3), noun(rng, "block")
    text = stock.one_of(rng, PLACED, PLACED_HELD_OUT).format(place=WHERE[number], what=f"a {what}")
    return text, lambda scene: n_of(scene.boxes[number], part) > 0


def _top_of(rng: random.Random, stock: Stock) -> Statement:
    colour, height = rng.choice(COLOURS), rng.randint(2, 4)
    text = stock.one_of(rng, TOP_OF, TOP_OF_HELD_OUT).format(a=colour, n=NUMBERS[height])
    return text, lambda scene: n_boxes(scene, lambda box: len(box) == height and box[-1].colour == colour) > 0


SCATTERED: tuple[Template, ...] = (
    _in_all, _in_all, _a_box, _a_box, _touching, _touching, _each, _both, _one_colour, _two_colours, _on_top, _same_box,
    _corner, _sized,
)  # fmt: skip
TOWERS: tuple[Template, ...] = (
    _tower,
    _tower,
    _tower,
    _over,
    _over,
    _blocks,
    _plain,
    _level,
    _second,
    _placed,
    _top_of,
)
