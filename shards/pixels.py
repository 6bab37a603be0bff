"""Decoding, colour, resizing and encoding: bytes to RGB pixels and back.

JPEG, nearly all of the web, goes the fast way: libjpeg-turbo decodes at 1/2, 1/4 or 1/8 while that still leaves at
least twice the target, then a SIMD Lanczos resize does the rest, which on photographs differs by 54 dB from resizing
the full picture, at half its cost. Everything else goes through Pillow. Either way the result is upright sRGB, three
channels of 8 bits: rotated by its EXIF tag, converted from its colour profile, alpha on white, 16 bits scaled to 8.

Nothing is repaired: a file that ends early is refused, never filled up with gray.
"""

from __future__ import annotations

import io
import warnings
from functools import lru_cache
from typing import Literal

import numpy as np
import simplejpeg
from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image as Pillow
from PIL import ImageCms

from .exif import read_exif
from .image_error import ImageError
from .image_header import MAX_PROFILE, Header, open_pillow

_RESIZER = Resizer()
_LANCZOS = ResizeOptions(ResizeAlg.convolution(FilterType.lanczos3))
_SUBSAMPLED = 2  # scaled decoding stops at this many times the target


class Decoded:
    """Pixels as stored (not rotated yet), with what is needed to set them right.

    Attributes:
        pixels: ``(h, w, 3) uint8``.
        orientation: EXIF orientation, 1-8.
        exif: EXIF fields.
        profile: ICC profile still to be applied, or empty.
    """

    __slots__ = ("exif", "orientation", "pixels", "profile")

    def __init__(self, pixels: np.ndarray, orientation: int, exif: dict[str, str], profile: bytes) -> None:
        self.pixels = pixels
        self.orientation = orientation
        self.exif = exif
        self.profile = profile


def decode(body: bytes, header: Header, target: tuple[int, int] | None = None) -> Decoded:
    """Decode the first frame, a JPEG at a reduced size of at least twice `target` (width, height) if one is given.

    Raises:
        ImageError: ``truncated`` or ``corrupt``.
    """
    if header.format == "jpeg" and header.components in (1, 3):
        orientation, exif = read_exif(header.exif)
        profile = header.profile if header.components == 3 else b""
        return Decoded(_decode_jpeg(body, header, target), orientation, exif, profile)
    return _decode_pillow(body, header)


