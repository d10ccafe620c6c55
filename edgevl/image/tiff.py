"""What the numbers of a grey TIFF stand for, which Pillow gives as they are stored. No Pillow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

Tags = Mapping[int, Any]

_BITS_TAG = 0x0102
_PHOTOMETRIC_TAG = 0x0106  # 0: white is 0
_SAMPLES_TAG = 0x0153  # 2: numbers with a sign


def sixteen_bits(values: NDArray[Any], tags: Tags) -> NDArray[Any]:
    """Bring values to 16 bits with 0 as black: Pillow gives 12 bits, and white as 0, as stored."""
    if tags.get(_BITS_TAG) == (12,):
        values = values << 4
    return 65535 - values if tags.get(_PHOTOMETRIC_TAG) == 0 else values


def is_signed(tags: Tags) -> bool:
    """Whether the numbers are meant to have a sign."""
    return bool(tags.get(_SAMPLES_TAG) == (2,))
