"""What reading a picture's file has in common, whatever its format. No Pillow, no pixels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO

MAX_BYTES = 1 << 29
"""Bytes read at most from a pipe; a file on disk is read piecewise and needs no limit."""


def exactly(file: IO[bytes], n_bytes: int) -> bytes:
    """Read `n_bytes`; raise EOFError if there are fewer."""
    data = file.read(n_bytes)
    if len(data) < n_bytes:
        raise EOFError("unexpected end of file")
    return data


def check_zeros(parts: Iterable[bytes], n_pixels: int) -> None:
    """Raise ValueError where lossy data hold more zeros in a row than pictures take: a broken download.

    Only a plain colour comes to many, and to 1,500 of them as a WebP with 16 million pixels.
    """
    for data in parts:
        if bytes(512 + n_pixels // 1000) in data:
            raise ValueError("zeros in place of its data")
