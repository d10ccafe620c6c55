"""Three boxes with circles, squares and triangles in yellow, blue and black, as the pictures of NLVR show them.

Source: Suhr, Lewis, Yeh, Artzi 2017, "A Corpus of Natural Language for Visual Reasoning": boxes of 100 by 100 pixels
with 50 between them, things of 10, 20 or 30 pixels scattered in them, or squares of 20 stacked to a tower. What is in
them is drawn by rules of our own.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw

from .colours import RGB
from .drawn import Stock

SIDE, GAP = 100, 50
COLOURS, SHAPES, SIZES = ("yellow", "blue", "black"), ("circle", "square", "triangle"), (10, 20, 30)
BLOCK = 20
FLOORS = (80, 59, 38, 17)
"""Where the blocks of a tower begin, from the lowest; a pixel of ground is between two."""
CLEAR = 4
"""What does not touch a wall, or another thing, is at least this far from it."""
PARTS = (*COLOURS, "box", "between")
Palette = tuple[RGB, RGB, RGB, RGB, RGB]
"""The colours of `PARTS`."""
PUBLISHED: Palette = ((255, 255, 0), (0, 153, 255), (0, 0, 0), (211, 211, 211), (128, 128, 128))
PALETTES: tuple[Palette, ...] = (
    PUBLISHED,
    PUBLISHED,
    ((250, 225, 30), (20, 90, 230), (20, 20, 24), (228, 228, 224), (90, 90, 96)),
    ((255, 214, 0), (60, 130, 255), (0, 0, 0), (255, 255, 255), (150, 150, 150)),
    ((240, 240, 60), (0, 120, 200), (34, 30, 30), (196, 204, 210), (70, 80, 100)),
)
PALETTES_HELD_OUT: tuple[Palette, ...] = (
    ((255, 235, 40), (30, 110, 245), (10, 10, 10), (220, 212, 206), (110, 100, 96)),
    ((245, 230, 0), (0, 100, 215), (26, 26, 30), (240, 244, 248), (60, 60, 60)),
)


@dataclass(frozen=True)
class Item:
    """A thing in a box: its colour, shape and size, and its upper left corner (y, x) in pixels of the box."""

    colour: str
    shape: str
    size: int
    y: int
    x: int

    @property
    def walls(self) -> int:
        """How many walls it touches; two walls make a corner."""
        return (self.x <= 0) + (self.y <= 0) + (self.x + self.size >= SIDE) + (self.y + self.size >= SIDE)


Box = tuple[Item, ...]


@dataclass(frozen=True)
class Boxes:
    """What a picture shows, from left to right; in a tower the lowest block comes first."""

    boxes: tuple[Box, Box, Box]
    are_towers: bool


def make_boxes(rng: random.Random, towers: bool) -> Boxes:
    """Fill three boxes, with towers or with things scattered in them."""
    first, second, third = ((_tower(rng) if towers else _scattered(rng)) for _ in range(3))
    return Boxes((first, second, third), towers)


def _tower(rng: random.Random) -> Box:
    colours = COLOURS if rng.random() < 0.7 else rng.sample(COLOURS, rng.randint(1, 2))
    return tuple(Item(rng.choice(colours), "square", BLOCK, y, 40) for y in FLOORS[: rng.randint(1, 4)])


def _scattered(rng: random.Random) -> Box:
    """Draw 1 to 8 things that do not touch; about a third touch a wall."""
    colours = COLOURS if rng.random() < 0.7 else rng.sample(COLOURS, rng.randint(1, 2))
    placed: list[Item] = []
    for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8))):
        for _ in range(30):
            size = rng.choice(SIZES)
            item = Item(rng.choice(colours), rng.choice(SHAPES), size, _at(rng, size), _at(rng, size))
            if all(_apart(item, other) for other in placed):
                placed.append(item)
                break
    return tuple(placed)


def _at(rng: random.Random, size: int) -> int:
    return rng.choice((0, SIDE - size)) if rng.random() < 0.2 else rng.randint(CLEAR, SIDE - CLEAR - size)


def _apart(a: Item, b: Item) -> bool:
    across = max(a.x - b.x - b.size, b.x - a.x - a.size)
    return max(across, a.y - b.y - b.size, b.y - a.y - a.size) >= CLEAR and abs(a.y - b.y) >= CLEAR


def from_published(structure: list[list[dict[str, Any]]]) -> Boxes:
    """Read the structure that NLVR tells of a picture: type, color, size, x_loc, y_loc of each thing."""
    names = {"#0099ff": "blue", "Black": "black", "Yellow": "yellow"}
    boxes = [
        tuple(Item(names[row["color"]], row["type"], row["size"], row["y_loc"], row["x_loc"]) for row in box)
        for box in structure
    ]
    towers = all(item.shape == "square" and item.x == 40 and item.y in FLOORS for box in boxes for item in box)
    return Boxes((boxes[0], boxes[1], boxes[2]), towers)


def palette(rng: random.Random, stock: Stock) -> Palette:
    """Draw the colours of a picture."""
    return stock.one_of(rng, PALETTES, PALETTES_HELD_OUT)


def render(scene: Boxes, palette: Palette = PUBLISHED) -> Image.Image:
    """Draw three boxes: 400 pixels wide, 100 high."""
    colours = dict(zip(PARTS, palette, strict=True))
    picture = Image.new("RGB", (3 * SIDE + 2 * GAP, SIDE), colours["between"])
    draw = ImageDraw.Draw(picture)
    for number, box in enumerate(scene.boxes):
        left = number * (SIDE + GAP)
        draw.rectangle((left, 0, left + SIDE - 1, SIDE - 1), fill=colours["box"])
        for item in box:
            x, y, end, fill = left + item.x, item.y, item.size - 1, colours[item.colour]
            if item.shape == "circle":
                draw.ellipse((x, y, x + end, y + end), fill=fill)
            elif item.shape == "square":
                draw.rectangle((x, y, x + end, y + end), fill=fill)
            else:
                draw.polygon(((x, y + end), (x + end, y + end), (x + end / 2, y)), fill=fill)
    return picture
