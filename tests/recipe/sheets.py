"""What must hold of everything that is printed: it lies inside of the picture, and no text touches another."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import combinations

from edgevl.recipe import phrasings
from edgevl.recipe.phrasings import Phrasings
from edgevl.recipe.sheet import Sheet, View


def assert_well_placed(sheet: Sheet, view: View) -> None:
    """Assert that texts and marks lie inside of the picture, and that no text's ink reaches another's box."""
    height, width = view.size
    boxes = [(text.text, text.box) for text in sheet.texts]
    for box in [box for _, box in boxes] + [mark.box for mark in sheet.marks]:
        for y, x in view.corners(box):
            assert -0.5 <= y <= height + 0.5
            assert -0.5 <= x <= width + 0.5
    for (first, a), (second, b) in combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (first, second)


def all_phrasings() -> list[Phrasings]:
    """Return every pair of training's and held-out phrasings."""
    values = [value for value in vars(phrasings).values() if isinstance(value, tuple | dict)]
    flat = [one for value in values for one in (value.values() if isinstance(value, dict) else [value])]
    return [one for one in flat if isinstance(one, tuple) and isinstance(one[0], tuple)]


def gaps(templates: Iterable[str], question: str) -> list[str] | None:
    """Return what stands in the gaps of the first template that a question follows; None where it follows none."""
    for template in templates:
        parts = re.split(r"\{\d?\}", template.rstrip("?."))
        if found := re.fullmatch("(.+?)".join(map(re.escape, parts)) + r"[?.]?", question, re.IGNORECASE):
            return list(found.groups())
    return None
