"""Decoding, resizing and encoding: bytes to RGB pixels and back.

JPEG, nearly all of the web, goes the fast way: libjpeg-turbo decodes at 1/2, 1/4 or 1/8 while that still leaves at
least twice the target, into a buffer that is used again, and a SIMD resampler works on it in place. Two thirds of the
time is entropy decoding, which no reduction saves. Everything else goes through Pillow (`raster`).

Nothing is repaired: a file that ends early is refused, never filled up with gray.
"""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import simplejpeg
from PIL import Image as Pillow

from .colour import to_srgb
from .error import ImageError
from .exif import read_exif
from .header import Header
from .jpeg_header import without_blemish
from .raster import Decoded, decode_raster
from .resize import resize_pillow

if TYPE_CHECKING:
    from .image import ImageOptions

_SUBSAMPLED = 2  # scaled decoding stops at this many times the target
_KEPT = 1 << 25  # bytes of the buffer that stays allocated; larger pictures get one of their own
_LOCAL = threading.local()


def reduced(header: Header, target: tuple[int, int] | None) -> tuple[int, int]:
    """Width and height at which a JPEG is decoded: the largest reduction that leaves twice the target.

    libjpeg-turbo also knows 3/8 and the like, but has no SIMD code for them.
    """
    if target is not None and header.format == "jpeg":
        for factor in (8, 4, 2):
            width, height = -(-header.width // factor), -(-header.height // factor)
            if width >= _SUBSAMPLED * target[0] and height >= _SUBSAMPLED * target[1]:
                return width, height
    return header.width, header.height


def decode(
    body: bytes, header: Header, target: tuple[int, int] | None = None, interpolation: str = "auto", fit: bool = True
) -> Decoded:
    """Decode the first picture and resize it to `target` (width, height) if one is given.

    With `fit` false, `target` only says how much is needed: a JPEG comes at a reduced size of at least twice that,
    anything else at its own size.

    Raises:
        ImageError: ``truncated``, ``corrupt`` or ``unsupported``.
    """
    if header.format != "jpeg" or header.components not in (1, 3):
        return decode_raster(body, header, target, interpolation, fit)
    width, height = reduced(header, target)
    wanted = target if fit and target != (width, height) else None
    orientation, exif = read_exif(header.exif) if header.exif else (1, {})
    pixels = _decode_jpeg(body, header, width, height, wanted is not None)
    if wanted is not None:
        # Pillow shares memory of four channels with us under the name CMYK only.
        source = Pillow.frombuffer("CMYK", (width, height), pixels, "raw", "CMYK", 0, 1)
        pixels = np.empty((wanted[1], wanted[0], 4), np.uint8)  # the result's memory; Pillow would copy it twice
        result = Pillow.frombuffer("CMYK", wanted, pixels, "raw", "CMYK", 0, 1)
        result.readonly = 0
        resize_pillow(source, wanted, interpolation, result)
    return Decoded(pixels, orientation, exif, header.profile, header.components == 1)


def _decode_jpeg(body: bytes, header: Header, width: int, height: int, shared: bool) -> np.ndarray:
    """``(height, width, 3)``, or with `shared` four channels in this thread's buffer."""
    options: dict[str, Any] = {"min_factor": 2, "fastupsample": shared, "strict": True}
    if (width, height) != (header.width, header.height):
        options.update(min_width=width, min_height=height)
    if shared:
        options["buffer"] = _buffer(4 * width * height)
    colours = "RGBX" if shared else "RGB"
    try:
        return simplejpeg.decode_jpeg(body, colours, **options)
    except ValueError as error:
        reason = str(error)
    mended = without_blemish(body, reason)
    if mended is not None:
        try:
            return simplejpeg.decode_jpeg(mended, colours, **options)
        except ValueError as error:
            reason = str(error)
    raise ImageError("truncated" if "Premature end" in reason else "corrupt", "JPEG data")


def _buffer(size: int) -> np.ndarray:
    if size > _KEPT:
        return np.empty(size, np.uint8)
    kept = getattr(_LOCAL, "buffer", None)
    if kept is None or kept.size < size:
        kept = _LOCAL.buffer = np.empty(max(size, 1 << 22), np.uint8)
    return kept


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation."""
    if orientation == 1:
        return pixels
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def set_right(decoded: Decoded) -> np.ndarray:
    """Upright sRGB pixels, ``(h, w, 3)``, or four channels of which the last means nothing."""
    pixels = decoded.pixels
    if decoded.profile:
        pixels = to_srgb(pixels[:, :, :3], decoded.profile, decoded.gray)
    return upright(pixels, decoded.orientation)


def encode(pixels: np.ndarray, kind: str, options: ImageOptions) -> bytes:
    """Encode ``(h, w, 3 or 4) uint8`` as jpg (4:2:0), png or webp; a fourth channel is left out."""
    if kind == "jpg":
        colours = "RGB" if pixels.shape[2] == 3 else "RGBX"
        return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), options.quality, colours, "420")
    image = Pillow.fromarray(np.ascontiguousarray(pixels[:, :, :3]))
    file = io.BytesIO()
    if kind == "png":
        image.save(file, "PNG", compress_level=options.png_level)
    else:
        image.save(file, "WEBP", quality=options.quality, method=4)
    return file.getvalue()
