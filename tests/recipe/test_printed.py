"""Printed text: deterministic, inside of the picture, answered by what is printed, and held-out parts apart."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest

from edgevl.recipe import phrasings, printed, values
from edgevl.recipe.drawn import Stock
from edgevl.recipe.printed import PRINTS, TASKS, Print
from edgevl.recipe.sheet import DARKS, JITTER, LIGHTS, SMALLEST, Text, luma
from tests.recipe.sheets import all_phrasings, assert_well_placed, gaps

N_SEEDS = 200


def some_prints(training: Stock, held_out: Stock, names: tuple[str, ...] = tuple(PRINTS)) -> list[Print]:
    """Compose prints of both parts."""
    return [
        PRINTS[names[seed % len(names)]](random.Random(seed), (training, held_out)[seed % 3 == 0])
        for seed in range(N_SEEDS)
    ]


@pytest.mark.parametrize("name", TASKS)
def test_one_seed_one_picture(name: str, training: Stock) -> None:
    first, again, other = (TASKS[name].make(random.Random(f"{name}-{seed}"), training) for seed in (1, 1, 2))
    assert first.pairs == again.pairs
    assert first.picture.tobytes() == again.picture.tobytes() != other.picture.tobytes()
    assert first.picture.mode == "RGB"


def test_text_lies_inside_and_apart_on_canvases_of_96_to_512(training: Stock, held_out: Stock) -> None:
    prints = some_prints(training, held_out)
    for made in prints:
        assert_well_placed(made.sheet, made.view)
        assert all(96 <= side <= 512 for side in made.view.size)
        assert all(text.font.size >= SMALLEST for text in made.sheet.texts)
        assert all(abs(luma(text.ink) - luma(made.palette.paper)) > 80 for text in made.sheet.texts)
    angles = [abs(made.view.angle) for made in prints]
    assert 0.3 < np.mean([angle == 0 for angle in angles]) < 0.7
    assert 5 < max(angles) <= 8


def test_what_is_recorded_is_where_the_ink_is(training: Stock) -> None:
    upright = [made for made in some_prints(training, training) if not made.view.angle][:30]
    for made in upright:
        ink = (np.asarray(made.sheet.painted(made.view, made.palette.paper)) != made.palette.paper).any(-1)
        down, right = made.view.origin
        for top, left, bottom, end in (text.box for text in made.sheet.texts):
            area = slice(top + down, bottom + down), slice(left + right, end + right)
            assert ink[area].any()
            ink[area] = False
        assert not ink.any()


def test_answers_are_what_is_printed(training: Stock, held_out: Stock) -> None:
    for made in some_prints(training, held_out):
        texts = [text.text for text in made.sheet.texts]
        assert made.pairs
        for _, answer in made.pairs:
            assert answer in texts or answer == " ".join(texts)


def test_questions_by_size_and_place_are_true(training: Stock) -> None:
    seen = set()
    for made in some_prints(training, training, ("mixed_sizes",)):
        texts = {text.text: text for text in made.sheet.texts}
        others = {answer: [text for text in texts.values() if text.text != answer] for answer in texts}

        def places(text: Text, made: Print = made) -> dict[str, float]:
            y, x = made.view.centre(text.box)
            return {"top": -y, "bottom": y, "left": -x, "right": x}

        for question, answer in made.pairs:
            text, rest = texts[answer], others[answer]
            if gaps(phrasings.LARGEST[0], question) is not None:
                assert text.font.size >= 1.4 * max(other.font.size for other in rest)
                seen.add("largest")
            if gaps(phrasings.LEAST[0], question) is not None:
                assert 1.4 * text.font.size <= min(other.font.size for other in rest)
                seen.add("smallest")
            for side, wordings in phrasings.AT.items():
                if gaps(wordings[0], question) is not None:
                    assert all(places(text)[side] > places(other)[side] for other in rest)
                    seen.add(side)
            for wordings, sign in ((phrasings.BELOW, 1), (phrasings.ABOVE, -1)):
                if named := gaps(wordings[0], question):
                    distance = {other.text: sign * (other.y - texts[named[0]].y) for other in texts.values()}
                    assert distance[answer] == min(value for value in distance.values() if value > 0)
                    seen.add("neighbour")
    assert seen == {"largest", "smallest", "top", "bottom", "left", "right", "neighbour"}


def test_numbers_and_dates_come_in_many_forms() -> None:
    rng = random.Random(0)
    numbers, dates = ([make(rng) for _ in range(300)] for make in (values.number, values.dated))
    for sign in (".", ",", "%", "-", "+", "€", "$"):
        assert any(sign in number for number in numbers)
    for form in ("/", "-", ".", ", ", "Mar", "March"):
        assert any(form in date for date in dates)
    assert values.Money(" €", False, ",", ".").text(123456) == "1.234,56 €"
    assert values.Money("$", True).text(5) == "$0.05"
    assert values.Money("$", True).text(123400, bare=True) == "1,234.00"


def test_phrasings_and_layouts_held_out_are_apart() -> None:
    known, kept = ({part.lower().rstrip("?.") for pair in all_phrasings() for part in pair[i]} for i in (0, 1))
    assert len(all_phrasings()) > 30
    assert not known & kept
    assert not set(printed.LAYOUTS[0]) & set(printed.LAYOUTS[1])
    for one in (values.FOODS, values.GOODS, values.FIRST_NAMES, values.SURNAMES, values.CITIES):
        assert one[1]
        assert not set(one[0]) & set(one[1])


def test_held_out_prints_use_what_is_held_out(training: Stock, held_out: Stock) -> None:
    for part, stock in enumerate((training, held_out)):
        for made in some_prints(stock, stock):
            assert all(any(gaps(pair[part], asked) is not None for pair in all_phrasings()) for asked, _ in made.pairs)
            assert made.layout in ("", *printed.LAYOUTS[part])
            assert {text.font.path for text in made.sheet.texts} <= {str(path) for path in stock.fonts}


@pytest.mark.parametrize("colours", [LIGHTS, DARKS])
def test_palettes_held_out_are_apart(colours: tuple[tuple[tuple[int, int, int], ...], ...]) -> None:
    for known, kept in product(*colours):
        assert max(abs(a - b) for a, b in zip(known, kept, strict=True)) > 2 * JITTER
