"""`image_quality`: how much there is to see in a picture: entropy, sharpness, blankness, brightness, contrast, colour.

Measured on the picture reduced to one longer side (256 pixels, triangle filter), so that the numbers of a photograph do
not depend on the resolution at which it was stored. Smaller pictures are measured as they are: enlarging would only say
that they are small, which `image_size` does. Sums are exact integers, so the order of pixels cannot matter. Grey is
ITU-R BT.601 luma, 0-255. None of them judges beauty: a sharp blank form scores high on sharpness and on blankness.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...shards.image_pass import Picture
from ..base import SCORERS, PixelReader, PixelScorer
from ..pixel_reader import ColumnReader, reduce_to

MEASURES = ("", "_sharpness", "_blank", "_brightness", "_contrast", "_colourfulness")


@SCORERS.register
class ImageQuality(PixelScorer):
    """Entropy of grey levels in bits, and ``<name>_sharpness``, ``_blank``, ``_brightness``, ``_contrast``,
    ``_colourfulness``."""

    type: Literal["image_quality"] = "image_quality"
    side: int = Field(
        default=256, ge=16, le=4096, description="Longer side in pixels to which larger pictures are reduced first."
    )
    tolerance: int = Field(
        default=2, ge=0, le=127, description="Grey levels around a level that still count as the same, for `_blank`."
    )

    def reader(self, name: str, state: Any = None) -> PixelReader:
        return QualityReader(name, self.side, self.tolerance)


class QualityReader(ColumnReader):
    def __init__(self, name: str, side: int, tolerance: int) -> None:
        super().__init__({name + end: pa.float32() for end in MEASURES})
        self.side, self.tolerance = side, tolerance

    def prepare(self, picture: Picture) -> Any:
        rgb = reduce_to(picture.rgb, self.side)
        grey = luma(rgb)
        counts = np.bincount(grey.ravel(), minlength=256)
        return (
            entropy(counts),
            sharpness(grey),
            blankness(counts, self.tolerance),
            *brightness_and_contrast(counts),
            colourfulness(rgb),
        )


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R BT.601 luma, ``(h, w) uint8``, in Pillow's fixed-point arithmetic."""
    from PIL import Image

    return np.asarray(Image.fromarray(rgb).convert("L"))


def entropy(counts: np.ndarray) -> float:
    """Shannon entropy of a histogram in bits: 0 for one grey level, 8 for all 256 equally often."""
    share = counts[counts > 0] / counts.sum()
    return float(max(0.0, -(share * np.log2(share)).sum()))


def sharpness(grey: np.ndarray) -> float:
    """Variance of the Laplacian (4 neighbours, inner pixels only) in squared grey levels; low = blurred.

    Pech-Pacheco et al., ICPR 2000. NaN for pictures with a side below 3 pixels, which have no inside.
    """
    if min(grey.shape) < 3:
        return float("nan")
    g = grey.astype(np.int16)
    laplacian = g[:-2, 1:-1] + g[2:, 1:-1] + g[1:-1, :-2] + g[1:-1, 2:] - 4 * g[1:-1, 1:-1]
    return _variance(laplacian)


def blankness(counts: np.ndarray, tolerance: int) -> float:
    """Largest share of pixels within ``2 * tolerance + 1`` neighbouring grey levels: 1 = blank."""
    width = min(2 * tolerance + 1, len(counts))
    sums = np.concatenate([[0], np.cumsum(counts)])
    return float((sums[width:] - sums[:-width]).max() / sums[-1])


def brightness_and_contrast(counts: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the grey levels, from their histogram."""
    levels, total = np.arange(len(counts)), int(counts.sum())
    first, second = int((counts * levels).sum()), int((counts * levels**2).sum())
    return first / total, (total * second - first * first) ** 0.5 / total


def colourfulness(rgb: np.ndarray) -> float:
    """Hasler and Süsstrunk, 2003, their M^(3): 0 for grey, about 15 slightly, 59 quite, 109 extremely colourful."""
    r, g, b = (rgb[:, :, i].astype(np.int16) for i in range(3))
    red_green, yellow_blue = r - g, r + g - 2 * b  # the second doubled, to stay whole
    spread = _variance(red_green) + _variance(yellow_blue) / 4
    mean = float(red_green.mean(dtype=np.float64)) ** 2 + (float(yellow_blue.mean(dtype=np.float64)) / 2) ** 2
    return spread**0.5 + 0.3 * mean**0.5


def _variance(whole: np.ndarray) -> float:
    """Population variance of int16 numbers, from exact sums."""
    n, flat = whole.size, whole.ravel()
    first = int(flat.sum(dtype=np.int64))
    second = int(np.square(flat, dtype=np.int32).sum(dtype=np.int64))
    return (n * second - first * first) / (n * n)
