"""Screens of programs to be understood: which control is labelled so, what kind it is, its state, and where it is.

A picture of the training part is asked about in every way that it allows, one of the held-out part as its task says.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial

from .asking import several
from .drawn import Drawn, Stock, Task
from .places import ninth
from .questions import QA, article
from .screen_layout import Screen, draw, make_screen, new_label
from .widgets import KINDS, Control
from .wording import spelled

KIND = spelled(
    "[what|which] kind of control is {a}?",
    "[what|which] kind of control is labelled {a}?",
    "[what|which] type of control [has the label {a}|is {a}]?",
    "what is {a}: a button, a checkbox or something else?",
    "what [sort of|] control is {a}?",
)
KIND_HELD_OUT = ("name the kind of control that reads {a}.", "{a} is the label of what?")
ONLY = spelled(
    "[what is|what's|give|find|read] the label of the {kind}?",
    "what is the {kind} called?",
    "how is the {kind} labelled?",
    "[what|which] label has the {kind}?",
)
ONLY_HELD_OUT = ("what does the {kind} say?",)
AT = spelled(
    "[which|what] control [is|do you see|stands] at the {place}?",
    "[what is|what's|give|read] the label of the control at the {place}?",
    "at the {place} is which control?",
)
AT_HELD_OUT = ("name the control in the {place} part of the screen.",)
CHOSEN = {
    "checkbox": ("which checkbox is checked?", "name the checkbox that is ticked.", "which box is checked?"),
    "radio button": ("which radio button is selected?", "which option is chosen?", "name the selected radio button."),
    "switch": ("which switch is on?", "name the switch that is turned on.", "which switch is turned on?"),
    "tab": ("which tab is selected?", "which tab is open?", "name the active tab."),
}
CHOSEN_HELD_OUT = {
    "checkbox": ("what is the label of the one checkbox with a mark?",),
    "radio button": ("what is the label of the radio button in use?",),
    "switch": ("what is the label of the one switch in the on position?",),
    "tab": ("what is the label of the tab in front?",),
}
DISABLED = spelled(
    "[which|what] button is [disabled|greyed out|not enabled]?",
    "[name|give|find] the [disabled button|button that cannot be pressed].",
    "[which|what] button can not be pressed?",
)
DISABLED_HELD_OUT = ("what is the label of the inactive button?",)
IS_STATE = spelled(
    "is {a} {state}?",
    "is the {kind} {a} {state}?",
    "is the {kind} labelled {a} {state}?",
    "[do you see that|is it so that] {a} is {state}?",
)
IS_STATE_HELD_OUT = ("would you say that {a} is {state}?", "{a}: is this {kind} {state}?")
STATE = spelled(
    "[what is|what's|give|find] the state of {a}?",
    "[what|which] state is the {kind} {a} in?",
    "is {a} {on} or {off}?",
    "is the {kind} {a} {on} or {off}?",
    "{a}: {on} or {off}?",
)
STATE_HELD_OUT = ("tell whether {a} is {on} or {off}.", "in which state do you see the {kind} {a}?")
SLIDER = spelled(
    "is the slider {a} at the left, in the middle or at the right?",
    "where on its slider is {a} set: left, middle or right?",
    "how is {a} set: left, middle or right?",
    "the slider {a}: left, middle or right?",
)
SLIDER_HELD_OUT = ("in which position is the handle of {a}, left, middle or right?",)
CONTENT = spelled(
    "what is in the [text|] field {a}?",
    "what [is written|stands] in the field {a}?",
    "[which|what] text does {a} hold?",
    "[read|give] the text [in|of] {a}.",
)
CONTENT_HELD_OUT = ("what was entered as {a}?",)
WHERE = spelled(
    "where is {a}?",
    "where is the {kind} {a}?",
    "in [which|what] part of the screen is {a}?",
    "where do you see {a}?",
    "where on the screen is {a}?",
)
WHERE_HELD_OUT = ("at what place of the screen is the {kind} {a}?",)
COUNT = spelled(
    "how many {kinds} [are there|do you see|does the screen have|]?",
    "[count|count up] [the|all] {kinds}.",
    "number of {kinds}?",
)
COUNT_HELD_OUT = ("what is the number of {kinds} on this screen?",)
EXISTS = spelled(
    "is there a control labelled {a}?",
    "is there a {kind} [called|named|labelled] {a}?",
    "do you see a {kind} [named|called] {a}?",
    "[can you find|is there] the {kind} {a}?",
)
EXISTS_HELD_OUT = ("does the screen have a {kind} that reads {a}?",)
STATES = {
    "checkbox": ("checked", "unchecked"),
    "radio button": ("selected", "not selected"),
    "switch": ("on", "off"),
    "button": ("enabled", "disabled"),
    "tab": ("selected", "not selected"),
}
SIDES = ("left", "middle", "right")
PLURAL = {kind: f"{kind}{'es' if kind in ('checkbox', 'switch') else 's'}" for kind in KINDS}
Asker = Callable[[random.Random, Stock, Screen], QA | None]


def say(rng: random.Random, label: str) -> str:
    """Write a label as it is named in a question: with or without quotation marks."""
    return f'"{label}"' if rng.random() < 0.5 else label


def kind(rng: random.Random, stock: Stock, screen: Screen) -> QA:
    """Ask for a control's kind by its label; each kind of the screen is as likely."""
    chosen = rng.choice(sorted({control.kind for control in screen.controls}))
    control = rng.choice([control for control in screen.controls if control.kind == chosen])
    return stock.one_of(rng, KIND, KIND_HELD_OUT).format(a=say(rng, control.label)), article(control.kind)


