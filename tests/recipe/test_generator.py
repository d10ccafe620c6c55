"""The recipe's pictures, questions and held-out parts: deterministic, consistent, balanced, apart."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevl.recipe import packs, questions, scenes
from edgevl.recipe.data import held_out_word
from edgevl.recipe.heldout import SCENE_TASKS, scene_question
from edgevl.recipe.scenes import COLOURS, SHAPES, Scene

SEEDS = st.integers(0, 10**6)


def some_scene(seed: int) -> tuple[random.Random, Scene]:
    rng = random.Random(seed)
    return rng, scenes.make_scene(rng, scenes.random_kinds(rng, rng.randint(1, 6)), (128, 160))


@pytest.fixture(scope="module")
def fonts() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def test_one_seed_one_picture() -> None:
    first, again, other = (scenes.render(some_scene(seed)[1], random.Random(seed)) for seed in (5, 5, 6))
    assert first.size == (160, 128)
    assert first.tobytes() == again.tobytes() != other.tobytes()


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_things_stay_inside_and_apart(seed: int) -> None:
    _, scene = some_scene(seed)
    for thing in scene.things:
        assert thing.radius <= thing.y <= scene.height - thing.radius
        assert thing.radius <= thing.x <= scene.width - thing.radius
    for first in scene.things:
        for second in scene.things:
            distance = ((first.x - second.x) ** 2 + (first.y - second.y) ** 2) ** 0.5
            assert first is second or distance > first.radius + second.radius
    assert [thing.x for thing in scene.things] == sorted(thing.x for thing in scene.things)


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_answers_follow_from_the_scene(seed: int) -> None:
    rng, scene = some_scene(seed)
    kinds = Counter((thing.colour, thing.shape) for thing in scene.things)
    assert questions.count_all(rng, scene)[1] == str(sum(kinds.values()))
    described = questions.description(scene)
    for (colour, shape), n in kinds.items():
        assert (
            f"{colour} {shape}" if n == 1 else f"{questions.NUMBERS[n]} {colour} {questions.PLURALS[shape]}"
        ) in described
    question, answer = questions.exists(rng, scene)
    asked = [(c, s) for c in COLOURS for s in SHAPES if f"{c} {s}" in question]
    if asked:
        assert (answer == "yes") == (asked[0] in kinds)
    if pair := questions.colour_of(rng, scene):
        (shape,) = [shape for shape in SHAPES if shape in pair[0]]
        assert [thing.colour for thing in scene.things if thing.shape == shape] == [pair[1]]
    if pair := questions.count_some(rng, scene):
        assert 0 <= int(pair[1]) <= len(scene.things)


SECOND_FIRST = (
    "on which side of", "to which side of", "which side of", "compared to", "seen from", "next to", "left or right of",
    "above or below the",
)  # fmt: skip
"""How questions begin that name the second of two things first."""


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_relations_are_true(seed: int) -> None:
    rng, scene = some_scene(seed)
    pair = questions.relation(rng, scene)
    if pair is None:
        return
    places = sorted((pair[0].index(t.name), t) for t in scene.things if t.name in pair[0])
    if len(places) < 2:  # named by shape alone
        places = sorted((pair[0].index(t.shape), t) for t in scene.things if t.shape in pair[0])
    first, second = places[0][1], places[1][1]
    if pair[0].startswith(SECOND_FIRST):
        first, second = second, first
    truth = {"left": first.x < second.x, "right": first.x > second.x, "above": first.y < second.y}
    assert truth.get(pair[1], first.y > second.y)


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_the_neighbour_is_the_nearest_on_its_side(seed: int) -> None:
    rng, scene = some_scene(seed)
    pair = questions.following(rng, scene)
    if pair is None:
        return
    [thing] = [one for one in scene.things if one.name in pair[0]]
    sign = 1 if "right" in pair[0].replace(thing.name, "") else -1
    beyond = [other for other in scene.things if sign * (other.x - thing.x) > 0]
    nearest = min(beyond, key=lambda other: abs(other.x - thing.x))
    assert pair[1] == questions.article(nearest.name)


def test_answers_give_nothing_away() -> None:
    answers: dict[str, Counter[str]] = {"yes_no": Counter(), "relations": Counter()}
    for task, counts in answers.items():
        rng = random.Random(task)
        for _ in range(1500):
            counts[scene_question(rng, task, (128, 128))[1][1]] += 1
    assert set(answers["yes_no"]) == {"yes", "no"}
    assert 0.44 < answers["yes_no"]["yes"] / 1500 < 0.56
    assert set(answers["relations"]) == {"left", "right", "above", "below"}
    assert min(answers["relations"].values()) / 1500 > 0.2


@pytest.mark.parametrize("task", SCENE_TASKS)
def test_every_task_can_be_asked_and_repeats(task: str) -> None:
    first, again = (scene_question(random.Random(f"{task}-1"), task, (200, 140)) for _ in range(2))
    assert first == again
    assert first[1][0]
    assert first[1][1]


def test_patch_labels_name_what_is_there() -> None:
    _, scene = some_scene(11)
    shape, colour = scenes.patch_labels(scene)
    assert shape.shape == colour.shape == (256,)
    assert ((shape == 0) == (colour == 0)).all()
    assert {SHAPES[label - 1] for label in shape if label > 0} == {thing.shape for thing in scene.things}
    assert {tuple(COLOURS)[label - 1] for label in colour if label > 0} == {thing.colour for thing in scene.things}


def test_words_fonts_and_photos_held_out_are_apart(tmp_path: Path, fonts: Path) -> None:
    words = [f"{a}{b}{c}e" for a in "bcdfg" for b in "aeiou" for c in "lmnrst"]
    held = [word for word in words if held_out_word(word)]
    assert 0 < len(held) < len(words) / 5
    training, kept = scenes.font_files(fonts, held_out=False), scenes.font_files(fonts, held_out=True)
    assert kept
    assert not set(training) & set(kept)
    pack = packs.PACKS["flowers"]
    share = np.mean([packs.is_held_out(pack, f"{i}.jpg") for i in range(4000)])
    assert abs(share - pack.held_out) < 0.03


def test_what_no_scene_shows_is_asked_for_by_other_names_than_in_training() -> None:
    assert not {*questions.ELSEWHERE} & {*questions.ELSEWHERE_HELD_OUT}
    assert not {*questions.ELSEWHERE, *questions.ELSEWHERE_HELD_OUT} & {*SHAPES, *COLOURS}
    rng, (_, scene) = random.Random(3), some_scene(11)
    asked = [scene_question(rng, "absent_things", (128, 128))[1] for _ in range(200)]
    trained = [pair for _ in range(60) for pair in questions.about_scene(rng, scene, 8, {"absent_things": 1.0})]
    for pairs, things in ((asked, questions.ELSEWHERE_HELD_OUT), (trained, questions.ELSEWHERE)):
        assert {answer for _, answer in pairs} <= {"no", *(f"there is no {thing}." for thing in things)}
        assert all(any(thing in question.lower() for thing in things) for question, _ in pairs)
