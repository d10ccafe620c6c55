"""Reading images: every form of source, every kind of pixel, and every way to fail."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import io
import os
import struct
import subprocess
import sys
import threading
import tracemalloc
import warnings
import zlib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from edgevl.errors import ImageError, InputError
from edgevl.image import png as png_module
from edgevl.image import read as module
from edgevl.image import rgb as rgb_module
from edgevl.image.kinds import FORMATS
from edgevl.image.read import Picture, draw_text, png_bytes, read, resize, save_png

DRAWING = Path(__file__).parents[2] / "models" / "samples" / "word.png"
HEIC_HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (7, 11, 3), dtype=np.uint8)


def smooth(height: int = 40, width: int = 60) -> NDArray[np.uint8]:
    rows, cols = np.mgrid[:height, :width]
    return np.stack([rows * 6, cols * 4, 255 - rows * 3 - cols * 2], axis=-1).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes, depth: int = 8, colour: int = 0, rows: bytes | None = None) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"\0" * (height * (1 + width)) if rows is None else rows)
    half = len(data) // 2
    pixels = chunk(b"IDAT", data[:half]) + chunk(b"IDAT", data[half:])
    parts = (chunk(b"IHDR", header), *extra, pixels, chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def failure(source: object, **options: Any) -> str:
    """The one line with which a source is refused."""
    with pytest.raises(ImageError) as caught:
        read(source, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# Forms of source.


def test_all_forms_of_one_picture_are_the_same(
    rgb: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = png_bytes(rgb)
    path = tmp_path / "a picture 图 ü.dat"
    path.write_bytes(data)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    text = base64.b64encode(data).decode()
    sources = [
        path, str(path), "-", data, bytearray(data), memoryview(data), f"data:image/png;base64,{text}",
        f"DATA:image/png;charset=x;BASE64,{text[:50]}\n {text[50:]}".replace("=", "%3D").replace("+", "%2B"),
        Image.fromarray(rgb), Image.open(io.BytesIO(data)), rgb, rgb[::-1][::-1], np.dstack([rgb, rgb[..., :1] | 255]),
        encode(Image.fromarray(rgb), "WEBP", lossless=True), encode(Image.fromarray(rgb), "TIFF"),
        encode(Image.fromarray(rgb), "BMP"), encode(Image.fromarray(rgb), "PPM"), encode(Image.fromarray(rgb), "QOI"),
        encode(Image.fromarray(rgb), "JPEG2000"), encode(Image.fromarray(rgb), "TIFF", compression="tiff_lzw"),
    ]  # fmt: skip
    pictures = [read(source) for source in sources]
    for picture in pictures:
        assert np.array_equal(picture.rgb, rgb)
        assert picture.size == (7, 11)
        assert picture.rgb.flags.c_contiguous
        assert picture.rgb.dtype == np.uint8
    assert len({picture.id for picture in pictures}) == 1
    assert read(pictures[0]) is pictures[0]


def test_the_id_is_the_hash_of_shape_and_pixels(rgb: NDArray[np.uint8]) -> None:
    assert read(rgb).id == hashlib.sha256(b"7x11 RGB\n" + rgb.tobytes()).hexdigest()
    assert read(rgb).id != read(rgb.reshape(11, 7, 3)).id
    other = rgb.copy()
    other[3, 3, 0] ^= 1
    assert read(rgb).id != read(other).id


def test_a_picture_does_not_change_with_its_array(rgb: NDArray[np.uint8]) -> None:
    picture = read(rgb)
    before = picture.rgb.copy()
    rgb[:] = 0
    assert np.array_equal(picture.rgb, before)
    with pytest.raises(ValueError, match="read-only"):
        picture.rgb[0, 0] = 0


def test_the_callers_pillow_image_is_left_as_it_is() -> None:
    image = Image.new("RGBA", (4, 3), (10, 20, 30, 128))
    read(image)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGBA", (4, 3), (10, 20, 30, 128))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe(rgb: NDArray[np.uint8], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(png_bytes(rgb),))
    writer.start()
    assert np.array_equal(read(pipe).rgb, rgb)
    writer.join()


def test_sources_have_names(rgb: NDArray[np.uint8], tmp_path: Path) -> None:
    save_png(rgb, tmp_path / "x.png")
    assert read(tmp_path / "x.png").source == str(tmp_path / "x.png")
    assert [read(s).source for s in (rgb, png_bytes(rgb), Image.fromarray(rgb))] == ["array", "bytes", "PIL image"]


# Kinds of pixels.


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "PIL image"])
def test_exif_orientation(orientation: int, kind: str) -> None:
    upright = smooth()
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.swapaxes(0, 1), 6: np.rot90(upright), 7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    image = Image.fromarray(np.ascontiguousarray(stored))
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "PIL image":
        image.getexif()[0x0112] = orientation
        got = read(image)
    else:
        if kind == "AVIF":
            pytest.importorskip("PIL._avif")
        lossy: dict[str, dict[str, Any]] = {
            "JPEG": {"quality": 100, "subsampling": 0},
            "WEBP": {"lossless": True},
            "AVIF": {"quality": 100},
        }
        got = read(encode(image, kind, exif=exif, **lossy.get(kind, {})))
    assert got.size == (40, 60)
    assert np.abs(got.rgb.astype(int) - upright).max() <= (12 if kind in ("JPEG", "AVIF") else 0)


def test_the_eight_orientations_of_one_photo(shared_dir: Path) -> None:
    paths = [shared_dir / "photos" / f"exif_landscape_{i}.jpg" for i in range(1, 9)]
    if not all(path.is_file() for path in paths):
        pytest.skip("the photos are absent")
    first, *others = (read(path) for path in paths)
    assert first.size == (450, 600)
    for other in others:
        assert other.size == first.size
        # each file has its own noise and a number painted on; the wrong way round they differ by 64
        assert np.abs(other.rgb.astype(int) - first.rgb).mean() < 20


def test_damaged_or_absurd_orientation_is_ignored(rgb: NDArray[np.uint8]) -> None:
    for exif in (b"Exif\0\0garbage", b"", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        assert np.array_equal(read(encode(Image.fromarray(rgb), "PNG", exif=exif)).rgb, rgb)
    nine = Image.Exif()
    nine[0x0112] = 9
    assert np.array_equal(read(encode(Image.fromarray(rgb), "PNG", exif=nine)).rgb, rgb)


def test_alpha_lies_over_white() -> None:
    rgba = np.zeros((1, 4, 4), dtype=np.uint8)
    rgba[0, :, 0] = 100
    rgba[0, :, 3] = (0, 51, 128, 255)
    want = [[255, 255, 255], [224, 204, 204], [177, 127, 127], [100, 0, 0]]
    assert read(rgba).rgb[0].tolist() == want
    assert read(png_bytes_of(rgba)).rgb[0].tolist() == want
    assert read(Image.fromarray(rgba)).rgb[0].tolist() == want
    premultiplied = read(Image.fromarray(rgba).convert("RGBa")).rgb[0]
    assert np.abs(premultiplied.astype(int) - want).max() <= 2


def png_bytes_of(rgba: NDArray[np.uint8]) -> bytes:
    return encode(Image.fromarray(rgba), "PNG")


@pytest.mark.parametrize("mode", ["LA", "La", "PA"])
def test_grey_and_palette_with_alpha(mode: str) -> None:
    image = Image.new("LA", (2, 1), (0, 0))
    image.putpixel((1, 0), (60, 255))
    got = read(image.convert(mode) if mode != "PA" else image.convert("RGBA").convert("PA")).rgb[0]
    assert np.abs(got.astype(int) - [[255] * 3, [60] * 3]).max() <= 1


def test_transparency_of_palettes_and_colour_keys() -> None:
    palette = Image.new("P", (3, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for x in range(3):
        palette.putpixel((x, 0), x)
    for transparency in (0, b"\0\xff\xff"):
        got = read(encode(palette, "PNG", transparency=transparency)).rgb[0].tolist()
        assert got == [[255, 255, 255], [0, 255, 0], [0, 0, 255]]
    assert read(encode(palette, "GIF", transparency=1)).rgb[0, 1].tolist() == [255, 255, 255]
    grey = Image.fromarray(np.array([[5, 9]], dtype=np.uint8))
    assert read(encode(grey, "PNG", transparency=5)).rgb[0].tolist() == [[255] * 3, [9] * 3]
    colour = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    assert read(encode(colour, "PNG", transparency=(1, 2, 3))).rgb[0].tolist() == [[255] * 3, [4, 5, 6]]


@pytest.mark.parametrize(
    ("depth", "colour", "row", "key", "want"),
    [
        (1, 0, b"\x40", (0,), [255, 255]),
        (2, 0, b"\x1b", (1,), [0, 255, 170, 255]),
        (2, 0, b"\x1b", (6,), [0, 85, 255, 255]),  # of which two bits count
        (4, 0, b"\x5a", (5,), [255, 170]),
        (8, 0, b"\5\6", (5,), [255, 6]),
        (16, 0, struct.pack(">3H", 0x0500, 0x0501, 0x0600), (0x0500,), [255, 5, 6]),
        (16, 0, struct.pack(">2H", 0x0005, 0x0500), (5,), [255, 5]),
        (16, 2, struct.pack(">6H", 0x0500, 0x0600, 0x0700, 0, 0, 0), (0x0500, 0x0600, 0x0700), [255, 0]),
        (16, 2, struct.pack(">9H", *[0x0506] * 3, *[0x0507] * 3, *[0x0607] * 3), (0x0506,) * 3, [255, 255, 6]),
    ],
)
def test_a_transparent_colour_of_any_depth(
    depth: int, colour: int, row: bytes, key: tuple[int, ...], want: list[int]
) -> None:
    transparent = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))
    data = png(len(want), 1, transparent, depth=depth, colour=colour, rows=b"\0" + row)
    opened = Image.open(io.BytesIO(data))
    for source in (data, opened, opened):
        assert read(source).rgb[0].tolist() == [[value] * 3 for value in want]


def test_clear_colours_of_a_palette_that_was_made_here() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 0))
    for made in (image.quantize(4), image.convert("P")):
        assert made.palette is not None
        assert (made.palette.mode, made.info) == ("RGBA", {})
        for source in (made, encode(made, "PNG")):
            assert read(source).rgb[0, 1].tolist() == [255] * 3


def test_one_bit_and_grey() -> None:
    bits = Image.new("1", (9, 1))
    bits.putpixel((4, 0), 1)
    want = [[0] * 3] * 4 + [[255] * 3] + [[0] * 3] * 4
    assert read(encode(bits, "PNG")).rgb[0].tolist() == want
    assert read(encode(bits, "TIFF", compression="group4")).rgb[0].tolist() == want
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for source in (grey, grey[..., None], Image.fromarray(grey), encode(Image.fromarray(grey), "PNG")):
        assert np.array_equal(read(source).rgb, np.stack([grey] * 3, axis=-1))
    assert np.array_equal(read(np.dstack([grey, grey | 255])).rgb, read(grey).rgb)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "PIL image"])
def test_sixteen_bits_keep_the_high_byte(kind: str) -> None:
    deep = Image.fromarray(np.array([[0, 255, 256, 0x8000, 0xFFFF]], dtype=np.uint16))
    got = read(deep if kind == "PIL image" else encode(deep, kind)).rgb[0, :, 0].tolist()
    assert got == [0, 0, 1, 128, 255]


def test_a_dark_picture_of_sixteen_bits_stays_dark() -> None:
    assert read(b"P5 3 1 65535\n" + struct.pack(">3H", 0, 200, 256)).rgb[0, :, 0].tolist() == [0, 0, 1]
    assert read(b"P5 3 1 4095\n" + struct.pack(">3H", 0, 4, 15)).rgb[0, :, 0].tolist() == [0, 0, 0]


def grey_tiff(width: int, bits: int, photometric: int, row: bytes, samples: int = 1) -> bytes:
    """One row of grey as a plain TIFF; at `photometric` 0 white is 0, at 1 black is; at `samples` 2 with signs."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1, 279: len(row)}
    tags[339] = samples
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(row)) + row + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    ("bits", "photometric", "row", "want"),
    [
        (12, 1, b"\0\x08\0\xff\xf0\0", [0, 128, 255, 0]),
        (16, 1, struct.pack("<3H", 0, 0x8000, 0xFFFF), [0, 128, 255]),
        (16, 0, struct.pack("<3H", 0, 0x8000, 0xFFFF), [255, 127, 0]),
        (8, 0, b"\0\x80\xff", [255, 127, 0]),
    ],
)
def test_grey_tiff_of_any_depth_and_direction(bits: int, photometric: int, row: bytes, want: list[int]) -> None:
    data = grey_tiff(len(want), bits, photometric, row)
    for source in (data, Image.open(io.BytesIO(data))):
        assert read(source).rgb[0, :, 0].tolist() == want


