"""Whether a JPEG's data last for its picture, no more and no less. No Pillow, no pixels.

libjpeg takes wrong bits for others, fills up what is missing with grey, and Pillow passes none of its warnings on. But
where bytes are wrong or missing, the data hardly ever end where the last row does: that can be seen by giving the
decoder the data in two parts and looking at which it asks for.
"""

from __future__ import annotations

import re

_SPARE = 64
"""Bytes that may be left over before the end: some cameras write a few too many."""

_ONES = b"\xff\x00" * 8
"""What a decoder may look at behind the last bits, and cannot take for many: no code is all ones."""

_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")  # not those that stand within a scan
_NOTES = (*range(0xE2, 0xEE), 0xEF, 0xFE)  # such as colour profiles, further pictures and comments
_COLOURS = {0xE0: 14, 0xEE: 12}  # the fewest bytes of a segment that tells colours, without those of its length
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")


class Feed:
    """Hands a decoder the file in two parts, and raises an error where it asks for a third, or not for the second."""

    def __init__(self, data: bytes, scan: tuple[int, int]) -> None:
        start, stop = scan
        n_filled = len(data[start:stop].rstrip(b"\0\xff"))  # some encoders fill up to a whole block
        self._has_end = stop < len(data)
        second = max(start + n_filled - _SPARE, start)
        last = data[second:stop] + _ONES if self._has_end else data[second : start + n_filled]
        self._parts = [last, data[:second]]

    def read(self, _n_bytes: int) -> bytes:
        """Return the next part; raise EOFError or ValueError if there is none."""
        if not self._parts:
            raise (
                ValueError("its data end before its last row") if self._has_end else EOFError("unexpected end of file")
            )
        return self._parts.pop()

    def check(self) -> None:
        """Raise ValueError unless the decoder, which is done, has asked for all."""
        if self._parts:
            raise ValueError("its data go on behind its last row")


def only_scan(data: bytes) -> tuple[int, int] | None:
    """Return where the compressed data of a JPEG begin and end, if it has a single scan with all its components.

    None for any other: of a progressive one, the decoder wants all before it gives a row. Raises ValueError for
    restart markers that are not in their order, of which each must be there. Source: ITU-T T.81, annex B.
    """
    position, n_components = 2, 0
    while (found := _MARKER.search(data, position)) is not None:
        marker, position = found[1][0], found.end()
        body = data[position + 2 : position + 8]
        if len(body) < 6 and marker in (0xC0, 0xC1, 0xDA):
            return None
        position += int.from_bytes(data[position : position + 2])
        if marker in (0xC0, 0xC1):
            n_components = body[5]
        elif marker == 0xDA:
            if body[0] != n_components:
                return None
            end = _MARKER.search(data, position)
            scan = position, end.start() if end else len(data)
            _check_restarts(data, scan)
            return scan
    return None


def without_notes(data: bytes) -> bytes:
    """Return a JPEG without the segments in its head that are no part of the picture; all stays that tells its colours.

    libjpeg takes those for JFIF's and Adobe's from 14 and 12 bytes on, and goes by the rest where they are shorter.
    EXIF and XMP stay for what they say of the orientation. Source: libjpeg, jdmarker.c; ITU-T T.81, annex B.
    """
    kept, start, position = [], 0, 2
    while (found := _MARKER.search(data, position)) is not None and found[1][0] != 0xDA:
        marker, n_bytes = found[1][0], int.from_bytes(data[found.end() : found.end() + 2])
        position = found.end() + max(n_bytes, 2)
        if marker in _NOTES or (marker in _COLOURS and n_bytes - 2 < _COLOURS[marker]):
            kept.append(data[start : found.start()])
            start = position
    return b"".join((*kept, data[start:]))


def _check_restarts(data: bytes, scan: tuple[int, int]) -> None:
    for n, found in enumerate(_RESTART.finditer(data, *scan)):
        if found[1][0] != 0xD0 + n % 8:
            raise ValueError("a restart marker is missing")
