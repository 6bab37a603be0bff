"""`top_k`: keep exactly so many rows: the best by one score, of the whole pool or of each group.

Of rows with equal scores those with the smaller uid stay (then the earlier part and row), so the number is exact and
no sharding changes it. `per` takes the best of every group: of every class, of every source. Rows without a score never
stay, so a group with fewer scores than `count` keeps fewer. How it is done out of core: `group_cuts.py`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from .base import FILTERS, Decision, Filter, Part, Pool
from .group_cuts import Cuts, Share, fit_cuts, tell
from .group_ranking import Ranking

NO_VALUE, NO_GROUP, BELOW = "no_value", "no_group", "below_threshold"
GROUPS_IN_REPORT = 200


@FILTERS.register
class TopK(Filter):
    """Keep the `count` best samples, of all or of each group."""

    catches: ClassVar[tuple[str, ...]] = ("wrong_caption", "boilerplate", "foreign", "short")
    type: Literal["top_k"] = "top_k"
    by: str = Field(description="Column to rank by: a score by its name, or a number of the row table; as float32.")
    count: int = Field(ge=0, description="How many samples to keep, exactly; with `per`, of each group.")
    order: Literal["largest", "smallest"] = Field("largest", description="Which values are the best.")
    per: str | None = Field(None, description="Column whose values are groups (`source`, a class); null = all rows.")

    def columns(self) -> list[str]:
        return Ranking(self.by, self.per).columns()

    def fit(self, pool: Pool) -> dict[str, Any]:
        return fit_told(pool, Ranking(self.by, self.per, self.order == "largest"), Share(count=self.count))

    def decide(self, part: Part, state: dict[str, Any]) -> Decision:
        return decide_by_cuts(part, state["cuts"])

    def describe(self, state: dict[str, Any]) -> dict[str, Any]:
        return described(state)


def fit_told(pool: Pool, ranking: Ranking, share: Share) -> dict[str, Any]:
    """State of a filter that cuts groups: ``cuts`` and what is told of them, ``groups``."""
    cuts = fit_cuts(pool, ranking, share)
    return {"cuts": cuts, "groups": tell(pool, cuts)}


def decide_by_cuts(part: Part, cuts: Cuts, below: str = BELOW) -> Decision:
    """The decision for a part; the value is the score."""
    keep, grouped = cuts.keep(part)
    values = cuts.ranking.values(part)
    reason = np.where(np.isnan(values), NO_VALUE, below).astype(object)
    reason[~grouped] = NO_GROUP
    return Decision(keep, values, reason)


def described(state: dict[str, Any]) -> dict[str, Any]:
    """Facts for the report: one threshold, or the groups (the first of them, if they are very many)."""
    groups: dict[str, dict[str, Any]] = state["groups"]
    ranking: Ranking = state["cuts"].ranking
    facts: dict[str, Any] = {"column": ranking.by} if ranking.by is not None else {}
    if ranking.per is None:
        only = groups.get("", {"rows": 0, "scored": 0, "wanted": 0, "threshold": None})
        without = only["rows"] - only["scored"]
        return {**facts, "threshold": only["threshold"], "rows": only["rows"], "without_value": without}
    short = sum(1 for fact in groups.values() if fact["scored"] < fact["wanted"])
    first = dict(list(groups.items())[:GROUPS_IN_REPORT])
    return {**facts, "per": ranking.per, "groups": len(groups), "short_groups": short, "cuts": first}
