"""What readers of pictures share: columns that are filled row by row, and models that are asked in batches.

A scorer over pixels says which columns it makes and what it measures (`ColumnReader.prepare`), or what it asks a model
(`ModelReader.ask`). Rows without a picture are NaN in columns of floats and null in all others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ..pretrain.detectors.onnx_session import sha256_of
from ..shards.image_pass import Picture
from ..shards.shard import Shard
from .base import PixelScorer


class ColumnReader(ABC):
    """A `base.PixelReader` that fills columns; `prepare` returns a row's values in the order of the columns."""

    def __init__(self, columns: Mapping[str, pa.DataType]) -> None:
        """Columns by name; types are float32, integers or strings."""
        self.columns = dict(columns)
        self._filled: dict[int, list[list[Any] | np.ndarray]] = {}
        self._seen: dict[int, np.ndarray] = {}

    def begin(self, index: int, shard: Shard, rows: int) -> None:
        self._seen[index] = np.zeros(rows, bool)
        self._filled[index] = [_blank(kind, rows) for kind in self.columns.values()]

    @abstractmethod
    def prepare(self, picture: Picture) -> Any:
        """The row's values, one per column; runs in any thread."""

    def take(self, index: int, row: int, prepared: Any) -> None:
        self.fill(index, row, prepared)

    def fill(self, index: int, row: int, values: Sequence[Any]) -> None:
        """The values of a row; None in a column that is no float is null."""
        self._seen[index][row] = True
        for column, value in zip(self._filled[index], values, strict=True):
            column[row] = value

    def finish(self) -> None:  # noqa: B027  (most have nothing left to do)
        pass

    def result(self, index: int) -> dict[str, np.ndarray | pa.Array]:
        """Columns of shard `index`, once: they are let go."""
        seen, filled = self._seen.pop(index), self._filled.pop(index)
        columns: dict[str, np.ndarray | pa.Array] = {}
        for (name, kind), values in zip(self.columns.items(), filled, strict=True):
            if isinstance(values, list):
                columns[name] = pa.array(values, kind)
            else:
                columns[name] = values if pa.types.is_floating(kind) else pa.array(values, kind, mask=~seen)
        return columns


class ModelScorer(PixelScorer):
    """Base of scorers that ask models which ship inside wheels."""

    device: Literal["cpu", "cuda"] = Field(
        default="cpu",
        description="Where the models run; `cuda` needs onnxruntime-gpu. Scores of the two differ in the last digits.",
    )

    @abstractmethod
    def models(self) -> list[Path]:
        """Model files; raises `ConfigError` if a wheel is not installed."""

    def files(self) -> list[str]:
        return [str(path) for path in self.models()]

    def describe(self, state: Any = None) -> dict[str, Any]:
        return {"models": [{"model": path.name, "sha256": sha256_of(path)} for path in self.models()]}


class ModelReader(ColumnReader):
    """A `ColumnReader` that asks a model about several pictures at a time, across the borders of shards."""

    batch: int = 1
    """Pictures per question."""

    def __init__(self, columns: Mapping[str, pa.DataType]) -> None:
        super().__init__(columns)
        self._waiting: list[tuple[int, int, Any]] = []

    def take(self, index: int, row: int, prepared: Any) -> None:
        self._waiting.append((index, row, prepared))
        if len(self._waiting) >= self.batch:
            self._settle()

    def finish(self) -> None:
        self._settle()

    @abstractmethod
    def ask(self, prepared: list[Any]) -> Sequence[Sequence[Any]]:
        """Per picture the row's values, one per column; a picture's may not depend on the others."""

    def _settle(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            for (index, row, _), values in zip(waiting, self.ask([p for *_, p in waiting]), strict=True):
                self.fill(index, row, values)


def reduce_to(rgb: np.ndarray, side: int) -> np.ndarray:
    """The ``(h, w, 3) uint8`` picture with its longer side `side`, if it is longer; an antialiased triangle filter."""
    height, width = rgb.shape[:2]
    long = max(height, width)
    if long <= side:
        return rgb
    from PIL import Image

    wide, high = (max(1, (2 * x * side + long) // (2 * long)) for x in (width, height))
    return np.asarray(Image.fromarray(rgb).resize((wide, high), Image.Resampling.BILINEAR, reducing_gap=3.0))


def _blank(kind: pa.DataType, rows: int) -> list[Any] | np.ndarray:
    if pa.types.is_floating(kind):
        return np.full(rows, np.nan, np.float32)
    return np.zeros(rows, kind.to_pandas_dtype()) if pa.types.is_integer(kind) else [None] * rows
