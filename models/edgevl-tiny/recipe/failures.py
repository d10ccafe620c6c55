"""Draws wrong answers with their pictures on one sheet."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .datasets import FORMS

EACH = 2
"""Wrong answers a task."""
SIDE = 168
"""The most that a picture takes in either direction, in pixels."""
WIDTH, MARGIN, COLUMNS = 216, 8, 5
LETTERS = 11
"""The size of the text, in pixels."""
MOST_LINES = 4
"""Lines of a text that is shortened where it has more."""

Wrong = Mapping[str, str]


def sheet(tasks: Mapping[str, Mapping[str, Any]]) -> Image.Image:
    """Draw up to `EACH` wrong answers of every task, row by row; raises ValueError where there are none."""
    cells = [_cell(task, one) for task, row in tasks.items() if task not in FORMS for one in _spread(row["wrong"])]
    if not cells:
        raise ValueError("the report holds no wrong answers; there is nothing to draw")
    rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
    heights = [max(cell.height for cell in row) for row in rows]
    whole = Image.new("RGB", (len(rows[0]) * WIDTH, sum(heights)), "white")
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            whole.paste(cell, (column * WIDTH, sum(heights[:number])))
    return whole


def _spread(found: Sequence[Wrong]) -> list[Wrong]:
    """Return the first of them, and others evenly apart."""
    n = min(EACH, len(found))
    return [found[number * len(found) // n] for number in range(n)]


def _cell(task: str, wrong: Wrong) -> Image.Image:
    """Draw a picture, and under it the task, what was asked, the right answer and the one given."""
    with Image.open(Path(wrong["image"])) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((WIDTH - 2 * MARGIN, SIDE), Image.Resampling.LANCZOS)
    font = ImageFont.load_default(LETTERS)
    texts = (
        (task.replace("_", " "), "grey"),
        (wrong["question"], "black"),
        (f"right: {wrong['expected']}", "darkgreen"),
        (f"given: {wrong['given']}", "darkred"),
    )
    lines = [(line, ink) for text, ink in texts for line in _lines(text, font)]
    step = LETTERS + 3
    cell = Image.new("RGB", (WIDTH, MARGIN + picture.height + 4 + step * len(lines) + MARGIN), "white")
    cell.paste(picture, (MARGIN, MARGIN))
    draw = ImageDraw.Draw(cell)
    draw.rectangle((MARGIN - 1, MARGIN - 1, MARGIN + picture.width, MARGIN + picture.height), outline="lightgrey")
    for number, (line, ink) in enumerate(lines):
        draw.text((MARGIN, MARGIN + picture.height + 4 + step * number), line, ink, font)
    return cell


def _lines(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Break a text into lines that fit into a cell; words that are too long are cut."""
    n = int((WIDTH - 2 * MARGIN) / font.getlength("n"))
    found = textwrap.wrap(text, n) or [""]
    return found if len(found) <= MOST_LINES else [*found[: MOST_LINES - 1], found[MOST_LINES - 1][: n - 3] + "..."]
