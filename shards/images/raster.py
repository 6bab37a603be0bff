"""Pixels of every format that the JPEG fast path does not take, through Pillow, in one full-size copy of the picture.

Alpha, 16-bit samples and palettes are made plain in place or in bands, the picture is resized where Pillow keeps it,
and what remains (white behind the alpha, CMYK to RGB) is done on the small result: four or five bytes per pixel of the
original in all, where converting first needs three copies. 16-bit gray is scaled by 1/257 and rounded; of 16-bit
colour Pillow keeps the high byte, at most one level away from that.
"""

from __future__ import annotations

import warnings

import numpy as np
from cykooz_resizer import AlphaMulDiv
from PIL import Image as Pillow

from .colour import from_cmyk
from .error import ImageError
from .exif import read_exif
from .header import MAX_PROFILE, Header
from .raster_header import PNG, PNG_KEPT, open_pillow, png_chunks
from .resize import resize_pillow

_ALPHA = AlphaMulDiv()
_BAND = 1 << 20  # pixels that are converted at a time
_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")


class Decoded:
    """Pixels as stored (not rotated yet), with what is needed to set them right.

    Attributes:
        pixels: ``(h, w, 3) uint8``, or four channels of which the last means nothing.
        orientation: EXIF orientation, 1-8.
        exif: EXIF fields.
        profile: ICC profile still to be applied, or empty.
        gray: the profile is one of gray pictures.
    """

    __slots__ = ("exif", "gray", "orientation", "pixels", "profile")

    def __init__(
        self, pixels: np.ndarray, orientation: int, exif: dict[str, str], profile: bytes, gray: bool = False
    ) -> None:
        self.pixels = pixels
        self.orientation = orientation
        self.exif = exif
        self.profile = profile
        self.gray = gray


def decode_raster(
    body: bytes, header: Header, target: tuple[int, int] | None, interpolation: str, fit: bool
) -> Decoded:
    """Decode the first picture, and with `fit` resize it to `target` (width, height) if one is given.

    Raises:
        ImageError: ``truncated``, ``corrupt`` or ``unsupported``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata that we do not use
        with _opened(body, header) as image:
            if image.size != (header.width, header.height):
                raise ImageError("corrupt", "two sizes in one file")
            if header.format == "jpeg" and target is not None:
                image.draft(image.mode, (2 * target[0], 2 * target[1]))
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
            try:
                return _plain(image, target if fit else None, interpolation, orientation, exif, profile)
            except (ValueError, OSError) as error:
                raise ImageError("unsupported", f"{header.format} of mode {image.mode}") from error


def _opened(body: bytes, header: Header) -> Pillow.Image:
    if header.format == "png":
        return open_pillow(_without_metadata(body), ("PNG",))
    if header.format in ("webp", "jpeg"):
        return open_pillow(body, (header.format.upper(),))
    return open_pillow(body)


def _without_metadata(body: bytes) -> bytes:
    """A PNG with nothing but its pixels: no text to unpack, no further frames."""
    chunks = list(png_chunks(body))
    if all(name in PNG_KEPT for name, _, _ in chunks):
        return body
    view = memoryview(body)
    return b"".join([PNG, *(view[start - 8 : end + 4] for name, start, end in chunks if name in PNG_KEPT)])


def _plain(
    image: Pillow.Image,
    target: tuple[int, int] | None,
    interpolation: str,
    orientation: int,
    exif: dict[str, str],
    profile: bytes,
) -> Decoded:
    """Resized RGB pixels of any Pillow mode."""
    mode = image.mode
    gray = mode in ("1", "L", "LA", "La", *_DEEP)
    if mode in _DEEP:
        image = _from_deep(image)
    elif mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        if mode not in ("RGBA", "RGBa"):
            image = image.convert("RGBA")
        if image.mode == "RGBA":
            _ALPHA.multiply_alpha_pil_inplace(image)
        pixels = _on_white(resize_pillow(image, target, interpolation))
        return Decoded(pixels, orientation, exif, profile, gray)
    elif mode == "1":
        image = image.convert("L")
    elif mode == "CMYK":
        small = resize_pillow(image, target, interpolation)
        return Decoded(from_cmyk(small, profile), orientation, exif, b"")
    elif mode not in ("L", "RGB"):
        if mode not in ("P", "RGBX", "YCbCr"):
            raise ValueError("a mode without a known conversion")
        image = image.convert("RGB")
    pixels = np.asarray(resize_pillow(image, target, interpolation))
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return Decoded(pixels, orientation, exif, profile, gray)


def _bands(image: Pillow.Image) -> list[tuple[int, int, int, int]]:
    rows = max(1, _BAND // image.width)
    return [(0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)]


def _from_deep(image: Pillow.Image) -> Pillow.Image:
    """16-bit gray (in whatever integer type) -> L, scaled by 1/257 and rounded."""
    result = Pillow.new("L", image.size)
    for box in _bands(image):
        gray = np.asarray(image.crop(box))
        if int(gray.min()) < 0 or int(gray.max()) > 65535:
            raise ValueError("samples are not 16-bit")
        scaled = ((gray.astype(np.uint32) + 128) // 257).astype(np.uint8)
        result.paste(Pillow.fromarray(scaled), box)
    return result


def _on_white(image: Pillow.Image) -> np.ndarray:
    """Pixels multiplied by their alpha (mode RGBa) -> ``(h, w, 3) uint8`` on white."""
    result = np.empty((image.height, image.width, 3), np.uint8)
    for box in _bands(image):
        band = image.crop(box)
        band = Pillow.frombuffer("RGBX", band.size, band.tobytes(), "raw", "RGBX", 0, 1)
        values = np.asarray(band)
        white = 255 - values[:, :, 3:].astype(np.uint16)
        result[box[1] : box[3]] = np.minimum(values[:, :, :3] + white, 255)
    return result
