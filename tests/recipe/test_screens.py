"""Screens: deterministic, nothing outside or overlapping, and states and places read again off what was drawn."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from edgevl.recipe import screen_layout, screens, widgets
from edgevl.recipe.canvas import Canvas
from edgevl.recipe.colours import contrast
from edgevl.recipe.drawn import Stock
from edgevl.recipe.places import ninth
from edgevl.recipe.screen_layout import Screen, make_screen
from edgevl.recipe.screens import TASKS
from edgevl.recipe.widgets import Control, Theme
from tests.recipe.tracing import Traced, phrasings, plain, tracing

SEEDS = range(20)


def some_screen(seed: int, training: Stock, held_out: Stock) -> tuple[random.Random, Stock, Screen, Theme]:
    rng, stock = random.Random(seed), (training, held_out)[seed % 2]
    return rng, stock, *make_screen(rng, stock)


@pytest.mark.parametrize("task", TASKS)
def test_one_seed_one_picture(task: str, training: Stock, held_out: Stock) -> None:
    first, again, kept = (TASKS[task].make(random.Random(5), stock) for stock in (training, training, held_out))
    assert first.pairs == again.pairs
    assert first.picture.tobytes() == again.picture.tobytes()
    assert len(kept.pairs) == 1
    assert all(256 <= side <= 512 for drawn in (first, kept) for side in drawn.picture.size)


def test_what_is_held_out_is_not_in_training() -> None:
    for module in (screens, screen_layout, widgets):
        for name, (known, kept) in phrasings(module).items():
            assert set(kept) - set(known), name
            is_worded = name in ("OPTIONS", "ACTIONS", "SECTIONS", "MENUS", "FIELDS") and module is screen_layout
            if module is screens or is_worded:
                assert not {plain(text) for text in known} & {plain(text) for text in kept}, name
    assert set(screens.CHOSEN) == set(screens.CHOSEN_HELD_OUT)
    for kind, known in screens.CHOSEN.items():
        assert not set(known) & set(screens.CHOSEN_HELD_OUT[kind])


@pytest.mark.parametrize("seed", SEEDS)
def test_controls_are_inside_apart_and_named_once(seed: int, training: Stock, held_out: Stock) -> None:
    _, _, screen, look = some_screen(seed, training, held_out)
    labels = [control.label.lower() for control in screen.controls] + [screen.title.lower()]
    assert len(set(labels)) == len(labels)
    for number, control in enumerate(screen.controls):
        left, top, right, bottom = control.box
        assert 0 <= left < right <= screen.size[1]
        assert 0 <= top < bottom <= screen.size[0]
        assert look.letters.getlength(control.label) <= right - left + 1
        for other in screen.controls[:number]:
            assert max(left - other.box[2], other.box[0] - right, top - other.box[3], other.box[1] - bottom) > -0.01


def drawn_state(look: Theme, control: Control) -> str:
    """Tell a control's state from the parts that are drawn for it."""
    with tracing() as made:
        canvas = Traced((512, 512), look.panel)
        widgets.draw(canvas, look, control)
    assert made == [canvas]
    if control.kind == "checkbox":
        return "checked" if canvas.of("line") else "unchecked"
    if control.kind == "radio button":
        return "selected" if len(canvas.of("disc")) == 2 else "not selected"
    if control.kind == "switch":
        track, *knobs = canvas.of("box", "disc")
        (knob,) = knobs
        at = knob.args[0][0] if knob.kind == "disc" else (knob.args[0][0] + knob.args[0][2]) / 2
        return "on" if at > (track.args[0][0] + track.args[0][2]) / 2 else "off"
    if control.kind == "slider":
        (handle,) = canvas.of("disc")
        left, _, right, _ = control.box
        return ("left", "middle", "right")[int(3 * (handle.args[0][0] - left) / (right - left))]
    (text,) = canvas.of("text")
    fills = [call.args[1] for call in canvas.of("box") if call.args[1] is not None]
    seen = contrast(text.args[3], fills[0] if fills else look.panel)
    return "enabled" if seen > 185 else "disabled"


