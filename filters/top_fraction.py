"""`top_fraction`: keep the best share of the pool by one score, with DataComp's rule to the letter.

    n = int(N * keep);  threshold = element n (from 0) of the scores sorted descending;  keep score >= threshold

so n + 1 rows and every tie of the last one stay. N counts all rows that reach the filter, those without a score
included, and all is float32. Deviations from the reference, both documented there as faults: keep = 1.0 keeps every row
that has a score (the reference fails), and a threshold that would be NaN is an error (the reference keeps nothing).
Exact at any size by two passes of counters (`quantile.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ..errors import DataError
from .base import FILTERS, Decision, Filter, Part, Pool, json_number, numbers
from .quantile import Histogram, from_bits, histogram_high, histogram_low, locate, merge


@dataclass(frozen=True)
class Cutoff:
    """Where the score is cut.

    Attributes:
        threshold: float32; -inf when every row with a score stays.
        rows: rows that reached the filter.
        missing: rows among them without a score.
    """

    threshold: np.float32
    rows: int
    missing: int


@FILTERS.register
class TopFraction(Filter):
    """Keep the samples with the highest scores."""

    catches: ClassVar[tuple[str, ...]] = ("wrong_caption", "boilerplate", "foreign", "short")
    type: Literal["top_fraction"] = "top_fraction"
    by: str = Field(description="Column to rank by: a score by its name, or a number of the row table.")
    keep: float = Field(ge=0, le=1, description="Share of the samples to keep, 0-1; ties of the last one stay too.")

    def columns(self) -> list[str]:
        return [self.by]

    def fit(self, pool: Pool) -> Cutoff:
        histograms = pool.map(_high, self.by)
        counts, missing = merge(histograms), sum(h.missing for h in histograms)
        scored = int(counts.sum())
        rows = scored + missing
        index = int(rows * self.keep)
        if index >= rows:
            return Cutoff(np.float32(-np.inf), rows, missing)
        if index >= scored:
            raise DataError(
                f"column {self.by!r} has a value in only {scored} of {rows} rows, so the threshold that keeps "
                f"{self.keep:g} of them would be NaN; drop the rows without a value first, or keep less"
            )
        high, inside = locate(counts, index)
        low, _ = locate(merge(pool.map(_low, self.by, high)), inside)
        return Cutoff(from_bits(high << 16 | low), rows, missing)

    def decide(self, part: Part, state: Cutoff) -> Decision:
        values = numbers(part, self.by)
        keep = values >= state.threshold
        return Decision(keep, values, np.where(np.isnan(values), "no_value", "below_threshold"))

    def describe(self, state: Cutoff) -> dict[str, Any]:
        threshold = json_number(state.threshold)
        return {"column": self.by, "threshold": threshold, "rows": state.rows, "without_value": state.missing}


def _high(part: Part, column: str) -> Histogram:
    return histogram_high(numbers(part, column))


def _low(part: Part, column: str, high: int) -> Histogram:
    return histogram_low(numbers(part, column), high)