def _reduced(header: Header, target: tuple[int, int] | None) -> tuple[int, int]:
    """Width and height at the largest reduction that leaves enough pixels, or zeros for the full size.

    libjpeg-turbo also knows 3/8 and the like, but has no SIMD code for them.
    """
    if target is not None:
        for factor in (8, 4, 2):
            width, height = -(-header.width // factor), -(-header.height // factor)
            if width >= _SUBSAMPLED * target[0] and height >= _SUBSAMPLED * target[1]:
                return width, height
    return 0, 0


def _decode_jpeg(body: bytes, header: Header, target: tuple[int, int] | None) -> np.ndarray:
    width, height = _reduced(header, target)
    try:
        return simplejpeg.decode_jpeg(body, "RGB", min_height=height, min_width=width, min_factor=2, strict=True)
    except ValueError as error:
        reason = str(error)
    if "extraneous bytes before marker" in reason and body.rfind(b"\xff\xd9") > body.rfind(b"\xff\xda"):
        # Padding between scans and marker: every decoder shows such a file whole, and it is common.
        try:
            return simplejpeg.decode_jpeg(body, "RGB", min_height=height, min_width=width, min_factor=2, strict=False)
        except ValueError as error:
            reason = str(error)
    raise ImageError("truncated" if "Premature end" in reason else "corrupt", "JPEG data")


def _decode_pillow(body: bytes, header: Header) -> Decoded:
    with warnings.catch_warnings(), open_pillow(body) as image:
        warnings.simplefilter("ignore")  # about metadata that we do not use
        if image.size != (header.width, header.height):
            raise ImageError("corrupt", "two sizes in one file")
        try:
            image.load()
        except (EOFError, OSError) as error:
            cut = isinstance(error, EOFError) or "truncated" in str(error)
            raise ImageError("truncated" if cut else "corrupt", f"{header.format} data") from error
        except Exception as error:
            raise ImageError("corrupt", f"{header.format} data") from error
        raw = header.exif or image.info.get("exif") or b""
        orientation, exif = read_exif(raw) if isinstance(raw, bytes) else (1, {})
        profile = header.profile or image.info.get("icc_profile") or b""
        if not isinstance(profile, bytes) or len(profile) > MAX_PROFILE:
            profile = b""
        if image.mode == "CMYK":
            return Decoded(_from_cmyk(image, profile), orientation, exif, b"")
        gray = image.mode in ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
        try:
            return Decoded(_to_rgb(image), orientation, exif, b"" if gray else profile)
        except (ValueError, OSError) as error:
            raise ImageError("corrupt", f"{header.format} data in mode {image.mode}") from error


def _to_rgb(image: Pillow.Image) -> np.ndarray:
    """Any Pillow mode -> ``(h, w, 3) uint8``."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _from_deep(np.asarray(image))
    if mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Pillow.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Pillow.alpha_composite(white, rgba)
    return np.asarray(image.convert("RGB"))


def _from_deep(gray: np.ndarray) -> np.ndarray:
    """16-bit gray (in whatever integer type) -> RGB, scaled by 1/257 and rounded."""
    if gray.dtype.kind == "f" or gray.size == 0 or int(gray.min()) < 0 or int(gray.max()) > 65535:
        raise ValueError("samples are not 16-bit")
    scaled = ((gray.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.repeat(scaled[:, :, None], 3, axis=2)


def _from_cmyk(image: Pillow.Image, profile: bytes) -> np.ndarray:
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, _srgb(), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None  # a broken profile is as good as none; viewers do the same
        if converted is not None:
            return np.asarray(converted)
    return np.asarray(image.convert("RGB"))


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@lru_cache(maxsize=32)
def _transform(profile: bytes) -> ImageCms.ImageCmsTransform | None:
    """The conversion of a profile to sRGB; None when there is nothing to convert or the profile is unusable."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, _srgb(), "RGB", "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(16, -1, 3)
    seen = ImageCms.applyTransform(Pillow.fromarray(cube), transform)
    if seen is None or int(np.abs(np.asarray(seen).astype(np.int16) - cube).max()) <= 2:
        return None  # most profiles are sRGB itself under many names
    return transform


def to_srgb(pixels: np.ndarray, profile: bytes) -> np.ndarray:
    """Convert RGB pixels from their ICC profile to sRGB; without a usable RGB profile they are sRGB already."""
    transform = _transform(profile) if profile else None
    if transform is None:
        return pixels
    converted = ImageCms.applyTransform(Pillow.fromarray(pixels), transform)
    return np.asarray(converted)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def resize(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Lanczos-3 resize of ``(h, w, 3) uint8``."""
    if pixels.shape[:2] == (height, width):
        return pixels
    source = ImageData(pixels.shape[1], pixels.shape[0], PixelType.U8x3, np.ascontiguousarray(pixels).tobytes())
    result = ImageData(width, height, PixelType.U8x3)
    _RESIZER.resize(source, result, _LANCZOS)
    return np.frombuffer(result.get_buffer(), np.uint8).reshape(height, width, 3)


def encode(pixels: np.ndarray, kind: Literal["jpg", "png", "webp"], quality: int) -> bytes:
    """Encode ``(h, w, 3) uint8``; `quality` is for jpg (4:2:0) and webp, png is lossless."""
    if kind == "jpg":
        return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420")
    file = io.BytesIO()
    if kind == "png":
        Pillow.fromarray(pixels).save(file, "PNG", compress_level=6)
    else:
        Pillow.fromarray(pixels).save(file, "WEBP", quality=quality, method=4)
    return file.getvalue()
