"""Scenes of emoji: deterministic, apart, truly named; what is held out is not shown in training."""

from __future__ import annotations

import io
import random
import re
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgevl.recipe import emoji, questions
from edgevl.recipe.colours import SHADES
from edgevl.recipe.data import Paths
from edgevl.recipe.drawn import Stock
from edgevl.recipe.plan import IGNORE
from tests.recipe.pictures import EMOJI_COLOURS as COLOURS
from tests.recipe.tracing import phrasings, plain

DESCRIBED = {text.lower().rstrip("?.") for text in emoji.DESCRIBE}


def listed(answer: str) -> set[str]:
    """Return the names in a list, without articles."""
    parts = re.split(r", | and ", answer.removesuffix("."))
    return {re.sub(r"^an? ", "", part) for part in parts}


@pytest.fixture(scope="module")
def pack(places: Paths) -> Path:
    """The pack of `write_emoji`."""
    return places.packs / "emoji.zip"


def test_a_pack_is_read_in_two_parts(pack: Path) -> None:
    read = emoji.read_pack(pack)
    assert len(read.known) + len(read.kept) == 120
    assert 2 <= len(read.kept) <= 25
    assert not set(read.known) & set(read.kept)
    names = {one.name for one in (*read.known, *read.kept)}
    assert not names & {"squared ok", "germany", "face with ok gesture"}


def test_one_seed_one_picture(pack: Path, training: Stock, held_out: Stock) -> None:
    for name, task in emoji.tasks(pack).items():
        first, again, kept = (task.make(random.Random(3), stock) for stock in (training, training, held_out))
        assert first.pairs == again.pairs, name
        assert first.picture.tobytes() == again.picture.tobytes(), name
        assert len(kept.pairs) == 1
        assert len(first.pairs) > 3
        assert all(128 <= side <= 512 for side in first.picture.size)


def test_what_is_held_out_is_not_in_training() -> None:
    for name, (known, kept) in phrasings(emoji).items():
        assert set(kept) - set(known), name
        if name != "GROUNDS":
            assert not {plain(text) for text in known} & {plain(text) for text in kept}, name


def test_training_never_shows_what_is_kept(pack: Path, training: Stock, held_out: Stock) -> None:
    kept = {one.name for one in emoji.read_pack(pack).kept}
    rows = emoji.tasks(pack)
    for seed in range(60):
        for name in ("emoji", "emoji_count"):
            for _, answer in rows[name].make(random.Random(seed), training).pairs:
                assert not listed(answer) & kept
        described = rows["emoji"].make(random.Random(seed), held_out).pairs[0][1]
        assert not listed(described) & kept  # it is asked for by name


@pytest.mark.parametrize("seed", range(20))
def test_emoji_are_inside_apart_and_visible(seed: int, pack: Path, training: Stock) -> None:
    rng, read = random.Random(seed), emoji.read_pack(pack)
    scene = emoji.make_scene(rng, read.known, 1 + seed % 4)
    drawn, owners = emoji.render(rng, training, read, scene)
    picture = np.asarray(drawn, int)
    assert picture.shape == (*scene.size, 3)
    for number, one in enumerate(scene.shown):
        half = one.side / 2
        assert half <= one.y <= scene.size[0] - half
        assert half <= one.x <= scene.size[1] - half
        for other in scene.shown[:number]:
            assert max(abs(one.x - other.x), abs(one.y - other.y)) >= half + other.side / 2
        wanted = SHADES[COLOURS[int(Path(one.emoji.file).stem) % 6]][0][0]
        assert np.abs(picture[int(one.y), int(one.x)] - wanted).max() < 12
        assert owners[int(one.y), int(one.x)] == 1 + number


