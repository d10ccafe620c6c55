"""BMPs packed in run lengths: what they hold, however they leave pixels out, and every way to be damaged."""

from __future__ import annotations

import struct
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgevl.errors import ImageError
from edgevl.image.read import read

PALETTE = tuple((0, 7 * i % 256, 255 - i) for i in range(256))  # RGB, none of it grey
END_OF_ROW, END = b"\0\0", b"\0\1"


def bmp(
    width: int, height: int, runs: bytes, *, four_bits: bool = False, n_bytes: int | None = None, gap: bytes = b""
) -> bytes:
    colours = b"".join(struct.pack("BBBx", *colour[::-1]) for colour in PALETTE[: 16 if four_bits else 256])
    start = 54 + len(colours) + len(gap)
    size = len(runs) if n_bytes is None else n_bytes
    info = (40, width, height, 1, 4 if four_bits else 8, 2 if four_bits else 1, size, 2835, 2835, len(colours) // 4, 0)
    head = b"BM" + struct.pack("<IIIIiiHHIIiiII", start + len(runs), 0, start, *info)
    return head + colours + gap + runs


def indices(data: bytes) -> list[list[int]]:
    """The colours of a picture, from its lowest row up."""
    return [[PALETTE.index(tuple(colour)) for colour in row] for row in read(data).rgb[::-1].tolist()]


def refused(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read(data)
    return str(caught.value)


def halves(values: list[int]) -> bytes:
    padded = values + [0] * (-len(values) % 4)
    return bytes(high << 4 | low for high, low in zip(padded[::2], padded[1::2], strict=True))


@st.composite
def drawn(draw: st.DrawFn) -> tuple[bytes, list[list[int]], bool]:
    """Run lengths as an encoder may write them, what they hold, and whether they have four bits."""
    four_bits = draw(st.booleans())
    width, height = draw(st.integers(1, 20)), draw(st.integers(1, 6))
    rows = np.zeros((height, width), dtype=int)
    colour = st.integers(0, 15 if four_bits else 255)
    out, y = b"", 0
    while y < height:
        x = 0
        while x < width:
            how = draw(st.sampled_from(("packed", "plain", "left out", "rest left out")))
            n = draw(st.integers(1, width - x))
            if how == "packed" or (how == "plain" and n < 3):
                pair = [draw(colour), draw(colour)] if four_bits else [draw(colour)] * 2
                out += bytes((n, pair[0] << 4 | pair[1] if four_bits else pair[0]))
                rows[y, x : x + n] = (pair * n)[:n]
            elif how == "plain":
                values = draw(st.lists(colour, min_size=n, max_size=n))
                rows[y, x : x + n] = values
                out += bytes((0, n)) + (halves(values) if four_bits else bytes(values) + bytes(n % 2))
            elif how == "left out":
                up = draw(st.integers(0, height - 1 - y))
                out += bytes((0, 2, n, up))
                y += up
            elif how == "rest left out":
                break
            x += n
        if y == height - 1 or draw(st.integers(0, 9)) == 0:
            break
        out += END_OF_ROW
        y += 1
    return out + draw(st.sampled_from((b"", END_OF_ROW))) + END, rows.tolist(), four_bits


@given(drawn())
def test_what_is_packed_plain_or_left_out(case: tuple[bytes, list[list[int]], bool]) -> None:
    runs, rows, four_bits = case
    for gap in (b"", b"\0"):
        assert indices(bmp(len(rows[0]), len(rows), runs, four_bits=four_bits, gap=gap)) == rows
    for n_bytes in (0, len(runs) + 3):
        assert indices(bmp(len(rows[0]), len(rows), runs, four_bits=four_bits, n_bytes=n_bytes)) == rows


def test_one_that_ends_early_is_read() -> None:
    assert indices(bmp(3, 3, b"\2\5" + END)) == [[5, 5, 0], [0, 0, 0], [0, 0, 0]]
    assert indices(bmp(3, 2, END)) == [[0, 0, 0], [0, 0, 0]]


def test_an_empty_row_is_a_row() -> None:
    assert indices(bmp(2, 3, b"\2\5" + END_OF_ROW * 2 + b"\2\7" + END)) == [[5, 5], [0, 0], [7, 7]]


def test_a_full_one_needs_no_end() -> None:
    for behind in (b"", END_OF_ROW, END_OF_ROW + END, END + b"profile"):
        assert indices(bmp(2, 2, b"\2\5" + END_OF_ROW + b"\2\7" + behind, n_bytes=0)) == [[5, 5], [7, 7]]


@pytest.mark.parametrize(("low", "high"), [((0, 0, 0), (255, 255, 255)), ((0, 0, 0), (1, 1, 1))])
def test_a_grey_palette(low: tuple[int, ...], high: tuple[int, ...]) -> None:
    data = bytearray(bmp(2, 2, b"\1\0\1\1\0\0\1\1\1\0" + END))
    data[46:50] = struct.pack("<I", 2)
    start = 54 + 4 * 256
    for i, colour in enumerate((low, high)):
        data[54 + 4 * i : 57 + 4 * i] = bytes(colour)
    assert struct.unpack("<I", data[10:14]) == (start,)
    assert read(bytes(data)).rgb[..., 0].tolist() == [[high[0], low[0]], [low[0], high[0]]]


@given(drawn(), st.data())
def test_one_that_is_cut_is_refused_or_whole(case: tuple[bytes, list[list[int]], bool], data: st.DataObject) -> None:
    runs, rows, four_bits = case
    cut = data.draw(st.integers(0, len(runs) - 1))
    whole = bmp(len(rows[0]), len(rows), runs, four_bits=four_bits)
    try:
        got = indices(whole[: len(whole) - len(runs) + cut])
    except ImageError as error:
        message = str(error)
        assert message.startswith("bytes: this BMP image is ")
        assert message.endswith(" or download it again")
    else:
        assert got == rows


@pytest.mark.parametrize("runs", [b"", b"\2", b"\2\5", b"\0\3\5", b"\0\2\1", b"\0\2\1\1", b"\2\5\0\0"])
def test_one_without_an_end_is_refused(runs: bytes) -> None:
    message = "bytes: this BMP image is cut off (unexpected end of file); copy or download it again"
    assert refused(bmp(3, 3, runs)) == message


def test_data_behind_the_last_row_are_refused() -> None:
    message = "bytes: this BMP image is damaged (its data go on behind its last row); save or download it again"
    for behind in (b"\1\5", b"\0\3abc\0"):
        assert refused(bmp(2, 1, b"\2\5" + END_OF_ROW + behind + END)) == message


def picture() -> tuple[bytes, NDArray[np.int_]]:
    rows = np.random.default_rng(0).integers(0, 256, (40, 60))
    runs = b"".join(b"\0\x3c" + bytes(row.tolist()) + END_OF_ROW for row in rows) + END
    return runs, rows


def test_zeros_in_place_of_data_are_refused() -> None:
    runs, rows = picture()
    assert indices(bmp(60, 40, runs)) == rows.tolist()
    for at in range(0, len(runs) - 600, 64):
        assert "bytes: this BMP image is damaged (" in refused(bmp(60, 40, runs[:at] + bytes(512) + runs[at + 512 :]))


def test_odd_ones_must_end_where_they_say() -> None:
    message = "bytes: this BMP image is damaged (its data do not end where its header says); save or download it again"
    for runs in (b"\2\5" + END, b"\3\5\0\0\2\5" + END, b"\2\5\0\0\0\3abc\0" + END, b"\0\2\0\3" + END):
        assert len(indices(bmp(2, 2, runs))) == 2
        assert len(indices(bmp(2, 2, runs, n_bytes=0))) == 2
        assert refused(bmp(2, 2, runs, n_bytes=len(runs) + 4)) == message


def test_a_run_ends_with_its_row() -> None:
    assert indices(bmp(2, 2, b"\x09\5\0\0\0\4\1\2\3\4" + END)) == [[5, 5], [1, 2]]


def test_the_depth_is_that_of_the_packing() -> None:
    data = bytearray(bmp(2, 1, b"\2\5" + END))
    data[30] = 2
    assert refused(bytes(data)) == (
        "bytes: this BMP image is damaged (run lengths of another depth than its pixels); save or download it again"
    )


def test_a_small_file_of_many_pixels_is_read_quickly() -> None:
    row = b"\xff\1" * 2 + END_OF_ROW
    data = bmp(9000, 9000, row * 6000 + END)
    started = time.process_time()
    got = read(data).rgb
    assert time.process_time() - started < 5  # Pillow's decoder: longer by far
    assert (got[-6000:, :510] == PALETTE[1]).all()
    assert (got[:, 510:] == PALETTE[0]).all()