@pytest.mark.parametrize("seed", range(40))
def test_states_are_as_drawn(seed: int, training: Stock, held_out: Stock) -> None:
    rng, stock, screen, look = some_screen(seed, training, held_out)
    by_label = {control.label: control for control in screen.controls}
    for _ in range(12):
        pair = screens.state(rng, stock, screen)
        if pair is None:
            continue
        question, answer = pair
        words = f" {question.rstrip('?.').translate(str.maketrans(',:', '  '))} ".replace('"', " ")
        named = [control for label, control in by_label.items() if f" {label} " in words]
        assert named, question
        control = max(named, key=lambda control: len(control.label))
        if control.kind == "text field":
            assert answer == (control.text or "nothing.")
        elif control.kind == "tab":
            is_denied = answer in ("yes", "no") and "not selected" in question
            assert (answer in ("selected", "yes")) == (control.is_on != is_denied)
        elif answer in ("yes", "no"):
            on, off = screens.STATES[control.kind]
            asked = off if f" {off}" in question else on
            assert (answer == "yes") == (drawn_state(look, control) == asked)
        else:
            assert answer == drawn_state(look, control)


@pytest.mark.parametrize("seed", SEEDS)
def test_kinds_labels_places_and_numbers_are_those_of_the_screen(seed: int, training: Stock, held_out: Stock) -> None:
    rng, stock, screen, _ = some_screen(seed, training, held_out)
    labels = {control.label: control for control in screen.controls}
    question, answer = screens.kind(rng, stock, screen)
    assert any(label in question and control.kind in answer for label, control in labels.items())
    if pair := screens.label(rng, stock, screen):
        assert pair[1] in labels
    if pair := screens.position(rng, stock, screen):
        places = []
        for label, control in labels.items():
            x, y = (control.box[0] + control.box[2]) / 2, (control.box[1] + control.box[3]) / 2
            row = ("top", "", "bottom")[int(3 * y / screen.size[0])]
            column = ("left", "", "right")[int(3 * x / screen.size[1])]
            places += [f"{row} {column}".strip() or "centre"] if label in pair[0] else []
        assert pair[1] in places
    question, answer = screens.count(rng, stock, screen)
    kind = max((kind for kind, plural in screens.PLURAL.items() if plural in question), key=len)
    assert answer == str(sum(control.kind == kind for control in screen.controls))
    question, answer = screens.exists(rng, stock, screen)
    if answer == "yes":
        assert any(label in question for label in labels)


def test_answers_are_balanced(training: Stock) -> None:
    asked = {"state": screens.state, "exists": screens.exists, "kind": screens.kind, "place": screens.position}
    answers: dict[str, Counter[str]] = {name: Counter() for name in asked}
    for seed in range(250):
        rng = random.Random(seed)
        screen, _ = make_screen(rng, training)
        for name, ask in asked.items():
            pair = ask(rng, training, screen)  # type: ignore[operator]
            if pair is not None:
                answers[name][pair[1]] += 1
    for yes_no in (answers["state"], answers["exists"]):
        assert 0.38 < yes_no["yes"] / (yes_no["yes"] + yes_no["no"]) < 0.62
    assert 0.35 < answers["state"]["on"] / (answers["state"]["on"] + answers["state"]["off"]) < 0.65
    assert len(answers["kind"]) == len(widgets.KINDS)
    assert max(answers["kind"].values()) < 0.3 * answers["kind"].total()
    assert len(answers["place"]) >= 8  # places in the middle are rare


def test_the_marks_of_a_place() -> None:
    assert ninth(0.1, 0.1) == "top left"
    assert ninth(0.5, 0.5) == "centre"
    assert ninth(0.5, 0.9) == "right"
    assert ninth(0.9, 0.5) == "bottom"
    assert ninth(0.35, 0.5) is None
    assert ninth(0.5, 1.0) is None


def test_a_screen_is_drawn_on_a_canvas_of_its_size(training: Stock) -> None:
    screen, look = make_screen(random.Random(3), training)
    canvas = screen_layout.draw(screen, look)
    assert isinstance(canvas, Canvas)
    assert canvas.picture().size == (screen.size[1], screen.size[0])
