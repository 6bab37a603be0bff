"""`text_in_image`: how much of a picture is text, by the PP-OCR detector (`pretrain.detectors.text_boxes`); 80 ms a
picture at 640 pixels.

The cost goes with the square of `side`. What the text says is `image_text_overlap`, which has these columns too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...pretrain.detectors.text_boxes import SIDE, TextBoxes, text_boxes_model, text_share
from ...shards.image_pass import Picture
from ..base import SCORERS, PixelReader
from ..pixel_reader import ModelReader, ModelScorer, reduce_to


@SCORERS.register
class TextInImage(ModelScorer):
    """Share of the area that text covers, 0 to 1, and ``<name>_boxes``, the number of texts."""

    type: Literal["text_in_image"] = "text_in_image"
    side: int = Field(
        default=SIDE,
        ge=32,
        le=2048,
        description="Longer side in pixels at which pictures are looked at; smaller ones are enlarged up to 3 times.",
    )

    def reader(self, name: str, state: Any = None) -> PixelReader:
        return TextReader(name, self.side, self.device)

    def models(self) -> list[Path]:
        return [text_boxes_model()]


class TextReader(ModelReader):
    def __init__(self, name: str, side: int = SIDE, device: str = "cpu") -> None:
        super().__init__({name: pa.float32(), f"{name}_boxes": pa.int32()})
        self.side = side
        self._boxes = TextBoxes(device, side)

    def prepare(self, picture: Picture) -> np.ndarray:
        return reduce_to(picture.rgb, self.side)

    def ask(self, prepared: list[np.ndarray]) -> Sequence[Sequence[Any]]:
        return [covered(rgb, self._boxes(rgb)) for rgb in prepared]


def covered(rgb: np.ndarray, boxes: np.ndarray) -> tuple[float, int]:
    """Share of the area in boxes, and how many there are."""
    return text_share(boxes, rgb.shape[1], rgb.shape[0]), len(boxes)
