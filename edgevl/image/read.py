"""Read an image in any form into upright RGB pixels. The only importer of Pillow in the runtime.

An image may come from anyone, so nothing in it is trusted. The format is told from the first bytes, and only
the formats of `edgevl.image.kinds` are tried. The size is checked after the header is read and before pixels
are; a damaged or cut-off image is refused, because a wrong picture is worse than an error. Every failure is an
ImageError of one line.

Only PNG, and TIFF where it is deflated, carry check sums of all that makes up the picture, and they are compared. Of a
WebP, and of a JPEG that is not progressive, the data must last to the last row and no further. Otherwise damage is
noticed where a decoder stumbles over it; where none does, the picture is a wrong one.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import io
import logging
import os
import re
import stat
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from numbers import Integral
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevl.errors import ImageError, InputError
from edgevl.image import avif, bmp, jpeg, png, tiff, webp
from edgevl.image.files import MAX_BYTES, exactly
from edgevl.image.kinds import FORMATS, HEAD_BYTES, kind_of, looks_like
from edgevl.image.rgb import clear_around, full_range, over_white, strips, to_bytes, upright

MAX_PIXELS = 100_000_000

_MAX_SCANNED = 5_000_000_000  # pixels times scans of a progressive JPEG, about 5 s; encoders make 10 to 20 scans

# What a decoder may raise on damaged data; Pillow promises nothing narrower.
_DECODER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

_REMEDIES = {
    # what the system is short of: what to do
    errno.EMFILE: "close some of this program's files, or allow it more (ulimit -n)",
    errno.ENFILE: "close some files of other programs",
    errno.ENOMEM: "shrink it, or lower max_pixels",
}

_RESAMPLING = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}

_ORIENTATION_TAG, _SUB_PAGES = 0x0112, 330

_QOI_END = b"\0\0\0\0\0\0\0\1"

_quiet_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # another thread may hold it, which is not in the child
    os.register_at_fork(after_in_child=lambda: globals().update(_quiet_lock=threading.Lock()))
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its errors go to stderr where no handler is set


@dataclass(frozen=True, eq=False)
class Picture:
    """An image that has been read.

    `rgb` is uint8 [height, width, 3], upright, read-only; `id` the SHA-256 of its shape and pixels, the same
    whatever form the image came in; `source` a short name for messages.
    """

    rgb: NDArray[np.uint8]
    id: str
    source: str

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]


@dataclass(frozen=True)
class _Limit:
    """How large an image may be, and whether a larger JPEG may be reduced while it is decoded."""

    max_pixels: int
    reduce: bool

    def __post_init__(self) -> None:
        given: Any = self.max_pixels
        if isinstance(given, bool) or not isinstance(given, Integral) or int(given) < 1:
            raise InputError(f"max_pixels is {repr(given)[:60]}; it must be a whole number of at least 1")

    def check(self, height: int, width: int, name: str, *, is_jpeg: bool = False) -> None:
        if min(height, width) < 1:
            raise ImageError(f"{name}: is {width}x{height} pixels (width x height), so there is nothing to see")
        if height * width > self.max_pixels:
            reduce, reduce_here = ("--reduce or ", "reduce or ") if is_jpeg and not self.reduce else ("", "")
            raise ImageError(
                f"{name}: is {width}x{height} pixels (width x height), {height * width:,} in all, over the limit of "
                f"{self.max_pixels:,}; shrink it, or use {reduce}--max-pixels (in Python: {reduce_here}max_pixels)"
            )


def read(source: object, *, max_pixels: int = MAX_PIXELS, reduce: bool = False) -> Picture:
    """Read an image into upright RGB.

    `source` is a path, "-" for standard input, encoded bytes, a base64 data URL, a Pillow image, a uint8 array
    [h, w], [h, w, 1 to 4] (grey, grey + alpha, RGB, RGBA), or a `Picture`, which is returned as it is. Alpha is
    laid over white; of an animation the first frame is taken; values of 16 bits keep their high byte, and a transparent
    colour in RGB of 16 bits takes with it those that share its high bytes.
    An image of more than `max_pixels` is refused before its pixels are decoded; with `reduce`, a JPEG is
    decoded at 1/2, 1/4 or 1/8 of its size instead. Raises ImageError, one line: the source, what, the remedy.
    """
    limit = _Limit(max_pixels, reduce)
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        return _picture(_from_array(source, limit), "array")
    if isinstance(source, Image.Image):
        return _picture(_from_image(source, limit, "PIL image"), "PIL image")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(source), limit, "bytes")
    if isinstance(source, str):
        return _from_text(source, limit)
    if isinstance(source, os.PathLike):
        return _from_path(Path(source), limit)
    raise ImageError(
        f"an image cannot be read from {type(source).__name__}; give a path, bytes, a data URL, a PIL image "
        "or a uint8 array"
    )


def resize(rgb: NDArray[np.uint8], size: tuple[int, int], resample: str) -> NDArray[np.uint8]:
    """Resize uint8 [h, w, 3] to `size`, (height, width), with antialiasing as Pillow does it.

    Returns the array itself where it already has that size. Raises InputError for an unknown `resample`.
    """
    if resample not in _RESAMPLING:
        raise InputError(f"resample is {resample!r}; it must be one of {', '.join(_RESAMPLING)}")
    if rgb.shape[:2] == size:
        return rgb
    image = Image.fromarray(rgb).resize((size[1], size[0]), _RESAMPLING[resample])
    return np.array(image)


def png_bytes(rgb: NDArray[np.uint8], *, software: str = "") -> bytes:
    """Encode uint8 [h, w, 3] as PNG, which names the `software` that made it if that is given."""
    from PIL.PngImagePlugin import PngInfo

    buffer, info = io.BytesIO(), PngInfo()
    if software:
        info.add_text("Software", software)
    Image.fromarray(rgb).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def jpeg_bytes(rgb: NDArray[np.uint8], quality: int = 90) -> bytes:
    """Encode uint8 [h, w, 3] as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def save_png(rgb: NDArray[np.uint8], path: str | Path, *, software: str = "") -> None:
    """Write uint8 [h, w, 3] as a PNG file, as `png_bytes` makes it; raise ImageError where it cannot be written."""
    try:
        with Path(path).open("wb") as file:
            try:
                file.write(png_bytes(rgb, software=software))
                file.flush()
            except OSError:
                if Path(path).is_file():
                    Path(path).unlink()  # half of it is of no use, and would stand in the way of the whole one
                raise
    except OSError as error:
        raise ImageError(f"{_name(path)}: cannot be written ({error.strerror}); choose another place") from error


