"""Printed text to be read: words, lines, numbers, dates, and texts of several sizes in one picture.

What is printed is answered as it is printed, with its capitals and marks; a line that is wrapped is answered as one,
with single spaces. The fonts are what `Stock` is given; the recipe's come from the Debian packages fonts-dejavu,
fonts-liberation, fonts-open-sans, fonts-roboto and fonts-jetbrains-mono.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from PIL import ImageFont

from . import drawn, values
from .drawn import Drawn, Stock, Task
from .phrasings import (
    ABOVE,
    AT,
    BELOW,
    LARGEST,
    LEAST,
    ORDINALS,
    READ_CODE,
    READ_DATE,
    READ_LINE,
    READ_NTH,
    READ_NUMBER,
    READ_PHONE,
    READ_TIME,
    READ_WORD,
    Phrasings,
    ask,
)
from .questions import QA
from .sheet import (
    SMALLEST,
    Palette,
    Sheet,
    Text,
    View,
    frame,
    least_size,
    legible_font,
    palette,
    text_height,
    text_width,
    worn,
)

SIDES = (96, 128, 160, 192, 256, 320, 384, 512)
LARGEST_SIDE = 512
STEP = 1.4
"""A text is the largest or smallest where it is so many times larger or smaller than the next."""

ROWS, SCATTERED, COLUMN = "rows", "scattered", "column"
LAYOUTS: tuple[tuple[str, ...], tuple[str, ...]] = ((ROWS, SCATTERED), (COLUMN,))
"""How several texts lie: rows of any place, anywhere, and (only held out) rows with one left edge or one middle."""


@dataclass(frozen=True)
class Print:
    """What is printed and seen before the picture is worn, with its questions."""

    sheet: Sheet
    view: View
    palette: Palette
    pairs: tuple[QA, ...]
    layout: str = ""


def cased(rng: random.Random, text: str) -> str:
    """Write text in lower case, with a capital, or in capitals."""
    return rng.choice((text, text, text.capitalize(), text.capitalize(), text.upper(), text.title()))


def _canvas(rng: random.Random) -> tuple[int, int]:
    if rng.random() < 0.5:
        side = rng.choice(SIDES)
        return side, side
    return rng.randint(SIDES[0], LARGEST_SIDE), rng.randint(SIDES[0], LARGEST_SIDE)


def _angle(rng: random.Random) -> float:
    style = rng.random()
    return 0.0 if style < 0.5 else rng.uniform(-3, 3) if style < 0.8 else rng.uniform(-8, 8)


def _empty(rng: random.Random, size: tuple[int, int] | None = None) -> tuple[View, tuple[int, int]]:
    """Draw a picture's view, and the room (height, width) that its sheet has."""
    size, angle = size or _canvas(rng), _angle(rng)
    room = frame(size, angle)
    return View(size, ((size[0] - room[0]) // 2, (size[1] - room[1]) // 2), angle), room


def _fitted(
    rng: random.Random, stock: Stock, words: Sequence[str], room: tuple[int, int]
) -> tuple[ImageFont.FreeTypeFont, list[str]] | None:
    """Draw a font and wrap words so that they fit into the room; None where the font that was drawn cannot.

    Sizes of equal ratio are equally likely.
    """
    path = rng.choice(stock.fonts)
    least, trial = least_size(path), drawn.font(path, 40)
    widest = max(text_width(trial, word) for word in words) + 4
    fits = min(40 * room[1] / widest, 0.6 * 40 * room[0] / text_height(trial))
    size = least * max(1.0, fits / least) ** rng.random()
    while size >= least:
        font = drawn.font(path, int(size))
        lines = _wrapped(font, words, room[1] - int(size) // 6)
        if lines and len(lines) <= len(ORDINALS) and len(lines) * text_height(font) <= room[0]:
            return font, lines
        size *= 0.85
    return None


def _wrapped(font: ImageFont.FreeTypeFont, words: Sequence[str], width: int) -> list[str]:
    """Break words into lines that fit into `width`; no lines where a word does not."""
    lines = [words[0]]
    for word in words[1:]:
        longer = f"{lines[-1]} {word}"
        if text_width(font, longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines if all(text_width(font, line) <= width for line in lines) else []


def _block(
    rng: random.Random, lines: Sequence[str], fonts: Sequence[ImageFont.FreeTypeFont], room: tuple[int, int],
    inks: Palette,
) -> Sheet:  # fmt: skip
    """Print lines one below the other, ranged left, centred or ranged right, somewhere in the room."""
    heights, widths = (
        [text_height(font) for font in fonts],
        [text_width(font, line) for font, line in zip(fonts, lines, strict=True)],
    )
    gap = int(rng.uniform(0, 1) * min(0.6 * heights[0], (room[0] - sum(heights)) / len(lines)))
    y = rng.randint(0, room[0] - sum(heights) - gap * (len(lines) - 1))
    x = rng.randint(0, room[1] - max(widths))
    share = rng.choice((0.0, 0.0, 0.5, 1.0))
    sheet = Sheet()
    for line, font, height, width in zip(lines, fonts, heights, widths, strict=True):
        sheet.write(line, y, x + int(share * (max(widths) - width)), font, inks.inks[0])
        y += height + gap
    return sheet


def _single(rng: random.Random, stock: Stock, phrasings: Phrasings, make: Callable[[], str]) -> Print:
    """Print what cannot be wrapped, such as a word or a date, sometimes with a caption above it."""
    while True:
        view, room = _empty(rng)
        text, caption = make(), cased(rng, rng.choice(stock.words))
        fitted = _fitted(rng, stock, [text], room)
        if fitted:
            break
    colours, font = palette(rng, stock), fitted[0]
    lines, fonts = [text], [font]
    has_room = 2 * text_height(font) <= room[0] and text_width(font, caption) <= room[1]
    if phrasings is not READ_WORD and has_room and rng.random() < 0.5:
        lines, fonts = [caption, text], [font, font]
    return Print(_block(rng, lines, fonts, room, colours), view, colours, (ask(rng, stock, phrasings, text),))


def words(rng: random.Random, stock: Stock) -> Print:
    """Print one word."""
    return _single(rng, stock, READ_WORD, lambda: cased(rng, rng.choice(stock.words)))


def numbers(rng: random.Random, stock: Stock) -> Print:
    """Print a number, a code or a telephone number."""
    phrasings, make = rng.choice((
        (READ_NUMBER, values.number), (READ_NUMBER, values.number), (READ_CODE, values.code),
        (READ_PHONE, values.phone),
    ))  # fmt: skip
    return _single(rng, stock, phrasings, lambda: make(rng))


def dates(rng: random.Random, stock: Stock) -> Print:
    """Print a date, or a time of day."""
    if rng.random() < 0.2:
        return _single(rng, stock, READ_TIME, lambda: values.timed(rng))
    return _single(rng, stock, READ_DATE, lambda: values.dated(rng))


def lines(rng: random.Random, stock: Stock) -> Print:
    """Print two to eight words, wrapped where they must be."""
    while True:
        view, room = _empty(rng)
        text = _phrase(rng, stock, rng.randint(2, 8))
        fitted = _fitted(rng, stock, text.split(" "), room)
        if fitted:
            break
    colours, (font, parts) = palette(rng, stock), fitted
    pairs = [ask(rng, stock, READ_LINE, text)]
    if len(parts) > 1:
        places = range(len(parts))
        for nth in rng.sample(places, 1) if stock.is_held_out else places:
            name = "last" if nth == len(parts) - 1 and rng.random() < 0.5 else ORDINALS[nth]
            pairs.append(ask(rng, stock, READ_NTH, parts[nth], name))
    return Print(_block(rng, parts, [font] * len(parts), room, colours), view, colours, tuple(pairs))


def _phrase(rng: random.Random, stock: Stock, n_words: int) -> str:
    """Draw words, now and then with a number or a mark among them."""
    parts = [rng.choice(stock.words) for _ in range(n_words)]
    if n_words > 2 and rng.random() < 0.25:
        parts[rng.randrange(n_words)] = values.digits(rng, rng.randint(1, 4))
    if n_words > 3 and rng.random() < 0.25:
        parts[rng.randrange(n_words - 1)] += ","
    return cased(rng, " ".join(parts)) + rng.choice(("", "", "", ".", "!", "?"))


def mixed_sizes(rng: random.Random, stock: Stock) -> Print:
    """Print two to six texts of different sizes, and ask by size and by place."""
    while True:
        view, room = _empty(rng)
        layout = stock.one_of(rng, *LAYOUTS)
        sheet, colours = Sheet(), palette(rng, stock, n_inks=rng.choice((1, 3)))
        texts = _texts(rng, stock, room)
        if not PLACED[layout](rng, sheet, texts, room, colours):
            continue
        asked = _about_sizes(rng, stock, sheet) + _about_places(rng, stock, sheet, view)
        if layout != SCATTERED:
            asked += _about_neighbours(rng, stock, sheet)
        if asked:
            rng.shuffle(asked)
            return Print(sheet, view, colours, tuple(asked), layout)


Sized = tuple[str, ImageFont.FreeTypeFont]


def _texts(rng: random.Random, stock: Stock, room: tuple[int, int]) -> list[Sized]:
    """Draw different short texts with their fonts, the sizes falling from the first to the last; then shuffle them."""
    size = rng.uniform(0.1, 0.35) * room[0]
    found: dict[str, Sized] = {}
    for _ in range(rng.randint(2, 6)):
        text = _short(rng, stock)
        height = max(SMALLEST, int(size))
        found.setdefault(text.lower(), (text, drawn.font(legible_font(rng, stock, height), height)))
        size /= rng.choice((1.0, STEP + 0.05, 1.7, 2.2))
    texts = list(found.values())
    rng.shuffle(texts)
    return texts


def _short(rng: random.Random, stock: Stock) -> str:
    style = rng.random()
    if style < 0.12:
        return values.number(rng)
    if style < 0.2:
        return values.dated(rng)
    return cased(rng, " ".join(rng.choice(stock.words) for _ in range(rng.choice((1, 1, 1, 2, 2, 3)))))


def _in_rows(
    rng: random.Random, sheet: Sheet, texts: list[Sized], room: tuple[int, int], inks: Palette,
    shares: Sequence[float] | None = None,
) -> bool:  # fmt: skip
    """Write one text a row, each anywhere in its row or all ranged alike; return whether there is room."""
    heights, widths = [text_height(font) for _, font in texts], [text_width(font, text) + 4 for text, font in texts]
    spare = room[0] - sum(heights)
    if spare < 0 or max(widths) > room[1]:
        return False
    gaps = sorted(rng.randint(0, spare) for _ in texts)
    common = rng.choice(shares) if shares else None
    y = 0
    for (text, font), height, width, gap in zip(texts, heights, widths, gaps, strict=True):
        share = rng.random() if common is None else common
        sheet.write(text, y + gap, 2 + int(share * (room[1] - width)), font, rng.choice(inks.inks))
        y += height
    return True


def _anywhere(rng: random.Random, sheet: Sheet, texts: list[Sized], room: tuple[int, int], inks: Palette) -> bool:
    """Write texts where they do not touch one another; return whether room was found for all."""
    for text, font in texts:
        height, width = text_height(font), text_width(font, text) + 4
        if height > room[0] or width > room[1]:
            return False
        for _ in range(30):
            place = Text(
                text, rng.randint(0, room[0] - height), 2 + rng.randint(0, room[1] - width), font, inks.inks[0]
            )
            if not any(_touch(place, other) for other in sheet.texts):
                sheet.write(text, place.y, place.x, font, rng.choice(inks.inks))
                break
        else:
            return False
    return True


def _touch(first: Text, second: Text, gap: int = 4) -> bool:
    a, b = first.box, second.box
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap


PLACED: dict[str, Callable[[random.Random, Sheet, list[Sized], tuple[int, int], Palette], bool]] = {
    ROWS: _in_rows,
    SCATTERED: _anywhere,
    COLUMN: partial(_in_rows, shares=(0.0, 0.5)),
}


def _about_sizes(rng: random.Random, stock: Stock, sheet: Sheet) -> list[QA]:
    texts = sorted(sheet.texts, key=lambda text: text.font.size)
    pairs = []
    if len(texts) > 1 and texts[-1].font.size >= STEP * texts[-2].font.size:
        pairs.append(ask(rng, stock, LARGEST, texts[-1].text))
    if len(texts) > 1 and texts[1].font.size >= STEP * texts[0].font.size:
        pairs.append(ask(rng, stock, LEAST, texts[0].text))
    return pairs


def _about_places(rng: random.Random, stock: Stock, sheet: Sheet, view: View) -> list[QA]:
    """Ask for the outermost texts, where all others lie clearly further in, both on the sheet and in the picture."""
    pairs = []
    for side, axis, sign in (("top", 0, 1), ("bottom", 0, -1), ("left", 1, 1), ("right", 1, -1)):
        order = sorted(sheet.texts, key=lambda text: sign * view.centre(text.box)[axis])
        first, rest = order[0], order[1:]
        ends = first.box[axis + 2] if sign > 0 else -first.box[axis]
        if rest and all(ends <= (other.box[axis] if sign > 0 else -other.box[axis + 2]) for other in rest):
            pairs.append(ask(rng, stock, AT[side], first.text))
    return pairs


def _about_neighbours(rng: random.Random, stock: Stock, sheet: Sheet) -> list[QA]:
    if len(sheet.texts) < 3:
        return []
    nth = rng.randrange(len(sheet.texts) - 1)
    upper, lower = (text.text for text in sheet.texts[nth : nth + 2])
    if rng.random() < 0.5:
        return [ask(rng, stock, BELOW, lower, upper)]
    return [ask(rng, stock, ABOVE, upper, lower)]


def _made(compose: Callable[[random.Random, Stock], Print], rng: random.Random, stock: Stock) -> Drawn:
    """Compose, print and wear a picture."""
    made = compose(rng, stock)
    finest = min(text.font.size for text in made.sheet.texts)
    return Drawn(worn(rng, made.sheet.painted(made.view, made.palette.paper), finest), made.pairs)


PRINTS: dict[str, Callable[[random.Random, Stock], Print]] = {
    "words": words,
    "lines": lines,
    "numbers": numbers,
    "dates": dates,
    "mixed_sizes": mixed_sizes,
}
TASKS: dict[str, Task] = {name: Task(partial(_made, compose), "characters") for name, compose in PRINTS.items()}
