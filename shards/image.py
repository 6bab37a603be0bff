"""An image as it comes from the web -> the image as it is stored.

`process` judges size and shape from the header, before anything is decoded, so that a decompression bomb costs no
memory; then decodes, makes the pixels upright sRGB, resizes and encodes. About 2 ms of CPU for a common photograph.

Convention: all sizes are those of the upright picture, so an EXIF-rotated portrait counts as a portrait.
Resize modes are img2dataset's; see `ImageOptions.resize`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..registry import Options
from .image_error import ImageError

if TYPE_CHECKING:
    import numpy as np

    from .image_header import Header

__all__ = ["Image", "ImageError", "ImageOptions", "Resize", "decode_rgb", "process", "read_size"]

Resize = Literal["no", "keep_ratio", "keep_ratio_largest", "center_crop", "border"]

MAX_PIXELS = 178_000_000  # more than this Pillow refuses by itself
_MAX_SIDE = {"jpg": 65_500, "png": 65_500, "webp": 16_383}  # pixels that the formats can hold


class ImageOptions(Options):
    """Which images are accepted, and in what size and format they are stored."""

    size: int = Field(default=256, ge=1, le=16_383, description="Target side in pixels; `resize` says which side.")
    resize: Resize = Field(
        default="keep_ratio_largest",
        description="`keep_ratio_largest`: the longer side becomes `size`. `keep_ratio`: the shorter side does. "
        "`center_crop`: as keep_ratio, then cut to a square. `border`: the longer side, then padded with white to a "
        "square. `no`: sizes stay.",
    )
    only_if_bigger: bool = Field(
        default=True, description="Leave images alone (no crop or padding either) that are not bigger than `size`."
    )
    encode: Literal["jpg", "png", "webp"] = Field(default="jpg", description="Format of the stored image.")
    quality: int = Field(default=95, ge=1, le=100, description="Quality of jpg and webp.")
    min_side: int = Field(default=0, ge=0, description="Refuse images whose shorter side has fewer pixels; 0 = off.")
    max_aspect: float = Field(
        default=0.0,
        ge=0,
        description="Refuse images whose longer side is more than this many times the shorter; 0 = off.",
    )
    max_pixels: int = Field(
        default=100_000_000, ge=1, le=MAX_PIXELS, description="Refuse images with more pixels, before decoding them."
    )


@dataclass(frozen=True)
class Image:
    """A stored image.

    Attributes:
        data: encoded bytes in the format asked for.
        width: pixels stored.
        height: pixels stored.
        original_width: pixels of the original, upright.
        original_height: pixels of the original, upright.
        exif: JSON object of the original's EXIF fields as text; ``{}`` when it has none.
    """

    data: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    exif: str


def process(body: bytes, options: ImageOptions) -> Image:
    """Make the image that is stored for `body`.

    Raises:
        ImageError: it is no image, is broken, or is refused by `options`.
    """
    from . import pixels
    from .image_header import read_header

    header = read_header(body)
    _judge(header, options)
    width, height = _target(header.width, header.height, options)
    if width * height > options.max_pixels or max(width, height) > _MAX_SIDE[options.encode]:
        raise ImageError("too_many_pixels", f"{header.width}x{header.height} would be resized to {width}x{height}")
    decoded = pixels.decode(body, header, (width, height))
    image = pixels.resize(decoded.pixels, width, height)
    image = pixels.upright(pixels.to_srgb(image, decoded.profile), decoded.orientation)
    image = _square(image, header, options)
    turned = decoded.orientation >= 5
    return Image(
        data=pixels.encode(image, options.encode, options.quality),
        width=image.shape[1],
        height=image.shape[0],
        original_width=header.height if turned else header.width,
        original_height=header.width if turned else header.height,
        exif=json.dumps(decoded.exif) if decoded.exif else "{}",
    )


def decode_rgb(body: bytes, at_least: int = 0) -> np.ndarray:
    """Pixels of an image, upright sRGB, ``(h, w, 3) uint8``.

    With `at_least`, a JPEG may come at 1/2, 1/4 or 1/8 of its size as long as both sides have twice that many pixels:
    enough for a good resize to `at_least`, at half the cost.

    Raises:
        ImageError: it is no image, is broken, or has more than `MAX_PIXELS` pixels.
    """
    from . import pixels
    from .image_header import read_header

    header = read_header(body)
    if header.width * header.height > MAX_PIXELS:
        raise ImageError("too_many_pixels", f"{header.width}x{header.height}")
    decoded = pixels.decode(body, header, (at_least, at_least) if at_least else None)
    return pixels.upright(pixels.to_srgb(decoded.pixels, decoded.profile), decoded.orientation)


def read_size(body: bytes) -> tuple[int, int]:
    """Width and height of the upright picture, from the header alone (where only a JPEG's rotation is seen).

    Raises:
        ImageError: it is no image.
    """
    from .exif import read_exif
    from .image_header import read_header

    header = read_header(body)
    turned = read_exif(header.exif)[0] >= 5
    return (header.height, header.width) if turned else (header.width, header.height)


def _judge(header: Header, options: ImageOptions) -> None:
    width, height = header.width, header.height
    if width * height > options.max_pixels:
        raise ImageError("too_many_pixels", f"{width}x{height}")
    if min(width, height) < options.min_side:
        raise ImageError("too_small", f"{width}x{height}")
    if options.max_aspect and max(width, height) > options.max_aspect * min(width, height):
        raise ImageError("aspect", f"{width}x{height}")


def _is_kept(width: int, height: int, options: ImageOptions) -> bool:
    """Whether the image is neither resized nor cropped nor padded."""
    if options.resize == "no":
        return True
    side = max(width, height) if options.resize in ("border", "keep_ratio_largest") else min(width, height)
    return options.only_if_bigger and side <= options.size


def _target(width: int, height: int, options: ImageOptions) -> tuple[int, int]:
    """Size after resizing and before cropping or padding; the free side is rounded to nearest, halves up."""
    if _is_kept(width, height, options):
        return width, height
    side = max(width, height) if options.resize in ("border", "keep_ratio_largest") else min(width, height)
    scaled = [max(1, (2 * length * options.size + side) // (2 * side)) for length in (width, height)]
    return scaled[0], scaled[1]


def _square(image: np.ndarray, header: Header, options: ImageOptions) -> np.ndarray:
    """Crop or pad for the two modes that give squares."""
    import numpy as np

    if options.resize not in ("center_crop", "border") or _is_kept(header.width, header.height, options):
        return image
    height, width, size = *image.shape[:2], options.size
    if options.resize == "center_crop":
        top, left = (height - size) // 2, (width - size) // 2
        return image[top : top + size, left : left + size]
    square = np.full((size, size, 3), 255, np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = image
    return square
