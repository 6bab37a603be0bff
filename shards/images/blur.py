"""Blurring faces, or whatever boxes name, as img2dataset does, but so that nothing stays readable.

Each box grows by a tenth of its longer side on every side; the picture is blurred by a Gaussian whose sigma is a tenth
of the longest box side, and mixed in by a mask of the grown boxes, softened by the same Gaussian. Two differences, both
on the safe side: inside the boxes themselves the mask is always full (a small box beside a large one keeps no detail),
and boxes that cannot be understood refuse the picture. Costs a few milliseconds, for pictures with boxes only.

Boxes are ``[x0, y0, x1, y1]`` as fractions of the upright original. Corners may come in either order; what lies outside
the picture is cut off; boxes without area, or wholly outside, are ignored. A value that is no finite number, or is
below -1 or above 2 (pixels, say, instead of fractions), raises.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image as Pillow
from PIL import ImageFilter

from .error import ImageError

Boxes = Sequence[Sequence[float]]
_GROWTH = 0.1  # of the longer side
_SIGMA = 0.1  # of the longest side of all boxes
_REACH = 4  # sigmas beyond which a Gaussian is nothing


def read_boxes(boxes: Boxes | None) -> list[tuple[float, float, float, float]]:
    """The boxes that have an area inside the picture, corners in order.

    Raises:
        ImageError: ``bad_boxes``.
    """
    found = []
    for box in boxes if boxes is not None else ():
        try:
            values = [float(value) for value in box]
        except (TypeError, ValueError):
            values = []
        if len(values) != 4 or not all(math.isfinite(value) and -1 <= value <= 2 for value in values):
            raise ImageError("bad_boxes", "not four fractions of width and height")
        x0, x1 = (min(max(x, 0.0), 1.0) for x in sorted((values[0], values[2])))
        y0, y1 = (min(max(y, 0.0), 1.0) for y in sorted((values[1], values[3])))
        if x1 > x0 and y1 > y0:
            found.append((x0, y0, x1, y1))
    return found


def blurred(pixels: np.ndarray, boxes: Sequence[tuple[float, float, float, float]]) -> np.ndarray:
    """A copy of ``(h, w, 3) uint8`` with `boxes` (as `read_boxes` gives them) blurred."""
    if not boxes:
        return pixels
    height, width = pixels.shape[:2]
    scaled = [(x0 * width, y0 * height, x1 * width, y1 * height) for x0, y0, x1, y1 in boxes]
    sigma = max(_SIGMA * max(max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in scaled), 0.5)
    mask, inner = np.zeros((height, width), np.uint8), np.zeros((height, width), np.uint8)
    for x0, y0, x1, y1 in scaled:
        growth = _GROWTH * max(x1 - x0, y1 - y0)
        _fill(mask, x0 - growth, y0 - growth, x1 + growth, y1 + growth)
        _fill(inner, x0, y0, x1, y1)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    reach = math.ceil(_REACH * sigma)
    region = (
        slice(max(0, int(rows[0]) - reach), int(rows[-1]) + 1 + reach),
        slice(max(0, int(columns[0]) - reach), int(columns[-1]) + 1 + reach),
    )
    gaussian = ImageFilter.GaussianBlur(sigma)
    sharp = np.ascontiguousarray(pixels[region])
    soft = np.asarray(Pillow.fromarray(sharp).filter(gaussian)).astype(np.uint16)
    weight = np.asarray(Pillow.fromarray(np.ascontiguousarray(mask[region])).filter(gaussian))
    weight = np.maximum(weight, inner[region])[:, :, None].astype(np.uint16)
    result = pixels.copy()
    result[region] = (sharp * (255 - weight) + soft * weight + 127) // 255
    return result


def _fill(mask: np.ndarray, x0: float, y0: float, x1: float, y1: float) -> None:
    """Set every pixel that a rectangle touches."""
    mask[max(0, math.floor(y0)) : math.ceil(y1), max(0, math.floor(x0)) : math.ceil(x1)] = 255
