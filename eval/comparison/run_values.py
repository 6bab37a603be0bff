"""The numbers of one measure over all models and arms: values with intervals, paired differences, ranks.

Everything here follows from stored rows of one protocol (`Protocol.tables`), one metric at a time, so that twenty runs
on ImageNet need the rows of one set in memory and no more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from .compare import ArmDifference, compare_arms, covariance
from .contributions import AGREES, Contributions, contributions, estimate, mean_of
from .ranks import rank_intervals, tie_groups
from .recomputed import interval as recomputed_interval
from .run_measures import Protocol, higher_is_better
from .statistics import Interval, against_chance, mean_over_seeds, paired_difference

Number = list[float | None]
_Z = 1.959963984540054


@dataclass(frozen=True)
class ArmModels:
    """One arm: seed -> model number."""

    name: str
    models: dict[int, int]


@dataclass
class Measured:
    """One metric of one protocol.

    Attributes:
        id: of the measure.
        value: model number -> the recorded value.
        rows: model number -> what each stored row adds; missing where the metric is no mean of rows.
        intervals: model number -> 95 % interval for other test samples.
        kind: how the intervals were made; None without any.
        sign: 1 if more is better, else -1.
        note: why there is no interval, if the rows and the record disagree.
    """

    id: str
    value: dict[int, float]
    rows: dict[int, Contributions]
    intervals: dict[int, Interval]
    kind: str | None
    sign: int
    note: str | None = None

    def per_model(self, models: int) -> list[list[float | None] | None]:
        """``[value, low, high]`` of every model."""
        return [[self.value[m], *_ends(self.intervals.get(m))] if m in self.value else None for m in range(models)]

    def of(self, arm: ArmModels) -> dict[int, float]:
        """Seed -> value of an arm."""
        return {seed: self.value[m] for seed, m in arm.models.items() if m in self.value}

    def rows_of(self, arm: ArmModels) -> dict[int, Contributions]:
        """Seed -> rows of an arm."""
        return {seed: self.rows[m] for seed, m in arm.models.items() if m in self.rows}


def _ends(found: Interval | None) -> tuple[float | None, float | None]:
    return found if found else (None, None)


def measured(protocol: Protocol, tables: Mapping[int, pa.Table], metric: str, full: bool = True) -> Measured:
    """Values, and what the stored rows say about their chance.

    Args:
        full: whether intervals may take their time; else normal ones, and none where only recomputation gives one.
    """
    value = {m: float(v) for m, row in protocol.rows.items() if (v := row.record["metrics"].get(metric)) is not None}
    found = Measured(protocol.measure(metric), value, {}, {}, None, 1 if higher_is_better(metric) else -1)
    kinds: dict[str, None] = {}
    for m, v in value.items():
        rows = contributions(tables[m], metric, v)
        if rows is None:
            ends, kind = recomputed_interval(tables[m], metric, v) if full else None, "bootstrap"
        elif abs(rows.estimate - v) > AGREES:
            found.note = f"no interval: the stored rows give {rows.estimate:.6f} where {v:.6f} was recorded"
            continue
        else:
            found.rows[m] = rows
            one = estimate(rows, draw=full)
            ends, kind = one.interval, one.kind
        if ends and kind:
            found.intervals[m] = ends
            kinds[kind] = None
    found.kind = " or ".join(kinds) or None
    return found


def arm_values(found: Measured, arms: Sequence[ArmModels]) -> list[list[float | int | None] | None]:
    """``[mean, low, high, seeds]`` of every arm: t-interval over seeds; of one seed, that for other test samples."""
    told: list[list[float | int | None] | None] = []
    for arm in arms:
        values = found.of(arm)
        if not values:
            told.append(None)
            continue
        mean = mean_over_seeds(list(values.values()))
        alone = found.intervals.get(arm.models[next(iter(values))])
        told.append([mean.mean, *_ends(mean.ci95 if mean.n > 1 else alone), mean.n])
    return told


def chance_tests(
    found: Measured, metric: str, chance: float | None, n: int, models: int
) -> list[list[Any] | None] | None:
    """Whether each model can be told from guessing, and p; None for what is not a plain top-1 accuracy."""
    if chance is None or not metric.endswith("acc1") or found.kind != "wilson":
        return None
    tests = {m: against_chance(round(v * n), n, chance) for m, v in found.value.items()}
    return [[tests[m].verdict, round(tests[m].p, 5)] if m in tests else None for m in range(models)]


def paired_with(found: Measured, arms: Sequence[ArmModels], control: int) -> list[dict[str, Any] | None]:
    """Every arm minus the control; ``p_holm`` is filled in when all comparisons of the page are known."""
    told: list[dict[str, Any] | None] = []
    for place, arm in enumerate(arms):
        other = arms[control]
        one = None
        if place != control:
            one = compare_arms(
                (found.of(arm), found.of(other)), (found.rows_of(arm), found.rows_of(other)), (arm.name, other.name)
            )
        told.append(_told(one) if one else None)
    return told


def _told(one: ArmDifference) -> dict[str, Any]:
    low, high = _ends(one.interval)
    return {
        "difference": one.difference,
        "low": low,
        "high": high,
        "p": one.p,
        "p_holm": None,
        "basis": one.basis,
        "seeds": one.over_seeds.n,
        "samples": list(one.over_samples) if one.over_samples else None,
        "both": list(one.both) if one.both else None,
        "wins": one.wins,
        "losses": one.losses,
        "detectable": one.detectable,
    }


class Pairs:
    """Paired intervals of any two arms by one measure: over seeds where both have several, else over test samples.

    All come from one covariance matrix of the arms' means, so there is no resampling per pair. An arm takes part in
    comparisons over samples if all its models have stored rows.
    """

    def __init__(self, found: Measured, arms: Sequence[ArmModels]) -> None:
        self.found, self.arms = found, arms
        self.values = [found.of(arm) for arm in arms]
        self.there = [i for i, values in enumerate(self.values) if values]
        self.sampled = [i for i in self.there if len(found.rows_of(arms[i])) == len(self.values[i])]
        self._place = {arm: k for k, arm in enumerate(self.sampled)}
        means = [mean_of(list(found.rows_of(arms[i]).values())) for i in self.sampled]
        self._covariance = covariance(means, [arms[i].name for i in self.sampled]) if means else np.zeros((0, 0))

    @property
    def means(self) -> dict[int, float]:
        """Arm number -> mean over its seeds."""
        return {i: math.fsum(self.values[i].values()) / len(self.values[i]) for i in self.there}

    def difference(self, a: int, b: int) -> tuple[float, Interval | None] | None:
        """Mean of a minus b with its interval; over common seeds if there are two, else over samples of all seeds."""
        over_seeds = paired_difference(self.values[a], self.values[b])
        if over_seeds is not None and over_seeds.n > 1:
            return over_seeds.mean, over_seeds.ci95
        means = self.means
        if a not in means or b not in means:
            return None
        gap = means[a] - means[b]
        if a not in self._place or b not in self._place:
            return gap, None
        i, j, cov = self._place[a], self._place[b], self._covariance
        half = _Z * math.sqrt(max(0.0, cov[i, i] + cov[j, j] - 2 * cov[i, j]))
        return gap, (gap - half, gap + half)

    def told_apart(self, a: int, b: int) -> bool:
        """Whether the interval excludes 0."""
        found = self.difference(a, b)
        return found is not None and found[1] is not None and not found[1][0] <= 0 <= found[1][1]

    def all(self) -> list[list[Any]]:
        """``[a, b, difference, low, high]`` of all pairs a < b that can be compared."""
        told = []
        for k, a in enumerate(self.there):
            for b in self.there[k + 1 :]:
                found = self.difference(a, b)
                if found is not None:
                    told.append([a, b, found[0], *_ends(found[1])])
        return told

    def ranks(self, seed: int = 0) -> list[dict[str, Any] | None]:
        """Place, shared rank, and the interval of the place of every arm."""
        sign, means, there = self.found.sign, self.means, self.there
        scores = [sign * means[i] for i in there]
        rank = tie_groups(scores, lambda a, b: self.told_apart(there[a], there[b]))
        order = sorted(range(len(there)), key=lambda k: -scores[k])
        intervals = self._rank_intervals(scores, seed)
        told: list[dict[str, Any] | None] = [None] * len(self.arms)
        for place, k in enumerate(order, start=1):
            low, high = (int(end) for end in intervals[k]) if intervals else (None, None)
            best = k == order[0] or not self.told_apart(there[order[0]], there[k])
            told[there[k]] = {"place": place, "rank": rank[k], "low": low, "high": high, "best": best}
        return told

    def _rank_intervals(self, scores: list[float], seed: int) -> list[Interval] | None:
        """From the covariance over samples and, for arms with several seeds, the variance of their mean over seeds."""
        if not scores:
            return None
        spread = [mean_over_seeds(list(self.values[i].values())) for i in self.there]
        if not all(one.sd is not None or i in self._place for one, i in zip(spread, self.there, strict=True)):
            return None
        whole = np.diag([(one.sd or 0.0) ** 2 / one.n for one in spread])
        where = [k for k, i in enumerate(self.there) if i in self._place]
        inside = [self._place[self.there[k]] for k in where]
        whole[np.ix_(where, where)] += self._covariance[np.ix_(inside, inside)]
        return rank_intervals(np.array(scores), whole, seed)