def label(rng: random.Random, stock: Stock, screen: Screen) -> QA | None:
    """Ask for a label: of the only control of a kind, of the one that is chosen, or of one at a place."""
    makers = [_only, _chosen, _chosen, _at]
    return rng.choice(makers)(rng, stock, screen)


def _only(rng: random.Random, stock: Stock, screen: Screen) -> QA | None:
    counts = Counter(control.kind for control in screen.controls)
    single = [control for control in screen.controls if counts[control.kind] == 1]
    if not single:
        return None
    control = rng.choice(single)
    return stock.one_of(rng, ONLY, ONLY_HELD_OUT).format(kind=control.kind), control.label


def _chosen(rng: random.Random, stock: Stock, screen: Screen) -> QA | None:
    """Ask for the one control of a kind that is on, or the one button that is off, among others of the kind."""
    which = rng.choice((*CHOSEN, "button"))
    all_of = [control for control in screen.controls if control.kind == which]
    wanted = [control for control in all_of if control.is_on != (which == "button")]
    if len(wanted) != 1 or len(all_of) < 2:
        return None
    phrasings = (DISABLED, DISABLED_HELD_OUT) if which == "button" else (CHOSEN[which], CHOSEN_HELD_OUT[which])
    return stock.one_of(rng, *phrasings), wanted[0].label


def place_of(screen: Screen, control: Control) -> str | None:
    """Name the ninth of the screen that a control is in; None for wide ones, and where it is not clear."""
    (height, width), (left, top, right, bottom) = screen.size, control.box
    return ninth((top + bottom) / 2 / height, (left + right) / 2 / width) if right - left < 0.4 * width else None


def _at(rng: random.Random, stock: Stock, screen: Screen) -> QA | None:
    """Ask for the only control that any part of lies in a ninth of the screen."""
    found = [(control, place_of(screen, control)) for control in screen.controls]
    alone = [(control, place) for control, place in found if place and not _others(screen, control, place)]
    if not alone:
        return None
    control, place = rng.choice(alone)
    return stock.one_of(rng, AT, AT_HELD_OUT).format(place=place), control.label


def _others(screen: Screen, control: Control, place: str) -> bool:
    """Tell whether another control has any corner or its middle in the ninth called `place`, or on its border."""
    for other in screen.controls:
        left, top, right, bottom = other.box
        xs = [left + (right - left) * part / 6 for part in range(7)]
        spots = {ninth(y / screen.size[0], x / screen.size[1]) for y in (top, (top + bottom) / 2, bottom) for x in xs}
        if other is not control and place in spots:
            return True
    return False


