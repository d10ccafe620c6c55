"""Says in words where in a picture something is."""

from __future__ import annotations

from .questions import COLUMNS, ROWS

CLEAR = 0.04
"""A place nearer than this to the border of a third, in parts of the side, is in neither."""


def ninth(y: float, x: float) -> str | None:
    """Name the ninth of the picture that a place (0 to 1) is in, such as `top left`; None where that is not clear."""
    if any(not 0 <= part < 1 or min(abs(part - 1 / 3), abs(part - 2 / 3)) <= CLEAR for part in (y, x)):
        return None
    return f"{ROWS[int(3 * y)]} {COLUMNS[int(3 * x)]}".strip() or "centre"
