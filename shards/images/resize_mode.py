"""Sizes before and after: img2dataset's resize modes, to the pixel.

All sizes are of the upright picture or of the stored one alike: the modes treat width and height the same way.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Resize = Literal["no", "keep_ratio", "keep_ratio_largest", "center_crop", "border"]


def side(width: int, height: int, resize: Resize) -> int:
    """The side that becomes the target size."""
    return max(width, height) if resize in ("border", "keep_ratio_largest") else min(width, height)


def is_kept(width: int, height: int, size: int, resize: Resize, only_if_bigger: bool) -> bool:
    """Whether the image is neither resized nor cropped nor padded."""
    return resize == "no" or (only_if_bigger and side(width, height, resize) <= size)


def scaled(width: int, height: int, size: int, resize: Resize) -> tuple[int, int]:
    """Size after resizing and before cropping or padding; the free side is rounded to nearest, halves up."""
    whole = side(width, height, resize)
    return max(1, (2 * width * size + whole) // (2 * whole)), max(1, (2 * height * size + whole) // (2 * whole))


def square(pixels: np.ndarray, size: int, resize: Resize) -> np.ndarray:
    """Crop the middle, or pad with white, for the two modes that give squares."""
    height, width = pixels.shape[:2]
    if resize == "center_crop":
        top, left = (height - size) // 2, (width - size) // 2
        return pixels[top : top + size, left : left + size]
    if resize == "border":
        padded = np.full((size, size, pixels.shape[2]), 255, np.uint8)
        top, left = (size - height) // 2, (size - width) // 2
        padded[top : top + height, left : left + width] = pixels
        return padded
    return pixels
