"""`range`: keep the samples whose value lies between two numbers, or outside of them.

Ends belong to the interval or not (`closed`), the comparison is `threshold`'s: in float32, or in float64 for a column
of integers. null and NaN are in no interval and outside of none: such rows are dropped.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from .base import FILTERS, Decision, Filter, Part, json_number
from .threshold import comparable


@FILTERS.register
class Range(Filter):
    """Keep samples by an interval of one column."""

    type: Literal["range"] = "range"
    by: str = Field(description="Column to compare: a score by its name, or a number of the row table.")
    low: float = Field(allow_inf_nan=False, description="Lower end.")
    high: float = Field(allow_inf_nan=False, description="Upper end.")
    closed: Literal["both", "low", "high", "neither"] = Field(
        "both", description="Which ends belong to the interval; low = low <= value < high."
    )
    keep: Literal["inside", "outside"] = Field("inside", description="Which samples to keep.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"range: `low` ({self.low:g}) is larger than `high` ({self.high:g})")
        return self

    def columns(self) -> list[str]:
        return [self.by]

    def decide(self, part: Part, state: Any) -> Decision:
        values = comparable(part, self.by)
        low, high = values.dtype.type(self.low), values.dtype.type(self.high)
        below = values < low if self.closed in ("both", "low") else values <= low
        above = values > high if self.closed in ("both", "high") else values >= high
        missing = np.isnan(values)
        outside = below | above
        keep = ~missing & (outside if self.keep == "outside" else ~outside)
        reason = np.full(len(values), "inside", object)
        reason[below], reason[above], reason[missing] = "below_threshold", "above_threshold", "no_value"
        return Decision(keep, values.astype(np.float32), reason)

    def describe(self, state: Any) -> dict[str, Any]:
        low, high = json_number(np.float32(self.low)), json_number(np.float32(self.high))
        return {"column": self.by, "threshold": low, "low": low, "high": high, "keep": self.keep}
