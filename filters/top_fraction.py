"""`top_fraction`: keep the best share of the pool by one score, with DataComp's rule to the letter.

    n = int(N * keep);  threshold = element n (from 0) of the scores sorted descending;  keep score >= threshold

so n + 1 rows and every tie of the last one stay. N counts all rows that reach the filter, those without a score
included, and all is float32. Deviations from the reference, both documented there as faults: keep = 1.0 keeps every row
that has a score (the reference fails), and a threshold that would be NaN is an error (the reference keeps nothing).
Exact at any size by two passes of counters (`quantile.py`).

`ties: uid` keeps exactly n rows instead: of equal scores, the smaller uids. `per` applies either rule to every group by
itself (every source, every class), where a group with fewer scores than n keeps them all (`group_cuts.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ..errors import DataError
from .base import FILTERS, Decision, Filter, Part, Pool, json_number, numbers
from .budget import AUTO, Budgeted
from .group_cuts import Share
from .group_ranking import Ranking
from .quantile import Histogram, from_bits, histogram_high, histogram_low, locate, merge
from .top_k import decide_by_cuts, described, fit_told


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
class TopFraction(Budgeted, Filter):
    """Keep the samples with the highest scores."""

    catches: ClassVar[tuple[str, ...]] = ("wrong_caption", "boilerplate", "foreign", "short")
    type: Literal["top_fraction"] = "top_fraction"
    by: str = Field(description="Column to rank by: a score by its name, or a number of the row table.")
    keep: Annotated[float, Field(ge=0, le=1)] | AUTO = Field(
        description="Share of the samples to keep, 0-1; ties of the last one stay too. `auto`: by the training budget."
    )
    ties: Literal["keep", "uid"] = Field(
        default="keep",
        description="keep = DataComp's rule, one more and all its ties; uid = exactly n, smaller uids first.",
    )
    per: str | None = Field(
        default=None,
        description="Column whose values are groups (`source`, a class): the share of each; null = of all rows.",
    )

    @model_validator(mode="after")
    def _auto_is_of_all_rows(self) -> Self:
        if self.keep == "auto" and not self._one_threshold():
            raise ValueError("top_fraction: `keep: auto` is a share of all rows; leave out `per` and `ties`")
        return self

    @property
    def wants_budget(self) -> bool:
        return self.keep == "auto"

    def columns(self) -> list[str]:
        return [self.by] if self._one_threshold() else Ranking(self.by, self.per).columns()

    def _one_threshold(self) -> bool:
        return self.per is None and self.ties == "keep"

    def fit(self, pool: Pool) -> Any:
        if not self._one_threshold():
            assert self.keep != "auto"
            share = Share(fraction=self.keep, ties=self.ties == "keep")
            return fit_told(pool, Ranking(self.by, self.per), share)
        return self.cutoff(pool)

    def cutoff(self, pool: Pool) -> Cutoff:
        """The one threshold of all rows.

        Raises:
            DataError: it would be NaN.
        """
        histograms = pool.map(_high, self.by)
        counts, missing = merge(histograms), sum(h.missing for h in histograms)
        scored = int(counts.sum())
        rows = scored + missing
        index = self.budget_of(rows).kept if self.keep == "auto" else int(rows * self.keep)
        if index >= rows:
            return Cutoff(np.float32(-np.inf), rows, missing)
        if index >= scored:
            raise DataError(
                f"column {self.by!r} has a value in only {scored} of {rows} rows, so the threshold that keeps "
                f"{index} of them would be NaN; drop the rows without a value first, or keep less"
            )
        high, inside = locate(counts, index)
        low, _ = locate(merge(pool.map(_low, self.by, high)), inside)
        return Cutoff(from_bits(high << 16 | low), rows, missing)

    def decide(self, part: Part, state: Any) -> Decision:
        if not isinstance(state, Cutoff):
            return decide_by_cuts(part, state["cuts"])
        values = numbers(part, self.by)
        keep = values >= state.threshold
        return Decision(keep, values, np.where(np.isnan(values), "no_value", "below_threshold"))

    def describe(self, state: Any) -> dict[str, Any]:
        if not isinstance(state, Cutoff):
            return described(state)
        threshold = json_number(state.threshold)
        facts = {"column": self.by, "threshold": threshold, "rows": state.rows, "without_value": state.missing}
        return facts | ({"budget": self.budget_of(state.rows).facts()} if self.keep == "auto" else {})


def _high(part: Part, column: str) -> Histogram:
    return histogram_high(numbers(part, column))


def _low(part: Part, column: str, high: int) -> Histogram:
    return histogram_low(numbers(part, column), high)
