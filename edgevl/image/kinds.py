"""Tell what a file is from its first bytes, whatever its name says. No Pillow, no pixels.

The formats that may be read all decode in memory: none starts another program or opens another file.
"""

from __future__ import annotations

import re

HEAD_BYTES = 1024
"""How many of a file's first bytes the functions here want to see."""

FORMATS = {
    # name in Pillow: (name for people, Pillow's module)
    "AVIF": ("AVIF", "PIL.AvifImagePlugin"),
    "BMP": ("BMP", "PIL.BmpImagePlugin"),
    "GIF": ("GIF", "PIL.GifImagePlugin"),
    "HEIF": ("HEIC", "pillow_heif"),
    "JPEG": ("JPEG", "PIL.JpegImagePlugin"),
    "JPEG2000": ("JPEG 2000", "PIL.Jpeg2KImagePlugin"),
    "PNG": ("PNG", "PIL.PngImagePlugin"),
    "PPM": ("PPM", "PIL.PpmImagePlugin"),
    "PSD": ("PSD", "PIL.PsdImagePlugin"),
    "QOI": ("QOI", "PIL.QoiImagePlugin"),
    "TIFF": ("TIFF", "PIL.TiffImagePlugin"),
    "WEBP": ("WebP", "PIL.WebPImagePlugin"),
}

_SIGNATURES = (
    # what the first bytes match: name in Pillow
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"\xff\xd8", "JPEG"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"BM", "BMP"),
    (rb"(II[*+]\0|MM\0[*+])", "TIFF"),
    (rb"P[1-6fFy]\s", "PPM"),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "JPEG2000"),
    (rb"8BPS\0\x01", "PSD"),
    (rb"qoif", "QOI"),
    (rb"....ftyp(avif|avis)", "AVIF"),
    (rb"....ftyp(heic|heix|heim|heis|hevc|hevx|hevm|hevs)", "HEIF"),
    (rb"....ftyp(mif1|msf1)(?=.{0,60}avi[fs])", "AVIF"),
    (rb"....ftyp(mif1|msf1)", "HEIF"),
)

_OTHERS = (
    # what the first bytes match: what such a file is called
    (rb"%PDF-", "a PDF file"),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!doctype svg[^>]*>\s*)?<svg", "an SVG drawing"),
    (rb"\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body)", "a web page"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "a PostScript file"),
    (rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI |\0\0\x01[\xb3\xba]", "a video"),
    (rb"RIFF....WAVE|ID3|OggS|fLaC", "a sound file"),
    (rb"\0\0[\x01\x02]\0", "a Windows icon"),
    (rb"DDS ", "a DDS texture"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL image"),
    (rb"PK\x03\x04", "a ZIP archive or an office document"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf", "a compressed archive"),
    (rb"SIMPLE  =", "a FITS image"),
    (rb"v/1\x01|#\?RADIANCE", "a high-dynamic-range image"),
)


def kind_of(head: bytes) -> str | None:
    """Return the key of `FORMATS` that a file beginning with `head` belongs to; None where it is none of them."""
    return next((kind for pattern, kind in _SIGNATURES if re.match(pattern, head, re.DOTALL)), None)


def looks_like(head: bytes) -> str:
    """Say for people what a file that is none of `FORMATS` looks like, as a clause."""
    for pattern, what in _OTHERS:
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            return f"it looks like {what}"
    text = head.decode("utf-8", errors="ignore")
    if len(text.encode()) >= len(head) - 3 and all(c.isprintable() or c.isspace() for c in text):
        return "it looks like a text file"
    return "its format is not known"
