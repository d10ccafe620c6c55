"""Scenes of one to four emoji from a pack of pictures, named by their labels.

The pack is a zip with RGBA pictures and a `labels.jsonl` of `file`, `label` and `kind` (emoji or flag); emoji with
names of one word or two are used. One in twelve is never in training: it is shown where it need not be named. Answers
are in lower case. Names are learned from tiles of several emoji with a label for every patch.
"""

from __future__ import annotations

import colorsys
import io
import json
import random
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .asking import several
from .canvas import canvas_size
from .colours import RGB, ground, mix
from .drawn import Drawn, Stock, Task
from .places import ninth
from .plan import IGNORE, TILE, by_patch
from .questions import QA, join
from .wording import spelled

DESCRIBE = spelled(
    "[what's|what is] [here|in this picture|in the image|shown here|in view]?",
    "what [do|can] [you|we|i] see [here|in the picture|]?",
    "[which|what] emoji [are here|do you see|are in the picture|are shown|can you see|are these]?",
    "[name|list|write down] [the emoji|all emoji|everything in the image|what is there].",
    "[describe|explain] [the|this] [picture|image].",
    "what does [the|this] [picture|image] [show|contain]?",
)
DESCRIBE_HELD_OUT = ("which emoji does the picture contain?", "what can be seen here?", "list what is shown.")
EXISTS = spelled(
    "is there {a} [here|there|in the picture|in the image|to be seen|]?",
    "[can|do|could|did] [you|we|i] [see|find|spot|make out] {a} [here|there|in it|in the picture|]?",
    "does [the image|the picture|it] [show|have|contain|include] {a}?",
    "is {a} [shown|there|here|visible|present|in the picture|one of these|part of it]?",
    "[say|tell|check] [if|whether] [there is {a}|{a} is here|you see {a}].",
    "{a} [is here, yes or no|in the picture|here]?",
)
EXISTS_HELD_OUT = ("would you find {a} in this image?", "is {a} among the emoji?")
COUNT = spelled(
    "how many emoji [are there|do you see|are here|are in the picture|can you count|are shown]?",
    "[count|count up] [the|all] emoji.",
    "[what is|give|what's] the number of emoji?",
    "number of emoji?",
    "[there are|you see] how many emoji?",
)
COUNT_HELD_OUT = ("tell how many emoji are shown.", "how many emoji does the image have?")
COLOUR = spelled(
    "[what|which] [colour|color] [is|has] the {}?",
    "[what|which] [colour|color] does the {} have?",
    "the {} [is|has] [what|which] [colour|color]?",
    "[what's|what is|] the [colour|color] of the {}?",
    "[give|say|write] the [colour|color] of the {}.",
    "the {}: [what|which] [colour|color]?",
)
COLOUR_HELD_OUT = ("in what colour is the {} shown?", "name the colour of the {}.")
WHERE = spelled(
    "where [is|do you see|can you see|lies] the {}?",
    "where [in|on] the [picture|image] is the {}?",
    "[in|at] [which|what] [part|area] of the [picture|image] [is|lies] the {}?",
    "[find|locate|point to] the {}.",
    "where can the {} be [found|seen]?",
    "[say|describe|write] where [the {} is|you see the {}].",
)
WHERE_HELD_OUT = ("at which place is the {}?", "tell where the {} is.")
GROUNDS, GROUNDS_HELD_OUT = ("plain", "plain", "fade"), ("plain", "stripes")
HELD_OUT = 1 / 12
"""The share of emoji that are never in training."""
MOST_WORDS = 2
"""Words of a name; of more words are those that nobody would know, such as the phases of the moon."""
LABEL = "emoji"
"""What is told of a tile's patches: 0 no emoji, 1 + the place in `Pack.known`."""
MOST_IN_TILE = 6
TRIES = 20
"""Places that are tried for an emoji before all are drawn smaller."""
COVERED = 0.4
"""The share of a patch that shows the emoji that it is labelled with, at least."""
UNNAMED = ("squared", "ideograph", "component", "katakana", "combining", "keycap", "overlay", "symbol with circled")
"""Words of labels that nobody would call a picture by."""
KIN = tuple(
    frozenset(line.split())
    for line in (
        "dog poodle wolf puppy fox",
        "cat tiger leopard lion kitten",
        "cow ox buffalo bison",
        "goat ram sheep deer llama",
        "mouse rat hamster chipmunk beaver badger otter",
        "chick chicken rooster bird duck eagle owl turkey parrot swan dodo penguin peacock flamingo",
        "fish blowfish shark whale dolphin sushi seal",
        "bug beetle ant cricket fly mosquito cockroach honeybee butterfly",
        "dragon crocodile lizard snake sauropod t-rex worm",
        "man men woman women person people boy girl adult child baby bride prince princess officer worker "
        "guardsman dancer family couple runner swimmer surfer golfer bust busts father mother mage fairy vampire "
        "elf genie zombie superhero ninja pedestrian bicyclist skier snowboarder lifter wrestlers detective "
        "selfie fencer",
        "face moon sun smiling grinning laughing imp ogre goblin alien",
        "car automobile taxi vehicle truck bus minibus trolleybus lorry tractor engine ambulance rickshaw",
        "train tram locomotive railway metro rail monorail station",
        "ship boat rowboat speedboat ferry sailboat canoe motor",
        "bicycle motorcycle scooter bike",
        "house building hotel school factory office bank hospital store castle hut post church city cityscape "
        "buildings",
        "book books notebook ledger memo page scroll newspaper clipboard",
        "ring rings circle ball button medal",
        "tree pine leaf plant herb seedling clover shamrock",
        "flower tulip rose blossom hibiscus sunflower bouquet lotus rosette",
        "shoe sandal boot boots skate",
        "hat cap helmet crown",
        "cup glass mug drink beverage milk tea teapot bottle jar",
        "clothes dress shirt t-shirt coat kimono sari swimsuit bikini",
        "clock watch stopwatch timer hourglass",
        "phone telephone mobile pager",
        "envelope letter mail e-mail mailbox postbox envelopes",
        "camera video film movie projector",
        "cloud rain umbrella fog snow thunder",
        "hand fist finger palm thumbs backhand",
    )
)
"""Words for what looks or is alike: where one is shown, none of the others is asked for as absent."""
HUES = (("red", 0.96, 1.03), ("orange", 0.05, 0.1), ("yellow", 0.12, 0.17), ("green", 0.24, 0.44), ("blue", 0.52, 0.68),
        ("purple", 0.73, 0.82), ("pink", 0.86, 0.94))  # fmt: skip
