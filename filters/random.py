"""`random`: keep a random sample of exact size, the control that every other subset is compared with.

The rows with the smallest keyed hash of their uid (`draw.py`): exactly as many as asked for, the same ones whatever the
sharding, and nested: a smaller sample with the same seed is part of a larger one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ..errors import ConfigError, DataError
from .base import FILTERS, Decision, Filter, Part, Pool
from .draw import Cut, draw, uid_hash


@dataclass(frozen=True)
class Lot:
    """The outcome of the draw.

    Attributes:
        cut: last row drawn; None when none was.
        count: rows drawn.
        rows: rows that could be.
        seed: the run's seed.
    """

    cut: Cut | None
    count: int
    rows: int
    seed: int


@FILTERS.register
class Random(Filter):
    """Keep a random sample: a count, a share, or as many as another subset keeps."""

    type: Literal["random"] = "random"
    count: int | None = Field(None, ge=0, description="How many samples to keep.")
    fraction: float | None = Field(None, ge=0, le=1, description="Share of the samples to keep, 0-1, rounded down.")
    like: str | None = Field(None, description="Name of a subset; keep as many samples as it does.")
    seed: int = Field(0, ge=0, description="Another number draws other samples, independently of the run's seed.")

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        given = [name for name in ("count", "fraction", "like") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"random needs exactly one of `count`, `fraction` and `like`, not {given or 'none'}")
        return self

    def columns(self) -> list[str]:
        return ["uid"]

    def with_count(self, count: int) -> Self:
        """The same draw of `count` samples; how whoever knows the subset named by `like` passes on its size."""
        return self.model_copy(update={"count": count, "like": None})

    def fit(self, pool: Pool) -> Lot:
        if self.like is not None:
            raise ConfigError(f"random: the size of subset {self.like!r} is not known here; give `count`")
        rows = sum(pool.map(_length))
        count = self.count if self.count is not None else int(rows * (self.fraction or 0.0))
        if count > rows:
            raise DataError(f"random: {count} samples asked for, but only {rows} reach this filter")
        drawn = draw(pool, count, pool.seed, self._purpose())
        return Lot(drawn.cut, drawn.count, rows, pool.seed)

    def _purpose(self) -> str:
        return f"random/{self.seed}"

    def decide(self, part: Part, state: Lot) -> Decision:
        uids = part.uids()
        hashes = uid_hash(uids, state.seed, self._purpose())
        keep = state.cut.includes(part, uids, hashes) if state.cut else np.zeros(len(part), bool)
        return Decision(keep, np.ldexp(hashes.astype(np.float64), -64).astype(np.float32), "not_drawn")

    def describe(self, state: Lot) -> dict[str, Any]:
        return {"drawn": state.count, "rows": state.rows}


def _length(part: Part) -> int:
    return len(part)
