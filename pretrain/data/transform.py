"""Decoded images -> the model's uint8 input: random crops for training, open_clip's own resize for everything else.

Training crops are torchvision's `RandomResizedCrop` (ten tries at an area and an aspect ratio, then a centre crop),
made a pure function of (stream, position) and computed for a whole batch at once; the pixels go through a SIMD bicubic
resizer, 3-5 times faster than Pillow and within two grey levels of it. Evaluation uses Pillow, because there results
must equal open_clip's to the bit. Both stop at uint8: a batch is normalised once, on the device.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from cykooz_resizer import FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

from .. import streams
from .preprocess import Preprocess

if TYPE_CHECKING:
    import torch

TRIES = 10
RATIO = (3 / 4, 4 / 3)  # width / height of a crop

_BICUBIC = ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.catmull_rom), use_alpha=False)


def crops(
    stream: int,
    start: int,
    heights: np.ndarray,
    widths: np.ndarray,
    scale: tuple[float, float],
) -> np.ndarray:
    """Crop boxes of the samples at positions ``start...`` of the training order.

    Args:
        heights, widths: ``(b,)`` sizes of the images in pixels.
        scale: least and most area of a crop, as fractions of the image.

    Returns:
        ``(b, 4) int64``: top, left, height, width; always inside the image.
    """
    random = streams.uniform(stream, start, start + len(heights), 2 * TRIES + 2)
    height, width = heights[:, None].astype(np.float64), widths[:, None].astype(np.float64)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * random[:, :TRIES])
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    aspect = np.exp(low + (high - low) * random[:, TRIES : 2 * TRIES])
    tried_w, tried_h = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (tried_w > 0) & (tried_w <= width) & (tried_h > 0) & (tried_h <= height)
    first, each = fits.argmax(1), np.arange(len(heights))
    h, w = tried_h[each, first], tried_w[each, first]
    top = np.floor(random[:, -2] * (heights - h + 1))
    left = np.floor(random[:, -1] * (widths - w + 1))

    none = ~fits.any(1)
    if none.any():  # the largest centred crop whose aspect ratio is allowed
        whole = widths / heights
        h = np.where(none, np.where(whole < RATIO[0], np.rint(widths / RATIO[0]), heights), h)
        w = np.where(none, np.where(whole > RATIO[1], np.rint(heights * RATIO[1]), widths), w)
        top, left = np.where(none, (heights - h) // 2, top), np.where(none, (widths - w) // 2, left)
    return np.stack([top, left, h, w], 1).astype(np.int64)


def crop_and_resize(resizer: Resizer, image: np.ndarray, box: np.ndarray, out: np.ndarray) -> None:
    """Write the part ``box`` (top, left, height, width) of ``image (h, w, 3) uint8``, resized, into ``out``."""
    top, left, h, w = box.tolist()
    source = ImageData(w, h, PixelType.U8x3, image[top : top + h, left : left + w].tobytes())
    target = ImageData(out.shape[1], out.shape[0], PixelType.U8x3)
    resizer.resize(source, target, _BICUBIC)
    out[:] = np.frombuffer(target.get_buffer(), np.uint8).reshape(out.shape)


def normalised(
    images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...], out: torch.Tensor | None = None
) -> torch.Tensor:
    """``(b, h, w, 3) uint8`` -> ``(b, 3, h, w) float32``, ``(x / 255 - mean) / std``, channels last in memory.

    One pass per image over memory that stays in the cache: a tenth of what torchvision's ToTensor and Normalize cost.

    Args:
        out: what an earlier call gave, to be overwritten; new memory costs several times what the arithmetic does. A
            tensor that does not fit is left alone.
    """
    import torch

    b, h, w, c = images.shape
    scale = 1 / (255 * torch.tensor(std, dtype=torch.float64))
    shift = (-255 * torch.tensor(mean, dtype=torch.float64) * scale).float().repeat(w)
    factor = scale.float().repeat(w)
    if out is None or out.shape != (b, c, h, w):
        out = torch.empty((b, h, w, c)).permute(0, 3, 1, 2)
    rows = out.permute(0, 2, 3, 1).view(b, h, w * c)
    for image, result in zip(torch.from_numpy(images).view(b, h, w * c), rows, strict=True):
        torch.addcmul(shift, image, factor, out=result)
    return out


def for_evaluation(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """``(h, w, 3) uint8`` of any size -> ``(*size, 3) uint8``, bit for bit what open_clip's transform does before
    it normalises. (open_clip converts to RGB after resizing, we before: that differs for palettes and transparency.)
    """
    th, tw = preprocess.size
    h, w = image.shape[:2]
    mode = preprocess.resize_mode
    if mode == "squash":
        new = (th, tw)
    elif mode == "shortest" and th == tw:  # torchvision's rounding: the longer side is cut down to an integer
        new = (th, int(th * w / h)) if h <= w else (int(th * h / w), th)
    else:
        ratio = (max if mode == "longest" else min)(h / th, w / tw)
        new = (round(h / ratio), round(w / ratio))
    if new != (h, w):
        bilinear = preprocess.interpolation == "bilinear" and not (mode == "shortest" and th != tw)
        method = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
        image = np.asarray(Image.fromarray(image).resize((new[1], new[0]), method))
    if new == (th, tw):
        return image
    if mode == "longest":
        padded = np.full((th, tw, 3), preprocess.fill_color, np.uint8)
        top, left = (th - new[0]) // 2, (tw - new[1]) // 2
        padded[top : top + new[0], left : left + new[1]] = image
        return padded
    top, left = round((new[0] - th) / 2), round((new[1] - tw) / 2)
    return image[top : top + th, left : left + tw]
