"""Many results -> leaderboards: each arm's mean over seeds, and its paired difference to a control arm.

`rows` reads and checks what is compared here; `compare` has the statistics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ...errors import DataError
from ..results.files import is_share_right
from .compare import compare_arms
from .rows import Row, class_column, class_recall, gather, has_recalls, tidy
from .statistics import (
    Interval,
    McNemar,
    Mean,
    Paired,
    bootstrap_classes,
    holm,
    mcnemar,
    mean_over_seeds,
)


@dataclass(frozen=True)
class Comparison:
    """An arm minus the control, over the seeds that both have.

    Attributes:
        control: name of the control arm.
        over_seeds: paired difference with t-interval, sign test and minimum detectable effect: *the* answer when there
            are several seeds.
        p_holm: ``over_seeds.p`` adjusted for all arms of the leaderboard.
        over_classes: 95 % bootstrap interval over classes of the difference averaged over seeds; None for metrics that
            are not a mean over classes or samples.
        mcnemar: of each common seed, on the same images; empty where answers are not right or wrong.
        over_samples: 95 % interval for other test images of the same models' mean difference; None without stored rows.
        both: 95 % interval for other seeds and other images together (`compare.ArmDifference`).
        detectable: smallest difference that this comparison would have found with 80 % power.
    """

    control: str
    over_seeds: Paired
    p_holm: float | None
    over_classes: Interval | None
    mcnemar: dict[int, McNemar]
    over_samples: Interval | None = None
    both: Interval | None = None
    detectable: float | None = None


@dataclass(frozen=True)
class Arm:
    """One line of a leaderboard.

    Attributes:
        name: of the arm.
        values: each seed's value.
        over_seeds: their mean and t-interval: chance of training.
        wilson95: each seed's interval for other test images; None unless the metric is a plain accuracy.
        comparison: with the control; None for the control, or without a common seed.
    """

    name: str
    values: dict[int, float]
    over_seeds: Mean
    wilson95: dict[int, Interval] | None
    comparison: Comparison | None


@dataclass(frozen=True)
class Leaderboard:
    """All arms on one set by one suite, best first.

    Attributes:
        dataset, suite, metric: what was measured.
        n: samples; `classes`: number of classes; `chance`: what a guess reaches, None = not known.
        control: the arm that the others are compared with.
        arms: by mean, best first; equal means in the order of the input.
        without: arms that have no value of the metric.
    """

    dataset: str
    suite: str
    metric: str
    n: int
    classes: int
    chance: float | None
    control: str
    arms: list[Arm]
    without: list[str]

    def to_json(self) -> dict[str, Any]:
        """As strict JSON; seeds become strings."""
        return asdict(self)


def leaderboards(rows: Sequence[Row], control: str | None = None) -> list[Leaderboard]:
    """A leaderboard of the main metric for every set and suite that has one, in the order of the rows."""
    measured = dict.fromkeys((r.dataset, r.suite) for r in rows if r.record["main_metric"] is not None)
    return [leaderboard(rows, d, s, control=control) for d, s in measured]


def leaderboard(
    rows: Sequence[Row], dataset: str, suite: str, metric: str | None = None, control: str | None = None
) -> Leaderboard:
    """Compare all arms on one set by one suite.

    Args:
        rows: from `gather`.
        metric: default: the suite's main metric.
        control: arm to compare with; default: the first of the rows.

    Raises:
        DataError: there are no such results, or no such arm or metric.
    """
    chosen = [r for r in rows if (r.dataset, r.suite) == (dataset, suite)]
    if not chosen:
        raise DataError(f"there are no results of {suite} on {dataset}")
    record = chosen[0].record
    metric = metric or record["main_metric"]
    if metric is None:
        raise DataError(f"{suite} on {dataset} has no main metric; name one of: {', '.join(record['metrics'])}")
    by_arm: dict[str, dict[int, Row]] = {}
    without = {}
    for row in chosen:
        if row.metric(metric) is None:
            without[row.arm] = None
        else:
            by_arm.setdefault(row.arm, {})[row.seed] = row
    control = control or chosen[0].arm
    if control not in {r.arm for r in chosen}:
        raise DataError(f"the control arm {control!r} has no results of {suite} on {dataset}")
    against = by_arm.get(control, {})

    compared = {a: _compare(a, seeds, control, against, metric) for a, seeds in by_arm.items() if a != control}
    found = {a: c for a, c in compared.items() if c is not None}
    adjusted = holm([c.over_seeds.p for c in found.values()])
    found = {a: replace(c, p_holm=p) for (a, c), p in zip(found.items(), adjusted, strict=True)}
    arms = [
        Arm(
            name,
            _values(seeds, metric),
            mean_over_seeds(list(_values(seeds, metric).values())),
            _wilson(seeds, metric),
            found.get(name),
        )
        for name, seeds in by_arm.items()
    ]
    arms.sort(key=lambda arm: -arm.over_seeds.mean)
    return Leaderboard(
        dataset, suite, metric, record["n"], record["classes"], record["chance"], control, arms, list(without)
    )


def _wilson(seeds: Mapping[int, Row], metric: str) -> dict[int, Interval] | None:
    """The recorded intervals, which are of the share of right answers, where that is what the metric is."""
    records = {s: r.record for s, r in seeds.items() if r.record["wilson95"] and metric.endswith("acc1")}
    found = {s: (r["wilson95"][0], r["wilson95"][1]) for s, r in records.items() if is_share_right(r, metric)}
    return found or None


def _values(seeds: Mapping[int, Row], metric: str) -> dict[int, float]:
    return {seed: float(row.record["metrics"][metric]) for seed, row in sorted(seeds.items())}


def _compare(
    arm: str, seeds: Mapping[int, Row], control: str, others: Mapping[int, Row], metric: str
) -> Comparison | None:
    common = sorted(seeds.keys() & others.keys())
    rows = ({s: found for s in common if (found := side[s].contributions(metric))} for side in (seeds, others))
    found = compare_arms((_values(seeds, metric), _values(others, metric)), tuple(rows), (arm, control))  # type: ignore[arg-type]
    if found is None:
        return None
    tests = {s: one.mcnemar for s, one in found.by_seed.items() if one.mcnemar}
    return Comparison(
        control,
        found.over_seeds,
        None,
        _over_classes(seeds, others, common, metric),
        tests or {s: test for s in common if (test := _mcnemar(seeds[s], others[s]))},
        found.over_samples,
        found.both,
        found.detectable,
    )


def _over_classes(
    arm: Mapping[int, Row], control: Mapping[int, Row], seeds: Sequence[int], metric: str
) -> Interval | None:
    """Bootstrap over classes of the mean difference over `seeds` in accuracy or in mean per-class recall."""
    rows = [side[s] for side in (arm, control) for s in seeds]
    if not metric.endswith(("acc1", "mean_per_class_recall")) or not all(has_recalls(r) for r in rows):
        return None
    size = class_column(arm[seeds[0]], "n")
    right = sum(
        (class_column(arm[s], "correct") - class_column(control[s], "correct") for s in seeds), np.zeros(len(size))
    )
    difference = right / len(seeds) / np.maximum(size, 1)
    return bootstrap_classes(difference, size if metric.endswith("acc1") else (size > 0).astype(np.float64))


def _mcnemar(first: Row, second: Row) -> McNemar | None:
    """Of the first guesses of two classifiers; None for what has no per-class table."""
    if not (has_recalls(first) and has_recalls(second)):
        return None
    keys, right = first.outcomes()
    other_keys, other_right = second.outcomes()
    if keys != other_keys:
        raise DataError(f"the outcomes in {first.folder} and {second.folder} are of different samples")
    return mcnemar(right, other_right)


__all__ = [
    "Arm", "Comparison", "Leaderboard", "Row", "class_recall", "gather", "leaderboard", "leaderboards", "tidy",
]  # fmt: skip
