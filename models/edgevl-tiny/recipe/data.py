"""Training examples: pictures drawn or taken from the packs, with dense labels, questions and answers.

What is drawn is the training part: nothing held out is ever drawn.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevl.image.tiling import TilePlan

from . import emoji, packs, questions, scenes
from .drawn import Maker, Stock
from .glyphs import page_tile, text_tile
from .plan import LONGEST_EDGE, TILE, plan
from .questions import QA
from .subjects import BY_LETTER, GENERATED, Generated, generators

SIZES = (1, 5)
"""The size classes of pictures: as many tiles at most, with the overview (a picture alone, a grid of up to 2x2)."""
DRAWS = 4
"""Pictures drawn in a row until one is legible within a size class; then the most legible is taken."""
MOST_PAIRS = 8
NAMED = 20
"""How often the tokenizer meets a name, inside a sentence and, of photos, at its start.

So often that each word becomes a token. Of 824 names of emoji 119 were one token, and others had up to nine: of 120
that were shown, 13 were named.
"""

PACK_MIX = {
    "eurosat": 0.28,
    "flowers": 0.14,
    "objects": 0.24,
    "grocery": 0.13,
    "trash": 0.11,
    "signs": 0.08,
    "cards": 0.02,
}
CLASS_PACKS = tuple(name for name in PACK_MIX if name != "cards")


@dataclass(frozen=True)
class Paths:
    """Where the pictures and words come from: packs (zips), their pixel cache, fonts, a word list."""

    packs: Path
    cache: Path
    fonts: Path
    words: Path


@dataclass
class Example:
    """One picture [h, w, 3] with its questions, and what the auxiliary heads should say of its patches and of it all.

    Answers are written letter by letter where they are `by_letter`.
    """

    rgb: NDArray[np.uint8]
    pairs: list[QA]
    dense: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    told: Mapping[str, int] = field(default_factory=dict)
    pack: int = -1
    label: int = 0
    by_letter: bool = False

    @property
    def plan(self) -> TilePlan:
        """How it is cut into tiles."""
        return plan(self.rgb.shape[:2])


@dataclass(frozen=True)
class SceneStyle:
    """What scenes a subject draws: least and most things, questions a scene, their tasks, how many are of few kinds."""

    things: tuple[int, int] = (1, 6)
    pairs: int = 7
    few_kinds: float = 0.35
    mix: dict[str, float] = field(default_factory=lambda: questions.MIX)


SCENES = {
    "scenes": SceneStyle(),
    "many": SceneStyle(things=(5, 9), pairs=5, few_kinds=0.6, mix=questions.COUNTING_MIX),
    "crowds": SceneStyle(things=(4, 6)),
    "few": SceneStyle(things=(2, 3), pairs=10, mix=questions.GROUNDING_MIX),
}


def stock(paths: Paths, is_held_out: bool) -> Stock:
    """Read the fonts and words of one part."""
    fonts = scenes.font_files(paths.fonts, is_held_out)
    words = (word for word in scenes.word_list(paths.words) if held_out_word(word) == is_held_out)
    return Stock(tuple(fonts), tuple(words), is_held_out)


class Source:
    """Draws examples of the training part by the names of subjects; with `any_words` around questions."""

    def __init__(self, paths: Paths, any_words: bool = False) -> None:
        packs.require(paths.packs)
        self._stock = stock(paths, is_held_out=False)
        idle = (word for word in self._stock.words if not word.startswith(questions.NEVER_IDLE))
        self._idle = tuple(idle) if any_words else ()
        self._generated = generators(paths.packs)
        self._tiles: dict[str, Maker] = {
            "text": text_tile,
            "pages": page_tile,
            "emoji_tiles": partial(emoji.tile, path=paths.packs / "emoji.zip"),
        }
        self._arrays = {name: np.load(paths.cache / f"{name}.npy", mmap_mode="r") for name in PACK_MIX}
        self._photos = {name: packs.photos(paths.packs, name, False) for name in PACK_MIX}
        self._labels = {name: packs.classes(paths.packs, name) for name in PACK_MIX}

    def example(self, rng: random.Random, subject: str, most_tiles: int) -> Example:
        """Draw a picture of a subject (of `SCENES`, `GENERATED`, photos, labelled tiles), of so many tiles at most."""
        found = self._example(rng, subject, most_tiles)
        pairs = [(questions.spoken(rng, question, self._idle), answer) for question, answer in found.pairs]
        return replace(found, pairs=pairs, by_letter=subject in BY_LETTER)

    def _example(self, rng: random.Random, subject: str, most_tiles: int) -> Example:
        if subject in SCENES:
            return self._scene(rng, _canvas(rng, most_tiles), SCENES[subject])
        if subject in self._tiles:
            tile = self._tiles[subject](rng, self._stock)
            return Example(np.asarray(tile.picture), list(tile.pairs[:MOST_PAIRS]), tile.labels)
        if subject == "photos":
            return self._photo(rng, TILE if most_tiles == 1 else 2 * TILE)
        return self._drawn(rng, self._generated[subject], most_tiles)

    def _scene(self, rng: random.Random, size: tuple[int, int], style: SceneStyle) -> Example:
        n = rng.randint(*style.things)
        kinds = scenes.counting_kinds(rng, n) if rng.random() < style.few_kinds else scenes.random_kinds(rng, n)
        scene = scenes.make_scene(rng, kinds, size)
        picture = scenes.render(scene, rng)
        shape, colour = scenes.patch_labels(scene)
        pairs = questions.about_scene(rng, scene, style.pairs, style.mix)
        return Example(np.asarray(picture), pairs, {"shape": shape, "colour": colour})

    def _photo(self, rng: random.Random, side: int) -> Example:
        """Take a photo of a pack, cropped, turned and tinted a little."""
        name = rng.choices(tuple(PACK_MIX), tuple(PACK_MIX.values()))[0]
        photo = rng.choice(self._photos[name])
        rgb = augment(rng, self._arrays[name][photo.row], packs.PACKS[name], side)
        pairs = questions.about_photo(rng, name, photo.label, self._labels[name], photo.kind)
        if name == "cards":
            return Example(rgb, pairs)
        return Example(rgb, pairs, pack=CLASS_PACKS.index(name), label=self._labels[name].index(photo.label))

    def _drawn(self, rng: random.Random, generated: Generated, most_tiles: int) -> Example:
        """Draw until a picture is legible at `most_tiles`; of `DRAWS` in vain take the most legible."""
        best: tuple[float, Example] | None = None
        for _ in range(DRAWS):
            drawn = rng.choice(generated.tasks).make(rng, self._stock)
            size, scale = fitted((drawn.picture.height, drawn.picture.width), most_tiles, generated.least)
            if best is None or scale > best[0]:
                picture = drawn.picture
                if size != (picture.height, picture.width):
                    picture = picture.resize((size[1], size[0]), Image.Resampling.LANCZOS)
                pairs = list(drawn.pairs[:MOST_PAIRS])
                best = scale, Example(np.asarray(picture.convert("RGB")), pairs, told=drawn.told)
            if scale >= generated.least:
                break
        assert best is not None
        return best[1]


def fitted(size: tuple[int, int], most_tiles: int, least: float) -> tuple[tuple[int, int], float]:
    """Reduce a size (height, width) until its plan has at most `most_tiles`; return it, and the scale it is seen at.

    A picture stays as it is where it is legible so, that is at a scale of at least `least`.
    """
    tiles = [n * TILE for n in range(1, LONGEST_EDGE // TILE + 1)]
    reduced = sorted({side / own for side in tiles for own in size if side < own}, reverse=True)
    found: list[tuple[float, tuple[int, int]]] = []
    for factor in (1.0, *reduced):
        smaller = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
        cut = plan(smaller)
        if cut.n_tiles <= most_tiles:
            shown = cut.steps[-1]
            found.append((min(shown[0] / size[0], shown[1] / size[1]), smaller))
            if factor == 1.0 and found[0][0] >= least:
                break
    scale, best = max(found)
    return best, scale


def _canvas(rng: random.Random, most_tiles: int) -> tuple[int, int]:
    """Draw the size of a scene: whole tiles, or a little more than they show."""
    rows, cols = rng.choice({1: ((1, 1),), 5: ((1, 2), (2, 1), (2, 2))}[most_tiles])
    size = rows * TILE, cols * TILE
    if rng.random() < (0.8 if most_tiles == 1 else 0.5):
        return size
    if most_tiles == 1:
        return rng.randint(96, 250), rng.randint(96, 250)
    return rng.randint(size[0], size[0] * 5 // 4), rng.randint(size[1], size[1] * 5 // 4)


def held_out_word(word: str) -> bool:
    """Keep every eleventh word, by its letters, out of training."""
    return sum(map(ord, word)) % 11 == 3


def augment(rng: random.Random, rgb: NDArray[np.uint8], pack: packs.Pack, side: int) -> NDArray[np.uint8]:
    """Crop a square of at least 60 % of the side, mirror or turn it where that keeps the meaning, tint it."""
    whole = rgb.shape[0]
    crop = rng.randint(int(0.6 * whole), whole)
    top, left = rng.randint(0, whole - crop), rng.randint(0, whole - crop)
    picture = Image.fromarray(rgb[top : top + crop, left : left + crop])
    picture = picture.resize((side, side), Image.Resampling.BILINEAR)
    if pack.mirror and rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if pack.turn:
        picture = picture.rotate(90 * rng.randrange(4))
    values = np.asarray(picture, np.float32) * rng.uniform(0.8, 1.2) + rng.uniform(-18, 18)
    if rng.random() < 0.3:
        values = values * np.asarray([rng.uniform(0.9, 1.1) for _ in range(3)], np.float32)
    return np.clip(values, 0, 255).astype(np.uint8)


def corpus(paths: Paths, n: int, seed: int = 0) -> Iterator[str]:
    """Yield text for the tokenizer: the questions and answers of `n` pictures, and all names `NAMED` times."""
    rng = random.Random(seed)
    labels = {name: packs.classes(paths.packs, name) for name in PACK_MIX}
    generated, training = generators(paths.packs), stock(paths, is_held_out=False)
    for number in range(n):
        kinds = scenes.random_kinds(rng, rng.randint(1, 6))
        scene = scenes.make_scene(rng, kinds, (TILE, TILE))
        name = rng.choice(tuple(labels))
        asked = questions.about_scene(rng, scene, 8)
        asked += questions.about_photo(rng, name, rng.choice(labels[name]), labels[name])
        if number % 4 == 0:
            subject = rng.choice(GENERATED)
            asked += rng.choice(generated[subject].tasks).make(rng, training).pairs
        for pair in asked:
            yield from pair
    named = [label for name in CLASS_PACKS for label in labels[name]]
    known = [one.name for one in emoji.read_pack(paths.packs / "emoji.zip").known]
    inside = [f" {name}" for name in (*named, *known)]
    for _ in range(NAMED):
        yield from named
        yield from inside