def test_signed_bytes_are_read_where_they_have_one_meaning() -> None:
    data = grey_tiff(3, 8, 1, b"\0\1\x7f", samples=2)
    for source in (data, Image.open(io.BytesIO(data))):
        assert read(source).rgb[0, :, 0].tolist() == [0, 1, 127]
    data = grey_tiff(3, 8, 1, b"\0\1\xff", samples=2)
    for source, name in ((data, "bytes"), (Image.open(io.BytesIO(data)), "PIL image")):
        assert failure(source) == (
            f"{name}: holds negative numbers of 8 bits (SampleFormat 2), which are dark to some programs and bright to "
            "others; save it with numbers from 0 to 255"
        )


def test_sixteen_bits_of_colour() -> None:
    rows = b"\0" + struct.pack(">6H", 0x0100, 0x80FF, 0xFFFF, 0, 0x00FF, 0x1234)
    assert read(png(2, 1, depth=16, colour=2, rows=rows)).rgb[0].tolist() == [[1, 128, 255], [0, 0, 0x12]]


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 256.0, 65535.0], [0, 1, 255]),
        ([-10.0, 0.0, 10.0], [0, 128, 255]),
        ([0.0, float("nan"), 1.0], [0, 0, 255]),
        ([0.0, float("inf"), 1.0], [0, 255, 255]),
        ([float("nan")] * 3, [0, 0, 0]),
        ([7e30, 7e30, 7e30], [0, 0, 0]),
    ],
)
def test_floating_point_values(values: list[float], want: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert read(image).rgb[0, :, 0].tolist() == want
    assert read(encode(image, "TIFF")).rgb[0, :, 0].tolist() == want


@pytest.mark.parametrize(
    ("values", "want"), [([0, 1, 255], [0, 1, 255]), ([0, 512, 65535], [0, 2, 255]), ([-2, 0, 2], [0, 128, 255])]
)
def test_32_bit_integers(values: list[int], want: list[int]) -> None:
    assert read(Image.fromarray(np.array([values], dtype=np.int32))).rgb[0, :, 0].tolist() == want


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB"])
def test_other_colour_spaces(mode: str) -> None:
    image = Image.fromarray(smooth())
    if mode == "LAB":
        cms = pytest.importorskip("PIL.ImageCms")
        image = cms.profileToProfile(image, cms.createProfile("sRGB"), cms.createProfile("LAB"), outputMode="LAB")
    got = read(image if mode == "LAB" else image.convert(mode))
    assert np.abs(got.rgb.astype(int) - smooth()).mean() < 3
    assert np.array_equal(got.rgb, np.asarray((image if mode == "LAB" else image.convert(mode)).convert("RGB")))


def test_cmyk_jpeg_is_not_inverted() -> None:
    image = Image.new("RGB", (16, 16), (250, 20, 30)).convert("CMYK")
    got = read(encode(image, "JPEG", quality=100)).rgb[8, 8]
    assert np.abs(got.astype(int) - [250, 20, 30]).max() < 12


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    data = encode(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert (read(data).rgb == (255, 0, 0)).all()


def test_what_the_first_frame_of_a_gif_leaves_free_is_white() -> None:
    data = bytearray(encode(Image.new("RGB", (4, 3), "red"), "GIF"))
    data[6:10] = struct.pack("<2H", 10, 8)
    at = data.index(b",\0\0\0\0\x04\0\x03\0")
    data[at + 1 : at + 5] = struct.pack("<2H", 5, 2)
    want = np.full((8, 10, 3), 255, dtype=np.uint8)
    want[2:5, 5:9] = (255, 0, 0)
    opened = Image.open(io.BytesIO(data))
    for source in (bytes(data), opened, opened):
        assert np.array_equal(read(source).rgb, want)


def test_a_later_frame_of_a_gif_that_is_open_there_keeps_what_lies_around_it() -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime")]
    frames[1].paste("red", (0, 0, 8, 3))  # only the lower half changes
    opened = Image.open(io.BytesIO(encode(frames[0], "GIF", save_all=True, append_images=frames[1:])))
    opened.seek(1)
    assert read(opened).rgb[[0, 5], 0].tolist() == [[255, 0, 0], [0, 255, 0]]


def test_a_fourth_byte_of_a_bmp_that_is_nowhere_used_hides_nothing() -> None:
    rgba = np.dstack([smooth(4, 6), np.zeros((4, 6), np.uint8)])
    for alpha, wanted in ((0, rgba[..., :3]), (255, rgba[..., :3])):
        rgba[..., 3] = alpha
        rows = np.ascontiguousarray(rgba[::-1][..., [2, 1, 0, 3]]).tobytes()
        masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        header = struct.pack("<IiiHHIIiiII", 108, 6, 4, 1, 32, 3, len(rows), 0, 0, 0, 0) + masks + bytes(52)
        data = b"BM" + struct.pack("<IHHI", 14 + len(header) + len(rows), 0, 0, 14 + len(header)) + header + rows
        assert np.array_equal(read(data).rgb, wanted)


def pages(*pages: tuple[Image.Image, int]) -> bytes:
    """Return a TIFF of several pages, each with its NewSubfileType."""
    first, *others = [(image, TiffImagePlugin.ImageFileDirectory_v2()) for image, _ in pages]
    for (_, tags), (_, kind) in zip((first, *others), pages, strict=True):
        tags[254] = kind
    buffer = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(buffer, new=True) as writer:
        for image, tags in (first, *others):
            image.save(writer, format="TIFF", tiffinfo=tags)
            writer.newFrame()
    return buffer.getvalue()


def test_a_tiff_that_begins_with_a_small_copy_is_refused() -> None:
    small, large = Image.new("RGB", (6, 4), "red"), Image.new("RGB", (60, 40), "blue")
    said = "bytes: begins with a small copy of its picture, as a camera's raw files do; convert it to PNG or JPEG"
    assert failure(pages((small, 1), (large, 0))) == said
    assert read(pages((large, 0), (small, 1))).size == (40, 60)
    assert read(pages((small, 1))).size == (4, 6)  # there is no other


def test_tiff_of_32_bits_without_a_sign_and_of_floats_in_which_0_is_white() -> None:
    def seen(values: NDArray[Any], tag: int, before: int, after: int) -> list[int]:
        data = bytearray(encode(Image.fromarray(values), "TIFF"))
        at = data.index(struct.pack("<HHIH", tag, 3, 1, before))
        data[at + 8 : at + 10] = struct.pack("<H", after)
        grey: list[int] = read(bytes(data)).rgb[0, :, 0].tolist()
        return grey

    unsigned = np.array([[0, 1 << 31, (1 << 32) - 1]], np.uint32)
    assert seen(unsigned.view(np.int32), 339, 2, 1) == [0, 128, 255]
    assert seen(np.array([[0, 0.5, 1]], np.float32), 262, 1, 0) == [255, 127, 0]


def test_a_picture_of_many_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rgb_module, "_STRIP", 100)
    rgb = smooth()
    assert np.array_equal(read(Image.fromarray(rgb)).rgb, rgb)
    assert np.array_equal(read(rgb).rgb, rgb)
    deep = Image.fromarray(np.linspace(-1, 1, 2400, dtype=np.float32).reshape(40, 60))
    assert read(deep).rgb[[0, -1], [0, -1], 0].tolist() == [0, 255]


# Limits.


def test_too_large_is_refused_before_decoding() -> None:
    assert failure(png(60_000, 60_000, rows=b"")) == (
        "bytes: is 60000x60000 pixels (width x height), 3,600,000,000 in all, over the limit of 100,000,000; "
        "shrink it, or use --max-pixels (in Python: max_pixels)"
    )
    assert "600,000 in all, over the limit of 10;" in failure(png(1000, 600, rows=b""), max_pixels=10)
    assert "is 5x4 pixels (width x height)" in failure(np.zeros((4, 5, 3), dtype=np.uint8), max_pixels=19)
    assert "over the limit" in failure(np.zeros((4, 5, 3), dtype=np.uint8), max_pixels=19)
    assert "over the limit" in failure(Image.new("1", (5, 4)), max_pixels=19)
    assert read(np.zeros((4, 5, 3), dtype=np.uint8), max_pixels=20).size == (4, 5)


@pytest.mark.parametrize("limit", ["a", 0, 1.5, True])
def test_a_limit_is_a_number_of_pixels(limit: Any) -> None:
    with pytest.raises(InputError, match=r"max_pixels is .*; it must be a whole number of at least 1"):
        read(np.zeros((4, 5, 3), dtype=np.uint8), max_pixels=limit)


def test_pillows_own_limit_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(png_bytes(smooth())).size == (40, 60)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize(
    ("limit", "size"), [(48_000, (200, 240)), (47_999, (100, 120)), (11_999, (50, 60)), (2_999, (25, 30))]
)
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_is_reduced_while_decoding(limit: int, size: tuple[int, int], progressive: bool) -> None:
    data = encode(Image.fromarray(smooth(40, 48)).resize((240, 200)), "JPEG", progressive=progressive)
    got = read(data, max_pixels=limit, reduce=True)
    assert got.size == size
    whole = np.asarray(Image.fromarray(read(data).rgb).resize((size[1], size[0]), Image.Resampling.BOX))
    assert np.abs(got.rgb.astype(int) - whole).mean() < 4


def test_what_cannot_be_reduced_is_refused() -> None:
    jpeg = encode(Image.new("RGB", (240, 200)), "JPEG")
    assert "use --reduce or --max-pixels (in Python: reduce or max_pixels)" in failure(jpeg, max_pixels=40_000)
    assert "240x200" in (refused := failure(jpeg, max_pixels=700, reduce=True))
    assert "--reduce" not in refused
    assert "over the limit" in failure(png_bytes(smooth()), max_pixels=1000, reduce=True)


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = encode(Image.new("RGB", (3000, 3000)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    assert "scans and would take too long" in failure(data[:-2] + last * 600 + b"\xff\xd9")
    assert read(data).size == (3000, 3000)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_huge_compressed_metadata_is_not_unpacked(kind: bytes) -> None:
    data = png(2, 2, chunk(kind, b"name\0\0" + zlib.compress(bytes(20_000_000), 9)))
    tracemalloc.start()
    try:
        assert read(data).size == (2, 2)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


# Failures.


def test_missing_files_and_folders(tmp_path: Path) -> None:
    missing = tmp_path / "photo.jpg"
    assert failure(missing) == failure(str(missing)) == f"{missing}: no such file; check the path"
    assert failure(tmp_path) == f"{tmp_path}: is a folder; give an image file in it"
    assert failure(missing / "x").startswith(f"{missing / 'x'}: no such file")
    (tmp_path / "file").write_bytes(b"x")
    assert "file" in failure(tmp_path / "file" / "x")


def test_strange_paths() -> None:
    assert "is not a usable path" in failure("a\0b.jpg")
    message = failure("iVBORw0KGgo" * 1000)
    assert message.endswith("; check the path")
    assert len(message) < 400
    assert failure("no\nsuch\tfile").startswith("no?such?file: ")


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert failure(path) == f"{path}: may not be read (permission denied); change its permissions"


def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", fail)
    assert failure(path) == f"{path}: cannot be read (Input/output error); check the path"


@pytest.mark.parametrize(
    ("data", "looks"),
    [
        (b"%PDF-1.7 ...", "it looks like a PDF file"),
        (b"<!DOCTYPE html><html>", "it looks like a web page"),
        (b"\n <HTML><head>", "it looks like a web page"),
        (b'<?xml version="1.0"?>\n<!-- x --><svg xmlns="...">', "it looks like an SVG drawing"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "it looks like a PostScript file"),
        (b"\0\0\0\x20ftypisom", "it looks like a video"),
        (b"PK\x03\x04rest", "it looks like a ZIP archive or an office document"),
        (b"\0\0\x01\0\x01\0", "it looks like a Windows icon"),
        (b"\xff\x0a\0\0", "it looks like a JPEG XL image"),
        ("Grüße, Welt".encode(), "it looks like a text file"),
        (b"\x93NUMPY\x01\0\xff\xfe", "its format is not known"),
        (b"\xff\xfe\x00\x01", "its format is not known"),
    ],
)
def test_files_that_are_no_images(data: bytes, looks: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    assert failure(path) == f"{path}: is not an image that can be read here ({looks}); convert it to PNG or JPEG"


def test_formats_that_start_programs_or_open_other_files_are_not_tried() -> None:
    assert "PostScript" in failure(encode(Image.new("RGB", (8, 8)), "EPS"))
    assert not {"EPS", "WMF", "MPEG", "HDF5"} & set(FORMATS)


def test_empty_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.jpg"
    path.touch()
    assert failure(path) == f"{path}: is empty (0 bytes); copy or download it again"
    assert failure(b"").startswith("bytes: is empty")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    assert failure("-").startswith("standard input: is empty")
    monkeypatch.setattr(sys, "stdin", io.StringIO("text"))
    assert failure("-") == "standard input: holds text and no bytes here; give a path"
    monkeypatch.setattr(sys, "stdin", None)
    assert failure("-") == "standard input: this program has none; give a path"


def test_an_endless_pipe_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(bytes((1 << 20) + 1))))
    assert failure("-") == "standard input: holds more than 1 MB; save it to a file and give its path"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("WEBP", {"lossless": True}),
        ("GIF", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {}),
        ("JPEG2000", {}), ("QOI", {}), ("AVIF", {}),
    ],
)  # fmt: skip
def test_cut_off_files_are_refused(kind: str, options: dict[str, Any]) -> None:
    if kind == "AVIF":
        pytest.importorskip("PIL._avif")
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind, **options)
    assert read(data).size == (60, 80)
    for share in (0.02, 0.1, 0.5, 0.9, 0.99):
        message = failure(data[: int(len(data) * share)])
        assert "cut off" in message or "damaged" in message


