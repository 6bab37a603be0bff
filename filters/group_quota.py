"""`quota`: so many samples of each group: of every source, class or language, the best by a score or a random draw.

A group's quota is a count or a share of its rows, by name or for all others alike; or, for a mixture of a stated size,
`total` and `shares`, which become counts by the method of largest remainders. Exact, with `top_k`'s rule for equal
scores (the smaller uid). A group that has fewer rows than its quota keeps what it has, which is told (`short_groups`),
or is an error with `strict`. Groups that no rule names are dropped as `no_quota`, rows without a group as `no_group`.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from ..errors import DataError
from .base import FILTERS, Decision, Filter, Part, Pool
from .group_cuts import Share
from .group_ranking import Ranking, group_key, groups_of
from .top_k import decide_by_cuts, described, fit_told


@FILTERS.register
class Quota(Filter):
    """Keep a stated number, or share, of the samples of each group."""

    type: Literal["quota"] = "quota"
    per: str = Field(description="Column whose values are the groups: `source`, `language`, a class...")
    counts: dict[str, int] = Field(default_factory=dict, description="Samples of each group, by the group's name.")
    fractions: dict[str, float] = Field(default_factory=dict, description="Shares of groups' rows, rounded down.")
    count: int | None = Field(None, ge=0, description="Samples of each group that is not named.")
    fraction: float | None = Field(None, ge=0, le=1, description="Share of each group that is not named.")
    total: int | None = Field(None, ge=0, description="Samples in all, split by `shares`.")
    shares: dict[str, float] = Field(
        default_factory=dict, description="Parts of `total` by group, in any unit: {web: 3, books: 1}."
    )
    by: str | None = Field(None, description="Column to rank by, the largest first; null = a random draw.")
    order: Literal["largest", "smallest"] = Field("largest", description="Which values of `by` are the best.")
    strict: bool = Field(False, description="Fail when a named group has fewer samples than its quota.")
    seed: int = Field(0, ge=0, description="Another number draws other samples, independently of the run's seed.")

    @field_validator("counts", "fractions", "shares", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        """Groups may be numbers or booleans in the file; they are compared as text."""
        if not isinstance(value, dict):
            return value
        return {(str(k).lower() if isinstance(k, bool) else str(k)): v for k, v in value.items()}

    @model_validator(mode="after")
    def _rules(self) -> Self:
        if (self.total is None) != (not self.shares):
            raise ValueError("quota: `total` and `shares` belong together")
        if self.count is not None and self.fraction is not None:
            raise ValueError("quota takes `count` or `fraction` for the groups that are not named, not both")
        named = [*self.counts, *self.fractions, *self.shares]
        if len(set(named)) < len(named):
            twice = next(name for name in named if named.count(name) > 1)
            raise ValueError(f"quota: the group {twice!r} has two quotas")
        if not named and self.count is None and self.fraction is None:
            raise ValueError("quota needs `counts`, `fractions`, `shares`, or a `count` or `fraction` for every group")
        for name, value in {**self.counts, **self.fractions, **self.shares}.items():
            if not 0 <= value < float("inf") or (name in self.fractions and value > 1):
                raise ValueError(f"quota: {value} is no quota for the group {name!r}")
        if self.shares and not sum(self.shares.values()):
            raise ValueError("quota: all `shares` are 0")
        return self

    def columns(self) -> list[str]:
        return Ranking(self.by, self.per).columns()

    def wanted(self) -> dict[str, int]:
        """Counts of the named groups, those of `shares` worked out."""
        return {**self.counts, **(apportion(self.total, self.shares) if self.total is not None else {})}

    def fit(self, pool: Pool) -> dict[str, Any]:
        counts = self.wanted()
        share = Share(
            self.count,
            self.fraction,
            {group_key(name): count for name, count in counts.items()},
            {group_key(name): fraction for name, fraction in self.fractions.items()},
        )
        ranking = Ranking(self.by, self.per, self.order == "largest", pool.seed, f"quota/{self.seed}")
        state = fit_told(pool, ranking, share)
        groups = state["groups"]
        for name, count in counts.items():
            if count and name not in groups:
                groups[name] = {"threshold": None, "rows": 0, "scored": 0, "wanted": count}
        state["groups"] = groups = dict(sorted(groups.items()))
        if self.strict:
            for name, fact in groups.items():
                if fact["scored"] < fact["wanted"] and name in counts:
                    raise DataError(
                        f"quota: {fact['wanted']} samples of {name!r} asked for, but only {fact['scored']} reach this "
                        "filter; ask for fewer, or leave out `strict`"
                    )
        return state

    def decide(self, part: Part, state: dict[str, Any]) -> Decision:
        decision = decide_by_cuts(part, state["cuts"], "below_threshold" if self.by is not None else "not_drawn")
        if self.count is None and self.fraction is None:
            keys, grouped = groups_of(part, self.per)
            named = [group_key(name) for name in (*self.wanted(), *self.fractions)]
            assert isinstance(decision.reason, np.ndarray)
            decision.reason[grouped & ~np.isin(keys, np.array(named, np.uint64))] = "no_quota"
        return decision

    def describe(self, state: dict[str, Any]) -> dict[str, Any]:
        return described(state)


def apportion(total: int, shares: dict[str, float]) -> dict[str, int]:
    """Whole numbers in the ratio of `shares` that add up to `total`: largest remainders, equal ones by name."""
    exact = {name: Fraction(share) for name, share in shares.items()}
    whole = sum(exact.values())
    quota = {name: total * share / whole for name, share in exact.items()}
    counts = {name: int(q) for name, q in quota.items()}
    rest = sorted(quota, key=lambda name: (counts[name] - quota[name], name))
    for name in rest[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
