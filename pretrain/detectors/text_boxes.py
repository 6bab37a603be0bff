"""Where text stands in a picture: the PP-OCRv6 detector, whose weights ship in the rapidocr wheel (Apache-2.0, both).

The network says for every pixel how surely it is text (shrunk: differentiable binarization, Liao et al., AAAI 2020);
connected areas that are sure enough become boxes, grown back to the size of the text. Boxes are axis-aligned, which a
mask and a share of the area need; of slanted text they hold more than the letters. A picture is looked at alone, at a
size that only its own size decides, so its boxes cannot depend on its company.

80 ms a picture on one core at the default 640 pixels, in proportion to their square. Letters below about 8 pixels at
that size are missed; rows of round things (coins) can pass for text; single letters taller than a third of the picture
are left out together with cups and discs.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from .onnx_session import OnnxModel, model_file

SIDE = 640  # pixels of the longer side as the network sees it
ENLARGE = 3.0  # small pictures are not enlarged more than this
STRIDE = 32  # sides that the network takes are multiples of it
TEXT = 0.3  # a pixel this sure belongs to some text
SURE = 0.7  # mean over a text's pixels; printed text has 0.8 and more, eyes and leaves up to 0.75
LARGEST = (
    0.2  # height of a text, shrunk, as a share of the longer side: what is thicker is a cup or a disc, not letters
)
UNCLIP = 1.6  # area over circumference that the training shrank, times this, is grown back
SMALLEST = 3  # pixels of the shorter side of a text, as the network sees it


def text_boxes_model() -> Path:
    """Where the model lies; raises `ConfigError` if its wheel is not installed."""
    return model_file("rapidocr", "models/PP-OCRv6_det_small.onnx", "rapidocr", "images")


def text_boxes(rgb: np.ndarray, device: str = "cpu", side: int = SIDE) -> np.ndarray:
    """Boxes around text in an ``(h, w, 3) uint8`` picture, top to bottom; the model stays loaded in this process.

    Returns:
        ``(m, 4) float32``: x0, y0, x1, y1 in pixels, x1 and y1 exclusive, within the picture.
    """
    return _detector(device, side)(rgb)


@lru_cache(maxsize=4)
def _detector(device: str, side: int) -> TextBoxes:
    return TextBoxes(device, side)


class TextBoxes:
    """The detector, loaded."""

    def __init__(self, device: str = "cpu", side: int = SIDE) -> None:
        self._model = OnnxModel(text_boxes_model(), device)
        self._model.batch = 1  # pictures have shapes of their own
        self.side = side

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """``(m, 4) float32`` boxes of an ``(h, w, 3) uint8`` picture, see `text_boxes`."""
        height, width = rgb.shape[:2]
        seen = np.asarray(_resized(rgb, seen_size(width, height, self.side)))
        inputs = (seen[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32) - 127.5) / 127.5  # blue, green, red
        boxes = find_boxes(self._model(inputs)[0, 0])
        scale = np.array([width / seen.shape[1], height / seen.shape[0]] * 2)
        return in_reading_order(np.clip(boxes * scale, 0, [width, height] * 2)).astype(np.float32)


def seen_size(width: int, height: int, side: int = SIDE) -> tuple[int, int]:
    """Width and height at which the network sees a picture: its longer side about `side`, both multiples of 32."""
    scale = min(side / max(width, height), ENLARGE)
    wide, high = (max(STRIDE, int(x * scale / STRIDE + 0.5) * STRIDE) for x in (width, height))
    return wide, high


def _resized(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0))


def find_boxes(probability: np.ndarray) -> np.ndarray:
    """Boxes ``(m, 4) float64`` in a map ``(h, w) float32`` of how surely a pixel is text."""
    from scipy import ndimage

    mask = probability > TEXT
    mask[1:, 1:] |= mask[:-1, 1:] | mask[1:, :-1] | mask[:-1, :-1]  # closes gaps of a pixel between letters
    areas = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, np.ones((3, 3)), areas)
    pixels = np.bincount(areas.ravel())[1:]
    if not len(pixels):
        return np.zeros((0, 4))
    sure = np.bincount(areas.ravel(), probability.ravel())[1:] / pixels
    found = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(areas)]
    boxes = np.array(found, np.float64)
    sides = boxes[:, 2:] - boxes[:, :2]
    height = pixels / sides.max(axis=1)
    good = (sure >= SURE) & (sides.min(axis=1) >= SMALLEST) & (height <= LARGEST * max(probability.shape))
    boxes, sides, pixels = boxes[good], sides[good], pixels[good]
    grow = (UNCLIP * pixels / (2 * sides.sum(axis=1)))[:, None]  # pixels, not the box's area: slanted text fills half
    return np.concatenate([boxes[:, :2] - grow, boxes[:, 2:] + grow], axis=1)


def in_reading_order(boxes: np.ndarray) -> np.ndarray:
    """Boxes line by line from the top, in a line from the left; a line is what begins above the first box's middle."""
    waiting = sorted(boxes.tolist(), key=lambda box: (box[1] + box[3], box))
    ordered: list[list[float]] = []
    while waiting:
        bottom = waiting[0][3]
        line = [box for box in waiting if (box[1] + box[3]) / 2 < bottom]
        ordered += sorted(line)
        waiting = waiting[len(line) :]
    return np.array(ordered, np.float64).reshape(-1, 4)


def whole_pixels(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Boxes as ``(m, 4) int64``, grown to whole pixels and cut to the picture."""
    grown = np.concatenate([np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])], axis=1)
    return np.clip(grown, 0, [width, height, width, height]).astype(np.int64)


def text_share(boxes: np.ndarray, width: int, height: int) -> float:
    """Share of the picture's area that lies in at least one box."""
    covered = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in whole_pixels(boxes, width, height):
        covered[y0:y1, x0:x1] = True
    return float(covered.mean())


def fill_boxes(rgb: np.ndarray, boxes: np.ndarray, border: int = 4) -> np.ndarray:
    """The picture with every box filled with the mean colour around it (T-MARS, Maini et al., 2023).

    Around means `border` pixels on each side that lie in no box; where there are none, the picture outside all boxes,
    or, if boxes cover everything, the whole picture. Colours come from the picture as it was; later boxes lie on top.

    Args:
        rgb: ``(h, w, 3) uint8``, left as it is.
        boxes: ``(m, 4)``, from `text_boxes`.
    """
    height, width = rgb.shape[:2]
    whole = whole_pixels(boxes, width, height)
    free = np.ones((height, width), bool)
    for x0, y0, x1, y1 in whole:
        free[y0:y1, x0:x1] = False
    filled, elsewhere = rgb.copy(), None
    for x0, y0, x1, y1 in whole:
        around = np.s_[max(0, y0 - border) : y1 + border, max(0, x0 - border) : x1 + border]
        pixels = rgb[around][free[around]]
        if not len(pixels):
            if elsewhere is None:
                elsewhere = rgb[free] if free.any() else rgb.reshape(-1, 3)
            pixels = elsewhere
        filled[y0:y1, x0:x1] = np.rint(pixels.mean(axis=0, dtype=np.float64)).astype(np.uint8)
    return filled
