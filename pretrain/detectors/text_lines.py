"""What a line of text says: the PP-OCRv6 recogniser, whose weights ship in the rapidocr wheel (Apache-2.0, both).

A line is cut out, scaled to 48 pixels of height, and read from left to right: for every 8 pixels the network names a
character or none, and repeats are folded (CTC, Graves et al., 2006, best path). It knows 18,708 characters, Latin,
Chinese and Japanese among them; its alphabet is in the model file. Lines are read alone, in widths that only their own
shape decides. About 0.04 ms a pixel of width on one core: 13 ms for a short line.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .onnx_session import OnnxModel, model_file
from .text_boxes import whole_pixels

HEIGHT = 48
WIDTHS = (160, 320, 640, 1280)  # that lines are padded to; longer ones are squeezed into the last
TALL = 1.5  # boxes this much higher than wide hold text that was turned
SURE = 0.6  # mean probability of a line's characters, below which nothing was read


def text_lines_model() -> Path:
    """Where the model lies; raises `ConfigError` if its wheel is not installed."""
    return model_file("rapidocr", "models/PP-OCRv6_rec_small.onnx", "rapidocr", "images")


class TextLines:
    """The recogniser, loaded."""

    def __init__(self, device: str = "cpu") -> None:
        self._model = OnnxModel(text_lines_model(), device)
        self._model.batch = 1  # lines have widths of their own
        # Not splitlines: some characters of the alphabet are line ends to it.
        self._alphabet = ["", *self._model.metadata["character"].split("\n"), " "]

    def __call__(self, rgb: np.ndarray, boxes: np.ndarray) -> list[str]:
        """What stands in boxes ``(m, 4)`` of an ``(h, w, 3) uint8`` picture; lines that cannot be read are left out."""
        lines = []
        for x0, y0, x1, y1 in whole_pixels(boxes, rgb.shape[1], rgb.shape[0]):
            if x1 - x0 >= 2 and y1 - y0 >= 2:
                text, sure = self.read(rgb[y0:y1, x0:x1])
                if sure >= SURE:
                    lines.append(text)
        return lines

    def read(self, line: np.ndarray) -> tuple[str, float]:
        """Text of a cut-out line, and the mean probability of its characters (0 for none)."""
        probability = self._model(_prepare(line)[None])[0]
        return decode(probability, self._alphabet)


def _prepare(line: np.ndarray) -> np.ndarray:
    """``(3, 48, width) float32``, blue, green, red from -1 to 1, filled up with 0 on the right."""
    from PIL import Image

    if line.shape[0] >= TALL * line.shape[1]:
        line = np.rot90(line)
    wide = min(WIDTHS[-1], max(1, -(-HEIGHT * line.shape[1] // line.shape[0])))
    image = Image.fromarray(np.ascontiguousarray(line)).resize((wide, HEIGHT), Image.Resampling.BILINEAR)
    canvas = np.zeros((3, HEIGHT, next(width for width in WIDTHS if width >= wide)), np.float32)
    canvas[:, :, :wide] = (np.asarray(image)[:, :, ::-1].transpose(2, 0, 1).astype(np.float32) - 127.5) / 127.5
    return canvas


def decode(probability: np.ndarray, alphabet: list[str]) -> tuple[str, float]:
    """Best path of ``(steps, characters)`` probabilities: repeats folded, then blanks (character 0) left out.

    Returns:
        the text and the mean probability of the characters at their first steps; 0 if there are none.
    """
    best = probability.argmax(axis=1)
    new = np.concatenate([[True], best[1:] != best[:-1]]) & (best != 0)
    if not new.any():
        return "", 0.0
    sure = probability[new, best[new]].mean(dtype=np.float64)
    return "".join(alphabet[i] for i in best[new]), float(sure)
