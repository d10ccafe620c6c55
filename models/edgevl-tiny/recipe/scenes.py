"""Generator of pictures: coloured shapes on varied backgrounds, and printed words.

Every picture follows from a `random.Random`, so one (seed, index) gives one picture on any machine.
Sizes are (height, width) in pixels; positions are (y, x) with y downwards.
"""

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .plan import GRID, IGNORE, by_patch

SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring", "moon", "arrow")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (218, 32, 36),
    "green": (42, 160, 62),
    "blue": (36, 76, 214),
    "yellow": (245, 216, 40),
    "orange": (246, 136, 22),
    "purple": (130, 48, 170),
    "pink": (250, 142, 192),
    "brown": (122, 74, 36),
    "black": (18, 18, 20),
    "white": (248, 248, 248),
    "grey": (128, 128, 128),
}
OVERSAMPLE = 4
"""Points along a side of a patch at which it is looked at to be labelled."""
LARGE_FROM = 0.135  # radius, in parts of the picture's geometric mean side
SMALL_UPTO = 0.10
SUPERSAMPLE = 3


@dataclass(frozen=True)
class Thing:
    """One object: centre (y, x) and radius in pixels, angle in radians."""

    shape: str
    colour: str
    y: float
    x: float
    radius: float
    angle: float
    large: bool

    @property
    def name(self) -> str:
        """Colour and shape, such as `red circle`."""
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """What a picture shows; `things` from left to right."""

    height: int
    width: int
    things: tuple[Thing, ...]


def _circle(radius: float = 1.0, y: float = 0.0, x: float = 0.0) -> list[tuple[float, float]]:
    steps = [2 * math.pi * i / 40 for i in range(40)]
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in steps]


def _spokes(radii: list[float]) -> list[tuple[float, float]]:
    turns = [2 * math.pi * i / len(radii) - math.pi / 2 for i in range(len(radii))]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, turns, strict=True)]


def _heart() -> list[tuple[float, float]]:
    steps = [2 * math.pi * i / 40 for i in range(40)]
    return [
        (
            0.98 * math.sin(a) ** 3,
            -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)) / 15.5 - 0.1,
        )
        for a in steps
    ]


_ARM = 0.34
# Outline and hole (or None) of each shape as (x, y) points within the unit circle.
OUTLINES: dict[str, tuple[list[tuple[float, float]], list[tuple[float, float]] | None]] = {
    "circle": (_circle(0.92), None),
    "square": ([(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)], None),
    "triangle": (_spokes([1.05, 1.05, 1.05]), None),
    "star": (_spokes([1.08, 0.45] * 5), None),
    "heart": (_heart(), None),
    "diamond": ([(0, -1.08), (0.72, 0), (0, 1.08), (-0.72, 0)], None),
    "cross": (
        [
            (-_ARM, -1),
            (_ARM, -1),
            (_ARM, -_ARM),
            (1, -_ARM),
            (1, _ARM),
            (_ARM, _ARM),
            (_ARM, 1),
            (-_ARM, 1),
            (-_ARM, _ARM),
            (-1, _ARM),
            (-1, -_ARM),
            (-_ARM, -_ARM),
        ],
        None,
    ),
    "ring": (_circle(0.95), _circle(0.52)),
    "moon": (_circle(1.0), _circle(0.86, x=0.5)),
    "arrow": (
        [(-1, -0.3), (0.1, -0.3), (0.1, -0.8), (1.05, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3)],
        None,
    ),
}


def _turn(points: list[tuple[float, float]], angle: float, radius: float, centre: float) -> list[tuple[float, float]]:
    cos, sin = math.cos(angle) * radius, math.sin(angle) * radius
    return [(centre + x * cos - y * sin, centre + x * sin + y * cos) for x, y in points]


def shape_mask(shape: str, angle: float, radius: float) -> Image.Image:
    """Draw one shape as an antialiased mask; its side is twice the radius and a margin."""
    side = 2 * math.ceil(1.12 * radius) + 2
    mask = Image.new("L", (side * SUPERSAMPLE, side * SUPERSAMPLE))
    draw = ImageDraw.Draw(mask)
    outer, hole = OUTLINES[shape]
    centre = side * SUPERSAMPLE / 2
    draw.polygon(_turn(outer, angle, radius * SUPERSAMPLE, centre), fill=255)
    if hole:
        draw.polygon(_turn(hole, angle, radius * SUPERSAMPLE, centre), fill=0)
    return mask.reduce(SUPERSAMPLE)


def _angle(rng: random.Random, shape: str) -> float:
    if shape == "arrow":
        return rng.randrange(4) * math.pi / 2 + rng.uniform(-0.2, 0.2)
    if shape == "moon":
        return rng.uniform(-0.6, 0.6) + rng.choice((0.0, math.pi))
    return rng.uniform(-0.22, 0.22) if rng.random() < 0.6 else 0.0


def _radius(rng: random.Random, n: int, large: bool) -> float:
    if not large:
        return rng.uniform(0.078, SMALL_UPTO)
    return rng.uniform(LARGE_FROM, {1: 0.34, 2: 0.24, 3: 0.2}.get(n, 0.165))


