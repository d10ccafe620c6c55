"""Statements about three boxes, true or false, as in NLVR: of our own rules, and those of a pack of its pictures.

A statement is drawn first, then whether it shall be true, then boxes for which it is: no wording tells the answer.
Statements that hardly any or nearly all boxes make true are left out. Source: as in boxes.py.
"""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path

from PIL import Image

from . import packs
from .boxes import Boxes, make_boxes, palette, render
from .drawn import Drawn, Stock, Task
from .questions import vary
from .statements import SCATTERED, TOWERS, Statement, Truth

PROMPTS = (
    "is this statement true or false? {}",
    "true or false: {}",
    "{} is that true or false?",
    "is it true or false that the picture fits this sentence? {}",
)
PROMPTS_HELD_OUT = ("say true or false: {}", "does the picture show this, true or false? {}")
TRIES = 150
"""Boxes drawn for a statement before another is taken."""
MORE, POOL = 7, 60
"""More statements about a picture in training, and the boxes by which each is balanced."""
HELD_OUT = 0.2
"""The share of a pack's sentences that are kept from training."""


def statement(rng: random.Random, stock: Stock) -> Drawn:
    """Draw a statement, whether it is true, and boxes for which it is so; in training, more statements about them."""
    scene, said = made(rng, stock)
    return Drawn(render(scene, palette(rng, stock)), tuple(_asked(rng, stock, *one) for one in said.items()))


def made(rng: random.Random, stock: Stock) -> tuple[Boxes, dict[str, bool]]:
    """Draw boxes, and statements about them with their truth."""
    towers, wanted = rng.random() < 0.5, rng.random() < 0.5
    while True:
        sentence, truth = _drawn(rng, stock, towers)
        scene = _boxes_for(rng, truth, towers, wanted)
        if scene is not None:
            return scene, {sentence: wanted, **({} if stock.is_held_out else dict(_more(rng, stock, scene, towers)))}


def _drawn(rng: random.Random, stock: Stock, towers: bool) -> Statement:
    return rng.choice(TOWERS if towers else SCATTERED)(rng, stock)


def _more(rng: random.Random, stock: Stock, scene: Boxes, towers: bool) -> Iterator[tuple[str, bool]]:
    """Draw statements about boxes that are there, each as often true as false.

    What is true of most boxes is asked less often where it is true, so that a sentence alone tells nothing.
    """
    found = 0
    for _ in range(TRIES):
        sentence, truth = _drawn(rng, stock, towers)
        is_true, share = truth(scene), sum(map(truth, _pool(towers))) / POOL
        if rng.random() * (share if is_true else 1 - share) < min(share, 1 - share):
            yield sentence, is_true
            found += 1
        if found == MORE:
            return


@lru_cache
def _pool(towers: bool) -> tuple[Boxes, ...]:
    """Draw boxes by which to tell how often a statement is true."""
    rng = random.Random(f"pool-{towers}")
    return tuple(make_boxes(rng, towers) for _ in range(POOL))


def _boxes_for(rng: random.Random, truth: Truth, towers: bool, wanted: bool) -> Boxes | None:
    """Draw boxes until some made the statement true and some made it false; None where that takes too long."""
    found: dict[bool, Boxes] = {}
    for _ in range(TRIES):
        scene = make_boxes(rng, towers)
        found.setdefault(truth(scene), scene)
        if len(found) == 2:
            return found[wanted]
    return None


def _asked(rng: random.Random, stock: Stock, sentence: str, answer: bool) -> tuple[str, str]:
    if rng.random() < 0.5:
        sentence = sentence[0].upper() + sentence[1:]
    question = stock.one_of(rng, PROMPTS, PROMPTS_HELD_OUT).format(sentence)
    return vary(rng, question), "true" if answer else "false"


TASKS = {"nlvr": Task(statement, "true_false")}
"""The task with boxes of our own, a row of the accuracy table."""


# A pack of published pictures


@dataclass(frozen=True)
class Row:
    """A picture of a pack, its sentence, and whether that is true."""

    file: str
    sentence: str
    is_true: bool


def is_held_out(sentence: str) -> bool:
    """Decide by a hash of the sentence, so that no sentence is in both parts and the split never moves."""
    digest = sha256(f"nlvr/{' '.join(sentence.lower().split())}".encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT * 2**32


@lru_cache
def read_pack(path: Path, held_out: bool) -> tuple[Row, ...]:
    """List one part of a pack: a zip with pictures and a `labels.jsonl` of file, sentence and answer."""
    with zipfile.ZipFile(path) as archive:
        lines = archive.read("labels.jsonl").decode().splitlines()
    rows = (json.loads(line) for line in lines if line.strip())
    return tuple(
        Row(row["file"], row["sentence"].strip(), row["answer"] == "true")
        for row in rows
        if packs.is_in_part("nlvr", row["file"], is_held_out(row["sentence"]), held_out)
    )


@lru_cache
def _archive(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def published(rng: random.Random, stock: Stock, path: Path) -> Drawn:
    """Take a picture of a pack with its sentence; true and false are as likely."""
    wanted = rng.random() < 0.5
    while True:
        row = rng.choice(read_pack(path, stock.is_held_out))
        if row.is_true == wanted:
            break
    picture = Image.open(io.BytesIO(_archive(path).read(row.file))).convert("RGB")
    return Drawn(picture, (_asked(rng, stock, row.sentence, row.is_true),))


def tasks(path: Path) -> dict[str, Task]:
    """Return the task with a pack's pictures, a row of the accuracy table."""
    return {"nlvr_published": Task(partial(published, path=path), "true_false")}