class TestDamagedPNG:
    """What Pillow reads on over, since it ends at the last row and compares no check sum of pixels."""

    whole = png(60, 40, colour=2, rows=b"".join(b"\0" + row.tobytes() for row in smooth()))

    @settings(max_examples=200)
    @given(data=st.data())
    def test_any_flipped_bit_among_the_pixels_is_refused(self, data: st.DataObject) -> None:
        damaged = bytearray(data.draw(st.sampled_from([self.whole, DRAWING.read_bytes()])))
        at = data.draw(st.integers(damaged.index(b"IDAT") + 4, len(damaged) - 17))
        damaged[at] ^= 1 << data.draw(st.integers(0, 7))
        message = failure(bytes(damaged))
        assert message.startswith("bytes: this PNG image is ")
        assert message.endswith(" or download it again")

    @settings(max_examples=100)
    @given(n_bytes=st.integers(1, len(whole) - 8))
    def test_a_tail_of_zeros_is_refused(self, n_bytes: int) -> None:
        message = failure(self.whole[:-n_bytes] + bytes(n_bytes))
        assert message.startswith("bytes: this PNG image is ")
        assert message.endswith(" or download it again")

    def test_in_one_line(self, tmp_path: Path) -> None:
        path = tmp_path / "photo.png"
        path.write_bytes(self.whole[:-16] + b"xxxx" + self.whole[-12:])
        assert failure(path) == f"{path}: this PNG image is damaged (wrong check sum); save or download it again"
        path.write_bytes(self.whole[:-12])
        assert failure(path) == f"{path}: this PNG image is cut off (unexpected end of file); copy or download it again"

    def test_what_pillow_refuses_is_refused_as_before(self) -> None:
        message = failure(self.whole[: len(self.whole) // 2])
        assert message.startswith("bytes: this PNG image is cut off (image file is truncated")

    @pytest.mark.parametrize("kind", [b"tEXt", b"eXIf", b"prIv"])
    def test_other_chunks_behind_the_pixels_may_be_wrong(self, kind: bytes) -> None:
        other = chunk(kind, b"Title\0what")[:-1] + b"?"
        assert np.array_equal(read(self.whole[:-12] + other + self.whole[-12:]).rgb, smooth())

    @pytest.mark.parametrize(
        ("kind", "data"),
        [
            (b"zTXt", b"drawing\0\0" + zlib.compress(bytes(2 << 20))),
            (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2 << 20))),
            (b"iCCP", b"profile\0\0" + zlib.compress(bytes(2 << 20))),
            (b"tEXt", b"workflow\0" + b"x" * (65 << 20)),
            (b"pHYs", b"a"),
            (b"gAMA", b"a"),
        ],
    )
    def test_long_and_damaged_notes_are_no_reason_to_refuse_it(self, kind: bytes, data: bytes) -> None:
        note, transparent = chunk(kind, data), chunk(b"tRNS", struct.pack(">H", 5))
        got = read(png(3, 1, note, transparent, rows=b"\0\5\6\7")).rgb[0, :, 0].tolist()
        assert got == [255, 6, 7]
        assert np.array_equal(read(self.whole[:-12] + note + self.whole[-12:]).rgb, smooth())
        assert "wrong check sum" in failure(self.whole[:-16] + b"xxxx" + note + self.whole[-12:])

    def test_what_follows_the_end_is_no_part_of_it(self, tmp_path: Path) -> None:
        path = tmp_path / "photo.png"
        for behind in (b"", b"\0", b"<html>", self.whole):
            path.write_bytes(self.whole + behind)
            assert np.array_equal(read(path).rgb, smooth())

    def test_a_large_one_is_checked_piecewise(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(png_module, "_PIECE", 7)
        assert np.array_equal(read(self.whole).rgb, smooth())
        assert "wrong check sum" in failure(self.whole[:-16] + b"xxxx" + self.whole[-12:])


class TestDamagedJPEG:
    """What libjpeg reads on over: it takes wrong bits for others and fills up with grey what is missing."""

    @staticmethod
    def photo(**options: Any) -> bytes:
        noise = np.random.default_rng(0).integers(0, 40, (240, 320, 3), dtype=np.uint8)
        return encode(Image.fromarray(smooth(240, 320) // 2 + noise), "JPEG", **options)

    @pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_rows": 1}])
    @pytest.mark.parametrize("reduce", [False, True])
    def test_zeros_and_gaps_in_the_middle_are_refused(self, options: dict[str, Any], reduce: bool) -> None:
        data = self.photo(**options)
        for at in range(len(data) // 4, len(data) - 4096, 3000):
            for damaged in (data[:at] + bytes(4096) + data[at + 4096 :], data[:at] + data[at + 4096 :]):
                message = failure(damaged, max_pixels=20_000 if reduce else 10**6, reduce=reduce)
                assert message.startswith("bytes: this JPEG image is damaged ("), message
                assert message.endswith("); save or download it again")

    @pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_rows": 1}])
    def test_a_tail_of_zeros_is_refused(self, options: dict[str, Any]) -> None:
        data = self.photo(**options)
        for share in (0.3, 0.6, 0.9, 0.99):
            n = int(len(data) * share)
            assert "bytes: this JPEG image is " in failure(data[:n] + bytes(len(data) - n))

    def test_rows_too_many_are_refused(self) -> None:
        data = bytearray(self.photo())
        at = data.index(b"\xff\xc0") + 5
        assert data[at : at + 2] == struct.pack(">H", 240)
        data[at : at + 2] = struct.pack(">H", 160)
        assert failure(bytes(data)) == (
            "bytes: this JPEG image is damaged (its data go on behind its last row); save or download it again"
        )

    @pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
    @pytest.mark.parametrize("options", [{}, {"optimize": True}, {"restart_marker_blocks": 3}, {"progressive": True}])
    def test_whole_ones_are_not(self, mode: str, options: dict[str, Any]) -> None:
        for pixels in (smooth(), smooth(1, 1), smooth(3, 200), np.zeros((90, 70, 3), dtype=np.uint8)):
            image = Image.fromarray(pixels).convert(mode)
            data = encode(image, "JPEG", **options)
            want = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            for behind in (b"", b"\0", bytes(9000), b"<html>", data):
                assert np.array_equal(read(data + behind).rgb, want)
            for filling in (bytes(40), bytes(4096), b"\xff" * 4096):  # before the end
                assert np.array_equal(read(data[:-2] + filling + data[-2:]).rgb, want)

    @pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
    @pytest.mark.parametrize(
        ("marker", "whole"),
        [
            (0xE0, b"JFIF\0\1\1\1\0\x48\0\x48\0"),
            (0xE2, b"ICC_PROFILE\0\1\1profile"),
            (0xE2, b"MPF\0MM\0\x2a\0\0\0\x08\0\1\xb0\0\0\7\0\0\0\4"),
            (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10"),
            (0xEE, b"Adobe\0\x64\0\0\0\0"),  # of 12 bytes it would tell the colours
        ],
    )
    def test_notes_that_are_cut_short_are_no_reason_to_refuse_it(self, mode: str, marker: int, whole: bytes) -> None:
        data = encode(Image.fromarray(smooth()).convert(mode), "JPEG", quality=100)
        data = b"\xff\xd8" + data[4 + struct.unpack(">H", data[4:6])[0] :]  # without JFIF's or Adobe's own
        want = read(data).rgb
        if mode == "RGB":
            assert np.abs(want.astype(int) - smooth()).max() <= 20
        turned = Image.Exif()
        turned[0x0112] = 3
        exif = b"Exif\0\0" + turned.tobytes().removeprefix(b"Exif\0\0")
        for n in range(len(whole) + 1):
            segments = b"".join(
                bytes((0xFF, kind)) + struct.pack(">H", len(body) + 2) + body
                for kind, body in ((marker, whole[:n]), (0xE1, exif))
            )
            noted = data[:2] + segments + data[2:]
            assert np.array_equal(read(noted).rgb, want[::-1, ::-1])
            assert "bytes: this JPEG image is " in failure(noted[: len(noted) * 2 // 3])

    def test_of_several_pictures_the_first(self) -> None:
        frames = [Image.fromarray(smooth()), Image.fromarray(smooth()[::-1])]
        got = read(encode(frames[0], "MPO", save_all=True, append_images=frames[1:], quality=100))
        assert np.abs(got.rgb.astype(int) - smooth()).max() <= 40


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0" + bytes(5000)])
def test_zeros_within_a_lossy_webp_are_refused(exif: bytes) -> None:
    data = encode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)), "WEBP")
    damaged = data[:-4096] + bytes(4096)
    assert failure(damaged).startswith("bytes: this WebP image is damaged (zeros in place of its data); ")
    assert failure(data[:9000] + bytes(4096) + data[13096:]).startswith("bytes: this WebP image is damaged (")
    assert read(encode(Image.fromarray(smooth()), "WEBP", exif=exif)).size == (40, 60)
    plain = encode(Image.new("RGB", (4000, 4000), "white"), "WEBP", method=4)
    assert bytes(1000) in plain
    assert (read(plain).rgb == 255).all()


@pytest.mark.parametrize(("lossless", "frames"), [(False, 1), (True, 1), (False, 2)])
def test_a_webp_whose_data_do_not_end_with_its_last_row_is_refused(lossless: bool, frames: int) -> None:
    noise = np.random.default_rng(0).integers(0, 40, (240, 320, 3), dtype=np.uint8)
    image = Image.fromarray(smooth(240, 320) // 2 + noise)
    more = {"save_all": True, "append_images": [Image.fromarray(noise)]} if frames == 2 else {}
    data = encode(image, "WEBP", lossless=lossless, **more)
    start = data.index(b"VP8L" if lossless else b"VP8 ") + 8
    stop = start + int.from_bytes(data[start - 4 : start], "little")
    messages = set()
    for at in range((start + stop) // 2, stop - 1000, (stop - start) // 20):
        messages.add(failure(data[:at] + bytes(300) + data[at + 300 :]))
    assert all(message.startswith("bytes: this WebP image is ") for message in messages)
    message = "bytes: this WebP image is damaged (its data go on behind its last row); save or download it again"
    assert message in messages


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("method", [0, 4, 6])
def test_whole_webps_are_not(lossless: bool, method: int) -> None:
    pictures = [smooth(), smooth(1, 1), smooth(3, 200), np.zeros((90, 70, 3), dtype=np.uint8), smooth(300, 300) & 0xC0]
    for pixels in pictures:
        for image in (Image.fromarray(pixels), Image.fromarray(np.dstack([pixels, pixels[..., :1]]))):
            animated = {"save_all": True, "append_images": [image.rotate(90)]}
            for more in ({}, {"exif": b"Exif\0\0" + bytes(50)}, animated):
                data = encode(image, "WEBP", lossless=lossless, method=method, quality=20, **more)
                for behind in (b"", bytes(100)):
                    assert read(data + behind).size == pixels.shape[:2]


def test_zeros_within_an_avif_are_refused() -> None:
    pytest.importorskip("PIL._avif")
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), "AVIF")
    start = data.index(b"mdat") + 4
    message = "bytes: this AVIF image is damaged (zeros in place of its data); save or download it again"
    for at in (start + 9000, len(data) - 4096):
        assert failure(data[:at] + bytes(4096) + data[at + 4096 :]) == message
    padded = data + struct.pack(">I4s", 5008, b"free") + bytes(5000)
    assert np.array_equal(read(padded).rgb, read(data).rgb)
    assert (read(encode(Image.new("RGB", (4000, 4000), "white"), "AVIF", speed=10)).rgb >= 254).all()


def test_a_qoi_whose_data_do_not_end_with_its_last_row_is_refused() -> None:
    data = encode(Image.fromarray(smooth()), "QOI")
    assert np.array_equal(read(data + b"behind").rgb, smooth())
    for damaged in (data[:1000] + bytes(len(data) - 1000), data[:1000] + bytes(500) + data[1500:]):
        assert failure(damaged) == (
            "bytes: this QOI image is damaged (its data do not end with its last row); save or download it again"
        )


def test_web_addresses_and_file_addresses() -> None:
    url = "https://example.org/cat.jpg"
    assert failure(url) == f"{url}: is a web address; download it first and give the file"
    assert failure("file:///tmp/cat.jpg") == "file:///tmp/cat.jpg: is a file address; give the plain path"


@pytest.mark.parametrize("url", ["data:", "data:image/png,abc", "data:image/png;base64"])
def test_data_urls_of_another_form(url: str) -> None:
    assert "must look like data:image/png;base64" in failure(url)


@pytest.mark.parametrize("body", ["***", "a", "aGk=x", "ü"])
def test_bad_base64(body: str) -> None:
    message = failure(f"data:image/png;base64,{body}")
    assert message.startswith("data URL: is not valid base64")
    assert message.endswith("; encode the image again")


def test_a_data_url_without_an_image() -> None:
    assert "data URL: is empty" in failure("data:image/png;base64,")
    assert "looks like a text file" in failure("data:image/png;base64," + base64.b64encode(b"hello").decode())


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), dtype=np.float32), np.zeros((4, 4, 3), dtype=np.int64), np.zeros((4, 4), dtype=bool),
        np.zeros((3, 40, 50), dtype=np.uint8), np.zeros((1, 4, 4, 3), dtype=np.uint8), np.zeros(5, dtype=np.uint8),
        np.zeros((4, 4, 0), dtype=np.uint8), np.array(["a"]),
    ],
)  # fmt: skip
def test_arrays_of_another_kind(array: NDArray[Any]) -> None:
    assert "it must be uint8 [height, width] or [height, width, channels]" in failure(array)


