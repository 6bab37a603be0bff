"""`nudity`: bare parts of bodies in a picture, by the NudeNet detector (`pretrain.detectors.nudity`); 13 ms a picture.

It needs the extra ``nudity``, whose model is under AGPL-3.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...pretrain.detectors.nudity import EXPOSED, Nudity, nudity_model, prepare_nudity
from ...shards.image_pass import Picture
from ..base import SCORERS, PixelReader
from ..pixel_reader import ModelReader, ModelScorer


@SCORERS.register
class NudityScore(ModelScorer):
    """Best score of the classes that count, 0 to 1; ``<name>_count``, regions seen with a score of at least 0.25; and
    ``<name>_class``, what scored best among them; null when there is none."""

    type: Literal["nudity"] = "nudity"
    classes: list[str] = Field(
        default_factory=lambda: list(EXPOSED),
        min_length=1,
        description="Classes of the detector that count, such as MALE_BREAST_EXPOSED or BELLY_EXPOSED beside these.",
    )

    def reader(self, name: str, state: Any = None) -> PixelReader:
        return NudityReader(name, self.classes, self.device)

    def models(self) -> list[Path]:
        return [nudity_model()]

    def describe(self, state: Any = None) -> dict[str, Any]:
        return super().describe(state) | {"licence": "AGPL-3.0"}


class NudityReader(ModelReader):
    def __init__(self, name: str, classes: Sequence[str] = EXPOSED, device: str = "cpu") -> None:
        super().__init__({name: pa.float32(), f"{name}_count": pa.int32(), f"{name}_class": pa.string()})
        self._model = Nudity(classes, device)
        self.batch = self._model.batch

    def prepare(self, picture: Picture) -> np.ndarray:
        return prepare_nudity(picture.rgb)

    def ask(self, prepared: list[np.ndarray]) -> Sequence[Sequence[Any]]:
        answers = self._model(np.stack(prepared))
        return [(best, count, name if count else None) for best, count, name in answers]