def _place(rng: random.Random, size: tuple[int, int], radii: list[float]) -> list[tuple[float, float]] | None:
    """Find centres without overlap, and with distinct x where that is possible; None when it fails."""
    height, width = size
    apart = 0.06 * width if len(radii) <= 5 else 0.03 * width
    centres: list[tuple[float, float]] = []
    for radius in radii:
        for _ in range(60):
            y = rng.uniform(radius * 1.05, height - radius * 1.05)
            x = rng.uniform(radius * 1.05, width - radius * 1.05)
            if all(
                abs(x - cx) > apart and (y - cy) ** 2 + (x - cx) ** 2 > (1.12 * (radius + r)) ** 2
                for (cy, cx), r in zip(centres, radii, strict=False)
            ):
                centres.append((y, x))
                break
        else:
            return None
    return centres


def make_scene(
    rng: random.Random, kinds: list[tuple[str, str]], size: tuple[int, int], larges: list[bool] | None = None
) -> Scene:
    """Place one thing for each (shape, colour) of `kinds` on a picture of `size`."""
    n = len(kinds)
    larges = larges or [rng.random() < 0.55 for _ in kinds]
    side = min(math.sqrt(size[0] * size[1]), 1.25 * min(size))
    shrink = 1.0
    while True:
        radii = [min(shrink * side * _radius(rng, n, large), 0.44 * min(size)) for large in larges]
        centres = _place(rng, size, radii)
        if centres is not None:
            break
        shrink *= 0.95
    things = [
        Thing(shape, colour, y, x, radius, _angle(rng, shape), large)
        for (shape, colour), (y, x), radius, large in zip(kinds, centres, radii, larges, strict=True)
    ]
    return Scene(size[0], size[1], tuple(sorted(things, key=lambda thing: thing.x)))


def random_kinds(rng: random.Random, n: int, repeat: float = 0.15) -> list[tuple[str, str]]:
    """Draw `n` (shape, colour) pairs; each is, with chance `repeat`, a copy of an earlier one."""
    kinds: list[tuple[str, str]] = []
    for _ in range(n):
        if kinds and rng.random() < repeat:
            kinds.append(rng.choice(kinds))
        else:
            kinds.append((rng.choice(SHAPES), rng.choice(tuple(COLOURS))))
    return kinds


def counting_kinds(rng: random.Random, n: int) -> list[tuple[str, str]]:
    """Draw `n` things of few kinds, as questions about numbers need them."""
    pool = random_kinds(rng, rng.choice((1, 1, 2, 2, 3)), repeat=0.0)
    style = rng.random()
    if style < 0.35:  # one shape, several colours
        pool = [(pool[0][0], colour) for _, colour in pool]
    elif style < 0.6:  # one colour, several shapes
        pool = [(shape, pool[0][1]) for shape, _ in pool]
    return [rng.choice(pool) for _ in range(n)]


def _jitter(rng: random.Random, colour: str) -> tuple[int, int, int]:
    if colour in ("black", "white", "grey"):
        shift = rng.randint(*{"black": (-18, 18), "white": (-14, 7), "grey": (-16, 16)}[colour])
        return _rgb([c + shift for c in COLOURS[colour]])
    scale = rng.uniform(0.93, 1.05)
    return _rgb([c * scale + rng.uniform(-12, 12) for c in COLOURS[colour]])


def _rgb(values: list[float]) -> tuple[int, int, int]:
    red, green, blue = (max(0, min(255, round(value))) for value in values)
    return red, green, blue