"""Hues that have a clear name, as parts of the circle; what lies between has none."""


@dataclass(frozen=True)
class Emoji:
    """A picture of the pack: its file and its name."""

    file: str
    name: str

    @property
    def words(self) -> frozenset[str]:
        """The words of the name, with those akin to them."""
        words = frozenset(self.name.split())
        return words.union(*(kin for kin in KIN if kin & words))


def is_held_out(file: str) -> bool:
    """Decide by a hash of the file name, so that the split never moves."""
    return int.from_bytes(sha256(f"emoji/{file}".encode()).digest()[:4], "big") < HELD_OUT * 2**32


@dataclass(frozen=True)
class Pack:
    """The emoji of a pack, each of another name: those of the training part, and those kept from it."""

    path: Path
    known: tuple[Emoji, ...]
    kept: tuple[Emoji, ...]

    def picture(self, emoji: Emoji) -> Image.Image:
        """Decode a picture, RGBA."""
        return _picture(self.path, emoji.file)


@lru_cache
def read_pack(path: Path) -> Pack:
    """List the emoji of a pack that have a name worth asking for."""
    with zipfile.ZipFile(path) as archive:
        rows = [json.loads(line) for line in archive.read("labels.jsonl").decode().splitlines() if line.strip()]
    found: dict[str, Emoji] = {}
    for row in rows:
        name = row["label"].lower()
        is_named = not any(word in name for word in UNNAMED) and "," not in name and "(" not in name
        if row["kind"] == "emoji" and is_named and len(name.split()) <= MOST_WORDS:
            found.setdefault(name, Emoji(row["file"], name))
    everything = tuple(found.values())
    return Pack(
        path,
        tuple(emoji for emoji in everything if not is_held_out(emoji.file)),
        tuple(emoji for emoji in everything if is_held_out(emoji.file)),
    )


