"""`aesthetic`: a small trained head over the image embedding, from a file of weights that you give.

Made for LAION's aesthetic predictors (v1: one linear layer, v2: five without activation, both over OpenAI's CLIP L/14),
and fits any head of that kind, such as LAION's NSFW detector for H/14 (``activation: relu``). The weights have terms of
their own and are not shipped. A head only fits the encoder that it was trained on: equal dimensions are checked, the
encoder cannot be.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...errors import DataError
from ..base import SCORERS, Context, Part, Scorer
from ..head import Activation, Head, load_head


@SCORERS.register
class Aesthetic(Scorer):
    """What the head says of the image's unit embedding; NaN where there is none."""

    type: Literal["aesthetic"] = "aesthetic"
    encoder: str = Field(description="Encoder that the head was trained on.")
    weights: str = Field(description="File with the head: .safetensors, PyTorch state dict, or .npz {weight, bias}.")
    activation: Activation = Field("none", description="Between the head's layers: none (LAION aesthetic) or relu.")

    def columns(self) -> list[str]:
        return [f"{self.encoder}.image"]

    def files(self) -> list[str]:
        return [self.weights]

    def fit(self, context: Context) -> Head:
        return context.call(load_head, self.weights, self.activation)

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        assert isinstance(state, Head)
        rows = part.array(self.columns()[0])
        if rows.shape[1] != state.dimensions:
            raise DataError(
                f"{self.weights} takes {state.dimensions} dimensions, {self.columns()[0]} has {rows.shape[1]}: "
                "it was trained on another encoder"
            )
        return {name: state(rows)}

    def describe(self, state: Any = None) -> dict[str, Any]:
        assert isinstance(state, Head)
        return {
            "weights": PurePosixPath(self.weights).name,
            "dimensions": state.dimensions,
            "layers_in_file": state.stored,
            "layers": len(state.layers),
            "activation": self.activation,
        }
