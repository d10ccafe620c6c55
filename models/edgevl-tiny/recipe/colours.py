"""Colours to draw with: named inks and grounds, of which some shades are only in the held-out part.

Colours are (red, green, blue), 0 to 255. `distance` is Euclidean over the three.
"""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Iterable, Sequence

from .drawn import Stock

RGB = tuple[int, int, int]

SHADES: dict[str, tuple[tuple[RGB, ...], tuple[RGB, ...]]] = {
    "red": (((218, 32, 36), (255, 0, 0), (196, 18, 52)), ((238, 44, 44), (204, 0, 0))),
    "green": (((42, 160, 62), (0, 128, 0), (60, 190, 70)), ((34, 139, 34), (0, 160, 80))),
    "blue": (((36, 76, 214), (0, 0, 255), (20, 60, 160)), ((30, 60, 240), (25, 90, 190))),
    "yellow": (((245, 216, 40), (255, 235, 0), (250, 225, 90)), ((240, 225, 20), (255, 221, 60))),
    "orange": (((246, 136, 22), (255, 127, 14), (240, 140, 50)), ((255, 145, 0), (235, 120, 20))),
    "purple": (((130, 48, 170), (128, 0, 128), (110, 40, 190)), ((145, 40, 160), (120, 20, 150))),
    "pink": (((250, 142, 192), (255, 105, 180), (250, 170, 205)), ((255, 130, 185), (245, 150, 200))),
    "brown": (((122, 74, 36), (139, 69, 19), (110, 60, 30)), ((130, 80, 50), (115, 65, 15))),
    "black": (((18, 18, 20), (0, 0, 0), (30, 30, 34)), ((10, 10, 14), (26, 22, 22))),
    "white": (((248, 248, 248), (255, 255, 255), (242, 242, 240)), ((252, 250, 246), (245, 247, 250))),
    "grey": (((128, 128, 128), (140, 140, 145), (115, 115, 118)), ((134, 132, 130), (120, 124, 128))),
}
"""Shades of each colour: of the training part, and of the held-out part."""
VIVID = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "brown", "black")
HUES = 24
"""Grounds without a name come from this many slices of hue, of which every sixth is held out."""


def distance(first: RGB, second: RGB) -> float:
    """Return how far two colours are apart."""
    return math.dist(first, second)


def luma(colour: RGB) -> float:
    """Return how bright a colour is, 0 to 255."""
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue


def contrast(first: RGB, second: RGB) -> float:
    """Return how well a thin line of one colour is seen on the other: difference in brightness counts most."""
    return 0.5 * distance(first, second) + abs(luma(first) - luma(second))


def shade(rng: random.Random, stock: Stock, name: str) -> RGB:
    """Draw a shade of a named colour."""
    return stock.one_of(rng, *SHADES[name])


def is_held_out_hue(hue: float) -> bool:
    """Tell whether a hue, 0 to 1, belongs to the held-out part."""
    return int(hue * HUES) % HUES % 6 == 3


def tint(rng: random.Random, stock: Stock, saturation: float, value: float) -> RGB:
    """Draw a hue of this part, with a saturation and a value from 0 to 1."""
    while True:
        hue = rng.random()
        if is_held_out_hue(hue) == stock.is_held_out:
            red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
            return round(255 * red), round(255 * green), round(255 * blue)


def ground(rng: random.Random, stock: Stock, away: Iterable[RGB] = (), least: float = 110.0) -> RGB:
    """Draw a ground: white, light, dark or coloured, of a contrast of `least` to all of `away` where that can be."""
    others = tuple(away)
    best, best_distance = (255, 255, 255), -1.0
    for _ in range(30):
        candidate = _ground(rng, stock)
        nearest = min((contrast(candidate, other) for other in others), default=999.0)
        if nearest >= least:
            return candidate
        if nearest > best_distance:
            best, best_distance = candidate, nearest
    return best


def _ground(rng: random.Random, stock: Stock) -> RGB:
    style = rng.random()
    if style < 0.35:
        return 255, 255, 255
    if style < 0.7:
        return tint(rng, stock, rng.uniform(0, 0.16), rng.uniform(0.86, 1))
    if style < 0.85:
        return tint(rng, stock, rng.uniform(0, 0.5), rng.uniform(0.05, 0.3))
    return tint(rng, stock, rng.uniform(0.1, 0.6), rng.uniform(0.4, 0.9))


def named(
    rng: random.Random, stock: Stock, n: int, names: Sequence[str] = VIVID, least: float = 90.0
) -> list[tuple[str, RGB]]:
    """Draw `n` colours of different names, no two nearer than `least` where that can be; `n` at most `len(names)`."""
    best: list[tuple[str, RGB]] = []
    best_distance = -1.0
    for _ in range(12):
        drawn = [(name, shade(rng, stock, name)) for name in rng.sample(tuple(names), n)]
        colours = [colour for _, colour in drawn]
        nearest = min((distance(a, b) for i, a in enumerate(colours) for b in colours[:i]), default=999.0)
        if nearest >= least:
            return drawn
        if nearest > best_distance:
            best, best_distance = drawn, nearest
    return best


def text_on(colour: RGB) -> RGB:
    """Return black or white, whichever reads better on `colour`."""
    return (0, 0, 0) if luma(colour) > 140 else (255, 255, 255)


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """Mix two colours; `share` from 0 (the first) to 1 (the second)."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue
