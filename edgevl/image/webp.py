"""Whether a WebP's data last for its picture, no more and no less. No Pillow, no pixels.

It has no check sums, and libwebp takes wrong bits for others. But where bytes are wrong, the data hardly ever end where
the last row does (they do in noise without loss, in which every value takes as many bits). Of an animation the first
frame is looked into, and nowhere what is transparent.
"""

from __future__ import annotations

import io
import os
import struct
from typing import IO

from edgevl.image.files import MAX_BYTES, check_zeros

_SPARE = 64
"""Bytes that may be left over before the end; what libwebp makes, by whichever method, it cannot read without four."""


def check_for_zeros(file: IO[bytes], n_pixels: int) -> None:
    """Raise ValueError where lossy data hold more zeros than pictures take."""
    kind, data = _picture(file)
    check_zeros([data] if kind == b"VP8 " else [], n_pixels)


def without_end(file: IO[bytes]) -> io.BytesIO | None:
    """Return the picture without its last bytes, which no decoder can read if it needs them; None for a small one."""
    kind, data = _picture(file)
    data = data[:-_SPARE]
    if not data:
        return None
    data += bytes(len(data) % 2)
    return io.BytesIO(struct.pack("<4sI4s4sI", b"RIFF", len(data) + 12, b"WEBP", kind, len(data)) + data)


def _picture(file: IO[bytes]) -> tuple[bytes, bytes]:
    """Return the kind and the data of its picture; none if there is none."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        kind, n_bytes = struct.unpack("<4sI", head)
        if kind in (b"VP8 ", b"VP8L"):
            return kind, file.read(min(n_bytes, MAX_BYTES))
        # a frame of an animation holds chunks, behind its size and the like
        file.seek(16 if kind == b"ANMF" else n_bytes + n_bytes % 2, os.SEEK_CUR)
    return b"", b""
