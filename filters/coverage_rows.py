"""The pool's side of `submodular`: rows to features and score bins, partitions to choices.

Features come first, the base score's bins follow as further features of which every row has one; so one greedy
(`coverage.py`) maximises both sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Emitted, Part, Routed, numbers
from .coverage import Coverage, lazy_greedy, stochastic_greedy
from .draw import uid_hash
from .sparse_features import Coder


@dataclass(frozen=True)
class Objective:
    """What a row is worth, as features: sparse ones first, then the score's bins.

    Attributes:
        column, by: embedding and base score (None = none).
        coder: makes the sparse features.
        low, high: the base score's range.
        bins: of the score, 0 without one.
    """

    column: str
    by: str | None
    coder: Coder
    low: float
    high: float
    bins: int

    def codes(self, part: Part) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``(m, a) int32`` features of the rows that can be chosen, and masks ``(n,)``: no embedding, no score."""
        sparse, usable = self.coder.codes(part.array(self.column))
        if self.by is None:
            return sparse, ~usable, np.zeros(len(part), bool)
        values = numbers(part, self.by)
        scored = np.isfinite(values)
        good = values[usable & scored].astype(np.float64)
        width = (self.high - self.low) or 1.0
        bins = np.clip((good - self.low) * (self.bins / width), 0, self.bins - 1).astype(np.int32) + len(self.coder)
        return np.column_stack([sparse[scored[usable]], bins]), ~usable, usable & ~scored


def ends(part: Part, by: str) -> tuple[float, float] | None:
    """Least and largest value of a column, None when there is none."""
    values = numbers(part, by)
    values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if len(values) else None


def frequency_of(part: Part, column: str, coder: Coder) -> np.ndarray:
    """How often each sparse feature occurs, ``(size,) int64``."""
    if not len(part):
        return np.zeros(len(coder), np.int64)
    codes, _ = coder.codes(part.array(column))
    return np.bincount(codes.ravel(), minlength=len(coder))


def _partition(uids: np.ndarray, seed: int, partitions: int) -> np.ndarray:
    hashes = uid_hash(uids, seed, "submodular/partition")
    return (hashes % np.uint64(partitions)).astype(np.int64)


def census(part: Part, objective: Objective, seed: int, partitions: int) -> tuple[int, np.ndarray, np.ndarray]:
    """Rows, rows that can be chosen by partition, and how often each feature occurs among them."""
    features = len(objective.coder) + objective.bins
    if not len(part):
        return 0, np.zeros(partitions, np.int64), np.zeros(features, np.int64)
    codes, empty, unscored = objective.codes(part)
    where = _partition(part.uids()[~empty & ~unscored], seed, partitions)
    return len(part), np.bincount(where, minlength=partitions), np.bincount(codes.ravel(), minlength=features)


def emit(
    part: Part,
    before: Routed | None,
    objective: Objective,
    weights: np.ndarray,
    quotas: np.ndarray,
    epsilon: float,
    key: tuple[int, int],
) -> Emitted:
    """Send the rows that can be chosen, or that the round `before` picked, to their partitions with their codes."""
    if not len(part):
        width = objective.coder.active + (1 if objective.bins else 0)
        none = np.empty(0, np.int64)
        return Emitted(none, none, part.uids(), {"codes": np.empty((0, width), np.int32)})
    codes, empty, unscored = objective.codes(part)
    good = ~empty & ~unscored
    if before is not None:
        columns = before.of(part)
        passed = columns["picked"] if columns["found"].any() else np.zeros(len(part), bool)
        codes, good = codes[passed[good]], good & passed
    uids = part.uids()[good]
    return Emitted(_partition(uids, key[0], len(quotas)), part.rows[good], uids, {"codes": codes})


def reduce(
    bucket: int,
    rows: dict[str, np.ndarray],
    before: Routed | None,
    objective: Objective,
    weights: np.ndarray,
    quotas: np.ndarray,
    epsilon: float,
    key: tuple[int, int],
) -> dict[str, np.ndarray]:
    """Choose the partition's quota; ``picked`` and ``gain`` per row."""
    coverage, count = Coverage(rows["codes"], weights), int(quotas[bucket])
    if epsilon > 0:
        rng = np.random.default_rng([*key, bucket, before is not None])
        picks = stochastic_greedy(coverage, count, epsilon, rng)
    else:
        picks = lazy_greedy(coverage, count)
    picked = np.zeros(len(rows["codes"]), bool)
    picked[picks.order] = True
    return {"picked": picked, "gain": picks.gain}
