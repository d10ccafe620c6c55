"""What the tags of a TIFF say of its numbers and of its strips, where Pillow and libtiff do not look. No Pillow."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgevl.image.files import MAX_BYTES

Tags = Mapping[int, Any]

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _BIT_ORDER = 254, 256, 257, 258, 259, 262, 266
_STRIPS, _SAMPLES_PER_PIXEL, _ROWS_PER_STRIP, _STRIP_BYTES, _PLANES = 273, 277, 278, 279, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _SIGNS = 322, 323, 324, 325, 339

_DEFLATE, _PACKBITS, _GROUP_4 = (8, 32946), 32773, 4
_YCBCR = 6  # has fewer numbers of colour than pixels
_SPARE = 64
"""Bytes that may be left over before a strip's end."""

_PIECE = 1 << 20  # bytes unpacked at a time


def check_strips(file: IO[bytes], tags: Tags) -> None:
    """Raise ValueError where a strip or tile, which libtiff has unpacked, was not written so.

    libtiff stops at the last row, in front of zlib's check sum. PackBits has none, but wrong bytes hardly ever come to
    as many as a strip holds. No codes of Group 4 come to 16 zeros in a row: ITU-T T.6, table 1; T.4, tables 2 and 3.
    Source: TIFF 6.0, section 9; Adobe Photoshop TIFF Technical Notes (2002), "ZIP".
    """
    compression = _number(tags, _COMPRESSION, 1)
    if compression == _GROUP_4 and any(bytes(3) in data.rstrip(b"\0") for data, *_ in _parts(file, tags)):
        raise ValueError("zeros in place of its data")
    if _number(tags, _BIT_ORDER, 1) != 1:
        return  # libtiff turns every byte round
    if compression in _DEFLATE:
        for data, n_bytes, _is_last in _parts(file, tags):
            _check_sum(data, n_bytes)
    elif compression == _PACKBITS and _number(tags, _PHOTOMETRIC, 0) != _YCBCR:
        for data, n_bytes, is_last in _parts(file, tags):
            _check_runs(data, n_bytes, is_last)


def _parts(file: IO[bytes], tags: Tags) -> Iterator[tuple[bytes, int, bool]]:
    """Yield the data of each strip or tile, how many bytes they are unpacked, and whether it may be a shorter one."""
    height = _number(tags, _HEIGHT, 0)
    if is_tiled := _TILES in tags:
        places, sizes = _all(tags, _TILES), _all(tags, _TILE_BYTES)
        width, n_rows = _number(tags, _TILE_WIDTH, 0), _number(tags, _TILE_HEIGHT, 0)
    else:
        places, sizes = _all(tags, _STRIPS), _all(tags, _STRIP_BYTES)
        width, n_rows = _number(tags, _WIDTH, 0), min(_number(tags, _ROWS_PER_STRIP, height), height)
    n_samples = _number(tags, _SAMPLES_PER_PIXEL, 1) if _number(tags, _PLANES, 1) == 1 else 1
    n_bytes = -(-width * n_samples * _number(tags, _BITS, 1) // 8) * n_rows
    n_down = -(-height // n_rows) if n_rows else 1
    for i, (place, size) in enumerate(zip(places, sizes, strict=False)):
        if n_bytes and size:
            file.seek(place)
            yield file.read(min(size, MAX_BYTES)), n_bytes, not is_tiled and i % n_down == n_down - 1


def _check_sum(data: bytes, n_bytes: int) -> None:
    """Raise ValueError where more than `n_bytes` are unpacked or the sum behind them is another. It may be missing."""
    stream = zlib.decompressobj()
    n_unpacked = 0
    try:
        while not stream.eof and data and n_unpacked <= n_bytes:
            n_unpacked += len(stream.decompress(data, _PIECE))
            data = stream.unconsumed_tail
    except zlib.error as error:
        raise ValueError("wrong check sum") from error
    if n_unpacked > n_bytes:
        raise ValueError("its data go on behind a strip's last row")


def _check_runs(data: bytes, n_bytes: int, is_last: bool) -> None:
    """Raise ValueError unless the runs come to `n_bytes` and end with the data; of the last strip they may be fewer."""
    position = n_unpacked = 0
    while n_unpacked < n_bytes and position < len(data):
        n = data[position]
        if n < 128:
            n_unpacked += n + 1
            position += n + 2
        else:  # 128 stands for nothing
            n_unpacked += 257 - n if n > 128 else 0
            position += 2 if n > 128 else 1
    if n_unpacked > n_bytes or position + _SPARE < len(data) or not (is_last or n_unpacked == n_bytes):
        raise ValueError("its data do not end with a row")


def _all(tags: Tags, tag: int) -> tuple[Any, ...]:
    value = tags.get(tag, ())
    return value if isinstance(value, tuple) else (value,)


def _number(tags: Tags, tag: int, default: int) -> int:
    """Return the first or only number of a tag."""
    return int(next(iter(_all(tags, tag)), default))


def sixteen_bits(values: NDArray[Any], tags: Tags) -> NDArray[Any]:
    """Bring values to 16 bits with 0 as black: Pillow gives 12 bits, and white as 0, as stored."""
    if tags.get(_BITS) == (12,):
        values = values << 4
    return 65535 - values if is_inverted(tags) else values


def thirty_two_bits(values: NDArray[Any], tags: Tags) -> NDArray[Any]:
    """Bring values to the type that is meant: Pillow takes numbers without a sign for those with one."""
    is_unsigned = tags.get(_BITS) == (32,) and tags.get(_SIGNS, (1,)) == (1,)
    return values.view(np.uint32) if is_unsigned and values.dtype == np.int32 else values


def is_inverted(tags: Tags) -> bool:
    """Whether 0 is white."""
    return bool(tags.get(_PHOTOMETRIC) == 0)


def is_reduced(tags: Tags) -> bool:
    """Whether this page is a small copy of another one."""
    return bool(_number(tags, _SUBFILE, 0) & 1)


def is_signed(tags: Tags) -> bool:
    """Whether the numbers are meant to have a sign."""
    return bool(tags.get(_SIGNS) == (2,))
