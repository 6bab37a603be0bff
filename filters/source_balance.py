"""`source_balance`: equal or stated shares of groups, whatever their sizes: sources, languages, classes.

The groups are the values of a column. Their shares are equal, stated, or proportional to ``rows ** power`` (0 = equal,
1 = as it is; multilingual training uses 0.3-0.7). With ``max_repeats: 1`` groups are thinned out until the scarcest one
has its share; with more, the scarce ones are repeated. Which rows go, or are repeated once more, is drawn by a keyed
hash of the uid, exactly as many as the quota says (`group_cuts.py`).

A size that the groups cannot give is no error: every group gives what it has, and the facts say who fell short by how
much (`short`, `residual`: the largest difference between a share asked for and the one got).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from ..errors import DataError
from .base import FILTERS, Decision, Filter, Part, Pool
from .group_cuts import Cuts, Share, fit_cuts
from .group_ranking import Ranking, group_key, groups_of

MAX_GROUPS = 10_000


@dataclass(frozen=True)
class Mixture:
    """What every group gives.

    Attributes:
        names: of the groups, sorted.
        rows, samples: of each, before and after, ``(g,) int64``.
        shares: asked for, ``(g,) float64``, sum 1.
        asked: samples asked for in all.
        cuts: which rows are taken once more than ``samples // rows`` times; None without groups.
        without: rows without a group.
    """

    names: tuple[str, ...]
    rows: np.ndarray
    samples: np.ndarray
    shares: np.ndarray
    asked: int
    cuts: Cuts | None
    without: int


@FILTERS.register
class SourceBalance(Filter):
    """Give groups of samples equal or stated shares, by dropping or by repeating."""

    type: Literal["source_balance"] = "source_balance"
    by: str = Field(description="Column whose values are the groups: source, language, a class...")
    shares: dict[str, float] = Field(
        default_factory=dict,
        description="Share of each group in any unit, {web: 3, books: 1}; groups not named are dropped. Empty = all "
        "groups, by `power`.",
    )
    power: float = Field(
        0.0, ge=0, le=1, description="Without `shares`: shares go as rows ** power; 0 = equal, 1 = as it is."
    )
    samples: int | None = Field(
        None, ge=1, description="Samples in all, repeats included; default: as many as the shares allow."
    )
    max_repeats: int = Field(1, ge=1, description="How often a sample may be taken; 1 = balance by dropping only.")
    seed: int = Field(0, ge=0, description="Another number draws other samples, independently of the run's seed.")

    @model_validator(mode="after")
    def _sane(self) -> Self:
        if any(not np.isfinite(s) or s < 0 for s in self.shares.values()) or (
            self.shares and not any(self.shares.values())
        ):
            raise ValueError("shares are numbers, 0 or more, and not all of them 0")
        if self.shares and "power" in self.model_fields_set:
            raise ValueError("`power` has no meaning with `shares`; leave one of them out")
        return self

    def columns(self) -> list[str]:
        return ["uid", self.by]

    def fit(self, pool: Pool) -> Mixture:
        sizes, without = _sizes(pool, self.by)
        absent = sorted(name for name, share in self.shares.items() if share and name not in sizes)
        if absent and sizes:
            raise DataError(
                f"source_balance: no sample has {self.by} {absent[0]!r}; there are {', '.join(sorted(sizes)[:20])}"
            )
        names = tuple(sorted(name for name in sizes if not self.shares or self.shares.get(name)))
        rows = np.array([sizes[name] for name in names], np.int64)
        if not names:
            return Mixture((), rows, rows, np.empty(0), 0, None, without)
        weights = (
            [Fraction(self.shares[name]) for name in names]
            if self.shares
            else [Fraction(float(n) ** self.power) for n in rows.tolist()]
        )
        total = sum(weights)
        shares = [w / total for w in weights]
        most = [n * self.max_repeats for n in rows.tolist()]
        asked = self.samples if self.samples is not None else int(min(m / s for m, s in zip(most, shares, strict=True)))
        quotas = np.minimum(largest_remainders(shares, asked), most)
        if not quotas.any() and rows.any():
            raise DataError(
                "source_balance keeps nothing: the scarcest group is too small for its share; drop it first"
            )
        extra = {group_key(name): int(q % n) for name, q, n in zip(names, quotas, rows, strict=True)}
        ranking = Ranking(None, self.by, True, pool.seed, f"source_balance/{self.seed}")
        cuts = fit_cuts(pool, ranking, Share(counts=extra))
        return Mixture(names, rows, quotas, np.array([float(s) for s in shares]), asked, cuts, without)

    def decide(self, part: Part, state: Mixture) -> Decision:
        if state.cuts is None:
            nothing = np.zeros(len(part), bool)
            return Decision(nothing, np.full(len(part), np.nan, np.float32), "no_group")
        keys, grouped = groups_of(part, self.by)
        known = np.array([group_key(name) for name in state.names], np.uint64)
        order = np.argsort(known)
        at = order[np.minimum(np.searchsorted(known[order], keys), len(known) - 1)]
        mine = grouped & (known[at] == keys)
        more, _ = state.cuts.keep(part)
        times = np.where(mine, (state.samples // state.rows)[at] + more, 0)
        reason = np.where(grouped, np.where(mine, "over_share", "no_share"), "no_group")
        return Decision(times > 0, state.cuts.ranking.values(part), reason, np.maximum(times, 1).astype(np.int32))

    def describe(self, state: Mixture) -> dict[str, Any]:
        got = int(state.samples.sum())
        groups, residual = {}, 0.0
        wanted = largest_remainders([Fraction(s) for s in state.shares.tolist()], state.asked)
        for i, name in enumerate(state.names):
            share = int(state.samples[i]) / got if got else 0.0
            residual = max(residual, abs(share - float(state.shares[i])))
            groups[name] = {
                "rows": int(state.rows[i]),
                "samples": int(state.samples[i]),
                "share": share,
                "asked": float(state.shares[i]),
                "short": max(0, int(wanted[i] - state.samples[i])),
            }
        told = dict(list(groups.items())[:1000])
        return {
            "column": self.by,
            "asked": state.asked,
            "samples": got,
            "residual": residual,
            "without_group": state.without,
            "groups": told,
        }


def largest_remainders(shares: list[Fraction], total: int) -> np.ndarray:
    """Whole parts of `total` in proportion to `shares` (sum about 1), ``(g,) int64``; ties go to the first."""
    exact = [share * total for share in shares]
    quotas = np.array([int(x) for x in exact], np.int64)
    order = sorted(range(len(exact)), key=lambda i: quotas[i] - exact[i])
    quotas[order[: max(0, total - int(quotas.sum()))]] += 1
    return quotas


def _sizes(pool: Pool, column: str) -> tuple[dict[str, int], int]:
    """Rows of each group, and rows without one."""
    sizes: dict[str, int] = {}
    without = 0
    for names, missing in pool.map(_tally, column):
        without += missing
        for name, count in names.items():
            sizes[name] = sizes.get(name, 0) + count
        if len(sizes) > MAX_GROUPS:
            raise DataError(
                f"column {column!r} has more than {MAX_GROUPS} values; balance by one with fewer, such as a source"
            )
    return sizes, without


def _tally(part: Part, column: str) -> tuple[dict[str, int], int]:
    counted = part.arrow(column).cast(pa.string()).value_counts()
    found = {row["values"]: row["counts"] for row in counted.to_pylist()}
    missing = found.pop(None, 0)
    if len(found) > MAX_GROUPS:
        raise DataError(f"column {column!r} has {len(found)} values in part {part.name} alone; balance by another")
    return found, missing
