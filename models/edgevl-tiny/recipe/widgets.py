"""Controls of a screen and how they are drawn, in light and dark themes of several makes.

A control's box is all of it, its label included. Lengths are pixels; `unit` is the height of its letters.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from PIL import ImageFont

from .canvas import Canvas, Corners, Point
from .colours import RGB, mix, text_on, tint
from .drawn import Stock

CHECKS, CHECKS_HELD_OUT = ("filled", "tick", "tick"), ("filled", "cross")
SWITCHES, SWITCHES_HELD_OUT = ("round", "round", "thin"), ("round", "square")
BUTTONS, BUTTONS_HELD_OUT = ("filled", "outline", "raised"), ("filled", "underline")
FIELDS, FIELDS_HELD_OUT = ("box", "line"), ("box", "sunk")
TABS, TABS_HELD_OUT = ("line", "box"), ("line", "pill")
KINDS = ("button", "checkbox", "radio button", "switch", "slider", "text field", "tab", "menu")


@dataclass(frozen=True)
class Control:
    """A control: its kind, label and box; whether it is on (checked, selected, enabled).

    `value` is a slider's place from 0 to 1, `text` what a text field holds. With `apart` the label stands at the left
    edge of the box and the rest at the right edge.
    """

    kind: str
    label: str
    box: Corners
    is_on: bool = True
    value: float = 0.0
    text: str = ""
    apart: bool = False


@dataclass(frozen=True)
class Theme:
    """Colours, letters and makes of a screen's controls."""

    ground: RGB
    panel: RGB
    ink: RGB
    accent: RGB
    letters: ImageFont.FreeTypeFont
    check: str
    switch: str
    button: str
    field: str
    tab: str
    radius: float

    @property
    def unit(self) -> float:
        """The height of the letters."""
        return float(self.letters.size)

    @property
    def faint(self) -> RGB:
        """The colour of edges and of what cannot be used."""
        return mix(self.panel, self.ink, 0.35)


def theme(rng: random.Random, stock: Stock) -> Theme:
    """Draw a theme, light three times out of five."""
    dark = rng.random() < 0.4
    value = rng.uniform(0.05, 0.2) if dark else rng.uniform(0.9, 1.0)
    panel = tint(rng, stock, rng.uniform(0, 0.3 if dark else 0.06), value)
    ink: RGB = (240, 240, 242) if dark else (20, 20, 24)
    return Theme(
        ground=mix(panel, ink, rng.uniform(0.05, 0.3)),
        panel=panel,
        ink=ink,
        accent=tint(rng, stock, rng.uniform(0.6, 0.95), rng.uniform(0.75, 0.95) if dark else rng.uniform(0.55, 0.8)),
        letters=stock.font(rng, rng.randint(11, 15)),
        check=stock.one_of(rng, CHECKS, CHECKS_HELD_OUT),
        switch=stock.one_of(rng, SWITCHES, SWITCHES_HELD_OUT),
        button=stock.one_of(rng, BUTTONS, BUTTONS_HELD_OUT),
        field=stock.one_of(rng, FIELDS, FIELDS_HELD_OUT),
        tab=stock.one_of(rng, TABS, TABS_HELD_OUT),
        radius=rng.choice((0, 3, 6, 12)),
    )


def width(look: Theme, kind: str, label: str, text: str = "") -> float:
    """Return the least width of a control's box."""
    letters, unit = look.letters, look.unit
    across = letters.getlength(label)
    return {
        "button": across + 2 * unit,
        "checkbox": across + 1.7 * unit,
        "radio button": across + 1.7 * unit,
        "switch": across + 3.4 * unit,
        "slider": max(across, 8 * unit),
        "text field": max(across, letters.getlength(text) + unit, 8 * unit),
        "tab": across + 1.6 * unit,
        "menu": across + 1.2 * unit,
    }[kind]


def height(look: Theme, kind: str) -> float:
    """Return the height of a control's box."""
    return look.unit * {"slider": 2.8, "text field": 3.4, "button": 2.1, "tab": 2.1, "menu": 1.7}.get(kind, 1.6)


def draw(canvas: Canvas, look: Theme, control: Control) -> None:
    """Draw one control."""
    {
        "button": _button,
        "checkbox": _checkbox,
        "radio button": _radio,
        "switch": _switch,
        "slider": _slider,
        "text field": _field,
        "tab": _tab,
        "menu": _menu,
    }[control.kind](canvas, look, control)


def _middle(control: Control) -> Point:
    left, top, right, bottom = control.box
    return (left + right) / 2, (top + bottom) / 2


def _button(canvas: Canvas, look: Theme, control: Control) -> None:
    place, on = _middle(control), control.is_on
    fill = look.accent if on else mix(look.panel, look.ink, 0.12)
    ink = text_on(look.accent) if on else look.faint
    if look.button == "filled":
        canvas.box(control.box, fill, None, 1, look.radius)
    elif look.button == "raised":
        fill, ink = mix(look.panel, look.ink, 0.1), look.ink if on else look.faint
        canvas.box(control.box, fill, look.ink if on else look.faint, 1, look.radius)
    else:
        ink = look.ink if on else look.faint
        canvas.box(control.box, None, look.ink if on else look.faint, 1.5, look.radius)
        if look.button == "underline":
            left, _, right, bottom = control.box
            canvas.line(((left, bottom), (right, bottom)), ink, 3)
    canvas.text(place, control.label, look.letters, ink, "mm")


