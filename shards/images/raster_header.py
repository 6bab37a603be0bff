"""Headers of everything that is no JPEG, and what decoding it will cost.

PNG, WebP and GIF are walked by hand, chunk by chunk: their frames are counted, their metadata found and its size
bounded before anything is unpacked. Pillow opens the others, whose tiles and codestreams may claim other sizes than the
header. Costs in bytes per pixel were measured with each decoder.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from functools import lru_cache

from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from .error import ImageError
from .header import MAX_PROFILE, Header

_FORMATS = ("GIF", "BMP", "TIFF", "AVIF", "JPEG2000")  # that Pillow opens; PNG, WEBP and JPEG are recognised here
MAX_FRAMES = 100_000  # counted
_MAX_CHUNKS = 65_536
_MAX_EXIF = 1_000_000  # bytes
_MAX_RLE = 4_000_000  # bytes of a run-length coded BMP, which Pillow decodes in Python
_STARTS = {b"GIF8": "gif", b"II*\0": "tiff", b"MM\0*": "tiff", b"ftypavi": "avif", b"\0\0\0\x0cjP  ": "jpeg2000"}
PNG = b"\x89PNG\r\n\x1a\n"
PNG_KEPT = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}  # all that pixels need
_PNG_COST = {0: 2.0, 2: 4.0, 3: 5.0, 4: 8.0, 6: 4.0}  # by colour type
_WEBP_COST = 16.7
_COST = {"avif": 17.0, "jpeg2000": 28.0}
_MODE_COST = {"1": 2.2, "L": 2.2, "I;16": 4.4, "P": 5.5, "RGB": 4.0, "RGBA": 4.4, "CMYK": 4.4}  # of GIF, BMP and TIFF
_OTHER_COST = 9.0


def read_raster(body: bytes) -> Header:
    """Format, size and cost.

    Raises:
        ImageError: ``not_image``, ``truncated``, ``corrupt`` or ``too_many_pixels``.
    """
    if body[:8] == PNG:
        return _png(body)
    if body[:4] == b"RIFF" and body[8:12] == b"WEBP":
        return _webp(body)
    with open_pillow(body) as image:
        name = (image.format or "").lower()
        cost = _COST.get(name) or _MODE_COST.get(image.mode, _OTHER_COST)
        header = Header(name, *image.size, cost=cost)
        if name == "gif":
            header.frames = _gif_frames(body)
        elif name == "tiff":
            header.fixed = _tiff_piece(image)
            header.frames = _tiff_pages(body)
        elif name == "avif":
            header.frames = int(getattr(image, "n_frames", 1))
        elif name == "jpeg2000":
            _judge_codestream(body, header)
        elif name == "bmp" and len(body) > _MAX_RLE and body[30:31] in (b"\1", b"\2"):
            raise ImageError("unsupported", "run-length coded BMP of this size")
    return header


@lru_cache(maxsize=1)
def _formats() -> tuple[str, ...]:
    """Those that this build of Pillow has; finding out loads all its plugins, so only when one is needed."""
    Pillow.init()
    return tuple(name for name in _FORMATS if name in Pillow.OPEN)


def open_pillow(body: bytes, formats: tuple[str, ...] | None = None) -> Pillow.Image:
    """The image, its header read and its pixels not yet.

    Raises:
        ImageError: ``not_image``, ``corrupt`` or ``too_many_pixels``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large or odd files: sizes are judged by our own limit
        try:
            return Pillow.open(io.BytesIO(body), formats=formats or _formats())
        except Pillow.DecompressionBombError as error:
            raise ImageError("too_many_pixels", "more than twice Pillow's limit") from error
        except UnidentifiedImageError as error:
            name = next((n for start, n in _STARTS.items() if body.startswith(start, 4 if n == "avif" else 0)), "")
            if name:
                cut = name == "avif" and _is_cut(body)
                raise ImageError("truncated" if cut else "corrupt", f"{name} header") from error
            raise ImageError("not_image", _looks_like(body)) from error
        except Exception as error:
            raise ImageError("corrupt", "header") from error


def _is_cut(body: bytes) -> bool:
    """Whether a box of the outermost level of an AVIF ends after the file."""
    at = 0
    while at + 16 <= len(body):
        size = int.from_bytes(body[at : at + 4], "big")
        size = int.from_bytes(body[at + 8 : at + 16], "big") if size == 1 else size
        if size < 8:
            return False
        at += size
    return at != len(body)


