"""`nsfw`: probability that a picture is not safe for work, by open_nsfw (`pretrain.detectors.nsfw`); 12 ms a picture.

Its makers: below 0.2 safe, above 0.8 not, between them a question of taste.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ...pretrain.detectors.nsfw import Nsfw, nsfw_model, prepare_nsfw
from ...shards.image_pass import Picture
from ..base import SCORERS, PixelReader
from ..pixel_reader import ModelReader, ModelScorer


@SCORERS.register
class NsfwScore(ModelScorer):
    """Probability of not safe for work, 0 to 1."""

    type: Literal["nsfw"] = "nsfw"

    def reader(self, name: str, state: Any = None) -> PixelReader:
        return NsfwReader(name, self.device)

    def models(self) -> list[Path]:
        return [nsfw_model()]


class NsfwReader(ModelReader):
    def __init__(self, name: str, device: str = "cpu") -> None:
        super().__init__({name: pa.float32()})
        self._model = Nsfw(device)
        self.batch = self._model.batch

    def prepare(self, picture: Picture) -> np.ndarray:
        return prepare_nsfw(picture.rgb)

    def ask(self, prepared: list[np.ndarray]) -> Sequence[Sequence[Any]]:
        return self._model(np.stack(prepared))[:, None].tolist()
