"""Whether a WebP holds zeros in place of its data; an animation is not looked into. No Pillow, no pixels."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import IO

from edgevl.image.files import MAX_BYTES, check_zeros


def check(file: IO[bytes], n_pixels: int) -> None:
    """Raise ValueError where a broken download can be seen."""
    check_zeros(_lossy_data(file), n_pixels)


def _lossy_data(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the lossy data of its chunks."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, n_bytes = struct.unpack("<4sI", head)
        if kind == b"VP8 ":
            yield file.read(min(n_bytes, MAX_BYTES))
            return
        file.seek(n_bytes + n_bytes % 2, os.SEEK_CUR)
