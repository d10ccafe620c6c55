"""Training examples: pictures drawn or taken from the packs, with dense labels, questions and answers, in batches.

One (seed, index) gives one batch on any machine. Batches are of one tile plan, so that they need no padding of tiles.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch.utils.data import IterableDataset, get_worker_info

from edgevl.image import pixels, tiling

from . import packs, questions, scenes
from .questions import QA
from .tokenizer import END, PAD

TILE = 128
LONGEST_EDGE = 256
TOKENS_PER_TILE = 16
IGNORE = -100
Row = tuple[list[int], list[int], list[int]]
"""Token ids of one picture's text, their labels and segments."""
N_PATCHES = 256
CROWDED = 6000
"""The encoder stage begins with this many scenes of 4 to 6 things: outlines that fit into the stem's view, and many of
them a picture, are what shapes are learned from; with single large things first, 36,000 pictures taught none."""
GROUNDED = 48_000
"""The whole stage begins with this many scenes of 2 to 4 things and many questions on which thing is where: with all
tasks mixed from the start, 107,000 pictures left relations at chance."""

PACK_MIX = {
    "eurosat": 0.5,
    "flowers": 0.15,
    "objects": 0.14,
    "grocery": 0.08,
    "trash": 0.06,
    "signs": 0.06,
    "cards": 0.01,
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
    """One picture [h, w, 3] with its questions, and what the auxiliary heads should say of it."""

    rgb: NDArray[np.uint8]
    pairs: list[QA]
    dense: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    pack: int = -1
    label: int = 0


@dataclass(frozen=True)
class SceneStyle:
    """What scenes a phase of training draws: least and most things, questions a scene, and their tasks."""

    things: tuple[int, int] = (1, 6)
    pairs: int = 7
    mix: dict[str, float] = field(default_factory=lambda: questions.MIX)


PLAIN = SceneStyle()
CROWD = SceneStyle(things=(4, 6))
FEW = SceneStyle(things=(2, 3), pairs=20, mix=questions.GROUNDING_MIX)


class Source:
    """Draws examples of the training part; nothing held out is ever drawn."""

    def __init__(self, paths: Paths) -> None:
        self._fonts = scenes.font_files(paths.fonts, held_out=False)
        self._words = [word for word in scenes.word_list(paths.words) if not held_out_word(word)]
        self._arrays = {name: np.load(paths.cache / f"{name}.npy", mmap_mode="r") for name in PACK_MIX}
        self._photos = {name: packs.photos(paths.packs, name, False) for name in PACK_MIX}
        self._labels = {name: packs.classes(paths.packs, name) for name in PACK_MIX}

    def scene(self, rng: random.Random, size: tuple[int, int], style: SceneStyle) -> Example:
        """Draw a scene on a canvas of `size`."""
        n = rng.randint(*style.things)
        kinds = scenes.counting_kinds(rng, n) if rng.random() < 0.35 else scenes.random_kinds(rng, n)
        scene = scenes.make_scene(rng, kinds, size)
        picture = scenes.render(scene, rng)
        shape, colour = scenes.patch_labels(scene)
        pairs = questions.about_scene(rng, scene, style.pairs, style.mix)
        return Example(np.asarray(picture), pairs, {"shape": shape, "colour": colour})

    def word(self, rng: random.Random, size: tuple[int, int]) -> Example:
        """Draw a printed word."""
        word = rng.choice(self._words)
        picture, glyphs = scenes.render_word(rng, word, self._fonts, size)
        return Example(np.asarray(picture), questions.about_word(rng, word), {"glyph": glyphs})

    def photo(self, rng: random.Random, size: tuple[int, int]) -> Example:
        """Take a photo of a pack, cropped, turned and tinted a little, at `size`."""
        name = rng.choices(tuple(PACK_MIX), tuple(PACK_MIX.values()))[0]
        photo = rng.choice(self._photos[name])
        rgb = augment(rng, self._arrays[name][photo.row], packs.PACKS[name], size)
        pairs = questions.about_photo(rng, name, photo.label, self._labels[name])
        if name == "cards":
            return Example(rgb, pairs)
        return Example(rgb, pairs, {}, CLASS_PACKS.index(name), self._labels[name].index(photo.label))


def held_out_word(word: str) -> bool:
    """Keep every eleventh word, by its letters, out of training."""
    return sum(map(ord, word)) % 11 == 3


def augment(rng: random.Random, rgb: NDArray[np.uint8], pack: packs.Pack, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Crop a square of at least 70 % of the side, mirror or turn it where that keeps the meaning, tint it."""
    side = rgb.shape[0]
    crop = rng.randint(int(0.7 * side), side)
    top, left = rng.randint(0, side - crop), rng.randint(0, side - crop)
    picture = Image.fromarray(rgb[top : top + crop, left : left + crop])
    picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    if pack.mirror and rng.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if pack.turn and size[0] == size[1]:
        picture = picture.rotate(90 * rng.randrange(4))
    values = np.asarray(picture, np.float32) * rng.uniform(0.8, 1.2) + rng.uniform(-18, 18)
    if rng.random() < 0.3:
        values = values * np.asarray([rng.uniform(0.9, 1.1) for _ in range(3)], np.float32)
    return np.clip(values, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Shares:
    """What a stage is made of: shares of scenes and words (the rest photos), of plans with several tiles, of chats."""

    scenes: float = 0.52
    words: float = 0.02
    wide: float = 0.1
    square: float = 0.1
    chat: float = 0.15


class Batches(IterableDataset[dict[str, NDArray[Any]]]):
    """Endless batches from (seed, index); worker k of n takes every n-th index."""

    def __init__(
        self, paths: Paths, tokenizer: Path | None, shares: Shares, *, seed: int, start: int, size: int
    ) -> None:
        self._paths, self._tokenizer_path, self._shares = paths, tokenizer, shares
        self._seed, self._start, self._size = seed, start, size

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        self._source = Source(self._paths)
        self._tokenizer = Tokenizer.from_file(str(self._tokenizer_path)) if self._tokenizer_path else None
        worker = get_worker_info()
        step, first = (worker.num_workers, worker.id) if worker else (1, 0)
        index = self._start + first
        while True:
            yield self.batch(index)
            index += step

    def batch(self, index: int) -> dict[str, NDArray[Any]]:
        """Make batch `index`."""
        rng = random.Random(f"{self._seed}-{index}")
        plan, only = rng.random(), self._only(index)
        if only or self._tokenizer is None or plan >= self._shares.wide + self._shares.square:
            grid, n = (1, 1), self._size
        elif plan < self._shares.wide:
            grid, n = rng.choice(((1, 2), (2, 1))), max(1, self._size // 3)
        else:
            grid, n = (2, 2), max(1, self._size // 5)
        examples = [self._example(rng, grid, only) for _ in range(n)]
        batch = {**self._pixels(examples), **self._labels(examples)}
        if self._tokenizer:
            batch |= self._text(examples, grid, chat=rng.random() < self._shares.chat)
        return batch

    def _only(self, index: int) -> SceneStyle | None:
        """Return the scenes that the beginning of a stage is made of; None once all kinds of pictures are mixed."""
        pictures = index * self._size
        if self._tokenizer is None:
            return CROWD if pictures < CROWDED else None
        return FEW if pictures < GROUNDED else None

    def _example(self, rng: random.Random, grid: tuple[int, int], only: SceneStyle | None) -> Example:
        size = (grid[0] * TILE, grid[1] * TILE)
        kind = 0.0 if only else rng.random()
        if kind < self._shares.scenes:
            if grid == (1, 1):
                canvas = size if rng.random() < 0.8 else (rng.randint(96, 250), rng.randint(96, 250))
                canvas = canvas if max(canvas) < 2 * TILE else size
            else:
                height, width = (rng.randint(side, side * 5 // 4) for side in size)
                canvas = size if rng.random() < 0.5 else (height, width)
            return self._source.scene(rng, canvas, only or PLAIN)
        if kind < self._shares.scenes + self._shares.words:
            return self._source.word(rng, size)
        return self._source.photo(rng, size)

    def _pixels(self, examples: list[Example]) -> dict[str, NDArray[Any]]:
        """Cut every picture as the runtime does: uint8 [n * n_tiles, 3, 128, 128], overview last."""
        tiles: list[NDArray[np.uint8]] = []
        for example in examples:
            plan = tiling.split_grid(example.rgb.shape[:2], tile=TILE, longest_edge=LONGEST_EDGE)
            tiles += [tile.transpose(2, 0, 1) for tile in pixels.tiles(example.rgb, plan, "lanczos")]
        return {"tiles": np.stack(tiles), "n_tiles": np.array(len(tiles) // len(examples))}

    def _labels(self, examples: list[Example]) -> dict[str, NDArray[Any]]:
        none = np.full(N_PATCHES, IGNORE, np.int64)
        heads = {name: np.stack([e.dense.get(name, none) for e in examples]) for name in ("shape", "colour", "glyph")}
        return {
            **heads,
            "pack": np.array([e.pack for e in examples], np.int64),
            "label": np.array([e.label for e in examples], np.int64),
        }

    def _text(self, examples: list[Example], grid: tuple[int, int], chat: bool = False) -> dict[str, NDArray[Any]]:
        """Write each picture's questions behind it: `input_ids`, `labels` and `segments` [n, length].

        Answers are labelled. Segment 0 is what every question sees (the picture); each question with its answer is a
        segment of its own, as if it had been asked alone, so that no answer can be read off another. With `chat`
        all is one conversation instead.
        """
        rows = [(self._chat if chat else self._alone)(example.pairs, grid) for example in examples]
        length = -(-max(len(ids) for ids, _, _ in rows) // 16) * 16
        input_ids = np.full((len(rows), length), PAD, np.int64)
        labels = np.full((len(rows), length), IGNORE, np.int64)
        segments = np.zeros((len(rows), length), np.int64)
        for row, (ids, answers, parts) in enumerate(rows):
            input_ids[row, : len(ids)] = ids
            labels[row, : len(ids)] = answers
            segments[row, : len(ids)] = parts
        return {"input_ids": input_ids, "labels": labels, "segments": segments}

    def _alone(self, pairs: list[QA], grid: tuple[int, int]) -> Row:
        ids = self._encode("<|user|>" + layout(grid))
        labels, segments = [IGNORE] * len(ids), [0] * len(ids)
        for number, (question, answer) in enumerate(pairs, start=1):
            asked, answered = self._encode(question + "<|end|><|assistant|>"), [*self._encode(answer), END]
            ids += asked + answered
            labels += [IGNORE] * len(asked) + answered
            segments += [number] * (len(asked) + len(answered))
        return ids, labels, segments

    def _chat(self, pairs: list[QA], grid: tuple[int, int]) -> Row:
        ids: list[int] = []
        labels: list[int] = []
        for number, (question, answer) in enumerate(pairs):
            asked = self._encode("<|user|>" + ("" if number else layout(grid)) + question + "<|end|><|assistant|>")
            answered = [*self._encode(answer), END]
            ids += asked + answered
            labels += [IGNORE] * len(asked) + answered
        return ids, labels, [0] * len(ids)

    def _encode(self, text: str) -> list[int]:
        tokenizer = self._tokenizer
        assert tokenizer is not None
        return list(tokenizer.encode(text, add_special_tokens=False).ids)


def layout(grid: tuple[int, int]) -> str:
    """Write an image's tiles as text, the grid in row order and the overview last."""
    rows, cols = grid
    image = "<image>" * TOKENS_PER_TILE
    cells = [f"<row_{row}_col_{col}>{image}" for row in range(1, rows + 1) for col in range(1, cols + 1)]
    return ("".join(cells) if rows * cols > 1 else "") + "<global-img>" + image


def corpus(paths: Paths, n: int, seed: int = 0) -> Iterator[str]:
    """Yield text for the tokenizer: the questions and answers of `n` pictures, every label, every word."""
    rng = random.Random(seed)
    labels = {name: packs.classes(paths.packs, name) for name in PACK_MIX}
    for _ in range(n):
        kinds = scenes.random_kinds(rng, rng.randint(1, 6))
        scene = scenes.make_scene(rng, kinds, (TILE, TILE))
        for question, answer in questions.about_scene(rng, scene, 8):
            yield question
            yield answer
        name = rng.choice(tuple(labels))
        for question, answer in questions.about_photo(rng, name, rng.choice(labels[name]), labels[name]):
            yield question
            yield answer
    words = scenes.word_list(paths.words)
    yield from words
    yield from words
