"""The rows of a BMP that is packed in run lengths. No Pillow, no pixels.

Pillow's decoder takes seconds for a small file that names many pixels, refuses a picture that ends before its last row,
and loses rows that hold nothing. Source: Microsoft, "Bitmap Compression" (BI_RLE8, BI_RLE4); what oddities are let
pass, and how they are shown, is as in Chromium (bmp_image_reader.cc).
"""

from __future__ import annotations

_SPARE = 3
"""Bytes by which the size in the header may differ: some encoders fill up to four."""

_PAIRS = tuple(bytes((byte >> 4, byte & 15)) for byte in range(256))


def unpacked(data: bytes, start: int, size: tuple[int, int], four_bits: bool) -> bytearray:
    """Return the colour indices of a BMP, [height * width] in the order of its rows; what it leaves out is colour 0.

    `data` is the whole file, in which the runs begin at `start`; `size` is (height, width). Raises EOFError where the
    file ends before the picture does, ValueError where it is damaged.
    """
    if int.from_bytes(data[28:30], "little") != (4 if four_bits else 8):
        raise ValueError("run lengths of another depth than its pixels")
    height, width = size
    rows = bytearray(height * width)
    x = y = 0
    position = start
    is_odd = has_left = has_end = False  # has_left: a move led out of the picture
    while not has_end and position + 1 < len(data):
        n, value = data[position], data[position + 1]
        position += 2
        if n or value > 2:
            if n:
                run = (_PAIRS[value] * ((n + 1) // 2))[:n] if four_bits else data[position - 1 : position] * n
            else:
                n = value
                run, position = _plain(data, position, n, four_bits)
            if y >= height:
                if not has_left:
                    raise ValueError("its data go on behind its last row")
                continue
            if n > width - x:
                is_odd, n = True, width - x
                run = run[:n]
            at = y * width + x
            rows[at : at + n] = run
            x += n
        elif value == 0:
            x, y = 0, y + 1
        elif value == 1:
            has_end = True
        else:
            right, up = (*data[position : position + 2], 0, 0)[:2]
            position += 2
            has_left = has_left or x + right > width or y + up > height
            x, y = min(x + right, width), y + up
    is_full = y >= height or (y == height - 1 and x == width)
    if not (is_full or has_end):
        raise EOFError("unexpected end of file")
    n_bytes = int.from_bytes(data[34:38], "little")
    if (is_odd or has_left or not is_full) and n_bytes and abs(position - start - n_bytes) > _SPARE:
        # a damaged run moves the codes behind it, so that any may seem to be the end
        raise ValueError("its data do not end where its header says")
    return rows


def _plain(data: bytes, position: int, n: int, four_bits: bool) -> tuple[bytes, int]:
    """Return `n` indices that are not packed, and the position behind them, which is even as counted from the first."""
    n_bytes = (n + 1) // 2 if four_bits else n
    run = data[position : position + n_bytes]
    if len(run) < n_bytes:
        raise EOFError("unexpected end of file")
    position += n_bytes + n_bytes % 2
    return b"".join(_PAIRS[byte] for byte in run)[:n] if four_bits else run, position
