"""Statements about boxes: deterministic, balanced, and their truth found again from the picture's pixels."""

from __future__ import annotations

import io
import json
import random
import re
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from edgevl.recipe import boxes, nlvr, statements
from edgevl.recipe.boxes import COLOURS, PUBLISHED, Boxes, Item, from_published, make_boxes, render
from edgevl.recipe.data import Paths
from edgevl.recipe.drawn import Stock
from edgevl.recipe.questions import NUMBERS
from tests.recipe.tracing import phrasings, plain


def regions(mask: NDArray[np.bool_]) -> list[tuple[slice, slice]]:
    """Return the boxes around the connected parts of a mask."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        around = np.pad(labels, 1)
        beside = (labels, around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
        spread = np.maximum.reduce(beside) * mask
        if (spread == labels).all():
            break
        labels = spread
    found = []
    for label in set(labels[mask].tolist()):
        y, x = np.nonzero(labels == label)
        found.append((slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)))
    return found


def seen(picture: Image.Image) -> list[set[Item]]:
    """Read the items of three boxes off a picture in the published colours."""
    pixels = np.asarray(picture)
    found = []
    for left in (0, 150, 300):
        box = pixels[:, left : left + 100]
        items = set()
        for name, colour in zip(COLOURS, PUBLISHED, strict=False):
            mask = (box == colour).all(-1)
            for y, x in regions(mask):
                area = mask[y, x]
                shape = "square" if area.all() else "circle" if area.mean() > 0.65 else "triangle"
                items.add(Item(name, shape, area.shape[1], y.stop - area.shape[1], x.start))
        found.append(items)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_a_picture_shows_its_boxes(seed: int) -> None:
    scene = make_boxes(random.Random(seed), towers=seed % 2 == 0)
    picture = render(scene)
    assert picture.size == (400, 100)
    assert seen(picture) == [set(box) for box in scene.boxes]


def test_one_seed_one_picture(training: Stock, held_out: Stock) -> None:
    make = nlvr.TASKS["nlvr"].make
    first, again, kept = (make(random.Random(4), stock) for stock in (training, training, held_out))
    assert first.pairs == again.pairs
    assert first.picture.tobytes() == again.picture.tobytes()
    assert first.picture.size == kept.picture.size == (400, 100)


def test_what_is_held_out_is_not_in_training() -> None:
    for module in (nlvr, statements, boxes):
        parts = phrasings(module)
        assert parts
        for name, (known, kept) in parts.items():
            assert not {plain(str(text)) for text in known} & {plain(str(text)) for text in kept}, name


def test_things_lie_inside_and_apart() -> None:
    for seed in range(60):
        scene = make_boxes(random.Random(seed), towers=False)
        for box in scene.boxes:
            assert box
            for number, item in enumerate(box):
                assert 0 <= item.x <= 100 - item.size
                assert 0 <= item.y <= 100 - item.size
                ends = (item.x, item.y, item.x + item.size, item.y + item.size)
                assert item.walls == sum(end in (0, 100) for end in ends)
                for other in box[:number]:
                    across = max(item.x - other.x - other.size, other.x - item.x - item.size)
                    assert max(across, item.y - other.y - other.size, other.y - item.y - item.size) > 1


AMOUNT = (
    r"(?P<how>exactly|only|at least|at most|more than|no) ?(?P<n>\d|one|two|three|four|five|six)? "
    r"(?P<colour>yellow|blue|black)? ?(?P<thing>block|item|object|circle|square|triangle)s?"
)


def counted_true(sentence: str, items: list[Item]) -> bool | None:
    """Decide a sentence that counts things of all boxes; None for other sentences."""
    told = re.search(rf"(?:there (?:is|are)|hold|have) {AMOUNT}(?: in all)?\.$", sentence)
    if told is None:
        return None
    fitting = [
        item
        for item in items
        if told["colour"] in (None, item.colour) and told["thing"] in ("block", "item", "object", item.shape)
    ]
    n = 0 if told["how"] == "no" else int(told["n"]) if told["n"].isdigit() else NUMBERS.index(told["n"])
    compared = {"at least": len(fitting) >= n, "at most": len(fitting) <= n, "more than": len(fitting) > n}
    return compared.get(told["how"], len(fitting) == n)


def test_truth_is_that_of_the_pixels(training: Stock) -> None:
    n_decided = 0
    for seed in range(220):
        scene, said = nlvr.made(random.Random(seed), training)
        for sentence, wanted in said.items():
            truth = counted_true(sentence, [item for box in scene.boxes for item in box])
            if truth is not None:
                n_decided += 1
                if n_decided <= 8:  # from the picture itself
                    truth = counted_true(sentence, [item for box in seen(render(scene)) for item in box])
                assert truth == wanted, sentence
    assert n_decided > 100


TOWER = Boxes(
    (
        (Item("black", "square", 20, 80, 40), Item("yellow", "square", 20, 59, 40)),
        (Item("blue", "square", 20, 80, 40),),
        (Item("blue", "square", 20, 80, 40), Item("black", "square", 20, 59, 40), Item("black", "square", 20, 38, 40)),
    ),
    True,
)
THINGS = Boxes(
    (
        (Item("black", "circle", 20, 0, 0), Item("yellow", "square", 10, 50, 40)),
        (Item("blue", "triangle", 30, 70, 20), Item("blue", "circle", 10, 10, 60)),
        (Item("yellow", "circle", 20, 40, 80),),
    ),
    False,
)
JUDGED = {
    "there is a black block on a blue block.": True,
    "there is a blue block on a black block.": False,
    "there is a yellow block on a black block.": True,
    "there is a tower of only one colour.": True,
    "at least two towers have the same height.": False,
    "the tower in the middle has a blue block.": True,
    "the tower on the left has a blue block.": False,
    "in one tower the second block is black.": True,
    "in one tower the second block is blue.": False,
    "the tower with three blocks has a black top.": True,
    "the tower with two blocks has a black top.": False,
    "there is a circle touching a corner.": True,
    "there is a triangle touching a corner.": False,
    "each box has at least one circle.": True,
    "each box has at least one square.": False,
    "in one box all items have the same color.": True,
    "only one box has black items.": True,
    "only one box has yellow items.": False,
    "there is a big triangle.": True,
    "there is a big circle.": False,
    "in one box the highest item is blue.": True,
    "in one box the highest item is black.": True,
    "there is a box with both black and blue items but nothing else.": False,
    "there is a box with both black and yellow items but nothing else.": True,
    "there is a box with a black circle and a yellow square.": True,
    "there is a box with a circle and a yellow circle.": False,
}


def test_statements_are_judged_as_a_person_would(training: Stock) -> None:
    left = dict(JUDGED)
    rng = random.Random(0)
    for _ in range(60_000):
        if not left:
            break
        for scene, templates in ((TOWER, statements.TOWERS), (THINGS, statements.SCATTERED)):
            sentence, truth = rng.choice(templates)(rng, training)
            if sentence in left:
                assert truth(scene) == left.pop(sentence), sentence
    assert not left


def test_no_wording_tells_the_answer(training: Stock) -> None:
    answers: Counter[str] = Counter()
    by_words: dict[str, Counter[bool]] = {}
    for seed in range(500):
        _, said = nlvr.made(random.Random(seed), training)
        for sentence, wanted in said.items():
            answers[str(wanted)] += 1
            for word in set(re.findall(r"\w+", sentence)):
                by_words.setdefault(word, Counter())[wanted] += 1
    assert answers.total() > 3000
    assert 0.47 < answers["True"] / answers.total() < 0.53
    frequent = {word: counts for word, counts in by_words.items() if counts.total() > 60}
    assert len(frequent) > 12
    assert all(0.33 < counts[True] / counts.total() < 0.67 for counts in frequent.values())


@pytest.fixture(scope="module")
def pack(places: Paths) -> Path:
    """The pack of `write_nlvr`."""
    return places.packs / "nlvr.zip"


def test_no_sentence_of_a_pack_is_in_both_parts(pack: Path) -> None:
    parts = [nlvr.read_pack(pack, held_out) for held_out in (False, True)]
    assert sum(map(len, parts)) == 60
    assert all(parts)
    assert not {row.sentence for row in parts[0]} & {row.sentence for row in parts[1]}


def test_a_pack_is_asked_in_balance(pack: Path, training: Stock, held_out: Stock) -> None:
    make = nlvr.tasks(pack)["nlvr_published"].make
    for stock in (training, held_out):
        drawn = [make(random.Random(seed), stock) for seed in range(100)]
        assert all(one.picture.size == (400, 100) for one in drawn)
        assert 30 < sum(one.pairs[0][1] == "true" for one in drawn) < 70
    assert make(random.Random(1), training).pairs == make(random.Random(1), training).pairs


def test_published_pictures_are_drawn_as_they_were(shared_dir: Path) -> None:
    path = shared_dir / "data" / "nlvr.zip"
    if not path.is_file():
        pytest.skip(f"no {path}")
    with zipfile.ZipFile(path) as archive:
        rows = [json.loads(line) for line in archive.read("labels.jsonl").decode().splitlines()]
        for row in rows[::500]:
            theirs = np.asarray(Image.open(io.BytesIO(archive.read(row["file"]))).convert("RGB"), int)
            ours = np.asarray(render(from_published(row["structured_rep"])), int)
            assert (np.abs(theirs - ours).max(-1) > 60).mean() < 0.02, row["file"]  # their edges are smooth
