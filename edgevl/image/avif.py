"""Whether an AVIF holds zeros in place of its data. No Pillow, no pixels."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import IO

from edgevl.image.files import MAX_BYTES, check_zeros, exactly


def check_for_zeros(file: IO[bytes], n_pixels: int) -> None:
    """Raise ValueError where its data hold more zeros than pictures take."""
    check_zeros(_media_data(file), n_pixels)


def _media_data(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what lies in its boxes of media data. Source: ISO/IEC 14496-12, section 4.2."""
    file.seek(0)
    while len(head := file.read(8)) == 8:
        n_bytes, kind = struct.unpack(">I4s", head)
        if n_bytes == 1:
            n_bytes = int.from_bytes(exactly(file, 8)) - 8
        n_inside = n_bytes - 8 if n_bytes else MAX_BYTES  # 0: up to the end
        if n_inside < 0:
            raise ValueError("a box of no size")
        if kind == b"mdat":
            yield file.read(min(n_inside, MAX_BYTES))
        else:
            file.seek(min(n_inside, MAX_BYTES), os.SEEK_CUR)
