"""Encoded image -> resized crop, decoding no more than the crop needs and copying nothing on the way.

The crop is chosen from the header, so the decoder can be told what is wanted. A JPEG is decoded at 1/2, 1/4 or 1/8 of
its size when the crop then still has twice the target's sides: on sharp photographs 44 dB or more from a full decode,
where anything smaller costs detail (35 dB when the reduced crop is as large as the target). Otherwise it is decoded in
full, without shortcuts, to the pixels that Pillow gives. (The fast DCT would save 1 %, at 45 dB; merged chroma
upsampling 4 %, at 43 dB.) Decoding goes into a buffer that each thread keeps, four bytes a pixel; the resizer reads the
crop from there in place and writes into another kept buffer. Fresh buffers would double the cost: the kernel zeroes
their pages. libjpeg-turbo and the resizer leave Python's lock to other threads.

Anything but an upright, plain JPEG, and every file that the strict decoder refuses, goes the careful way
(`shards.images.image.decode_rgb`), which also judges what is corrupt.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import numpy as np
import simplejpeg
from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

from ...shards.images.exif import read_exif
from ...shards.images.header import Header, read_header
from ...shards.images.image import decode_rgb

ENOUGH = 2  # times the target's sides that a reduced crop must have
_PIXELS = 1 << 23  # larger pictures go the careful way, which judges their memory
_CUBIC = ResizeAlg.convolution(FilterType.catmull_rom)
_WHOLE = ResizeOptions(resize_alg=_CUBIC, use_alpha=False)


class _Kept(threading.local):
    """Of one thread: its resizer and buffers."""

    def __init__(self) -> None:
        self.resizer = Resizer()
        self.decoded = np.empty(1 << 20, np.uint8)
        self.resized: dict[tuple[int, int], tuple[np.ndarray, Image.Image, Image.Image]] = {}


_KEPT = _Kept()


class Pixels:
    """A decoded picture with four bytes per pixel, of which the last means nothing.

    Attributes:
        memory: flat uint8, a row longer than the picture: what reads a crop by its stride may be told of a last row
            that goes on to the end of the stride.
        height, width: in pixels.
    """

    __slots__ = ("height", "memory", "width")

    def __init__(self, height: int, width: int, memory: np.ndarray | None = None) -> None:
        self.height, self.width = height, width
        size = 4 * (height + 1) * width
        self.memory = np.empty(size, np.uint8) if memory is None or len(memory) < size else memory

    @property
    def array(self) -> np.ndarray:
        """``(h, w, 4) uint8``."""
        return self.memory[: 4 * self.height * self.width].reshape(self.height, self.width, 4)


@dataclass
class Source:
    """An image that can be cropped.

    Attributes:
        height, width: of the upright picture in pixels.
        body: an upright plain JPEG, encoded, or None.
        pixels: the decoded picture, or None.
    """

    height: int
    width: int
    body: bytes | None
    pixels: Pixels | None


def open_source(body: bytes) -> Source:
    """An image, decoded only if its header does not suffice.

    Raises:
        ImageError: it is no image, or it is broken.
    """
    header = read_header(body)
    if _is_plain(header):
        return Source(header.height, header.width, body, None)
    return carefully(body)


def carefully(body: bytes) -> Source:
    """An image of any kind, decoded, upright and in sRGB.

    Raises:
        ImageError: it is no image, or it is broken.
    """
    rgb = decode_rgb(body)
    pixels = Pixels(*rgb.shape[:2])
    pixels.array[:, :, :3] = rgb[:, :, :3]
    return Source(pixels.height, pixels.width, None, pixels)


def _is_plain(header: Header) -> bool:
    return (
        header.format == "jpeg"
        and header.components in (1, 3)
        and not header.profile
        and header.width * header.height <= _PIXELS
        and (not header.exif or read_exif(header.exif)[0] == 1)
    )


def reduction(crop: tuple[int, int], target: tuple[int, int]) -> int:
    """By how much a JPEG may be reduced while it is decoded: 1, 2, 4 or 8.

    Args:
        crop, target: height and width in pixels.
    """
    for factor in (8, 4, 2):
        if crop[0] >= factor * ENOUGH * target[0] and crop[1] >= factor * ENOUGH * target[1]:
            return factor
    return 1


def whole(source: Source) -> Source:
    """The same image, decoded into memory of its own, to be kept; its crops stay the same to the bit.

    Raises:
        ImageError: it is broken.
    """
    if source.body is None or source.pixels is not None:
        return source
    pixels = Pixels(source.height, source.width)
    try:
        _decode(source.body, pixels, 1)
    except ValueError:  # the careful way mends what can be mended, and says what is wrong with the rest
        return carefully(source.body)
    return Source(source.height, source.width, source.body, pixels)


def crop_into(source: Source, box: tuple[int, int, int, int], out: np.ndarray) -> None:
    """Write a crop, resized, into ``out (h, w, 3) uint8``.

    Args:
        box: top, left, height and width in pixels of the upright picture.

    Raises:
        ImageError: the image is broken.
    """
    factor = 1 if source.body is None else reduction((box[2], box[3]), (out.shape[0], out.shape[1]))
    if source.pixels is not None and factor == 1:
        _resize(source.pixels, box, _WHOLE, out)
        return
    assert source.body is not None
    pixels = Pixels(-(-source.height // factor), -(-source.width // factor), _KEPT.decoded)
    _KEPT.decoded = pixels.memory
    try:
        _decode(source.body, pixels, factor)
    except ValueError:
        pixels, factor = carefully(source.body).pixels, 1
        assert pixels is not None
    if factor == 1:
        _resize(pixels, box, _WHOLE, out)
        return
    top, left, bottom, right = (edge / factor for edge in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    y, x = math.floor(top), math.floor(left)
    height, width = min(math.ceil(bottom), pixels.height) - y, min(math.ceil(right), pixels.width) - x
    inner = CropBox(left - x, top - y, min(right - x, width) - (left - x), min(bottom - y, height) - (top - y))
    _resize(pixels, (y, x, height, width), ResizeOptions(_CUBIC, crop_box=inner, use_alpha=False), out)


def _decode(body: bytes, pixels: Pixels, factor: int) -> None:
    """Decode a JPEG at a fraction of its size; `ValueError` at the slightest doubt."""
    less = {"min_height": pixels.height, "min_width": pixels.width} if factor > 1 else {}
    simplejpeg.decode_jpeg(body, "RGBX", min_factor=2, buffer=pixels.memory, strict=True, **less)


def _resize(pixels: Pixels, box: tuple[int, int, int, int], options: ResizeOptions, out: np.ndarray) -> None:
    # Pillow shares memory of four channels under the name CMYK, row by row: a crop is a pointer and a stride.
    top, left, height, width = box
    stride = 4 * pixels.width
    start = top * stride + 4 * left
    part = pixels.memory[start : start + height * stride]
    crop = Image.frombuffer("CMYK", (width, height), part, "raw", "CMYK", stride, 1)
    size = (out.shape[0], out.shape[1])
    kept = _KEPT.resized.get(size)
    if kept is None:
        memory = np.empty((*size, 4), np.uint8)
        target = Image.frombuffer("CMYK", size[::-1], memory, "raw", "CMYK", 0, 1)
        target.readonly = 0
        kept = memory, target, Image.frombuffer("RGBX", size[::-1], memory, "raw", "RGBX", 0, 1)
        _KEPT.resized = {size: kept}  # phases follow one another: one size at a time
    _KEPT.resizer.resize_pil(crop, kept[1], options)
    out[:] = np.frombuffer(kept[2].tobytes("raw", "RGB"), np.uint8).reshape(out.shape)