def _looks_like(body: bytes) -> str:
    """A word for the page about what came instead of an image."""
    start = body[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")) or b"<html" in start:
        return "html"
    if start.startswith(b"<svg") or b"<svg" in start:
        return "svg"
    if start.startswith((b"{", b"[")):
        return "json"
    if start.startswith(b"%pdf"):
        return "pdf"
    return "xml" if start.startswith(b"<?xml") else ""


def png_chunks(body: bytes) -> Iterator[tuple[bytes, int, int]]:
    """``(name, start, end)`` of the data of every chunk that is whole, up to IEND.

    Raises:
        ImageError: ``truncated`` or ``corrupt``.
    """
    at, end = 8, len(body)
    for _ in range(_MAX_CHUNKS):
        if at + 12 > end:
            raise ImageError("truncated", "png data")
        length = int.from_bytes(body[at : at + 4], "big")
        name = body[at + 4 : at + 8]
        if at + 12 + length > end:
            raise ImageError("truncated", "png data")
        yield name, at + 8, at + 8 + length
        if name == b"IEND":
            return
        at += 12 + length
    raise ImageError("corrupt", f"more than {_MAX_CHUNKS} chunks")


def _png(body: bytes) -> Header:
    if len(body) < 33:
        raise ImageError("truncated", "PNG header")
    width, height, depth, colour = struct.unpack_from(">IIBB", body, 16)
    if width < 1 or height < 1 or body[12:16] != b"IHDR" or colour not in _PNG_COST:
        raise ImageError("corrupt", "PNG header")
    header = Header("png", width, height, cost=_PNG_COST[colour] + (2 if depth == 16 and colour == 0 else 0))
    header.plain = depth == 8 and colour in (2, 3)
    for name, start, stop in png_chunks(body):
        if name == b"tRNS":
            header.plain = False
            header.cost = 9.0
        elif name == b"acTL" and stop - start >= 4:
            header.frames = max(1, int.from_bytes(body[start : start + 4], "big"))
        elif name == b"eXIf" and stop - start <= _MAX_EXIF:
            header.exif = body[start:stop]
        elif name == b"iCCP":
            header.profile = _unpacked_profile(body[start:stop])
    return header


def _unpacked_profile(chunk: bytes) -> bytes:
    """The profile of an iCCP chunk; empty when it is broken or too large."""
    _, separator, packed = chunk[:80].partition(b"\0")
    if not separator or packed[:1] != b"\0":
        return b""
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(chunk[chunk.index(b"\0") + 2 :], MAX_PROFILE)
    except zlib.error:
        return b""
    return profile if unpacker.eof else b""


def _webp(body: bytes) -> Header:
    """Canvas size from the first chunk: lossy, lossless or extended."""
    end = 8 + int.from_bytes(body[4:8], "little")
    if len(body) < 30 or end > len(body):
        raise ImageError("truncated", "webp data")
    kind = body[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(body[24:27], "little") + 1
        height = int.from_bytes(body[27:30], "little") + 1
        header = Header("webp", width, height, cost=_WEBP_COST, plain=not body[20] & 0x10)
        _webp_chunks(body, end, header)
        return header
    if kind == b"VP8L" and body[20] == 0x2F:
        bits = int.from_bytes(body[21:25], "little")
        plain = not bits >> 28 & 1
        return Header("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, cost=_WEBP_COST, plain=plain)
    if kind == b"VP8 " and body[23:26] == b"\x9d\x01\x2a":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 26))
        if width and height:
            return Header("webp", width, height, cost=_WEBP_COST, plain=True)
    raise ImageError("corrupt", "WebP header")


def _webp_chunks(body: bytes, end: int, header: Header) -> None:
    """Count frames and find metadata of an extended WebP."""
    at, frames, chunks = 12, 0, 0
    while at + 8 <= end:
        chunks += 1
        if chunks > _MAX_CHUNKS:
            raise ImageError("corrupt", f"more than {_MAX_CHUNKS} chunks")
        name, length = body[at : at + 4], int.from_bytes(body[at + 4 : at + 8], "little")
        start, stop = at + 8, at + 8 + length
        if stop > len(body):
            raise ImageError("truncated", "webp data")
        if name == b"ANMF":
            frames += 1
        elif name == b"EXIF" and length <= _MAX_EXIF:
            header.exif = body[start:stop]
        elif name == b"ICCP" and length <= MAX_PROFILE:
            header.profile = body[start:stop]
        at = stop + length % 2
    header.frames = max(1, frames)


def _gif_frames(body: bytes) -> int:
    """Image descriptors, as far as the blocks can be followed."""
    at, frames, end = 13, 0, len(body)
    if body[10] & 0x80:
        at += 3 << (body[10] & 7) + 1
    while at + 10 <= end and frames < MAX_FRAMES:
        kind = body[at]
        if kind == 0x2C:
            frames += 1
            at += 11 + (3 << (body[at + 9] & 7) + 1 if body[at + 9] & 0x80 else 0)
        elif kind == 0x21:
            at += 2
        else:
            break
        while at < end and body[at]:
            at += body[at] + 1
        at += 1
    return max(1, frames)


def _tiff_piece(image: Pillow.Image) -> int:
    """Bytes of one strip or tile, which is unpacked as a whole: its size is claimed apart from the picture's."""
    tags = getattr(image, "tag_v2", {})

    def number(tag: int, default: int) -> int:
        value = tags.get(tag, default)
        value = value[0] if isinstance(value, tuple) and value else value
        return value if isinstance(value, int) and value > 0 else default

    samples, bits = number(277, 1), number(258, 8)
    if 322 in tags:
        pixels = number(322, 1) * number(323, 1)
    else:
        pixels = image.width * min(image.height, number(278, image.height))
    return pixels * samples * bits // 8


def _tiff_pages(body: bytes) -> int:
    """Directories of a classic TIFF, as far as their chain can be followed."""
    order = "<" if body[:2] == b"II" else ">"
    if body[2:4] not in (b"*\0", b"\0*"):
        return 1
    at, pages, seen = struct.unpack_from(order + "I", body, 4)[0], 0, set()
    while at and at not in seen and at + 2 <= len(body) and pages < MAX_FRAMES:
        seen.add(at)
        pages += 1
        following = at + 2 + 12 * struct.unpack_from(order + "H", body, at)[0]
        if following + 4 > len(body):
            break
        at = struct.unpack_from(order + "I", body, following)[0]
    return max(1, pages)


def _judge_codestream(body: bytes, header: Header) -> None:
    """A JPEG 2000 has its size twice, and the decoder believes the inner one."""
    at = body.find(b"\xff\x4f\xff\x51")
    if at < 0 or at + 42 > len(body):
        raise ImageError("truncated", "jpeg2000 header")
    width, height, left, top = struct.unpack_from(">IIII", body, at + 8)
    if (width - left, height - top) != (header.width, header.height):
        raise ImageError("corrupt", "two sizes in one file")
    channels = struct.unpack_from(">H", body, at + 40)[0]
    if channels > 4:
        raise ImageError("unsupported", f"JPEG 2000 of {channels} channels")
