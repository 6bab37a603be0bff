"""NudeNet: which parts of a body are bare, and where; a YOLOv8-n detector of 18 classes, weights in the nudenet wheel.

Where open_nsfw gives one number for the whole picture, this one names what it saw, small regions included. The picture
is fitted into 320 x 320, top left, the rest black. It gets red-green-blue, as its kind is trained; the wheel's own code
hands it blue-green-red (less sure of the one face it was tried on), so scores differ from the wheel's. 13 ms a picture
on one core.

Licence: the wheel calls itself MIT, but its licence files and the model's own metadata say AGPL-3.0. Nothing of it is
in this package: it is an extra of its own (``curate[nudity]``), and who installs it decides.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import ConfigError
from ...registry import unknown
from .onnx_session import OnnxModel, model_file

SIDE = 320
EXPOSED = (
    "ANUS_EXPOSED",
    "BUTTOCKS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
)
CONFIDENT = 0.25  # a box below it is no detection
OVERLAP = 0.45  # intersection over union from which two boxes are one region


def nudity_model() -> Path:
    """Where the model lies; raises `ConfigError` if its wheel is not installed."""
    return model_file("nudenet", "320n.onnx", "nudenet", "nudity")


def prepare_nudity(rgb: np.ndarray) -> np.ndarray:
    """What the model looks at, ``(320, 320, 3) uint8``, of an ``(h, w, 3) uint8`` picture."""
    from PIL import Image

    height, width = rgb.shape[:2]
    long = max(height, width)
    wide, high = (max(1, (2 * x * SIDE + long) // (2 * long)) for x in (width, height))
    canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
    canvas[:high, :wide] = np.asarray(Image.fromarray(rgb).resize((wide, high), Image.Resampling.BILINEAR))
    return canvas


class Nudity:
    """The detector, loaded.

    Attributes:
        batch: pictures per call.
        classes: names of the classes that count.
    """

    def __init__(self, classes: Sequence[str] = EXPOSED, device: str = "cpu") -> None:
        """Raises `ConfigError` for a class that the model does not know."""
        self._model = OnnxModel(nudity_model(), device, "nudity")
        self.batch = self._model.batch
        names: dict[int, str] = ast.literal_eval(self._model.metadata["names"])
        number = {name: i for i, name in names.items()}
        for name in classes:
            if name not in number:
                raise ConfigError(f"nudity: {unknown('class', name, number)}")
        self.classes = tuple(classes)
        self._rows = np.array([number[name] for name in classes], np.int64)

    def __call__(self, prepared: np.ndarray) -> list[tuple[float, int, str]]:
        """Per picture of ``(n, 320, 320, 3) uint8``: best score of the classes that count, how many regions of them are
        seen with some confidence, and the class of the best score."""
        answers = self._model(prepared.transpose(0, 3, 1, 2).astype(np.float32) / 255)
        return [self._judge(answer) for answer in answers]

    def _judge(self, answer: np.ndarray) -> tuple[float, int, str]:
        """Of ``(4 + classes, anchors)``: centre, size and the probability of every class."""
        scores = answer[4 + self._rows]
        best = scores.max(axis=0)
        worst = int(best.argmax())
        sure = np.flatnonzero(best >= CONFIDENT)
        centre, half = answer[:2, sure].T, answer[2:4, sure].T / 2
        count = len(distinct(np.concatenate([centre - half, centre + half], axis=1), best[sure], OVERLAP))
        return float(best[worst]), count, self.classes[int(scores[:, worst].argmax())]


def distinct(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> list[int]:
    """Non-maximum suppression: the best box of every bunch whose intersection over union exceeds `overlap`.

    Args:
        boxes: ``(m, 4)`` x0, y0, x1, y1.
        scores: ``(m,)``; of equal ones, the first wins.
    """
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    order = list(np.argsort(-scores, kind="stable"))
    kept: list[int] = []
    while order:
        best = order.pop(0)
        kept.append(int(best))
        rest = np.array(order, np.int64)
        corners = np.minimum(boxes[rest, 2:], boxes[best, 2:]) - np.maximum(boxes[rest, :2], boxes[best, :2])
        shared = np.prod(np.clip(corners, 0, None), axis=1)
        order = rest[shared <= overlap * (area[rest] + area[best] - shared)].tolist()
    return kept