def test_answers_are_those_of_the_scene(pack: Path, training: Stock) -> None:
    read = emoji.read_pack(pack)
    answers: Counter[str] = Counter()
    for seed in range(150):
        rng = random.Random(seed)
        scene = emoji.make_scene(rng, read.known, 1 + seed % 4)
        names = [one.emoji.name for one in sorted(scene.shown, key=lambda one: one.x)]
        described = emoji.describe(rng, training, read, scene)[1]
        assert described == questions.join([emoji.with_article(name) for name in names]) + "."
        assert emoji.count(rng, training, read, scene)[1] == str(len(names))
        question, answer = emoji.exists(rng, training, read, scene)
        answers[answer] += 1
        words = re.findall(r"\w+", question)
        assert (answer == "yes") == any(name.split()[-1] in words for name in names)
        question, answer = emoji.missing(rng, training, read, scene)
        asked = answer.removeprefix("there is no ").removesuffix(".")
        assert asked in question
        assert asked not in names
        if pair := emoji.colour(rng, training, read, scene):
            (one,) = [one for one in scene.shown if one.emoji.name in re.findall(r"\w+", pair[0])]
            assert pair[1] == COLOURS[int(Path(one.emoji.file).stem) % 6]
        if pair := emoji.where(rng, training, read, scene):
            (one,) = [one for one in scene.shown if one.emoji.name in re.findall(r"\w+", pair[0])]
            row = ("top", "", "bottom")[int(3 * one.y / scene.size[0])]
            column = ("left", "", "right")[int(3 * one.x / scene.size[1])]
            assert pair[1] == (f"{row} {column}".strip() or "centre")
    assert 0.38 < answers["yes"] / 150 < 0.62


def test_patches_of_a_tile_are_labelled_with_the_emoji_that_they_show(pack: Path, training: Stock) -> None:
    read, seen = emoji.read_pack(pack), set[int]()
    for seed in range(30):
        drawn, again = (emoji.tile(random.Random(seed), training, pack) for _ in range(2))
        [(name, labels)] = drawn.labels.items()
        assert name == emoji.LABEL
        assert (labels == again.labels[name]).all()
        described = next(answer for question, answer in drawn.pairs if question.lower().rstrip("?.") in DESCRIBED)
        shown = {read.known[label - 1].name for label in labels if label > 0}
        assert shown == listed(described)
        assert drawn.picture.size == (128, 128)
        seen.add(len(shown))
    assert seen == set(range(1, emoji.MOST_IN_TILE + 1))


def test_a_patch_counts_where_enough_of_it_shows_the_emoji() -> None:
    owners = np.zeros((128, 128), np.uint8)
    owners[:8, :12] = 1  # all of the first patch, half of the second
    owners[8:10, :8] = 2  # a quarter
    labels = emoji.patch_labels(owners, [7, 9])
    assert labels[:3].tolist() == [7, 7, 0]
    assert labels[16] == IGNORE
    assert not labels[17:].any()


def test_what_is_absent_is_not_akin_to_what_is_shown() -> None:
    dog, pizza = emoji.Emoji("1.png", "dog face"), emoji.Emoji("2.png", "slice of pizza")
    poodle, wolf, taco = (emoji.Emoji(f"{name}.png", name) for name in ("poodle", "wolf face", "taco"))
    read = emoji.Pack(Path("none.zip"), (dog, pizza, poodle, wolf, taco), ())
    scene = emoji.Scene((200, 200), (emoji.Shown(dog, 50, 50, 40),))
    asked = {emoji.absent(random.Random(seed), read, scene).name for seed in range(40)}
    assert asked == {"slice of pizza", "taco"}


def test_names_get_the_article_that_they_need() -> None:
    given = ("owl", "umbrella", "taco", "grapes", "cactus", "unicorn face")
    wanted = ["an owl", "an umbrella", "a taco", "grapes", "a cactus", "a unicorn face"]
    assert [emoji.with_article(name) for name in given] == wanted


def test_colours_of_many_hues_have_no_name(tmp_path: Path) -> None:
    path = tmp_path / "pack.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, colours in (("one.png", ("red", "red")), ("two.png", ("red", "blue"))):
            picture = Image.new("RGBA", (40, 40))
            for number, colour in enumerate(colours):
                picture.paste((*SHADES[colour][0][0], 255), (20 * number, 0, 20 * number + 20, 40))
            content = io.BytesIO()
            picture.save(content, "PNG")
            archive.writestr(name, content.getvalue())
    assert emoji.colour_of(path, "one.png") == "red"
    assert emoji.colour_of(path, "two.png") is None


def test_the_shared_pack_has_scenes_to_ask_about(shared_dir: Path, held_out: Stock) -> None:
    path = shared_dir / "data" / "emoji.zip"
    if not path.is_file():
        pytest.skip(f"no {path}")
    read = emoji.read_pack(path)
    assert len(read.known) > 800
    assert 60 < len(read.kept) < 200
    for name, task in emoji.tasks(path).items():
        drawn = task.make(random.Random(1), held_out)
        assert drawn.pairs[0][1], name