def draw_text(rgb: NDArray[np.uint8], text: str, at: tuple[int, int], height: int) -> None:
    """Write white text on a black box into `rgb`, in place: `at` is its (top, left), `height` its pixels."""
    from PIL import ImageDraw, ImageFont  # here, since only `edgevl view` writes on pictures

    font = ImageFont.load_default(size=height)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    pad = max(height // 6, 1)
    label = Image.new("RGB", (right - left + 2 * pad, bottom - top + 2 * pad))
    ImageDraw.Draw(label).text((pad - left, pad - top), text, fill="white", font=font)
    area = rgb[at[0] : at[0] + label.height, at[1] : at[1] + label.width]
    area[:] = np.asarray(label)[: area.shape[0], : area.shape[1]]


# From each form of source to pixels.


def _picture(rgb: NDArray[np.uint8], name: str) -> Picture:
    digest = hashlib.sha256(f"{rgb.shape[0]}x{rgb.shape[1]} RGB\n".encode())
    digest.update(rgb.data)
    rgb.flags.writeable = False
    return Picture(rgb, digest.hexdigest(), name)


def _from_text(text: str, limit: _Limit) -> Picture:
    if not text:
        raise ImageError("the name of the image is empty; give a file, such as photo.jpg")
    if text == "-":
        return _from_bytes(_all_of(_stdin(), "standard input"), limit, "standard input")
    if text[:5].lower() == "data:":
        return _from_bytes(_data_url(text), limit, "data URL")
    if re.match(r"[a-z][a-z0-9+.-]+://", text, re.IGNORECASE):
        if text[:5].lower() == "file:":
            raise ImageError(f"{_name(text)}: is a file address; give the plain path")
        raise ImageError(f"{_name(text)}: is a web address; download it first and give the file")
    return _from_path(Path(text), limit)


def _from_path(path: Path, limit: _Limit) -> Picture:
    name = _name(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{name}: is a folder; give an image file in it")
        with path.open("rb") as file:
            if not stat.S_ISREG(mode):
                return _from_bytes(_all_of(file, name), limit, name)
            return _picture(_decode(file, limit, name), name)
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file; check the path") from error
    except PermissionError as error:
        raise ImageError(f"{name}: may not be read (permission denied); change its permissions") from error
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check the path")
        raise ImageError(f"{name}: cannot be read ({error.strerror or error}); {remedy}") from error
    except ValueError as error:
        raise ImageError(f"{name}: is not a usable path ({error}); check it") from error


def _from_bytes(data: bytes, limit: _Limit, name: str) -> Picture:
    return _picture(_decode(io.BytesIO(data), limit, name), name)


def _stdin() -> IO[bytes]:
    if sys.stdin is None:  # a windowed program
        raise ImageError("standard input: this program has none; give a path")
    if not hasattr(sys.stdin, "buffer"):  # a notebook's, or what a program has put in its place
        raise ImageError("standard input: holds text and no bytes here; give a path")
    return sys.stdin.buffer


def _all_of(file: IO[bytes], name: str) -> bytes:
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ImageError(f"{name}: holds more than {MAX_BYTES >> 20} MB; save it to a file and give its path")
    return data


def _data_url(text: str) -> bytes:
    head, comma, body = text.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ImageError("data URL: must look like data:image/png;base64,... with the image in base64")
    body = re.sub(r"\s|%0a|%0d", "", body, flags=re.IGNORECASE).replace("%2B", "+").replace("%2F", "/")
    body = body.replace("%3D", "=").rstrip("=")
    try:
        return base64.b64decode(body + "=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"data URL: is not valid base64 ({error}); encode the image again") from error


def _from_array(array: NDArray[Any], limit: _Limit) -> NDArray[np.uint8]:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and not 1 <= array.shape[2] <= 4):
        raise ImageError(
            f"array: is {array.dtype} {list(array.shape)}; it must be uint8 [height, width] or "
            "[height, width, channels] with 1 to 4 channels (grey, grey + alpha, RGB, RGBA)"
        )
    limit.check(array.shape[0], array.shape[1], "array")
    channels = 1 if array.ndim == 2 else array.shape[2]
    array = np.asarray(array).reshape(*array.shape[:2], channels)
    out = np.empty((*array.shape[:2], 3), dtype=np.uint8)
    for rows in strips(*array.shape[:2]):
        colour = array[rows, :, : channels - 1] if channels in (2, 4) else array[rows]
        out[rows] = over_white(colour, array[rows, :, -1:]) if channels in (2, 4) else colour
    return out


# Decoding. Pillow's errors and warnings end here.


def _decode(file: IO[bytes], limit: _Limit, name: str) -> NDArray[np.uint8]:
    kind = _kind(file, name)
    label, module = FORMATS[kind]
    with _plain_errors(name, f"{label} image"), _quiet():
        _load_plugin(kind, module, name)
        try:
            rgb, orientation = _open(kind, file, limit, name)
        except _DECODER_ERRORS:
            if (picture := _picture_only(file, kind)) is None:
                raise
            rgb, orientation = _open(kind, picture, limit, name)
    return upright(rgb, orientation)


def _open(kind: str, file: IO[bytes], limit: _Limit, name: str) -> tuple[NDArray[np.uint8], int]:
    """Decode a file into RGB as it is stored, and its orientation."""
    # Not Image.open: it has a size limit of its own, set for the whole process, and warns in its own words.
    image = Image.OPEN[kind][0](file, "")
    if kind == "JPEG":
        _check_scans(image, file, name)
    feed = _feed(image, file) if kind == "JPEG" else None
    tags = getattr(image, "tag_v2", {})
    rgb, orientation = _load(image, limit, name)
    if feed is not None:
        feed.check()
    if kind == "PNG":
        png.check_sums(file)
    if kind == "QOI" and exactly(file, len(_QOI_END)) != _QOI_END:  # the decoder has read up to here
        raise ValueError("its data do not end with its last row")
    if kind == "WEBP":
        webp.check_for_zeros(file, n_pixels=rgb.shape[0] * rgb.shape[1])
        if (shorter := webp.without_end(file)) is not None and _is_readable(kind, shorter):
            raise ValueError("its data go on behind its last row")
    if kind == "TIFF":
        tiff.check_strips(file, tags)
    if kind == "AVIF":
        avif.check_for_zeros(file, n_pixels=rgb.shape[0] * rgb.shape[1])
    image.close()  # frees its own memory
    return rgb, orientation


def _is_readable(kind: str, file: IO[bytes]) -> bool:
    try:
        Image.OPEN[kind][0](file, "").load()
    except _DECODER_ERRORS:
        return False
    return True


def _load_plugin(kind: str, module: str, name: str) -> None:
    try:
        plugin = import_module(module)
    except ImportError as error:
        raise ImageError(f"{name}: is a HEIC image; to read it run: pip install pillow-heif") from error
    if kind not in Image.OPEN:
        plugin.register_heif_opener()


def _kind(file: IO[bytes], name: str) -> str:
    """Tell the format from the first bytes; raise ImageError that says what else it looks like."""
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if not head:
        raise ImageError(f"{name}: is empty (0 bytes); copy or download it again")
    kind = kind_of(head)
    if kind is None:
        raise ImageError(
            f"{name}: is not an image that can be read here ({looks_like(head)}); convert it to PNG or JPEG"
        )
    return kind


def _from_image(image: Image.Image, limit: _Limit, name: str) -> NDArray[np.uint8]:
    """Convert the caller's Pillow image, which is left as it is, but loaded, with its transparent colour in 8 bits."""
    with _plain_errors(name, "image"), _quiet():
        limit.check(image.height, image.width, name)
        return upright(*_decoded(image, limit, name))


def _load(image: Image.Image, limit: _Limit, name: str) -> tuple[NDArray[np.uint8], int]:
    """Decode an image that we opened into RGB as it is stored, and its orientation."""
    is_jpeg = image.format in ("JPEG", "MPO")
    if limit.reduce and is_jpeg:
        _reduce(image, limit)
    limit.check(image.height, image.width, name, is_jpeg=is_jpeg)
    if image.format == "BMP":
        _unpack(image)
    return _decoded(image, limit, name)


def _decoded(image: Any, limit: _Limit, name: str) -> tuple[NDArray[np.uint8], int]:
    """Decode an image, if that is still to be done, into RGB as it is stored, and its orientation."""
    if image.format == "PNG" and getattr(image, "tile", None) and "transparency" in image.info:
        image.info["transparency"] = png.in_eight_bits(image.info["transparency"], image.tile[0][3])
    if image.format == "TIFF" and tiff.is_reduced(image.tag_v2) and (_SUB_PAGES in image.tag_v2 or image.n_frames > 1):
        raise ImageError(
            f"{name}: begins with a small copy of its picture, as a camera's raw files do; convert it to PNG or JPEG"
        )
    frame = image.dispose_extent if image.format == "GIF" and image.tell() == 0 else None
    _decode_pixels(image)
    limit.check(image.height, image.width, name)  # a decoder may find another size than the header's
    _check_signs(image, name)
    rgb = _to_rgb(image)
    if frame is not None:  # what a GIF's first frame leaves free: browsers show nothing there, Pillow the first colour
        clear_around(rgb, frame)
    return rgb, _orientation(image)


def _check_signs(image: Any, name: str) -> None:
    """Refuse a TIFF with negative numbers of 8 bits: Pillow and libtiff take -1 for 255, others for less than 0.

    There are files of both kinds; below 128 they are the same.
    """
    if image.mode == "L" and tiff.is_signed(getattr(image, "tag_v2", {})) and image.getextrema()[1] > 127:
        raise ImageError(
            f"{name}: holds negative numbers of 8 bits (SampleFormat 2), which are dark to some programs and bright to "
            "others; save it with numbers from 0 to 255"
        )


def _unpack(image: Any) -> None:
    """Let the decoder have the rows of a BMP instead of run lengths, if it is of those."""
    tile = image.tile[0]
    if tile[0] != "bmp_rle":
        return
    _mode, four_bits, direction = tile[3]
    image.fp.seek(0)
    rows = bmp.unpacked(image.fp.read(MAX_BYTES), tile[2], (image.height, image.width), four_bits)
    image.fp = io.BytesIO(rows)
    image.tile = [tile._replace(codec_name="raw", offset=0, args=("P" if image.mode == "P" else "L", 0, direction))]


def _picture_only(file: IO[bytes], kind: str) -> io.BytesIO | None:
    """Copy a PNG or JPEG without what is no part of the picture: Pillow refuses one for a damaged or long note."""
    if kind == "PNG":
        return png.without_notes(file)
    if kind != "JPEG":
        return None
    file.seek(0)
    data = file.read(MAX_BYTES)
    picture = jpeg.without_notes(data)
    return io.BytesIO(picture) if len(picture) < len(data) else None


def _check_scans(image: Image.Image, file: IO[bytes], name: str) -> None:
    """Refuse a progressive JPEG of so many scans over so many pixels that decoding would take very long."""
    if not image.info.get("progressive"):
        return
    file.seek(0)
    n_scans = file.read(MAX_BYTES).count(b"\xff\xda")  # in compressed data 0xff is followed by 0
    if n_scans * image.height * image.width > _MAX_SCANNED:
        raise ImageError(f"{name}: this JPEG image has {n_scans} scans and would take too long; save it again")


def _feed(image: Any, file: IO[bytes]) -> jpeg.Feed | None:
    """Let the decoder have a JPEG in two parts, where that can tell whether its data are as many as they should be."""
    file.seek(0)
    data = file.read(MAX_BYTES)
    scan = jpeg.only_scan(data)
    file.seek(0)
    if scan is None:
        return None
    feed = jpeg.Feed(data, scan)
    image.load_read = feed.read
    return feed


def _reduce(image: Image.Image, limit: _Limit) -> None:
    """Ask the JPEG decoder for the largest of 1/1, 1/2, 1/4 and 1/8 of the size that is within the limit."""
    for factor in (1, 2, 4, 8):
        height, width = -(-image.height // factor), -(-image.width // factor)
        if height * width <= limit.max_pixels:
            if factor > 1:
                image.draft(None, (max(image.width // factor, 1), max(image.height // factor, 1)))
            return


def _orientation(image: Image.Image) -> int:
    """Return the EXIF or XMP orientation, 1 to 8; after decoding, since it may stand behind the pixels."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODER_ERRORS:
        return 1  # damaged metadata is no reason to refuse the picture
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Convert any Pillow mode to uint8 RGB, a strip of rows at a time."""
    out = np.empty((image.height, image.width, 3), dtype=np.uint8)
    tags = getattr(image, "tag_v2", {})
    has_alpha = _has_alpha(image)
    deep = _range(image, tags) if image.mode in ("I", "F") else None
    for rows in strips(image.height, image.width):
        strip = image.crop((0, rows.start, image.width, rows.stop))
        if deep is not None:
            grey = to_bytes(tiff.thirty_two_bits(np.asarray(strip), tags), *deep)
            out[rows] = (255 - grey if tiff.is_inverted(tags) else grey)[..., None]
        elif image.mode.startswith("I;16"):
            values = tiff.sixteen_bits(np.asarray(strip), tags)
            out[rows] = np.where(values == image.info.get("transparency", -1), 255, values >> 8)[..., None]
        elif has_alpha:
            rgba = np.asarray((strip.convert("LA") if strip.mode == "La" else strip).convert("RGBA"))
            out[rows] = over_white(rgba[..., :3], rgba[..., 3:])
        else:
            out[rows] = np.asarray(strip.convert("RGB"))
    return out


def _range(image: Image.Image, tags: tiff.Tags) -> tuple[float, float]:
    """Return the (low, high) values that become black and white in an image of 32-bit numbers."""
    if image.format == "PPM" and image.mode == "I":
        return 0.0, 65535.0  # brought from the highest value that the file names, however dark the picture is
    rows = strips(image.height, image.width)
    parts = (np.asarray(image.crop((0, part.start, image.width, part.stop))) for part in rows)
    return full_range(tiff.thirty_two_bits(part, tags) for part in parts)


def _has_alpha(image: Image.Image) -> bool:
    if image.mode in ("1", "L", "P", "RGB"):
        has_clear_colours = image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")
        return has_clear_colours or "transparency" in image.info
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return False  # who wrote it left the fourth byte unused: nobody saves a picture of which nothing can be seen
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa")


# What leaves this module when something fails: one line, and no warnings.


@contextmanager
def _plain_errors(name: str, label: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an ImageError of one line."""
    try:
        yield
    except MemoryError as error:
        raise ImageError(f"{name}: does not fit into memory; shrink it, or lower max_pixels") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: holds a frame of far too many pixels; shrink it") from error
    except _DECODER_ERRORS as error:
        if isinstance(error, OSError) and error.errno in _REMEDIES:
            raise ImageError(f"{name}: cannot be read ({error.strerror}); {_REMEDIES[error.errno]}") from error
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        if re.search(r"truncat|not enough|unexpected end|end of (file|data)|buffer of at least", reason, re.IGNORECASE):
            raise ImageError(f"{name}: this {label} is cut off ({reason}); copy or download it again") from error
        raise ImageError(f"{name}: this {label} is damaged ({reason}); save or download it again") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings to itself, whatever the process does with warnings.

    The filters belong to the process (until Python 3.14), so one image is decoded at a time.
    """
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _decode_pixels(image: Image.Image) -> None:
    """Decode; libtiff writes its complaints straight to file descriptor 2, so that is set aside meanwhile."""
    if not any(tile[0] == "libtiff" for tile in getattr(image, "tile", ())):
        image.load()
        return
    try:
        kept = os.dup(2)
    except OSError:  # the process has no standard error
        image.load()
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        image.load()
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _name(path: str | Path) -> str:
    """Return a path as one printable line of bounded length."""
    text = "".join(c if c.isprintable() else "?" for c in str(path))
    return text if len(text) <= 300 else f"{text[:100]}...{text[-60:]}"
