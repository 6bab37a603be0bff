"""`clip_similarity`: how well caption and image agree, to one encoder: the inner product of their embeddings.

Embeddings are unit rows, so this is the cosine similarity that DataComp thresholds. It is not clamped at zero as
CLIPScore is, which would make all negatives equal.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...errors import DataError
from ..base import SCORERS, Part, Scorer

BLOCK = 8192


@SCORERS.register
class ClipSimilarity(Scorer):
    """Cosine similarity of image and caption."""

    type: Literal["clip_similarity"] = "clip_similarity"
    encoder: str = Field(description="Encoder whose embeddings are compared.")

    def columns(self) -> list[str]:
        return [f"{self.encoder}.image", f"{self.encoder}.text"]

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        image, text = (part.array(column) for column in self.columns())
        if image.shape != text.shape:
            raise DataError(f"{self.encoder}: image embeddings are {image.shape}, text embeddings {text.shape}")
        return {name: row_products(image, text)}


def row_products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``<a_i, b_i>``, ``(n,) float32``, of two ``(n, d)`` arrays, summed in float64; NaN where either row has one."""
    out = np.empty(len(a), np.float32)
    for start in range(0, len(a), BLOCK):
        rows = slice(start, start + BLOCK)
        out[rows] = np.einsum("ij,ij->i", a[rows].astype(np.float64), b[rows].astype(np.float64))
    return out
