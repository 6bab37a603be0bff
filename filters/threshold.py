"""`threshold`: keep the samples whose score is at least, or at most, a number.

Compared in float32, as DataComp does: float32(0.29) lies below the float64 number, so comparing a float32 score with
0.29 in float64 would drop the rows that are exactly on the threshold. Thresholds belong to one encoder; for a share of
the pool use `top_fraction`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from .base import FILTERS, Decision, Filter, Part, json_number, numbers


@FILTERS.register
class Threshold(Filter):
    """Keep samples by a number in one column; null and NaN are dropped."""

    catches: ClassVar[tuple[str, ...]] = ("wrong_caption", "boilerplate", "foreign", "short")
    type: Literal["threshold"] = "threshold"
    by: str = Field(description="Column to compare: a score by its name, or a number of the row table.")
    at_least: float | None = Field(None, allow_inf_nan=False, description="Keep values >= this, as float32.")
    at_most: float | None = Field(None, allow_inf_nan=False, description="Keep values <= this, as float32.")

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("threshold needs `at_least`, `at_most`, or both")
        return self

    def columns(self) -> list[str]:
        return [self.by]

    def decide(self, part: Part, state: Any) -> Decision:
        values = numbers(part, self.by)
        reason = np.full(len(values), "no_value", object)
        keep = ~np.isnan(values)
        if self.at_least is not None:
            below = values < np.float32(self.at_least)
            reason[below] = "below_threshold"
            keep &= ~below
        if self.at_most is not None:
            above = values > np.float32(self.at_most)
            reason[above] = "above_threshold"
            keep &= ~above
        return Decision(keep, values, reason)

    def describe(self, state: Any) -> dict[str, Any]:
        bounds = {n: getattr(self, n) for n in ("at_least", "at_most")}
        used = {n: json_number(np.float32(value)) for n, value in bounds.items() if value is not None}
        return {"column": self.by, "threshold": next(iter(used.values())), **used}
