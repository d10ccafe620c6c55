"""Questions in other words: the meaning stays, and the words are none of training's."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from edgevl.recipe import blind, charts, documents, paraphrases, printed, questions, screens
from edgevl.recipe.data import Paths, Source, stock
from edgevl.recipe.drawn import Stock, Task
from edgevl.recipe.goals import GROUPS
from edgevl.recipe.heldout import SCENE_TASKS, scene_question
from edgevl.recipe.paraphrases import Template, forms, meanings, template

GENERATORS = {"printed": printed.TASKS, "charts": charts.TASKS, "screens": screens.TASKS, "documents": documents.TASKS,
              "blind": blind.TASKS}  # fmt: skip


def without(question: str) -> str:
    """Undo the spelling."""
    return question.removeprefix("please: ").removesuffix(" thank you.")


def follows(templates: tuple[Template, ...], question: str) -> bool:
    return any(one.gaps_of(question) is not None for one in templates)


def test_a_template_finds_its_gaps_and_fills_them() -> None:
    one = template('which {} stands "{}"? answer as {{{form}}}.', {})
    question = 'Which red box stands "on top"? answer as {5}'
    gaps = one.gaps_of(question)
    assert gaps == {"gap0": "red box", "gap1": "on top", "form": "5"}
    assert one.filled(gaps) == 'which red box stands "on top"? answer as {5}.'
    assert one.gaps_of("which red box stands?") is None
    assert template("is {a} {side} {b}?", {"side": ["left of"]}).gaps_of("is it all left of me") == {
        "a": "it all",
        "side": "left of",
        "b": "me",
    }
    assert template("{0} or {0}?", {}).gaps_of("this or that?") is None
    assert template("{0} or {0}?", {}).gaps_of("this or this?") == {"gap0": "this"}


@pytest.mark.parametrize(
    ("group", "question", "plain", "other"),
    [
        ("scenes", "Is the red circle above the blue star", None, r"(does the|is it above).*red circle.*"),
        ("scenes", "is the circle red?", None, r"(does the circle have the colour red|the circle: is it red)\??"),
        ("scenes", "how many red rings do you see?", None, r".* red rings.*"),
        ("photos", "which flower is this?", None, r"tell me the kind of flower\.?|which flower do you see\??"),
        ("documents", "tell me the due date.", r".*due date.*", r"tell me the due date\."),
        ("documents", "whose price is 4?", None, None),
        ("screens", "At what place of the screen is the text field Name one?", r".*Name one.*", r".*"),
        ("printed", "does nobody ask so?", None, None),
        (
            "documents",
            'for tea alone: I need "price" in json form.',
            r'(take the row "tea"\.|about tea:|look at the row of tea\.) .*"price".*',
            r".*",
        ),
    ],
)
def test_a_question_is_written_anew(group: str, question: str, plain: str | None, other: str | None) -> None:
    for seed in range(8):
        found = forms(random.Random(seed), group, question)
        if other is None:
            assert found is None
            continue
        assert found is not None
        assert re.fullmatch(plain, found[0], re.IGNORECASE) if plain else found[0] == question
        assert re.fullmatch(other, without(found[1]), re.IGNORECASE)


def test_scenes_are_asked_in_words_of_training_and_in_others() -> None:
    texts = [one for meaning in meanings("scenes") for one in meaning.held_out]
    for task in SCENE_TASKS:
        for seed in range(20):
            rng = random.Random(seed)
            _, (question, _) = scene_question(rng, task, (128, 128))
            found = forms(rng, "scenes", question)
            assert found is not None
            assert found[0] == question
            assert follows(tuple(texts), without(found[1]))


@pytest.mark.parametrize("group", GENERATORS)
def test_what_is_drawn_held_out_is_a_paraphrase_of_training(group: str, held_out: Stock) -> None:
    n_unknown = 0
    rows: list[Task] = list(GENERATORS[group].values())
    known = tuple(one for meaning in meanings(group) for one in meaning.training)
    for seed in range(24):
        rng = random.Random(seed)
        question, _ = rows[seed % len(rows)].make(rng, held_out).pairs[0]
        found = forms(rng, group, question)
        if found is None:
            n_unknown += 1
            continue
        assert without(found[1]) == question
        assert follows(known, found[0])
        assert found[0].lower() != question.lower()
    assert n_unknown <= 2


def test_no_paraphrase_is_a_phrasing_of_training() -> None:
    def shape(text: str) -> str:
        return re.sub(r"\{\w*\}", "{}", text)

    def raw(one: Template) -> str:
        return shape("".join(text + ("{}" if gap else "") for text, gap in one.parts))

    training = {raw(one) for group in GROUPS for meaning in meanings(group) for one in meaning.training}
    assert "what flower is this?" in training
    written = [text for _, held_out in paraphrases.SCENES for text in held_out]
    written += [text for held_out in paraphrases.PHOTOS.values() for text in held_out]
    assert not training.intersection(map(shape, written))
    assert set(paraphrases.PHOTOS) == set(questions.PHOTOS)


def test_words_around_a_question_are_not_those_of_paraphrases() -> None:
    around, held_out = (
        {word for text in texts for word in re.findall(r"\w+", text)}
        for texts in (questions.BEFORE + questions.AFTER + questions.LINKS, paraphrases.SPELLINGS)
    )
    assert held_out == {"please", "thank", "you"}
    assert around & held_out == {"you"}
    rng = random.Random(5)
    said = [questions.spoken(rng, "what is this?") for _ in range(600)]
    assert all("what is this?" in one for one in said)
    assert 150 < sum(one != "what is this?" for one in said) < 250


def test_any_words_may_stand_around_a_question_but_those_of_paraphrases(places: Paths, tmp_path: Path) -> None:
    unfit = ("thank", "thanks", "thankful", "please", "pleased")
    words = tmp_path / "words"
    words.write_text("\n".join((*unfit, *places.words.read_text(encoding="utf-8").split())), encoding="utf-8")
    places = replace(places, words=words)
    others = stock(places, is_held_out=False).words
    assert set(unfit).intersection(others)
    source = Source(places, any_words=True)
    asked = [pair[0].lower() for seed in range(300) for pair in source.example(random.Random(seed), "few", 1).pairs]
    used = {word for question in asked for word in re.findall(r"[a-z]+", question)}
    assert used.isdisjoint(unfit)
    listed = {word for text in questions.BEFORE + questions.AFTER for word in re.findall(r"[a-z]+", text)}
    assert len(used.intersection(others) - listed) > 300
    rng = random.Random(5)
    around = [questions.spoken(rng, "what is this?", others) for _ in range(600)]
    assert all("what is this?" in one for one in around)
    assert 250 < sum(one != "what is this?" for one in around) < 350
