"""Which samples to show of a filter's decisions: some at random, and those next to its threshold.

Decisions are read part by part, and each part leaves only its best candidates, so memory does not grow with the pool.
The random ones are those with the smallest numbers drawn for (seed, part); ties at the threshold are broken by the same
numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ...filters.base import Part
from ..decisions import read_decision
from .cluster_edges import cluster_edges
from .cuts import distance, group_distance, group_thresholds, thresholds
from .source import RunData


@dataclass(frozen=True)
class Example:
    """One row and what the filter said of it; `value` is NaN where it had none, `group` -1."""

    part: int
    row: int
    value: float
    reason: str
    group: int = -1


@dataclass
class Best:
    """The candidates with the smallest keys."""

    most: int
    found: list[tuple[tuple[float, float, int, int], Example]] = field(default_factory=list)

    def offer(self, keys: np.ndarray, ties: np.ndarray, at: np.ndarray, make: Callable[[int], Example]) -> None:
        """Candidates `at` with their `keys`; those with an infinite key are none."""
        at = at[np.isfinite(keys[at])]
        if len(at) > self.most:
            limit = np.partition(keys[at], self.most - 1)[self.most - 1] if self.most else -np.inf
            at = at[keys[at] <= limit]
            at = at[np.lexsort((ties[at], keys[at]))][: self.most]
        for i in at.tolist():
            example = make(i)
            self.found.append(((float(keys[i]), float(ties[i]), example.part, example.row), example))
        self.found.sort(key=lambda entry: entry[0])
        del self.found[self.most :]

    def examples(self) -> list[Example]:
        """Best first."""
        return [example for _, example in self.found]


@dataclass
class Examples:
    """Samples of one filter, `Example` lists: drawn at random (in pool order), and nearest to the threshold first."""

    dropped: list[Example]
    kept: list[Example]
    just_dropped: list[Example]
    just_kept: list[Example]
    dropped_total: int
    kept_total: int


def examples(run: RunData, decisions: str, facts: dict, size: int, seed: int) -> Examples:
    """Samples of the decisions in a folder.

    Args:
        facts: of the filter; they tell where it cuts.
        size: how many of each kind, at most.
    """
    bests = {(near, keep): Best(size) for near in (False, True) for keep in (False, True)}
    totals = {False: 0, True: 0}
    told = thresholds(facts) or group_thresholds(facts)
    edges = None if told else cluster_edges([(decisions, shard.name) for shard in run.shards])
    for index, shard in enumerate(run.shards):
        table = read_decision(decisions, shard.name)
        rows, keep = table["row"].to_numpy(), table["keep"].to_numpy()
        value, reason = table["value"].to_numpy(), table["reason"]
        group = table["group"].to_numpy() if "group" in table.column_names else np.full(len(rows), -1)
        lot = np.random.Generator(np.random.Philox(key=[seed, index])).random(len(rows))
        gaps = edges.of(value, group) if edges else _gaps(run.store.part(index, rows), value, facts)

        def make(i: int, part: int = index, rows=rows, value=value, reason=reason, group=group) -> Example:
            return Example(part, int(rows[i]), float(value[i]), reason[i].as_py() or "", int(group[i]))

        for side in (False, True):
            at = np.flatnonzero(keep == side)
            totals[side] += len(at)
            bests[False, side].offer(lot, lot, at, make)
            bests[True, side].offer(gaps, lot, at, make)
    drawn = {side: sorted(bests[False, side].examples(), key=lambda e: (e.part, e.row)) for side in (False, True)}
    return Examples(
        drawn[False],
        drawn[True],
        bests[True, False].examples(),
        bests[True, True].examples(),
        totals[False],
        totals[True],
    )


def _gaps(part: Part, value: np.ndarray, facts: dict) -> np.ndarray:
    """How far each row is from the threshold that it met, ``(n,) float64``; infinite where there is none."""
    groups = group_thresholds(facts)
    if groups and isinstance(facts.get("per"), str):
        return group_distance(value, part.arrow(facts["per"]), groups)
    return distance(value, thresholds(facts))
