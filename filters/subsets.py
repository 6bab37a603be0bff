"""`subsets`: the algebra of subsets: union, intersection, difference, sum.

    subsets:
      a: [...]
      b: [...]
      both: [{type: subsets, op: intersection, of: [a, b]}]

Works row by row on how often each subset has a row (0 = not in it), so it costs one small read per subset. As with
multisets, a union takes the largest multiplicity, an intersection the smallest, a sum adds them. A difference is about
membership: the rows of the first subset, as often as it has them, that are in none of the others. What this filter
says is multiplied with what the filters before it said. Rows are rows of the pool: two rows that share a uid are two.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from .base import FILTERS, Decision, Filter, Part

COLUMN = "subset."


@FILTERS.register
class Subsets(Filter):
    """Keep samples by their membership in other subsets of this config."""

    type: Literal["subsets"] = "subsets"
    op: Literal["union", "intersection", "difference", "sum"] = Field(
        description="union = in any (largest multiplicity) | intersection = in all (smallest) | "
        "difference = in the first and in no other (the first's) | sum = in any (added up)."
    )
    of: list[str] = Field(min_length=1, description="Names of subsets.")
    once: bool = Field(False, description="Keep every sample once, whatever the multiplicities.")

    def columns(self) -> list[str]:
        return list(dict.fromkeys(f"{COLUMN}{name}" for name in self.of))

    def decide(self, part: Part, state: Any) -> Decision:
        counts = np.stack([part.arrow(f"{COLUMN}{name}").to_numpy().astype(np.int64) for name in self.of])
        if self.op == "union":
            times = counts.max(axis=0)
        elif self.op == "intersection":
            times = counts.min(axis=0)
        elif self.op == "sum":
            times = counts.sum(axis=0)
        else:
            times = np.where((counts[1:] > 0).any(axis=0), 0, counts[0])
        repeats = np.minimum(times, 1) if self.once else times
        reason = "not_in_all" if self.op == "intersection" else "in_none"
        codes = np.full(len(part), reason, object)
        if self.op == "difference":
            codes[:] = np.where(counts[0] > 0, "in_another", "not_in_first")
        return Decision(times > 0, times.astype(np.float32), codes, np.maximum(repeats, 1).astype(np.int32))

    def describe(self, state: Any) -> dict[str, Any]:
        return {"op": self.op, "of": list(self.of)}