def _background_colour(rng: random.Random, others: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    best, best_distance = (255, 255, 255), -1.0
    for _ in range(24):
        style = rng.random()
        low, high = (205, 256) if style < 0.6 else (0, 90) if style < 0.8 else (0, 256)
        base = rng.randrange(low, high)
        spread = 25 if style < 0.9 else 90
        candidate = _rgb([base + rng.randint(-spread, spread) for _ in range(3)])
        if rng.random() < 0.15:
            candidate = (255, 255, 255)
        distance = min((math.dist(candidate, other) for other in others), default=999.0)
        if distance > 105:
            return candidate
        if distance > best_distance:
            best, best_distance = candidate, distance
    return best


def texture(rng: random.Random, size: tuple[int, int]) -> np.ndarray | None:
    """Draw a faint pattern `[h, w, 1 or 3]`, in steps of brightness, or None for a plain ground."""
    height, width = size
    style, strength = rng.random(), rng.uniform(6, 20)
    if style < 0.45:
        return None
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    angle, numbers = rng.uniform(0, 2 * math.pi), np.random.default_rng(rng.getrandbits(32))
    along = y * math.sin(angle) + x * math.cos(angle)
    if style < 0.65:
        return along * strength * np.asarray([rng.uniform(0.4, 1.2) for _ in range(3)], np.float32)
    if style < 0.8:
        return numbers.standard_normal((height, width, 1), np.float32) * (0.5 * strength)
    if style < 0.9:
        return np.sign(np.sin(along * rng.uniform(6, 26))) * (0.5 * strength)
    coarse = numbers.integers(0, 255, (rng.randint(3, 7), rng.randint(3, 7), 3), np.uint8)
    blotches = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return (np.asarray(blotches, np.float32) - 128) * (strength / 110)


def background(
    rng: random.Random, size: tuple[int, int], others: list[tuple[int, int, int]], plain: bool = False
) -> Image.Image:
    """Draw a ground of `size` whose colour keeps away from `others`."""
    colour = _background_colour(rng, others)
    pattern = None if plain else texture(rng, size)
    if pattern is None:
        return Image.new("RGB", (size[1], size[0]), colour)
    pixels = np.clip(np.asarray(colour, np.float32) + pattern, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def render(scene: Scene, rng: random.Random, plain: bool = False) -> Image.Image:
    """Draw a scene; `plain` leaves texture, outlines and shadows away."""
    colours = [_jitter(rng, thing.colour) for thing in scene.things]
    picture = background(rng, (scene.height, scene.width), colours, plain)
    style = 1.0 if plain else rng.random()
    ink = (0, 0, 0) if rng.random() < 0.6 else (255, 255, 255)
    for thing, colour in zip(scene.things, colours, strict=True):
        if style < 0.12:
            _paste(picture, thing, ink, grow=1.12)
        elif style < 0.22:
            _paste(picture, thing, (40, 40, 40), shift=0.14 * thing.radius, opacity=0.35)
        _paste(picture, thing, colour)
    return picture


def _paste(
    picture: Image.Image,
    thing: Thing,
    colour: tuple[int, int, int],
    grow: float = 1.0,
    shift: float = 0.0,
    opacity: float = 1.0,
) -> None:
    mask = shape_mask(thing.shape, thing.angle, thing.radius * grow)
    if opacity < 1:
        mask = mask.point(lambda value: round(value * opacity))
    corner = (round(thing.x + shift - mask.width / 2), round(thing.y + shift - mask.height / 2))
    picture.paste(colour, corner, mask)


def patch_labels(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Label each patch with shape and colour: two int64 arrays `[256]`.

    0 is background, 1 + index otherwise, -100 where a patch holds too little of an object to say.
    """
    side = GRID * OVERSAMPLE
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    scale = (side / scene.width, side / scene.height)
    for number, thing in enumerate(scene.things, start=1):
        for points, fill in zip(OUTLINES[thing.shape], (number, 0), strict=True):
            if points:
                turned = _turn(points, thing.angle, thing.radius, 0.0)
                draw.polygon([((thing.x + x) * scale[0], (thing.y + y) * scale[1]) for x, y in turned], fill=fill)
    squares = by_patch(np.asarray(canvas))
    covered, owner = (squares > 0).sum(1), squares.max(1)
    colours = tuple(COLOURS)
    shape_of = np.asarray([0] + [1 + SHAPES.index(thing.shape) for thing in scene.things])
    colour_of = np.asarray([0] + [1 + colours.index(thing.colour) for thing in scene.things])
    unsure = (covered > 1) & (covered < 6)
    sure_owner = np.where(covered >= 6, owner, 0)
    return (
        np.where(unsure, IGNORE, shape_of[sure_owner]).astype(np.int64),
        np.where(unsure, IGNORE, colour_of[sure_owner]).astype(np.int64),
    )


def font_files(folder: Path, held_out: bool) -> list[Path]:
    """List the text fonts below `folder`; every seventh, by name, is held out from training."""
    files = sorted(folder.rglob("*.ttf"), key=lambda path: path.name)
    files = [path for path in files if "Math" not in path.name and "Emoji" not in path.name]
    return [path for number, path in enumerate(files) if (number % 7 == 3) == held_out]


def word_list(file: Path) -> list[str]:
    """Read the plain words of 3 to 8 letters from a word list such as /usr/share/dict/words."""
    words = {word.strip() for word in file.read_text(encoding="utf-8").splitlines()}
    return sorted(
        word for word in words if word.isascii() and word.isalpha() and word.islower() and 3 <= len(word) <= 8
    )


@lru_cache(maxsize=512)
def _font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), size)


def render_word(rng: random.Random, word: str, fonts: list[Path], size: tuple[int, int] = (128, 128)) -> Image.Image:
    """Print `word`, as large as it likes to be."""
    text = rng.choice((word, word, word.upper(), word.capitalize()))
    path, target = rng.choice(fonts), rng.uniform(0.55, 0.94) * size[1]
    trial = _font(path, 32)
    points = 32 * target / max(1.0, trial.getlength(text))
    font = _font(path, int(max(9, min(points, 0.45 * size[0], 64 * size[0] / 128))))
    ink_name = rng.choice(("black", "black", "white", "blue", "red", "green", "purple", "brown"))
    ink = _jitter(rng, ink_name)
    picture = background(rng, size, [ink] * 2)
    left, top, right, bottom = font.getbbox(text)
    x = rng.uniform(2, max(2.5, size[1] - (right - left) - 2)) - left
    y = rng.uniform(2, max(2.5, size[0] - (bottom - top) - 2)) - top
    ImageDraw.Draw(picture).text((x, y), text, font=font, fill=ink)
    return picture
