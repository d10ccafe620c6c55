"""From numbers as they are stored to upright RGB of 8 bits. No Pillow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STRIP = 1 << 21  # pixels converted at a time, so that a large image is never held twice


def strips(height: int, width: int) -> Iterator[slice]:
    """Yield the rows to convert at a time."""
    n_rows = max(_STRIP // width, 1)
    for top in range(0, height, n_rows):
        yield slice(top, min(top + n_rows, height))


def upright(rgb: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo the orientation. Source: EXIF 2.32, tag 0x0112."""
    if orientation >= 5:
        rgb = rgb.swapaxes(0, 1)  # rows are columns
    if orientation in (3, 4, 7, 8):
        rgb = rgb[::-1]
    if orientation in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(rgb)


def over_white(colour: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay [h, w, 1 or 3] with alpha [h, w, 1] over white; rounded to nearest."""
    wide = alpha.astype(np.uint16)
    return ((colour * wide + 255 * (255 - wide) + 127) // 255).astype(np.uint8)


def clear_around(rgb: NDArray[np.uint8], frame: tuple[int, int, int, int]) -> None:
    """Make white what the `frame`, (left, top, right, bottom), leaves free."""
    left, top, right, bottom = frame
    for part in (rgb[:top], rgb[bottom:], rgb[top:bottom, :left], rgb[top:bottom, right:]):
        part[:] = 255


def full_range(parts: Iterable[NDArray[Any]]) -> tuple[float, float]:
    """Return the (low, high) values that become black and white in an image of 32-bit numbers.

    Numbers within [0, 1] (if they are no whole ones), [0, 255] or [0, 65535] are taken to use that range, others the
    range that they span.
    """
    low, high, is_whole = np.inf, -np.inf, False
    for part in parts:
        is_whole = part.dtype.kind != "f"
        values = part[np.isfinite(part)]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    for full in (1.0, 255.0, 65535.0):
        if low >= 0 and high <= full and not (full == 1 and is_whole):
            return 0.0, full
    return (low, high) if low < high else (low, low + max(1.0, abs(low)))


def to_bytes(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Scale numbers to 0-255; 16-bit ones keep their high byte. What is not a number becomes black."""
    wide = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    scaled = wide / 256 if high == 65535 and low == 0 else (wide - low) * (255 / (high - low)) + 0.5
    return np.clip(scaled, 0, 255).astype(np.uint8)
