"""`submodular`: choose a set, not samples: cover the pool's features and favour high scores (SDM-style).

    maximise  diversity * sum_f p_f log(1 + m_f(A))  +  (1 - diversity) * sum_b u_b log(1 + c_b(A))

m_f counts chosen rows with sparse feature f (`sparse_features.py`), c_b those in bin b of the base score `by`. p_f is
how common the feature is, in the pool or in a `target` set, and u_b how good the bin (its middle on a scale of 0-1),
both scaled to sum 1: the first sum alone is best when features are chosen in the proportions p, the second when bins
are in the proportions u. This is our reading of SDM (ICLR 2026; 39.2 IN and avg on DataComp-medium); its features and
weights may differ. Stochastic greedy with exact gains (`coverage.py`), seeded.

Any column can be the base, a learned mix too, and a draw with repeats may follow; the two lines that combine them:

    - {type: submodular, encoder: clip, by: mixed, keep: auto}
    - {type: soft_cap_sampling, by: mixed, total: auto}

Greedy is one after another, so it runs in one worker, 4 bytes per active feature and row and as much again three times
while rows are gathered (16 features: 0.3 KB a row at the peak, measured; 3 GB for 10 M), and 13 us a kept sample.
`partitions` > 1 is for larger pools and *approximate*: each random partition (by uid) chooses `oversample` times its
share, then the union of the chosen is chosen from once more in one worker (GreeDi: Mirzasoleiman et al., NeurIPS 2013);
with `oversample: 1` the partitions' choices are the result and no worker sees more than one. The embeddings are read
twice, three times with a second round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ..errors import DataError
from .base import FILTERS, Context, Decision, Filter, Part, Pool, Routed, json_number, numbers
from .budget import AUTO, Budget, Budgeted
from .coverage_rows import Objective, census, emit, ends, frequency_of, reduce
from .quotas import round_quotas
from .sparse_features import Kind, fit_coder


@dataclass(frozen=True)
class Chosen:
    """The outcome.

    Attributes:
        routed: ``picked`` and ``gain``; of the last round first. Empty for an empty pool.
        facts: about the objective, for the report.
        rows, possible: rows that reached the filter, and those that could be chosen.
        count: rows chosen.
        budget: when `keep` was auto.
    """

    routed: tuple[Routed, ...]
    facts: dict[str, Any]
    rows: int
    possible: int
    count: int
    budget: Budget | None


@FILTERS.register
class Submodular(Budgeted, Filter):
    """Choose the set that covers the pool's features best and scores high (submodular selection)."""

    type: Literal["submodular"] = "submodular"
    encoder: str = Field(description="Encoder whose embeddings are made into sparse features.")
    modality: Literal["image", "text"] = Field("image", description="Features of images or of captions.")
    by: str | None = Field(None, description="Base score: any column, a learned mix too; none = only diversity counts.")
    keep: float | AUTO | None = Field(
        None, description="Share of the samples to keep, 0-1, rounded down; auto = by the training budget."
    )
    count: int | None = Field(None, ge=1, description="How many samples to keep, instead of `keep`.")
    diversity: float = Field(0.5, ge=0, le=1, description="Weight of the features; the rest is the base score's.")
    features: Kind = Field("centroids", description="Where sparse features come from: k-means, random, or trained.")
    size: int = Field(1024, ge=2, description="Number of features; SDM used 98,304.")
    active: int = Field(16, ge=1, description="Features that each sample has.")
    target: str | None = Field(None, description="Target set whose features to cover; default: the pool's own.")
    bins: int = Field(100, ge=1, description="Bins of equal width between the least and the largest base score.")
    epsilon: float = Field(0.1, ge=0, lt=1, description="Looks at n/count log(1/epsilon) samples a pick; 0 = all.")
    partitions: int = Field(1, ge=1, description="Choose in this many random parts of the pool, approximately.")
    oversample: float = Field(2.0, ge=1, description="With partitions: how many times its share each passes on.")
    steps: int = Field(100, ge=1, description="k-means iterations at most, or training steps of the autoencoder.")
    sample: int = Field(65_536, ge=1, description="Samples that features are learned from, at most.")
    seed: int = Field(0, ge=0, description="Another number looks at other samples for each pick.")

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.keep is None) == (self.count is None):
            raise ValueError("submodular needs exactly one of `keep` (a share, or auto) and `count`")
        if isinstance(self.keep, float) and not 0 < self.keep <= 1:
            raise ValueError(f"keep is a share above 0, at most 1, not {self.keep:g}")
        if self.active >= self.size:
            raise ValueError(f"active ({self.active}) must be less than size ({self.size}), or every sample has all")
        if self.by is None and self.diversity < 1 and "diversity" in self.model_fields_set:
            raise ValueError("diversity below 1 weighs a base score against it; name one with `by`")
        return self

    @property
    def wants_budget(self) -> bool:
        return self.keep == "auto"

    def columns(self) -> list[str]:
        column = f"{self.encoder}.{self.modality}"
        return ["uid", column] + ([self.by] if self.by is not None else [])

    def targets(self) -> dict[str, list[str]]:
        return {self.target: [f"{self.encoder}.{self.modality}"]} if self.target is not None else {}

    def fit_in(self, context: Context) -> Chosen:
        return self._fit(context.pool, context.target(self.target) if self.target is not None else None)

    def fit(self, pool: Pool) -> Chosen:
        if self.target is not None:
            raise DataError(f"submodular: the target set {self.target!r} is not known here; use `fit_in`")
        return self._fit(pool, None)

    def _fit(self, pool: Pool, target: Pool | None) -> Chosen:
        column = f"{self.encoder}.{self.modality}"
        coder = fit_coder(pool, column, self.features, self.size, self.active, self.steps, self.sample)
        if not len(coder):
            return Chosen((), {}, 0, 0, 0, None)
        low, high = self._range(pool)
        objective = Objective(column, self.by, coder, low, high, self.bins if self.by is not None else 0)
        seen = pool.map(census, objective, pool.seed, self.partitions)
        rows, possible = sum(s[0] for s in seen), np.sum([s[1] for s in seen], axis=0)
        frequency = np.sum([s[2] for s in seen], axis=0)[: len(coder)]
        if target is not None:
            frequency = np.sum(target.map(frequency_of, column, coder), axis=0)
            if not frequency.any():
                raise DataError(f"submodular: no sample of target set {self.target!r} has a {column!r} embedding")
        found = self.budget_of(rows) if self.keep == "auto" else None
        count = self._count(rows, int(possible.sum()), found)
        weights = self._weights(frequency, objective.bins)
        routed = self._choose(pool, objective, weights, possible, count)
        return Chosen(routed, self._facts(objective), rows, int(possible.sum()), count, found)

    def _range(self, pool: Pool) -> tuple[float, float]:
        """Least and largest base score."""
        if self.by is None:
            return 0.0, 0.0
        found = [e for e in pool.map(ends, self.by) if e is not None]
        if not found:
            raise DataError(f"submodular: column {self.by!r} has no value in any row; was its score computed?")
        return min(e[0] for e in found), max(e[1] for e in found)

    def _count(self, rows: int, possible: int, found: Budget | None) -> int:
        if found is not None:
            wanted = found.kept
        else:
            wanted = self.count if self.count is not None else int(rows * float(self.keep or 0.0))
        if wanted > possible:
            raise DataError(
                f"submodular: {wanted} samples asked for, but only {possible} of {rows} have an embedding"
                f"{' and a score' if self.by is not None else ''}; keep fewer"
            )
        return wanted

    def _weights(self, frequency: np.ndarray, bins: int) -> np.ndarray:
        """Worth of every feature and bin, ``(size + bins,) float64``."""
        p = frequency / max(1, frequency.sum())
        if not bins:
            return p
        u = (np.arange(bins) + 0.5) / bins
        return np.concatenate([self.diversity * p, (1 - self.diversity) * u / u.sum()])

    def _choose(
        self, pool: Pool, objective: Objective, weights: np.ndarray, possible: np.ndarray, count: int
    ) -> tuple[Routed, ...]:
        shared = round_quotas(possible * (count / max(1, possible.sum())), possible, count)
        more = self.partitions > 1 and self.oversample > 1
        first = np.minimum(np.ceil(shared * self.oversample).astype(np.int64), possible) if more else shared
        key = (pool.seed, self.seed)
        routed = pool.shuffle(emit, reduce, self.partitions, None, objective, weights, first, self.epsilon, key)
        if not more:
            return (routed,)
        last = np.array([count])
        return pool.shuffle(emit, reduce, 1, routed, objective, weights, last, self.epsilon, key), routed

    def decide(self, part: Part, state: Chosen) -> Decision:
        n = len(part)
        if not state.routed:
            return Decision(np.zeros(n, bool), np.full(n, np.nan, np.float32), "no_embedding")
        keep, gain = np.zeros(n, bool), np.full(n, np.nan, np.float32)
        left = np.zeros(n, bool)
        for routed in reversed(state.routed):
            columns = routed.of(part)
            left |= columns["found"]
            if columns["found"].any():
                keep = columns["picked"]
                gain = np.where(columns["found"], columns["gain"], gain)
        if not (~left).any():
            return Decision(keep, gain, "not_chosen")
        norm = np.isfinite(numbers(part, self.by)) if self.by is not None else np.ones(n, bool)
        reason = np.where(left, "not_chosen", np.where(norm, "no_embedding", "no_value"))
        return Decision(keep, gain, reason)

    def _facts(self, objective: Objective) -> dict[str, Any]:
        coder = objective.coder
        facts: dict[str, Any] = {"features": len(coder), "active": coder.active, "made_by": coder.made_by}
        facts |= {"partitions": self.partitions, "approximate": self.partitions > 1}
        facts["diversity"] = self.diversity if self.by is not None else 1.0
        if self.by is not None:
            facts |= {"column": self.by, "range": [json_number(objective.low), json_number(objective.high)]}
        return facts

    def describe(self, state: Chosen) -> dict[str, Any]:
        facts = {"rows": state.rows, "possible": state.possible, "chosen": state.count} | state.facts
        return facts | ({"budget": state.budget.facts()} if state.budget is not None else {})
