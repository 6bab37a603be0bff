"""An image as it comes from the web -> the image as it is stored.

`process` judges size, shape and the memory that decoding will need from the header, before anything is decoded, so that
a decompression bomb costs nothing; then decodes, resizes, makes the pixels upright sRGB, blurs what boxes name, and
encodes. About 2 ms of CPU for a common photograph, most of it the entropy decoding of its JPEG.

Convention: all sizes are those of the upright picture, so an EXIF-rotated portrait counts as a portrait.
Options say in brackets what they are called in img2dataset. Reasons for refusal: `image_error.CODES`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...registry import Options
from .error import ImageError

if TYPE_CHECKING:
    import numpy as np

    from .header import Header
    from .raster import Decoded

__all__ = ["Image", "ImageError", "ImageOptions", "Resize", "decode_rgb", "process", "read_size"]

Resize = Literal["no", "keep_ratio", "keep_ratio_largest", "center_crop", "border"]

MAX_PIXELS = 178_000_000  # more than this Pillow refuses by itself
MAX_MEMORY = 210_000_000  # bytes for one image, so that a worker stays below 400 MB
_MAX_SIDE = {"jpg": 65_500, "png": 65_500, "webp": 16_383}  # pixels that the formats can hold
_EXTENSIONS = {"jpeg": "jpg", "jpeg2000": "jp2"}  # by format, where it is not the format's name
_OUTPUT = {"jpg": 12, "png": 14, "webp": 20}  # bytes of memory per pixel that is encoded


class ImageOptions(Options):
    """Which images are accepted, and in what size and format they are stored."""

    size: int = Field(
        default=256, ge=1, le=16_383, description="Target side in pixels; `resize` says which side (image_size)."
    )
    resize: Resize = Field(
        default="keep_ratio_largest",
        description="`keep_ratio_largest`: the longer side becomes `size`. `keep_ratio`: the shorter side does. "
        "`center_crop`: as keep_ratio, then cut to a square. `border`: the longer side, then padded with white to a "
        "square. `no`: sizes stay (resize_mode).",
    )
    only_if_bigger: bool = Field(
        default=True,
        description="Leave images alone (no crop or padding either) that are not bigger than `size` "
        "(resize_only_if_bigger).",
    )
    interpolation: Literal["auto", "catmull_rom", "lanczos"] = Field(
        default="auto",
        description="Filter of the resize, antialiased: `lanczos`, `catmull_rom`, or `auto`: catmull_rom to make "
        "images smaller (two thirds of the cost, and nearer to lanczos than OpenCV's area) and lanczos to make them "
        "larger (downscale_interpolation, upscale_interpolation).",
    )
    encode: Literal["jpg", "png", "webp", "original"] = Field(
        default="jpg",
        description="Format of the stored image (encode_format). `original`: the bytes as they came, decoded only to "
        "prove them whole: not resized, not rotated, metadata included (disable_all_reencoding, but validated).",
    )
    reencode: Literal["always", "if_needed"] = Field(
        default="always",
        description="`if_needed` stores the original bytes, metadata included, when they are in the format of `encode` "
        "already and nothing about the pixels would change (skip_reencode).",
    )
    quality: int = Field(default=95, ge=1, le=100, description="Quality of jpg and webp (encode_quality).")
    png_level: int = Field(
        default=6, ge=0, le=9, description="Compression level of png, which is lossless at any (encode_quality)."
    )
    animated: Literal["first", "refuse"] = Field(
        default="first", description="Files with several pictures: keep the first, or refuse them."
    )
    min_side: int = Field(
        default=0, ge=0, description="Refuse images whose shorter side has fewer pixels; 0 = off (min_image_size)."
    )
    max_aspect: float = Field(
        default=0.0,
        ge=0,
        description="Refuse images whose longer side is more than this many times the shorter; 0 = off "
        "(max_aspect_ratio).",
    )
    max_pixels: int = Field(
        default=64_000_000,
        ge=1,
        le=MAX_PIXELS,
        description="Refuse images with more pixels, before decoding them (max_image_area).",
    )
    max_memory: int = Field(
        default=MAX_MEMORY,
        ge=1_000_000,
        description="Refuse images that need more bytes of memory to be decoded and stored, before decoding them. JPEG "
        "photographs of any camera fit the default, other formats up to about 12 (webp, avif) to 48 (png) megapixels.",
    )


@dataclass(frozen=True)
class Image:
    """A stored image.

    Attributes:
        data: encoded bytes.
        width: pixels stored.
        height: pixels stored.
        original_width: pixels of the original, upright.
        original_height: pixels of the original, upright.
        exif: JSON object of the original's EXIF fields as text; ``{}`` when it has none.
        extension: of a file that holds `data`: jpg, png, webp; for kept originals also gif, bmp, tiff, avif, jp2.
        frames: pictures in the original file, of which the first is stored.
    """

    data: bytes
    width: int
    height: int
    original_width: int
    original_height: int
    exif: str
    extension: str = "jpg"
    frames: int = 1


def process(body: bytes, options: ImageOptions, boxes: Sequence[Sequence[float]] | None = None) -> Image:
    """Make the image that is stored for `body`.

    Args:
        boxes: to blur, each ``[x0, y0, x1, y1]`` as fractions of the upright original; see `blur` for odd ones. An
            original with boxes is never kept: it is stored in its own format if that is jpg, png or webp, else as jpg.

    Raises:
        ImageError: it is no image, is broken, or is refused by `options`.
    """
    from . import pixels
    from .header import read_header
    from .resize_mode import is_kept, scaled, square

    found = None
    if boxes is not None and len(boxes):
        from .blur import read_boxes

        found = read_boxes(boxes)
    header = read_header(body)
    _judge(header, options)
    size, resize, kind = options.size, options.resize, _kind(header, options)
    keep_bytes = options.encode == "original" and not found
    whole = options.encode == "original" or is_kept(header.width, header.height, size, resize, options.only_if_bigger)
    target = (header.width, header.height) if whole else scaled(header.width, header.height, size, resize)
    if keep_bytes:
        target = (1, 1)  # every bit is read at any size
    _judge_cost(header, target, kind, keep_bytes, options)
    fit = not keep_bytes or header.format != "jpeg"
    decoded = pixels.decode(body, header, target, options.interpolation, fit)
    turned = decoded.orientation >= 5
    if keep_bytes or (options.reencode == "if_needed" and whole and not found and _unchanged(header, decoded, kind)):
        data, width, height, extension = body, header.width, header.height, _extension(header)
    else:
        stored = pixels.set_right(decoded)
        if found:
            from .blur import blurred

            stored = blurred(stored[:, :, :3], found)
        if not whole and resize in ("center_crop", "border"):
            stored = square(stored, size, resize)
        data, extension = pixels.encode(stored, kind, options), kind
        height, width = stored.shape[:2]
    return Image(
        data=data,
        width=width,
        height=height,
        original_width=header.height if turned else header.width,
        original_height=header.width if turned else header.height,
        exif=json.dumps(decoded.exif) if decoded.exif else "{}",
        extension=extension,
        frames=header.frames,
    )


def decode_rgb(body: bytes, at_least: int = 0) -> np.ndarray:
    """Pixels of an image, upright sRGB, ``(h, w, 3) uint8``.

    With `at_least`, a JPEG may come at 1/2, 1/4 or 1/8 of its size as long as both sides have twice that many pixels:
    enough for a good resize to `at_least`, at half the cost.

    Raises:
        ImageError: it is no image, is broken, or needs more than `MAX_MEMORY` to be decoded.
    """
    from . import pixels
    from .header import read_header

    header = read_header(body)
    target = (at_least, at_least) if at_least else None
    if header.width * header.height > MAX_PIXELS or _need(header, target) > MAX_MEMORY:
        raise ImageError("too_many_pixels", f"{header.width}x{header.height}")
    return pixels.set_right(pixels.decode(body, header, target, fit=False))


def read_size(body: bytes) -> tuple[int, int]:
    """Width and height of the upright picture, from the header alone (TIFF, AVIF: as stored).

    Raises:
        ImageError: it is no image.
    """
    from .exif import read_exif
    from .header import read_header

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
    if header.frames > 1 and options.animated == "refuse":
        raise ImageError("animated", f"{header.frames} pictures")


def _need(header: Header, target: tuple[int, int] | None) -> float:
    """Bytes of memory to decode an image for `target`."""
    from .pixels import reduced

    width, height = reduced(header, target)
    return header.fixed + header.buffered * header.width * header.height + header.cost * width * height


def _judge_cost(header: Header, target: tuple[int, int], kind: str, keep_bytes: bool, options: ImageOptions) -> None:
    """Refuse what would need too much memory, by the sizes of the file, of the decoded and of the stored picture."""
    from .pixels import reduced

    need = _need(header, target)
    if not keep_bytes:
        if target[0] * target[1] > options.max_pixels or max(target) > _MAX_SIDE[kind]:
            raise ImageError(
                "too_many_pixels", f"{header.width}x{header.height} would be resized to {target[0]}x{target[1]}"
            )
        need += _OUTPUT[kind] * target[0] * target[1]
        if target != (header.width, header.height):
            need += 4 * target[0] * reduced(header, target)[1]  # between the two passes of a resize
            need += 3 * options.size**2 if options.resize == "border" else 0
    if need > options.max_memory:
        raise ImageError("too_many_pixels", f"{header.width}x{header.height} {header.format} needs too much memory")


def _extension(header: Header) -> str:
    return _EXTENSIONS.get(header.format, header.format)


def _kind(header: Header, options: ImageOptions) -> str:
    """Format to encode in, if anything is encoded."""
    if options.encode != "original":
        return options.encode
    extension = _extension(header)
    return extension if extension in _MAX_SIDE else "jpg"


def _unchanged(header: Header, decoded: Decoded, kind: str) -> bool:
    """Whether encoding would only lose: same format, upright, sRGB, one picture of three plain channels."""
    from .colour import converts

    return (
        _extension(header) == kind
        and header.plain
        and header.frames == 1
        and decoded.orientation == 1
        and not converts(decoded.profile, decoded.gray)
    )
