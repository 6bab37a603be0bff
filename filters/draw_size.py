"""How many samples a sampling filter draws, and what it tells about the outcome: shared by all that draw repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from ..errors import ConfigError
from .budget import AUTO, ForTraining


class DrawSize(ForTraining):
    """The number of draws: a count, a share of the rows, or as many as the training sees."""

    total: int | AUTO | None = Field(
        None,
        description="How many samples to draw, repeats included; auto = as many as the training sees, so that its one "
        "epoch is the draw.",
    )
    fraction: float | None = Field(
        None, gt=0, description="Draws as a share of the samples that reach this filter, rounded down; may be above 1."
    )

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.total is None) == (self.fraction is None):
            raise ValueError("give exactly one of `total` (draws) and `fraction` (draws per sample)")
        if isinstance(self.total, int) and self.total < 1:
            raise ValueError(f"total must be at least 1, not {self.total}")
        return self

    @property
    def wants_budget(self) -> bool:
        return self.total == "auto"

    def draws(self, rows: int) -> int:
        """Draws from a pool of `rows`.

        Raises:
            ConfigError: `auto`, and nobody said how long the training is; or none at all.
        """
        if self.fraction is None:
            return self.total if isinstance(self.total, int) else self.seen()
        if int(rows * self.fraction) < 1:
            raise ConfigError(f"{self.fraction:g} draws per sample are none at all from {rows} samples; draw more")
        return int(rows * self.fraction)

    def budget_facts(self) -> dict[str, Any]:
        """``budget`` for the report when `auto` decided, else nothing."""
        if self.total != "auto":
            return {}
        return {"budget": {"rule": "total = samples_seen", "samples_seen": self.seen(), "draws": self.seen()}}


@dataclass(frozen=True)
class Repeats:
    """How often rows were drawn.

    Attributes:
        times: ``(m,) int64``, the numbers of draws that occur, ascending, without 0.
        rows: ``(m,) int64``, how many rows were drawn so often.
    """

    times: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, times: np.ndarray) -> Repeats:
        """Of one part's ``(n,)`` multiplicities."""
        values, rows = np.unique(times[times > 0], return_counts=True)
        return cls(values.astype(np.int64), rows.astype(np.int64))

    @classmethod
    def merge(cls, parts: Sequence[Repeats]) -> Repeats:
        """The sum over parts."""
        every = np.concatenate([np.zeros(0, np.int64), *(p.times for p in parts)])
        values, place = np.unique(every, return_inverse=True)
        rows = np.zeros(len(values), np.int64)
        np.add.at(rows, place, np.concatenate([np.zeros(0, np.int64), *(p.rows for p in parts)]))
        return cls(values, rows)

    def facts(self) -> dict[str, Any]:
        """``draws``, ``distinct`` rows drawn, ``most`` draws of one row, and ``repeats``: [times, rows] pairs."""
        return {
            "draws": int((self.times * self.rows).sum()),
            "distinct": int(self.rows.sum()),
            "most": int(self.times.max(initial=0)),
            "repeats": [[int(t), int(n)] for t, n in zip(self.times, self.rows, strict=True)],
        }