def state(rng: random.Random, stock: Stock, screen: Screen) -> QA | None:
    """Ask for the state of a control; which it is to be is drawn first."""
    style = rng.random()
    if style < 0.15:
        return _slider(rng, stock, screen)
    if style < 0.25:
        return _content(rng, stock, screen)
    on, which = rng.random() < 0.5, rng.choice(tuple(STATES))
    able = [control for control in screen.controls if control.kind == which and control.is_on == on]
    if not able:
        return None
    control, words = rng.choice(able), STATES[which]
    names = {"a": say(rng, control.label), "kind": which, "on": words[0], "off": words[1]}
    if rng.random() < 0.5:
        return stock.one_of(rng, STATE, STATE_HELD_OUT).format(**names), words[0 if on else 1]
    asked_on = rng.random() < 0.5
    question = stock.one_of(rng, IS_STATE, IS_STATE_HELD_OUT).format(state=words[0 if asked_on else 1], **names)
    return question, "yes" if asked_on == on else "no"


def _slider(rng: random.Random, stock: Stock, screen: Screen) -> QA | None:
    side = rng.randrange(3)
    able = [c for c in screen.controls if c.kind == "slider" and int(3 * min(c.value, 0.99)) == side]
    if not able:
        return None
    return stock.one_of(rng, SLIDER, SLIDER_HELD_OUT).format(a=say(rng, rng.choice(able).label)), SIDES[side]


def _content(rng: random.Random, stock: Stock, screen: Screen) -> QA | None:
    fields = [control for control in screen.controls if control.kind == "text field"]
    if not fields:
        return None
    field = rng.choice(fields)
    return stock.one_of(rng, CONTENT, CONTENT_HELD_OUT).format(a=say(rng, field.label)), field.text or "nothing."


def position(rng: random.Random, stock: Stock, screen: Screen) -> QA | None:
    """Ask where a control is; each place of the screen is as likely."""
    places: dict[str, list[Control]] = {}
    for control in screen.controls:
        place = place_of(screen, control)
        if place:
            places.setdefault(place, []).append(control)
    if not places:
        return None
    place = rng.choice(sorted(places))
    control = rng.choice(places[place])
    question = stock.one_of(rng, WHERE, WHERE_HELD_OUT).format(a=say(rng, control.label), kind=control.kind)
    return question, place


def count(rng: random.Random, stock: Stock, screen: Screen) -> QA:
    """Ask how many controls of a kind there are; one time in six of a kind that is not there."""
    present = sorted({control.kind for control in screen.controls})
    absent = [kind for kind in KINDS if kind not in present]
    which = rng.choice(absent) if absent and rng.random() < 1 / 6 else rng.choice(present)
    n = sum(control.kind == which for control in screen.controls)
    return stock.one_of(rng, COUNT, COUNT_HELD_OUT).format(kinds=PLURAL[which]), str(n)


def exists(rng: random.Random, stock: Stock, screen: Screen) -> QA | None:
    """Ask whether there is a control of a kind with a label; one that is not there has a label from nowhere on it."""
    control = rng.choice(screen.controls)
    question = stock.one_of(rng, EXISTS, EXISTS_HELD_OUT)
    if rng.random() < 0.5:
        return question.format(a=say(rng, control.label), kind=control.kind), "yes"
    shown = {other.label.lower() for other in screen.controls} | {screen.title.lower()}
    while True:
        missing = new_label(rng, stock, control.kind)
        if missing.lower() not in shown:
            return question.format(a=say(rng, missing), kind=control.kind), "no"


ALL: tuple[Asker, ...] = (kind, label, label, state, state, position, count, exists)


def picture(rng: random.Random, stock: Stock, ask: Asker) -> Drawn:
    """Draw a screen that `ask` has a question about."""
    while True:
        screen, look = make_screen(rng, stock)
        pair = ask(rng, stock, screen)
        if pair is not None:
            break
    others = () if stock.is_held_out else ALL
    pairs = several(rng, pair, (other(rng, stock, screen) for other in others))
    return Drawn(draw(screen, look).picture(), pairs)


def _task(ask: Asker) -> Task:
    return Task(partial(picture, ask=ask), "exact")


TASKS = {
    "screen_kind": _task(kind),
    "screen_label": _task(label),
    "screen_state": _task(state),
    "screen_position": _task(position),
    "screen_count": _task(count),
    "screen_exists": _task(exists),
}
"""The tasks, each a row of the accuracy table."""
