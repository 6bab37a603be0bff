"""`clip_similarity`: how well caption and image agree, to one encoder: the inner product of their embeddings.

Embeddings are unit rows, so this is the cosine similarity that DataComp thresholds. It is not clamped at zero as
CLIPScore is, which would make all negatives equal. Pictures may come from another encoder of the same space: T-MARS
(arXiv 2307.03132) compares pictures whose text is masked with the captions as they are.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...errors import DataError
from ..base import SCORERS, Part, Scorer

BLOCK = 512  # rows: two float64 copies of them stay in cache, which is three times faster than 8,192


@SCORERS.register
class ClipSimilarity(Scorer):
    """Cosine similarity of image and caption."""

    type: Literal["clip_similarity"] = "clip_similarity"
    encoder: str = Field(description="Encoder whose embeddings are compared.")
    image_encoder: str | None = Field(
        None, description="Encoder of the images when it is another one (say, one that sees masked images)."
    )

    def columns(self) -> list[str]:
        return [f"{self.image_encoder or self.encoder}.image", f"{self.encoder}.text"]

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        image, text = (part.array(column) for column in self.columns())
        if image.shape != text.shape:
            who = self.encoder if self.image_encoder is None else f"{self.image_encoder} and {self.encoder}"
            raise DataError(f"{who}: image embeddings are {image.shape}, text embeddings {text.shape}")
        return {name: row_products(image, text).astype(np.float32)}


def row_products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``<a_i, b_i>``, ``(n,) float64``, of two ``(n, d)`` arrays; NaN where either row has one.

    Every row is summed on its own, so a value does not depend on the rows beside it.
    """
    out = np.empty(len(a), np.float64)
    for start in range(0, len(a), BLOCK):
        rows = slice(start, start + BLOCK)
        out[rows] = np.einsum("ij,ij->i", a[rows].astype(np.float64), b[rows].astype(np.float64))
    return out
