"""`threshold`: keep the samples whose score is at least, or at most, a number.

Compared in float32, as DataComp does: float32(0.29) lies below the float64 number, so comparing a float32 score with
0.29 in float64 would drop the rows that are exactly on the threshold. Columns of integers, which float32 would round
above 2^24, are compared in float64. Thresholds belong to one encoder; for a share of the pool use `top_fraction`.
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
    above: float | None = Field(None, allow_inf_nan=False, description="Keep values > this, as float32.")
    below: float | None = Field(None, allow_inf_nan=False, description="Keep values < this, as float32.")

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        lower = [name for name in ("at_least", "above") if getattr(self, name) is not None]
        upper = [name for name in ("at_most", "below") if getattr(self, name) is not None]
        if not lower and not upper:
            raise ValueError("threshold needs `at_least`, `at_most`, `above` or `below`")
        for pair in (lower, upper):
            if len(pair) > 1:
                raise ValueError(f"threshold takes `{pair[0]}` or `{pair[1]}`, not both")
        return self

    def columns(self) -> list[str]:
        return [self.by]

    def decide(self, part: Part, state: Any) -> Decision:
        values = comparable(part, self.by)
        reason = np.full(len(values), "no_value", object)
        keep = ~np.isnan(values)
        too_low, too_high = np.zeros(len(values), bool), np.zeros(len(values), bool)
        kind = values.dtype.type
        if self.at_least is not None:
            too_low = values < kind(self.at_least)
        if self.above is not None:
            too_low = values <= kind(self.above)
        if self.at_most is not None:
            too_high = values > kind(self.at_most)
        if self.below is not None:
            too_high = values >= kind(self.below)
        reason[too_low], reason[too_high] = "below_threshold", "above_threshold"
        keep &= ~(too_low | too_high)
        return Decision(keep, values.astype(np.float32), reason)

    def describe(self, state: Any) -> dict[str, Any]:
        bounds = {n: getattr(self, n) for n in ("at_least", "at_most", "above", "below")}
        used = {n: json_number(np.float32(value)) for n, value in bounds.items() if value is not None}
        return {"column": self.by, "threshold": next(iter(used.values())), **used}


def comparable(part: Part, column: str) -> np.ndarray:
    """A column as thresholds see it: ``(n,) float32``, or ``float64`` of a column of integers; null becomes NaN."""
    import pyarrow as pa

    integers = pa.types.is_integer(part.arrow(column).type)
    return numbers(part, column, np.float64 if integers else np.float32)
