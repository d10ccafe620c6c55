"""TIFFs that are packed: what libtiff does not look at, in whole files and in damaged ones."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edgevl.errors import ImageError
from edgevl.image.read import read

DEFLATE, PACKBITS = 8, 32773


def smooth() -> NDArray[np.uint8]:
    rows, cols = np.mgrid[:97, :61]
    return np.stack([rows * 2, cols * 4, 255 - rows - cols], axis=-1).astype(np.uint8)


def tiff(width: int, height: int, compression: int, parts: list[bytes], **tags: int) -> bytes:
    """Grey of 8 bits in strips of two rows, or in tiles if `tags` has their sides."""
    names = {"order": 266, "tile_width": 322, "tile_height": 323}
    places, sizes = (324, 325) if "tile_width" in tags else (273, 279)
    starts = [8 + sum(len(part) for part in parts[:i]) for i in range(len(parts))]
    at = 8 + sum(len(part) for part in parts)
    arrays = struct.pack(f"<{2 * len(parts)}I", *starts, *(len(part) for part in parts))
    entries = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 277: 1, 278: 2}
    entries |= {names[name]: value for name, value in tags.items()}
    packed = {tag: struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in entries.items()}
    for tag, where, only in ((places, at, starts[0]), (sizes, at + 4 * len(parts), len(parts[0]))):
        packed[tag] = struct.pack("<HHII", tag, 4, len(parts), where if len(parts) > 1 else only)
    head = b"II*\0" + struct.pack("<I", at + len(arrays)) + b"".join(parts) + arrays
    return head + struct.pack("<H", len(packed)) + b"".join(packed[tag] for tag in sorted(packed)) + bytes(4)


def grey(data: bytes) -> list[list[int]]:
    values: list[list[int]] = read(data).rgb[..., 0].tolist()
    return values


def refused(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        read(data)
    return str(caught.value)


def encoded(image: Image.Image, compression: str, **tags: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", compression=compression, **tags)
    return buffer.getvalue()


@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("n_rows", [1, 10, 97, 4000])
def test_whole_ones_are_read(compression: str, mode: str, n_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgevl.image.tiff._PIECE", 1000)
    image = Image.fromarray(smooth()).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 256)
    data = encoded(image, compression, tiffinfo={278: n_rows})
    assert np.array_equal(read(data).rgb, read(encoded(image, "raw")).rgb)


def test_damage_to_deflated_data_is_refused() -> None:
    data = encoded(Image.fromarray(smooth()), "tiff_adobe_deflate", tiffinfo={278: 50})
    start, size = (Image.open(io.BytesIO(data)).tag_v2[tag][0] for tag in (273, 279))  # type: ignore[attr-defined]
    messages = {
        refused(data[:at] + bytes((data[at] ^ 64,)) + data[at + 1 :])
        for at in range(start + 2, start + size - 5)  # the last bits before the sum stand for nothing
    }
    assert all(message.startswith("bytes: this TIFF image is damaged (") for message in messages)
    assert "bytes: this TIFF image is damaged (wrong check sum); save or download it again" in messages


def test_deflated_data_of_too_many_rows_are_refused() -> None:
    message = "bytes: this TIFF image is damaged (its data go on behind a strip's last row); save or download it again"
    for more in (1, 4000):
        assert refused(tiff(3, 2, DEFLATE, [zlib.compress(bytes(6 + more))])) == message


def test_what_is_odd_about_deflated_data_but_no_damage() -> None:
    rows, packed = [[1, 2, 3], [4, 5, 6]], zlib.compress(bytes((1, 2, 3, 4, 5, 6)))
    for data in (packed, packed[:-4], packed + b"behind" * 50):
        assert grey(tiff(3, 2, DEFLATE, [data])) == rows
    turned = bytes(int(f"{byte:08b}"[::-1], 2) for byte in packed)
    assert grey(tiff(3, 2, DEFLATE, [turned], order=2)) == rows


@given(st.data())
def test_runs_of_packbits(data: st.DataObject) -> None:
    """As any encoder may write them: over the ends of rows too, and with bytes that stand for nothing."""
    width, height = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 5))
    parts, unpacked = [], b""
    for top in range(0, height, 2):
        packed, want = b"", width * min(2, height - top)
        while want:
            n = data.draw(st.integers(1, min(want, 128)))
            if n > 1 and data.draw(st.booleans()):
                value = bytes((data.draw(st.integers(0, 255)),))
                packed, unpacked = packed + bytes((257 - n,)) + value, unpacked + value * n
            else:
                values = data.draw(st.binary(min_size=n, max_size=n))
                packed, unpacked = packed + bytes((n - 1,)) + values, unpacked + values
            packed += data.draw(st.sampled_from((b"", b"\x80")))
            want -= n
        parts.append(packed + data.draw(st.sampled_from((b"", b"\0", b"\x80" * 60))))
    got = grey(tiff(width, height, PACKBITS, parts))
    assert bytes(itertools.chain.from_iterable(got)) == unpacked


def test_a_last_strip_may_be_a_whole_one() -> None:
    row = b"\xfd\7"
    assert grey(tiff(4, 3, PACKBITS, [row * 2, row * 2])) == [[7] * 4] * 3
    assert grey(tiff(4, 3, PACKBITS, [row * 2, row])) == [[7] * 4] * 3


def test_runs_that_come_to_more_or_fewer_bytes_are_refused() -> None:
    message = "bytes: this TIFF image is damaged (its data do not end with a row); save or download it again"
    row = b"\xfd\7"
    for first in (row + b"\xfc\7", row * 2 + row * 40):
        assert refused(tiff(4, 4, PACKBITS, [first, row * 2])) == message
        assert refused(tiff(4, 2, PACKBITS, [first])) == message
    assert "damaged" in refused(tiff(4, 4, PACKBITS, [row, row * 2]))


def test_zeros_in_place_of_runs_are_refused() -> None:
    image = Image.fromarray((smooth()[..., 1] // 8 * 8).repeat(5, axis=1)).resize((900, 900))
    data = encoded(image, "packbits", tiffinfo={278: 10})
    for at in range(2000, len(data) - 2000, 500):
        assert "bytes: this TIFF image is damaged (" in refused(data[:at] + bytes(512) + data[at + 512 :])


def test_tiles() -> None:
    tile = bytes(range(256))
    want = [[16 * (y % 16) + x % 16 for x in range(20)] for y in range(18)]
    runs = [b"".join(b"\x0f" + tile[16 * y : 16 * y + 16] for y in range(16))] * 4
    sides = {"tile_width": 16, "tile_height": 16}
    assert grey(tiff(20, 18, DEFLATE, [zlib.compress(tile)] * 4, **sides)) == want
    assert grey(tiff(20, 18, PACKBITS, runs, **sides)) == want
    broken = zlib.compress(tile)[:-1] + b"?"
    assert "is damaged (" in refused(tiff(20, 18, DEFLATE, [zlib.compress(tile)] * 3 + [broken], **sides))
    assert "do not end with a row" in refused(tiff(20, 18, PACKBITS, [*runs[:3], runs[0] * 2], **sides))


@pytest.mark.parametrize("order", [1, 2])
def test_zeros_within_group_4_are_refused(order: int) -> None:
    rng = np.random.default_rng(0)
    coarse, fine = rng.integers(0, 256, (30, 40), dtype=np.uint8), rng.integers(0, 2, (300, 400), dtype=np.uint8) * 255
    for grey_values in (coarse.repeat(70, axis=0).repeat(90, axis=1), fine, np.zeros((90, 7000), dtype=np.uint8)):
        image = Image.fromarray(grey_values).convert("1", dither=Image.Dither.NONE)
        data = encoded(image, "group4", tiffinfo={266: order})
        assert np.array_equal(read(data).rgb[..., 0], np.asarray(image) * 255)
        start, size = (Image.open(io.BytesIO(data)).tag_v2[tag][0] for tag in (273, 279))  # type: ignore[attr-defined]
        if size > 600:
            damaged = data[: start + 300] + bytes(200) + data[start + 500 :]
            assert refused(damaged) == (
                "bytes: this TIFF image is damaged (zeros in place of its data); save or download it again"
            )
