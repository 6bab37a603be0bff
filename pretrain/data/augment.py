"""Random changes of a cropped image, on uint8: flip, colour jitter, grayscale, erasing.

What happens to the sample at a position is drawn from the stream at that position, so it is the same whoever makes the
batch, and the numbers are drawn whether they are used or not. Jitter is torchvision's ColorJitter on Pillow images (the
four changes in a random order), grayscale its Rec. 601 luma; the erased box is `RandomErasing`'s (Zhong et al., AAAI
2020), filled with noise. Price: a flip costs 0.02 ms at 224 pixels, a jitter with hue about 2 ms.
"""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
from PIL import Image, ImageEnhance

from .. import streams
from .augment_options import Augment

COLUMNS = 16  # random numbers per sample
_ORDERS = tuple(permutations(range(4)))
_ERASED = (0.02, 0.33)  # of the image's area
_ERASED_RATIO = 3.3  # height / width of the box at most, and its inverse at least


def augment(images: np.ndarray, options: Augment, stream: int, start: int) -> None:
    """Change ``images (b, h, w, 3) uint8`` of the positions ``start...`` in place."""
    if not options.active:
        return
    random = streams.uniform(stream, start, start + len(images), COLUMNS)
    for at, (image, row) in enumerate(zip(images, random.tolist(), strict=True)):
        if row[0] < options.flip:
            image[:] = image[:, ::-1].copy()
        if options.jitter and row[1] < options.jitter_probability:
            image[:] = jittered(image, factors(options.jitter, row[2:6]), _ORDERS[int(row[6] * len(_ORDERS))])
        if row[7] < options.grayscale:
            image[:] = np.asarray(Image.fromarray(image).convert("L"))[:, :, None]
        if row[8] < options.erase:
            _erase(image, row[9:13], stream, start + at)


def factors(strength: tuple[float, float, float, float], random: list[float]) -> tuple[float, float, float, float]:
    """Factors of brightness, contrast and saturation (1 = unchanged), and the turn of the hue (0 = unchanged)."""
    brightness, contrast, saturation = (
        max(0.0, 1 - s) + (1 + s - max(0.0, 1 - s)) * r for s, r in zip(strength[:3], random[:3], strict=True)
    )
    return brightness, contrast, saturation, strength[3] * (2 * random[3] - 1)


def jittered(
    image: np.ndarray, factor: tuple[float, float, float, float], order: tuple[int, ...] = (0, 1, 2, 3)
) -> np.ndarray:
    """``(h, w, 3) uint8`` with its brightness, contrast, saturation and hue changed, in the given order."""
    picture = Image.fromarray(image)
    for which in order:
        if which == 3:
            if factor[3]:
                hue, saturation, value = picture.convert("HSV").split()
                turn = int(factor[3] * 255) % 256
                hue = hue.point([(i + turn) % 256 for i in range(256)])
                picture = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
        elif factor[which] != 1:
            kind = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[which]
            picture = kind(picture).enhance(factor[which])
    return np.asarray(picture)


def _erase(image: np.ndarray, random: list[float], stream: int, position: int) -> None:
    h, w = image.shape[:2]
    area = h * w * (_ERASED[0] + (_ERASED[1] - _ERASED[0]) * random[0])
    ratio = math.exp(math.log(_ERASED_RATIO) * (2 * random[1] - 1))
    eh = min(h, max(1, round(math.sqrt(area * ratio))))
    ew = min(w, max(1, round(math.sqrt(area / ratio))))
    top, left = int(random[2] * (h - eh + 1)), int(random[3] * (w - ew + 1))
    noise = streams.words(stream ^ 1, position, position + 1, -(-eh * ew * 3 // 8))
    image[top : top + eh, left : left + ew] = noise.view(np.uint8).ravel()[: eh * ew * 3].reshape(eh, ew, 3)
