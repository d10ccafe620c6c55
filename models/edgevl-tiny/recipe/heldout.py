"""Held-out pictures and questions, one deterministic set a task.

Scenes come from seeds that training never uses, words from letters and fonts that it never prints, photos from the
part of each pack that it never sees.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgevl.image.read import resize

from . import packs, questions, scenes
from .data import TILE, Batches, Example, Paths, Shares, held_out_word

TRAINING_CHECK = 96
"""Examples a task while training; the accuracy table takes at least 500."""

SCENE_TASKS = tuple(questions.TASKS)
PHOTO_TASKS = {"satellite": "eurosat", "flowers": "flowers", "objects": "objects", "groceries": "grocery",
               "waste": "trash", "hand_signs": "signs", "cards": "cards"}  # fmt: skip
TASKS = (*SCENE_TASKS, "words", *PHOTO_TASKS)


def held_out_batches(paths: Paths, tokenizer: Path, n: int) -> Iterator[tuple[str, Iterator[dict[str, Tensor]]]]:
    """Yield each task with `n` one-tile examples in batches, for a quick look while training."""
    maker = Batches(paths, tokenizer, Shares(), seed=0, start=0, size=1)
    maker._tokenizer = _load(tokenizer)
    for task in TASKS:
        yield task, _batched(maker, [_small(paths, task, index) for index in range(n)])


def _batched(maker: Batches, examples: list[Example]) -> Iterator[dict[str, Tensor]]:
    for start in range(0, len(examples), 32):
        part = examples[start : start + 32]
        batch: dict[str, Any] = {**maker._pixels(part), **maker._text(part, (1, 1))}
        yield {name: torch.as_tensor(value) for name, value in batch.items()}


def _load(path: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def _small(paths: Paths, task: str, index: int) -> Example:
    """Make example `index` of a task as one tile of 128 px."""
    rng = random.Random(f"held-out-{task}-{index}")
    if task in SCENE_TASKS:
        scene, pair = scene_question(rng, task, (TILE, TILE))
        return Example(np.asarray(scenes.render(scene, rng)), [pair])
    if task == "words":
        words = [word for word in scenes.word_list(paths.words) if held_out_word(word)]
        word = rng.choice(words)
        picture, _ = scenes.render_word(rng, word, scenes.font_files(paths.fonts, held_out=True))
        return Example(np.asarray(picture), [(questions.READ[0], word)])
    pack = PHOTO_TASKS[task]
    photo = rng.choice(packs.photos(paths.packs, pack, True))
    rgb = np.load(paths.cache / f"{pack}.npy", mmap_mode="r")[photo.row]
    return Example(
        resize(np.ascontiguousarray(rgb), (TILE, TILE), "lanczos"), [(questions.PHOTOS[pack].label[0], photo.label)]
    )


def scene_question(rng: random.Random, task: str, size: tuple[int, int]) -> tuple[scenes.Scene, tuple[str, str]]:
    """Draw a scene on which `task` can be asked, and the question with its answer."""
    makers: tuple[Callable[..., Any], ...] = questions.TASKS[task]
    while True:
        n = rng.randint(1, 6)
        kinds = (
            scenes.counting_kinds(rng, n)
            if task.startswith("counting") and rng.random() < 0.5
            else scenes.random_kinds(rng, n)
        )
        scene = scenes.make_scene(rng, kinds, size)
        pair = rng.choice(makers)(rng, scene)
        if pair is not None:
            return scene, pair


@dataclass(frozen=True)
class Item:
    """One held-out question: a picture [h, w, 3] at its own size, and the one right answer."""

    rgb: NDArray[np.uint8]
    question: str
    answer: str


def items(paths: Paths, task: str, n: int) -> Iterator[Item]:
    """Yield `n` items of a task (fewer where a pack holds fewer), as a user would ask them.

    Scenes and words come on canvases of several sizes and shapes, photos as they are in their pack.
    """
    if task in PHOTO_TASKS:
        yield from _photo_items(paths, PHOTO_TASKS[task], n)
        return
    words = [word for word in scenes.word_list(paths.words) if held_out_word(word)]
    fonts = scenes.font_files(paths.fonts, held_out=True)
    for index in range(n):
        rng = random.Random(f"item-{task}-{index}")
        canvas = _canvas(rng)
        if task == "words":
            word = rng.choice(words)
            picture, _ = scenes.render_word(rng, word, fonts, canvas)
            yield Item(np.asarray(picture), rng.choice(questions.READ), word)
        else:
            scene, (question, answer) = scene_question(rng, task, canvas)
            yield Item(np.asarray(scenes.render(scene, rng)), question, answer)


def _photo_items(paths: Paths, pack: str, n: int) -> Iterator[Item]:
    photos = sorted(packs.photos(paths.packs, pack, True), key=lambda photo: photo.file)
    rng = random.Random(f"items-{pack}")
    rng.shuffle(photos)
    for photo in photos[:n]:
        picture = np.asarray(packs.open_photo(paths.packs, photo))
        yield Item(picture, rng.choice(questions.PHOTOS[pack].label), photo.label)


def _canvas(rng: random.Random) -> tuple[int, int]:
    """Draw a canvas: one tile, four tiles, or anything from 128 to 512 pixels a side."""
    style = rng.random()
    if style < 0.4:
        return TILE, TILE
    if style < 0.7:
        side = rng.choice((256, 384, 512))
        return side, side
    return rng.randint(128, 512), rng.randint(128, 512)
