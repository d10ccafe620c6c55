"""The chunks of a PNG: whether they are as they were written, and which make up the picture. No Pillow, no pixels.

Chunks named with a small first letter are no part of the picture. Source: PNG, third edition, section 5.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

from edgevl.image.files import MAX_BYTES, exactly

_PIECE = 1 << 18  # bytes of a file that are summed at a time
_PICTURE_CHUNKS = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")  # besides those with a capital letter


def check_sums(file: IO[bytes]) -> None:
    """Raise ValueError or EOFError unless all that makes up the picture is there, up to IEND, as it was written.

    Pillow ends at the last row, with whatever zlib made of wrong bytes. Sums of other chunks are not compared: viewers
    show a picture with those wrong too.
    """
    for kind, n_bytes in _chunks(file):
        if kind[:1].islower():
            continue
        total = zlib.crc32(kind)
        for start in range(0, n_bytes, _PIECE):
            total = zlib.crc32(exactly(file, min(n_bytes - start, _PIECE)), total)
        if total != int.from_bytes(exactly(file, 4)):
            raise ValueError("wrong check sum")


def without_notes(file: IO[bytes]) -> io.BytesIO:
    """Copy a PNG without what is no part of the picture, as far as it goes."""
    file.seek(0)
    kept = io.BytesIO()
    kept.write(file.read(8))
    with suppress(EOFError):
        for kind, n_bytes in _chunks(file):
            if not kind[:1].islower() or kind in _PICTURE_CHUNKS:
                kept.write(struct.pack(">I4s", n_bytes, kind) + file.read(min(n_bytes + 4, MAX_BYTES)))
            if kept.tell() >= MAX_BYTES:
                break
    kept.seek(0)
    return kept


def in_eight_bits(key: Any, samples: object) -> Any:
    """Bring the transparent colour to the 8 bits that its samples, named as Pillow does, are brought to.

    Of colours of 16 bits Pillow keeps the high bytes, so that all are transparent that share those with it.
    """
    if samples == "RGB;16B":
        return tuple(value >> 8 for value in key)
    highest = {"L;2": 3, "L;4": 15}.get(str(samples))
    return key if highest is None else (key & highest) * (255 // highest)


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield the name and length of each chunk up to IEND, with the file at its data; EOFError where one is missing."""
    position, kind = 8, b""
    while kind != b"IEND":
        file.seek(position)
        n_bytes, kind = struct.unpack(">I4s", exactly(file, 8))
        yield kind, n_bytes
        position += 12 + n_bytes