def test_nothing_to_see() -> None:
    for source in (np.zeros((0, 4, 3), dtype=np.uint8), np.zeros((4, 0), dtype=np.uint8), Image.new("RGB", (0, 3))):
        assert "so there is nothing to see" in failure(source)


@pytest.mark.parametrize("source", [None, 5, 1.5, [1, 2], {"url": "x"}])
def test_things_that_are_no_images(source: object) -> None:
    assert f"cannot be read from {type(source).__name__}; give a path" in failure(source)


def test_a_pillow_image_that_cannot_be_loaded() -> None:
    data = png_bytes(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    assert failure(Image.open(io.BytesIO(data[:300]))).startswith("PIL image: this image is ")
    closed = Image.open(io.BytesIO(data))
    closed.close()
    assert failure(closed).startswith("PIL image: ")


def test_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(module, "_to_rgb", fail)
    assert "does not fit into memory; shrink it" in failure(png_bytes(smooth()))


OUT_OF_FILES = """
import contextlib, os, resource, sys
from edgevl.errors import ImageError
from edgevl.image.read import read

resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))
data, free = open(sys.argv[1], "rb").read(), []
with contextlib.suppress(OSError):
    while True:
        free.append(os.dup(0))
for source in (data, sys.argv[1]):
    try:
        read(source)
    except ImageError as error:
        print(error)
for file in free:
    os.close(file)
print(read(data).size)
"""


def test_a_process_that_may_open_no_more_files(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="limits of POSIX systems")
    path = tmp_path / "whole.png"
    save_png(smooth(), path)
    run = subprocess.run([sys.executable, "-c", OUT_OF_FILES, str(path)], capture_output=True, text=True)
    why = "cannot be read (Too many open files); close some of this program's files, or allow it more (ulimit -n)"
    assert (run.stdout.splitlines(), run.stderr) == ([f"bytes: {why}", f"{path}: {why}", "(40, 60)"], "")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_what_the_system_is_short_of_is_no_damage(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "_to_rgb", fail)
    message = failure(png_bytes(smooth()))
    assert message.startswith(f"bytes: cannot be read ({os.strerror(number)}); ")


def test_warnings_stay_inside_and_filters_stay_as_they_were() -> None:
    before = list(warnings.filters)
    data = encode(Image.new("RGB", (4, 4)), "TIFF")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for bad in (data[:-30], data[:60], png(4, 4, chunk(b"acTL", b"\0" * 8))):
            with contextlib.suppress(ImageError):
                read(bad)
    assert caught == []
    assert warnings.filters == before


def test_what_pillow_logs_is_not_printed(tmp_path: Path) -> None:
    path = tmp_path / "many.tif"
    samples = struct.pack("<HHI", 277, 3, 1)
    path.write_bytes(grey_tiff(1, 8, 1, b"\0").replace(samples + b"\1", samples + b"\x63"))
    code = "import sys; from edgevl.image.read import read; read(sys.argv[1])"
    run = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    *before, last = run.stderr.splitlines()
    assert "ImageError" in last
    assert "More samples per pixel" not in "".join(before)


def test_many_threads_at_once(rgb: NDArray[np.uint8]) -> None:
    data, got = png_bytes(rgb), []
    threads = [threading.Thread(target=lambda: got.append(read(data).id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [read(rgb).id] * 8


# HEIC and AVIF.


def test_heic_without_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert failure(HEIC_HEAD) == "bytes: is a HEIC image; to read it run: pip install pillow-heif"


def test_heic_with_the_plugin(rgb: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = ModuleType("pillow_heif")
    plugin.register_heif_opener = lambda: Image.OPEN.setdefault(  # type: ignore[attr-defined]
        "HEIF", (lambda file, name: Image.open(io.BytesIO(png_bytes(rgb))), None)
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    Image.OPEN.pop("HEIF", None)
    assert np.array_equal(read(HEIC_HEAD).rgb, rgb)


def test_avif() -> None:
    pytest.importorskip("PIL._avif")
    got = read(encode(Image.fromarray(smooth()), "AVIF", quality=100))
    assert np.abs(got.rgb.astype(int) - smooth()).max() < 12
    assert "AVIF image" in failure(b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1")


# The other ways through Pillow.


def test_resize(rgb: NDArray[np.uint8]) -> None:
    assert resize(rgb, (7, 11), "lanczos") is rgb
    for name, filter_ in (("lanczos", 1), ("bicubic", 3), ("bilinear", 2), ("nearest", 0)):
        want = np.asarray(Image.fromarray(rgb).resize((20, 5), Image.Resampling(filter_)))
        got = resize(rgb, (5, 20), name)
        assert np.array_equal(got, want)
        assert got.flags.writeable
    with pytest.raises(InputError, match="resample is 'box'; it must be one of lanczos"):
        resize(rgb, (5, 20), "box")


def test_resize_takes_the_pixels_of_a_picture() -> None:
    picture = read(smooth())
    assert isinstance(picture, Picture)
    assert resize(picture.rgb, (10, 10), "lanczos").shape == (10, 10, 3)


def test_png_files(rgb: NDArray[np.uint8], tmp_path: Path) -> None:
    save_png(rgb, str(tmp_path / "a.png"))
    assert (tmp_path / "a.png").read_bytes() == png_bytes(rgb)
    with pytest.raises(ImageError, match=r"cannot be written \(.*\); choose another place"):
        save_png(rgb, tmp_path / "missing" / "a.png")


def test_text_is_cut_at_the_edge() -> None:
    rgb = np.full((20, 20, 3), 9, dtype=np.uint8)
    draw_text(rgb, "1234567", (8, 8), 12)
    assert (rgb[:8] == 9).all()
    assert (rgb[8:, 8:] > 128).any()
    draw_text(rgb, "1", (30, 30), 12)