@lru_cache
def _archive(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


@lru_cache(maxsize=2048)
def _picture(path: Path, file: str) -> Image.Image:
    picture = Image.open(io.BytesIO(_archive(path).read(file))).convert("RGBA")
    return picture.crop(picture.getchannel("A").getbbox())


@lru_cache(maxsize=4096)
def colour_of(path: Path, file: str) -> str | None:
    """Name the colour that most of an emoji has; None where no colour has most of it."""
    pixels = np.asarray(_picture(path, file).resize((16, 16)))
    seen = [tuple(int(part) for part in pixel[:3]) for pixel in pixels.reshape(-1, 4) if pixel[3] > 200]
    counts = Counter(_colour_name(red, green, blue) for red, green, blue in seen)
    if not counts:
        return None
    name, n = counts.most_common(1)[0]
    others = [number for other, number in counts.items() if other not in (name, None)]
    return name if n > 0.6 * len(seen) and sum(others) < 0.2 * len(seen) else None


def _colour_name(red: int, green: int, blue: int) -> str | None:
    hue, saturation, value = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
    if value < 0.2 or saturation < 0.1:
        return "black" if value < 0.2 else "white" if value > 0.92 else "grey" if 0.35 < value < 0.7 else None
    if saturation < 0.45 or value < 0.35:
        return None
    if 0.03 <= hue <= 0.1 and value < 0.62:
        return "brown"
    return next((name for name, low, high in HUES if low <= hue <= high or low <= hue + 1 <= high), None)


# Scenes


@dataclass(frozen=True)
class Shown:
    """An emoji in a scene: its centre (y, x) and side in pixels."""

    emoji: Emoji
    y: float
    x: float
    side: float


@dataclass(frozen=True)
class Scene:
    """A picture's size (height, width) and its emoji from left to right."""

    size: tuple[int, int]
    shown: tuple[Shown, ...]


def make_scene(rng: random.Random, choice: Sequence[Emoji], n: int, size: tuple[int, int] | None = None) -> Scene:
    """Place `n` different emoji without overlap, on a canvas of `size` or of any."""
    size = size or canvas_size(rng, least=128)
    emoji = rng.sample(choice, n)
    share = (0.85, 0.5, 0.42, 0.38, 0.34, 0.31)[n - 1]
    while True:
        sides = [rng.uniform(0.55, 1) * share * min(size) for _ in emoji]
        shown: list[Shown] = []
        for one, side in zip(emoji, sides, strict=True):
            places = (_placed(rng, one, side, size) for _ in range(TRIES))
            shown += islice((place for place in places if all(_apart(place, other) for other in shown)), 1)
        if len(shown) == n:
            return Scene(size, tuple(sorted(shown, key=lambda one: one.x)))
        share *= 0.98


def _placed(rng: random.Random, emoji: Emoji, side: float, size: tuple[int, int]) -> Shown:
    y, x = (rng.uniform(side / 2 + 2, full - side / 2 - 2) for full in size)
    return Shown(emoji, y, x, side)


def _apart(a: Shown, b: Shown) -> bool:
    return max(abs(a.x - b.x), abs(a.y - b.y)) > (a.side + b.side) / 2 + 2 and abs(a.x - b.x) > 6


def render(rng: random.Random, stock: Stock, pack: Pack, scene: Scene) -> tuple[Image.Image, NDArray[np.uint8]]:
    """Draw a scene on a plain, fading or striped ground.

    Returns it with its map [height, width]: of each pixel, 1 + the number of the emoji that it belongs to, 0 for none.
    """
    picture = _ground(rng, stock, scene.size)
    owners = Image.new("L", picture.size)
    for number, shown in enumerate(scene.shown, start=1):
        emoji = pack.picture(shown.emoji)
        scale = shown.side / max(emoji.size)
        emoji = emoji.resize((max(1, round(emoji.width * scale)), max(1, round(emoji.height * scale))))
        if rng.random() < 0.3:
            emoji = emoji.rotate(rng.uniform(-10, 10), Image.Resampling.BILINEAR)
        place = round(shown.x - emoji.width / 2), round(shown.y - emoji.height / 2)
        picture.paste(emoji, place, emoji)
        owners.paste(number, place, emoji.getchannel("A").point([255 * (alpha > 127) for alpha in range(256)]))
    return picture, np.asarray(owners)


def patch_labels(owners: NDArray[np.uint8], classes: Sequence[int]) -> NDArray[np.int64]:
    """Label the patches of a tile, int64 [256], from a map of `render` and the class of each of its emoji."""
    parts = by_patch(owners)
    covered = np.stack([(parts == number).mean(1) for number in range(1, len(classes) + 1)])  # [emoji, patches]
    sure = np.asarray(classes, np.int64)[covered.argmax(0)]
    return np.where(covered.max(0) >= COVERED, sure, np.where(covered.any(0), IGNORE, 0))


def _ground(rng: random.Random, stock: Stock, size: tuple[int, int]) -> Image.Image:
    first, style = ground(rng, stock), stock.one_of(rng, GROUNDS, GROUNDS_HELD_OUT)
    picture = Image.new("RGB", (size[1], size[0]), first)
    if style == "plain":
        return picture
    second: RGB = mix(first, ground(rng, stock), 0.4)
    down = Image.linear_gradient("L").resize((size[1], size[0]))
    if style == "stripes":
        wide = rng.randint(12, 40)
        down = Image.fromarray(((np.arange(size[1]) // wide % 2) * 255).astype(np.uint8)[None].repeat(size[0], 0))
    picture.paste(second, (0, 0), down)
    return picture


# Questions

Asker = Callable[[random.Random, Stock, Pack, Scene], QA | None]


def with_article(name: str) -> str:
    """Put an article before a name, none before a plural."""
    if name.endswith("s") and not name.endswith(("ss", "us", "cactus", "bus")):
        return name
    return f"{'an' if name[0] in 'aeiou' and not name.startswith('uni') else 'a'} {name}"


def absent(rng: random.Random, pack: Pack, scene: Scene) -> Emoji:
    """Draw an emoji of the training part that is not there, and that shares no word and no kin with what is."""
    taken = frozenset[str]().union(*(shown.emoji.words for shown in scene.shown))
    while True:
        emoji = rng.choice(pack.known)
        if not emoji.words & taken:
            return emoji


def describe(rng: random.Random, stock: Stock, pack: Pack, scene: Scene) -> QA:
    """Name all emoji from left to right."""
    names = [with_article(shown.emoji.name) for shown in scene.shown]
    return stock.one_of(rng, DESCRIBE, DESCRIBE_HELD_OUT), f"{join(names)}."


def exists(rng: random.Random, stock: Stock, pack: Pack, scene: Scene) -> QA:
    """Ask whether an emoji is there, which it is half of the time."""
    yes = rng.random() < 0.5
    emoji = rng.choice(scene.shown).emoji if yes else absent(rng, pack, scene)
    return stock.one_of(rng, EXISTS, EXISTS_HELD_OUT).format(a=with_article(emoji.name)), "yes" if yes else "no"


def missing(rng: random.Random, stock: Stock, pack: Pack, scene: Scene) -> QA:
    """Ask for the colour or the place of what is not there."""
    name = absent(rng, pack, scene).name
    phrasings = rng.choice(((COLOUR, COLOUR_HELD_OUT), (WHERE, WHERE_HELD_OUT)))
    return stock.one_of(rng, *phrasings).format(name), f"there is no {name}."


def colour(rng: random.Random, stock: Stock, pack: Pack, scene: Scene) -> QA | None:
    """Ask for the colour of an emoji that has one."""
    coloured = [(shown.emoji, colour_of(pack.path, shown.emoji.file)) for shown in scene.shown]
    clear = [(emoji, name) for emoji, name in coloured if name and name not in emoji.name]
    if not clear:
        return None
    emoji, name = rng.choice(clear)
    return stock.one_of(rng, COLOUR, COLOUR_HELD_OUT).format(emoji.name), name


def where(rng: random.Random, stock: Stock, pack: Pack, scene: Scene) -> QA | None:
    """Ask for the place of an emoji, where that is clear."""
    places = [(one, ninth(one.y / scene.size[0], one.x / scene.size[1])) for one in scene.shown]
    clear = [(shown, place) for shown, place in places if place]
    if not clear:
        return None
    shown, place = rng.choice(clear)
    return stock.one_of(rng, WHERE, WHERE_HELD_OUT).format(shown.emoji.name), place


def count(rng: random.Random, stock: Stock, pack: Pack, scene: Scene) -> QA:
    """Ask how many emoji there are."""
    return stock.one_of(rng, COUNT, COUNT_HELD_OUT), str(len(scene.shown))


ALL: tuple[Asker, ...] = (describe, exists, missing, colour, where, count)


def picture(rng: random.Random, stock: Stock, path: Path, ask: Asker, unknown: bool = False) -> Drawn:
    """Draw a scene that `ask` has a question about; in the training part, ask the rest too.

    `unknown` shows in the held-out part what training never does.
    """
    pack, n = read_pack(path), rng.randint(1, 4)
    choice = pack.kept if unknown and stock.is_held_out else pack.known
    while True:
        scene = make_scene(rng, choice, n)
        pair = ask(rng, stock, pack, scene)
        if pair is not None:
            break
    others = () if stock.is_held_out else ALL
    pairs = several(rng, pair, (other(rng, stock, pack, scene) for other in others))
    return Drawn(render(rng, stock, pack, scene)[0], pairs)


def tile(rng: random.Random, stock: Stock, path: Path) -> Drawn:
    """Draw a tile of one to six emoji of the training part, labelled and asked about."""
    pack = read_pack(path)
    scene = make_scene(rng, pack.known, rng.randint(1, MOST_IN_TILE), (TILE, TILE))
    picture, owners = render(rng, stock, pack, scene)
    classes = [1 + pack.known.index(shown.emoji) for shown in scene.shown]
    pairs = several(rng, describe(rng, stock, pack, scene), (other(rng, stock, pack, scene) for other in ALL))
    return Drawn(picture, pairs, {LABEL: patch_labels(owners, classes)})


def tasks(path: Path) -> dict[str, Task]:
    """Return the tasks with a pack, each a row of the accuracy table."""
    rows: dict[str, tuple[Asker, str, bool]] = {
        "emoji": (describe, "things", False),
        "emoji_exists": (exists, "exact", False),
        "emoji_absent": (missing, "exact", True),
        "emoji_colour": (colour, "exact", False),
        "emoji_place": (where, "exact", False),
        "emoji_count": (count, "exact", True),
    }
    return {
        name: Task(partial(picture, path=path, ask=ask, unknown=unknown), metric)
        for name, (ask, metric, unknown) in rows.items()
    }