def _beside(canvas: Canvas, look: Theme, control: Control, side: float) -> Corners:
    """Write the label, and return the square or oblong beside it that the rest goes into, `side` wide."""
    left, top, right, bottom = control.box
    middle, unit = (top + bottom) / 2, look.unit
    if control.apart:
        canvas.text((left, middle), control.label, look.letters, look.ink, "lm")
        return right - side, middle - unit / 2, right, middle + unit / 2
    canvas.text((left + side + 0.6 * unit, middle), control.label, look.letters, look.ink, "lm")
    return left, middle - unit / 2, left + side, middle + unit / 2


def _checkbox(canvas: Canvas, look: Theme, control: Control) -> None:
    left, top, right, bottom = _beside(canvas, look, control, look.unit)
    filled = look.check == "filled" and control.is_on
    canvas.box((left, top, right, bottom), look.accent if filled else None, look.accent if filled else look.ink, 1.3)
    if not control.is_on:
        return
    ink, side = text_on(look.accent) if filled else look.ink, look.unit
    if look.check == "cross":
        canvas.line(((left + 3, top + 3), (right - 3, bottom - 3)), ink, 1.6)
        canvas.line(((left + 3, bottom - 3), (right - 3, top + 3)), ink, 1.6)
    else:
        points = ((0.2, 0.5), (0.42, 0.75), (0.8, 0.22))
        canvas.line([(left + side * x, top + side * y) for x, y in points], ink, 1.6)


def _radio(canvas: Canvas, look: Theme, control: Control) -> None:
    left, top, right, bottom = _beside(canvas, look, control, look.unit)
    centre, radius = ((left + right) / 2, (top + bottom) / 2), look.unit / 2
    canvas.disc(centre, radius, None, look.accent if control.is_on else look.ink, 1.3)
    if control.is_on:
        canvas.disc(centre, 0.55 * radius, look.accent)


def _switch(canvas: Canvas, look: Theme, control: Control) -> None:
    left, top, right, bottom = _beside(canvas, look, control, 2 * look.unit)
    half, on = (bottom - top) / 2, control.is_on
    track = look.accent if on else mix(look.panel, look.ink, 0.3)
    knob = (right - half if on else left + half), (top + bottom) / 2
    if look.switch == "thin":
        canvas.box((left, top + 0.5 * half, right, bottom - 0.5 * half), track, None, 1, half)
        canvas.disc(knob, 1.05 * half, mix(track, look.ink, 0.4), look.ink, 1)
        return
    canvas.box((left, top, right, bottom), track, None, 1, 0 if look.switch == "square" else half)
    white: RGB = (250, 250, 250)
    if look.switch == "square":
        canvas.box((knob[0] - half + 2, top + 2, knob[0] + half - 2, bottom - 2), white)
    else:
        canvas.disc(knob, half - 1.5, white)


def _slider(canvas: Canvas, look: Theme, control: Control) -> None:
    left, top, right, bottom = control.box
    canvas.text((left, top), control.label, look.letters, look.ink)
    y, half = bottom - 0.6 * look.unit, 0.5 * look.unit
    at = left + half + control.value * (right - left - 2 * half)
    canvas.line(((left + half, y), (right - half, y)), mix(look.panel, look.ink, 0.3), 3)
    if at > left + half:
        canvas.line(((left + half, y), (at, y)), look.accent, 3)
    canvas.disc((at, y), half, look.accent, look.ink, 1)


def _field(canvas: Canvas, look: Theme, control: Control) -> None:
    left, top, right, bottom = control.box
    canvas.text((left, top), control.label, look.letters, look.ink)
    edge = top + 1.5 * look.unit
    if look.field == "line":
        canvas.line(((left, bottom), (right, bottom)), look.ink, 1)
    else:
        fill = mix(look.panel, look.ink, 0.1) if look.field == "sunk" else None
        canvas.box((left, edge, right, bottom), fill, look.faint if fill else look.ink, 1, min(look.radius, 5))
    canvas.text((left + 0.5 * look.unit, (edge + bottom) / 2), control.text, look.letters, look.ink, "lm")


def _tab(canvas: Canvas, look: Theme, control: Control) -> None:
    left, top, right, bottom = control.box
    ink, on = look.ink if control.is_on else mix(look.panel, look.ink, 0.6), control.is_on
    if look.tab == "pill" and on:
        canvas.box((left, top + 2, right, bottom - 2), look.accent, None, 1, look.unit)
        ink = text_on(look.accent)
    elif look.tab == "box":
        canvas.box(control.box, None if on else mix(look.panel, look.ink, 0.22), look.faint)
    elif look.tab == "line" and on:
        canvas.line(((left + 2, bottom - 1.5), (right - 2, bottom - 1.5)), look.accent, 3)
    canvas.text(_middle(control), control.label, look.letters, ink, "mm")


def _menu(canvas: Canvas, look: Theme, control: Control) -> None:
    canvas.text(_middle(control), control.label, look.letters, look.ink, "mm")
