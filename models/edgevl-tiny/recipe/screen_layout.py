"""Lays out a screen: a window, a dialog, a phone's settings, or a page with a list at its side.

Rows are filled from the top: a title, menus and tabs, then controls in one or two columns, and buttons at the bottom.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from . import widgets
from .canvas import Canvas, Corners
from .colours import mix, text_on
from .drawn import Stock
from .widgets import Control, Theme

LAYOUTS, LAYOUTS_HELD_OUT = ("window", "window", "dialog", "phone"), ("window", "phone", "sidebar")
OPTIONS = (
    "Wi-Fi", "Bluetooth", "Location", "Notifications", "Dark mode", "Sound", "Vibration", "Auto save", "Sync", "Backup",
    "Show grid", "Snap to grid", "Full screen", "Autoplay", "Subtitles", "Spell check", "Word wrap", "Line numbers",
    "Remember me", "Night light", "Battery saver", "Flight mode", "Brightness", "Volume", "Contrast", "Speed", "Zoom",
    "Font size", "Margin", "Quality", "Small", "Medium", "Large", "Left", "Centre", "Right", "Never", "Always", "Daily",
    "Weekly", "Portrait", "Landscape",
)  # fmt: skip
OPTIONS_HELD_OUT = (
    "Mobile data", "Hotspot", "Captions", "Auto update", "Read aloud", "Big text", "Show ruler", "Lock screen",
    "Opacity", "Bass", "Delay", "Monthly", "Hourly", "Narrow", "Wide",
)  # fmt: skip
ACTIONS = ("OK", "Cancel", "Save", "Apply", "Close", "Delete", "Next", "Back", "Send", "Search", "Open", "Yes", "No",
           "Continue", "Print")  # fmt: skip
ACTIONS_HELD_OUT = ("Submit", "Reset", "Skip", "Accept", "Finish", "Discard")
SECTIONS = ("General", "Display", "Network", "Privacy", "Account", "Advanced", "Colours", "Layout", "Page", "About")
SECTIONS_HELD_OUT = ("Profile", "Devices", "Security", "Storage", "Themes", "Billing")
MENUS = ("File", "Edit", "View", "Insert", "Format", "Tools", "Window", "Help")
MENUS_HELD_OUT = ("Home", "Draw", "Data", "Review", "Share")
FIELDS = ("Name", "Email", "City", "Street", "Phone", "Password", "Title", "Company", "User name", "Comment")
FIELDS_HELD_OUT = ("Country", "Surname", "Address", "Website", "Nickname")
SINGLE = ("checkbox", "switch", "slider", "text field", "radio button")
Names = tuple[tuple[str, ...], tuple[str, ...]]
LABELS: dict[str, tuple[Names, float]] = {
    "button": ((ACTIONS, ACTIONS_HELD_OUT), 0.1),
    "tab": ((SECTIONS, SECTIONS_HELD_OUT), 0.2),
    "menu": ((MENUS, MENUS_HELD_OUT), 0.0),
    "text field": ((FIELDS, FIELDS_HELD_OUT), 0.2),
    **dict.fromkeys(("checkbox", "switch", "slider", "radio button"), ((OPTIONS, OPTIONS_HELD_OUT), 0.35)),
}
"""What controls of a kind are called, and the share of other words among their labels."""


@dataclass(frozen=True)
class Screen:
    """A screen of `size` (height, width): its panel, its controls, and the title at its top (or none)."""

    layout: str
    size: tuple[int, int]
    panel: Corners
    title: str
    controls: tuple[Control, ...]


def new_label(rng: random.Random, stock: Stock, kind: str) -> str:
    """Draw a label for a control of a kind: one of the usual ones of this part, or one of the stock's words."""
    usual, share = LABELS[kind]
    if rng.random() < max(share, 0.02):  # a few words everywhere: usual labels run out
        return rng.choice(stock.words).capitalize()
    return stock.one_of(rng, *usual)


def make_screen(rng: random.Random, stock: Stock) -> tuple[Screen, Theme]:
    """Draw a screen with at least three controls."""
    while True:
        look, layout = widgets.theme(rng, stock), stock.one_of(rng, LAYOUTS, LAYOUTS_HELD_OUT)
        screen = _Builder(rng, stock, look, layout).build()
        if len(screen.controls) >= 3:
            return screen, look


