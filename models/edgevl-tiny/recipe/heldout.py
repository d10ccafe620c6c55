"""Held-out pictures and questions, one deterministic set a task.

Scenes come from seeds that training never uses, what generators draw from the held-out part of their stock, photos
from the part of each pack that training never sees.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import packs, questions, scenes, subjects
from .batches import Writer, collate
from .data import Example, Paths, stock
from .plan import TILE

TRAINING_CHECK = 48
"""Examples a task while training; the accuracy table takes at least 500."""
CHECK_TILES = 48
"""Tiles of a batch of them, at most, where one picture does not have more."""

SCENE_TASKS = tuple(questions.TASKS)
PHOTO_TASKS = {"satellite": "eurosat", "flowers": "flowers", "objects": "objects", "groceries": "grocery",
               "grocery_kinds": "grocery", "waste": "trash", "hand_signs": "signs", "cards": "cards"}  # fmt: skip
OF_KINDS = ("grocery_kinds",)
"""Photo tasks that ask for a pack's coarser label."""
MOST_THINGS, MOST_COUNTED = 6, 9
"""Things of a scene, at most; more where only their number is asked for."""
_SUBJECTS = subjects.tasks(Path())
GENERATED_TASKS = tuple(chain.from_iterable(_SUBJECTS.values()))
BY_LETTER_TASKS = {name for subject in subjects.BY_LETTER for name in _SUBJECTS.get(subject, ())}
TASKS = (*SCENE_TASKS, *GENERATED_TASKS, *PHOTO_TASKS)


@dataclass(frozen=True)
class Item:
    """One held-out question: a picture [h, w, 3] at its own size, the right answer, and what grades an answer.

    `metric` is a name of `edgevl.eval.metrics`.
    """

    rgb: NDArray[np.uint8]
    question: str
    answer: str
    metric: str


def items(paths: Paths, task: str, n: int, seed: str = "item") -> Iterator[Item]:
    """Yield `n` items of a task (fewer where a pack holds fewer), as a user would ask them.

    Scenes come on canvases of several sizes and shapes, what generators draw at its own size, photos as they are in
    their pack. Another `seed` gives other items.
    """
    if task in PHOTO_TASKS:
        yield from _photo_items(paths, task, n, seed)
        return
    make = _scene_item if task in SCENE_TASKS else _drawn_item(paths, task)
    for index in range(n):
        yield make(random.Random(f"{seed}-{task}-{index}"), task)


def _scene_item(rng: random.Random, task: str) -> Item:
    scene, (question, answer) = scene_question(rng, task, _canvas(rng))
    metric = "things" if task == "description" else "exact"
    return Item(np.asarray(scenes.render(scene, rng)), question, answer, metric)


def _drawn_item(paths: Paths, task: str) -> Callable[[random.Random, str], Item]:
    row = subjects.task(paths.packs, task)
    held_out = stock(paths, is_held_out=True)

    def make(rng: random.Random, _: str) -> Item:
        drawn = row.make(rng, held_out)
        question, answer = drawn.pairs[0]
        return Item(np.asarray(drawn.picture.convert("RGB")), question, answer, row.metric)

    return make


def _photo_items(paths: Paths, task: str, n: int, seed: str) -> Iterator[Item]:
    pack, asks_kind = PHOTO_TASKS[task], task in OF_KINDS
    asked = questions.PHOTOS[pack].kind if asks_kind else questions.PHOTOS[pack].label
    photos = sorted(packs.photos(paths.packs, pack, True), key=lambda photo: photo.file)
    rng = random.Random(f"{seed}s-{pack}")
    rng.shuffle(photos)
    for photo in photos[:n]:
        picture = np.asarray(packs.open_photo(paths.packs, photo))
        yield Item(picture, rng.choice(asked), photo.kind if asks_kind else photo.label, "exact")


def scene_question(rng: random.Random, task: str, size: tuple[int, int]) -> tuple[scenes.Scene, tuple[str, str]]:
    """Draw a scene on which `task` can be asked, and the question with its answer."""
    makers: tuple[Callable[..., Any], ...] = questions.TASKS[task]
    while True:
        n = rng.randint(1, MOST_COUNTED if task.startswith("counting") else MOST_THINGS)
        kinds = (
            scenes.counting_kinds(rng, n)
            if task.startswith("counting") and rng.random() < 0.5
            else scenes.random_kinds(rng, n)
        )
        scene = scenes.make_scene(rng, kinds, size)
        pair = rng.choice(makers)(rng, scene)
        if pair is not None:
            return scene, pair


def _canvas(rng: random.Random) -> tuple[int, int]:
    """Draw a canvas: one tile, four tiles, or anything from 128 to 512 pixels a side."""
    style = rng.random()
    if style < 0.4:
        return TILE, TILE
    if style < 0.7:
        side = rng.choice((256, 384, 512))
        return side, side
    return rng.randint(128, 512), rng.randint(128, 512)


# A look while training


def held_out_batches(paths: Paths, writer: Writer, n: int) -> Iterator[tuple[str, Iterator[dict[str, Tensor]]]]:
    """Yield each task with `n` items in batches: others than `items` has by itself, cut as the runtime cuts them."""
    for task in TASKS:
        yield task, _batched(items(paths, task, n, seed="held-out"), writer, by_letter=task in BY_LETTER_TASKS)


def _batched(asked: Iterator[Item], writer: Writer, by_letter: bool) -> Iterator[dict[str, Tensor]]:
    part: list[Example] = []
    for item in asked:
        example = Example(item.rgb, [(item.question, item.answer)], by_letter=by_letter)
        if part and sum(other.plan.n_tiles for other in (*part, example)) > CHECK_TILES:
            yield _tensors(part, writer)
            part = []
        part.append(example)
    if part:
        yield _tensors(part, writer)


def _tensors(part: list[Example], writer: Writer) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value) for name, value in collate(part, writer).items()}
