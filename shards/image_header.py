"""What an image says about itself before it is decoded: its format and size, in microseconds and no memory.

A file of a hundred bytes may claim a billion pixels, so nothing is decoded until its size has been judged. JPEG, PNG
and WebP headers are read here; for rarer formats Pillow reads the header, from a fixed list of formats: never one whose
decoder runs another program. The bytes decide the format, not a name or a content type.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass

from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from .image_error import ImageError

Pillow.init()
FORMATS = tuple(f for f in ("PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG", "JPEG2000") if f in Pillow.OPEN)
MAX_PROFILE = 4_000_000  # bytes of a colour profile that is looked at
_MAX_SCANS = 200  # of a progressive JPEG, which has about ten; each one costs a pass over all pixels
_PNG = b"\x89PNG\r\n\x1a\n"
_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start-of-frame markers
_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length


@dataclass(frozen=True)
class Header:
    """Format and size of an image.

    Attributes:
        format: ``jpeg``, or Pillow's name in lower case.
        width: pixels as stored, before any rotation.
        height: pixels as stored.
        components: channels of a JPEG; 0 for other formats.
        exif: EXIF block, or empty (for other formats than JPEG it is found when decoding).
        profile: ICC colour profile, or empty (likewise).
    """

    format: str
    width: int
    height: int
    components: int = 0
    exif: bytes = b""
    profile: bytes = b""


def read_header(body: bytes) -> Header:
    """Format and size of the image in `body`.

    Raises:
        ImageError: ``not_image``, ``truncated`` or ``corrupt``.
    """
    if body[:3] == b"\xff\xd8\xff":
        return _jpeg(body)
    if body[:8] == _PNG:
        if len(body) < 33:
            raise ImageError("truncated", "PNG header")
        width, height = struct.unpack_from(">II", body, 16)
        return _sized("png", width, height)
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return _webp(body)
    with open_pillow(body) as image:
        return _sized((image.format or "").lower(), *image.size)


def open_pillow(body: bytes) -> Pillow.Image:
    """The image, its header read and its pixels not yet.

    Raises:
        ImageError: ``not_image``, ``corrupt`` or ``too_many_pixels``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large or odd files: sizes are judged by our own limit
        try:
            return Pillow.open(io.BytesIO(body), formats=FORMATS)
        except Pillow.DecompressionBombError as error:
            raise ImageError("too_many_pixels", "more than twice Pillow's limit") from error
        except UnidentifiedImageError as error:
            raise ImageError("not_image", _looks_like(body)) from error
        except Exception as error:
            raise ImageError("corrupt", "header") from error


def _sized(name: str, width: int, height: int) -> Header:
    if width < 1 or height < 1:
        raise ImageError("corrupt", f"{width}x{height}")
    return Header(name, width, height)


def _looks_like(body: bytes) -> str:
    """A word for the page about what came instead of an image."""
    start = body[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")) or b"<html" in start:
        return "html"
    if start.startswith(b"<svg") or b"<svg" in start:
        return "svg"
    if start.startswith((b"{", b"[")):
        return "json"
    return "xml" if start.startswith(b"<?xml") else ""


def _jpeg(body: bytes) -> Header:
    """Walk the markers up to the first scan."""
    at, end = 2, len(body)
    size: tuple[int, int, int] | None = None
    progressive = False
    exif, chunks = b"", {}
    while True:
        while at < end and body[at] == 0xFF and body[at + 1 : at + 2] == b"\xff":
            at += 1  # fill bytes
        if at + 4 > end:
            raise ImageError("truncated", "JPEG header")
        if body[at] != 0xFF:
            found = body.find(b"\xff", at)  # stray bytes between segments: decoders pass over them
            if found < 0:
                raise ImageError("truncated", "JPEG header")
            at = found
            continue
        marker = body[at + 1]
        if marker in _ALONE or marker == 0x00:
            at += 2
            continue
        if marker in (0xDA, 0xD9):
            break
        length = int.from_bytes(body[at + 2 : at + 4], "big")
        if length < 2:
            raise ImageError("corrupt", "JPEG segment length")
        start, at = at + 4, at + 2 + length
        if marker in _SIZES:
            if start + 6 > end:
                raise ImageError("truncated", "JPEG header")
            _, height, width, components = struct.unpack_from(">BHHB", body, start)
            size = (width, height, components)
            progressive = marker in (0xC2, 0xCA)
        elif marker == 0xE1 and not exif and body[start : start + 6] == b"Exif\0\0":
            exif = body[start:at]
        elif marker == 0xE2 and body[start : start + 12] == b"ICC_PROFILE\0" and start + 14 <= end:
            chunks[body[start + 12]] = body[start + 14 : at]
    if size is None or marker == 0xD9:
        raise ImageError("corrupt", "JPEG without a frame")
    header = _sized("jpeg", size[0], size[1])
    if progressive and body.count(b"\xff\xda") > _MAX_SCANS:
        raise ImageError("corrupt", f"more than {_MAX_SCANS} scans")
    profile = b"".join(chunks[i] for i in sorted(chunks))
    return Header(
        header.format, header.width, header.height, size[2], exif, profile if len(profile) <= MAX_PROFILE else b""
    )


def _webp(body: bytes) -> Header:
    """Canvas size from the first chunk: lossy, lossless or extended."""
    if len(body) < 30:
        raise ImageError("truncated", "WebP header")
    kind = body[12:16]
    if kind == b"VP8X":
        return _sized("webp", int.from_bytes(body[24:27], "little") + 1, int.from_bytes(body[27:30], "little") + 1)
    if kind == b"VP8L" and body[20] == 0x2F:
        bits = int.from_bytes(body[21:25], "little")
        return _sized("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 " and body[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", body, 26)
        return _sized("webp", width & 0x3FFF, height & 0x3FFF)
    raise ImageError("corrupt", "WebP header")