class _Builder:
    """Fills a screen from the top down and the bottom up; `top` and `bottom` are what is left between."""

    def __init__(self, rng: random.Random, stock: Stock, look: Theme, layout: str) -> None:
        self.rng, self.stock, self.look, self.layout = rng, stock, look, layout
        self._taken: set[str] = set()
        self.controls: list[Control] = []
        if layout == "phone":
            self.size = (rng.randint(400, 512), rng.randint(256, 320))
        else:
            self.size = (rng.randint(256, 440), rng.randint(330, 512))
        inset = rng.uniform(8, 30) if layout == "dialog" else 0.0
        self.panel = (inset, inset, self.size[1] - inset, self.size[0] - inset)
        self.left, self.top, self.right, self.bottom = self.panel

    def build(self) -> Screen:
        """Place everything."""
        rng, unit = self.rng, self.look.unit
        title = self._label("tab") if rng.random() < 0.8 else ""
        self.top += 2.2 * unit if title else 4
        self.left, self.right, self.bottom = self.left + 12, self.right - 12, self.bottom - 10
        if self.layout == "window" and rng.random() < 0.5:
            self._strip("menu", rng.randint(2, 5))
        if self.layout == "sidebar":
            self._list()
        elif rng.random() < 0.45:
            self._strip("tab", rng.randint(2, 4))
        if self.layout != "phone" or rng.random() < 0.5:
            self._buttons(rng.randint(1, 3))
        self._rows()
        return Screen(self.layout, self.size, self.panel, title, tuple(self.controls))

    def _label(self, kind: str) -> str:
        """Draw a label that is nowhere else on the screen."""
        while True:
            label = new_label(self.rng, self.stock, kind)
            if label.lower() not in self._taken:
                self._taken.add(label.lower())
                return label

    def _strip(self, kind: str, n: int) -> None:
        """Place tabs or menus side by side, as many as fit."""
        x, high, chosen = self.left, widgets.height(self.look, kind), self.rng.randrange(n)
        placed = []
        for _ in range(n):
            label = self._label(kind)
            wide = widgets.width(self.look, kind, label)
            if x + wide > self.right:
                break
            placed.append(Control(kind, label, (x, self.top, x + wide, self.top + high)))
            x += wide + 4
        if kind == "tab":
            placed = [replace(one, is_on=number == chosen % len(placed)) for number, one in enumerate(placed)]
        self.controls += placed
        self.top += high + 0.5 * self.look.unit

    def _list(self) -> None:
        """Place tabs one below the other at the left side, and leave the rest of the width."""
        n, y = self.rng.randint(2, 5), self.top
        labels = [self._label("tab") for _ in range(n)]
        wide = max(widgets.width(self.look, "tab", label) for label in labels)
        high, chosen = widgets.height(self.look, "tab"), self.rng.randrange(n)
        for number, label in enumerate(labels):
            self.controls.append(Control("tab", label, (self.left, y, self.left + wide, y + high), number == chosen))
            y += high + 3
        self.left += wide + 1.5 * self.look.unit

    def _buttons(self, n: int) -> None:
        """Place buttons at the bottom: to the right, in the middle, or to the left; at most one cannot be used."""
        labels = [self._label("button") for _ in range(n)]
        sizes = [widgets.width(self.look, "button", label) for label in labels]
        room = self.right - self.left - sum(sizes) - 8 * (n - 1)
        if room < 0:
            return
        x = self.left + room * self.rng.choice((0.0, 0.5, 1.0, 1.0))
        high = widgets.height(self.look, "button")
        off = self.rng.randrange(n) if n > 1 and self.rng.random() < 0.6 else -1
        for number, (label, wide) in enumerate(zip(labels, sizes, strict=True)):
            box = (x, self.bottom - high, x + wide, self.bottom)
            self.controls.append(Control("button", label, box, number != off))
            x += wide + 8
        self.bottom -= high + 0.8 * self.look.unit

    def _rows(self) -> None:
        """Fill what is left with controls, in one column or in two."""
        n = (
            2
            if self.layout == "window" and self.right - self.left > 28 * self.look.unit and self.rng.random() < 0.5
            else 1
        )
        wide = (self.right - self.left - 16 * (n - 1)) / n
        for column in range(n):
            left = self.left + column * (wide + 16)
            self._column(left, left + wide)

    def _column(self, left: float, right: float) -> None:
        gap = self.rng.uniform(0.5, 1.3) * self.look.unit
        y, most = self.top + gap / 2, self.rng.randint(2, 8)
        for _ in range(most):
            kind = self.rng.choice(SINGLE)
            n = self.rng.randint(2, 4) if kind == "radio button" else 1
            high = widgets.height(self.look, kind)
            if y + n * high > self.bottom:
                continue
            chosen, group = self.rng.randrange(n), []
            for number in range(n):
                control = self._control(kind, (left, y + number * high, right, y + (number + 1) * high))
                group.append(replace(control, is_on=number == chosen) if n > 1 else control)
            self.controls += group
            y += n * high
            y += gap

    def _control(self, kind: str, room: Corners) -> Control:
        """Draw a control with its label and state, at the left of its room or across all of it."""
        rng, (left, top, right, bottom) = self.rng, room
        while True:
            label = self._label(kind)
            text = self._content() if kind == "text field" else ""
            wide = widgets.width(self.look, kind, label, text)
            if wide <= right - left:
                break
        apart = self.layout == "phone" and kind not in ("text field", "slider")
        if apart or (kind in ("slider", "text field") and rng.random() < 0.5):
            wide = right - left
        value = rng.choice((0.0, 0.08, 0.46, 0.5, 0.54, 0.92, 1.0))
        return Control(kind, label, (left, top, left + wide, bottom), rng.random() < 0.5, value, text, apart)

    def _content(self) -> str:
        style = self.rng.random()
        if style < 0.3:
            return ""
        word = self.rng.choice(self.stock.words)
        return word.capitalize() if style < 0.8 else f"{word} {self.rng.randint(1, 99)}"


def draw(screen: Screen, look: Theme) -> Canvas:
    """Draw a screen."""
    canvas = Canvas(screen.size, mix(look.ground, (0, 0, 0), 0.3) if screen.layout == "dialog" else look.panel)
    left, top, right, _ = screen.panel
    if screen.layout == "dialog":
        canvas.box(screen.panel, look.panel, look.faint, 1, look.radius)
    if screen.title:
        bar = (left, top, right, top + 2 * look.unit)
        if screen.layout == "window":
            canvas.box(bar, look.ground)
            for number in range(3):
                canvas.disc((right - 10 - 14 * number, top + look.unit), 4, mix(look.ground, look.ink, 0.4))
            canvas.text((left + 10, top + look.unit), screen.title, look.letters, look.ink, "lm")
        elif screen.layout == "phone":
            canvas.box(bar, look.accent)
            canvas.text((left + 12, top + look.unit), screen.title, look.letters, text_on(look.accent), "lm")
        else:
            canvas.text(((left + right) / 2, top + look.unit), screen.title, look.letters, look.ink, "mm")
    for control in screen.controls:
        widgets.draw(canvas, look, control)
    return canvas
