"""What an image says about itself before it is decoded: format, size and what decoding will cost, in microseconds.

A file of a hundred bytes may claim a billion pixels, so nothing is decoded until its size has been judged. JPEG, PNG,
WebP and the frames of GIF are read by hand (`jpeg_header`, `raster_header`); for the rest Pillow reads the header, from
a fixed list of formats: never one whose decoder runs another program. The bytes decide, not a name or a content type.
"""

from __future__ import annotations

from dataclasses import dataclass

from .error import ImageError

MAX_PROFILE = 4_000_000  # bytes of a colour profile that is looked at
MAX_SIDE = 65_535  # pixels; beyond it are only broken and hostile files
_DENIED = {  # images that are not read, by their first bytes
    b"\0\0\1\0": "ico",
    b"\0\0\2\0": "cur",
    b"8BPS": "psd",
    b"\xff\x0a": "jxl",
    b"\0\0\0\x0cJXL ": "jxl",
}
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


@dataclass(slots=True)
class Header:
    """Format and size of an image.

    Attributes:
        format: ``jpeg``, or Pillow's name in lower case.
        width: pixels as stored, before any rotation.
        height: pixels as stored.
        components: channels of a JPEG; 0 for other formats.
        frames: pictures in the file; only the first is decoded.
        cost: bytes of memory per pixel that is decoded.
        buffered: bytes of memory per pixel of the whole file, whatever the size asked for.
        fixed: bytes of memory besides.
        exif: EXIF block, or empty (for rare formats it is found when decoding).
        profile: ICC colour profile, or empty (likewise).
        plain: three channels of 8 bits without transparency, so that the pixels could be stored as they are.
    """

    format: str
    width: int
    height: int
    components: int = 0
    frames: int = 1
    cost: float = 4.0
    buffered: float = 0.0
    fixed: int = 0
    exif: bytes = b""
    profile: bytes = b""
    plain: bool = False


def read_header(body: bytes) -> Header:
    """Format and size of the image in `body`.

    Raises:
        ImageError: ``not_image``, ``unsupported``, ``truncated``, ``corrupt``, or ``too_many_pixels`` for sides that no
            picture has.
    """
    if body[:3] == b"\xff\xd8\xff":
        from .jpeg_header import read_jpeg

        header = read_jpeg(body)
    else:
        from .raster_header import read_raster

        for start, name in _DENIED.items():
            if body.startswith(start):
                raise ImageError("unsupported", name)
        if body[4:8] == b"ftyp" and body[8:12] in _HEIF and b"avif" not in body[:64]:
            raise ImageError("unsupported", "heic")
        header = read_raster(body)
    if max(header.width, header.height) > MAX_SIDE:
        raise ImageError("too_many_pixels", f"{header.width}x{header.height}")
    return header
