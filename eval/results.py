"""Many results -> leaderboards: each arm's mean over seeds, and its paired difference to a control arm.

An *arm* is one way of curating, trained with several seeds; each (arm, seed) has one folder that `evaluate` wrote. Arms
may be compared only if they were measured alike: the same set, class names, templates and options; anything else is
refused here, not averaged over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ..errors import DataError
from ..registry import unknown
from ..shards import storage
from .evaluate import FORMAT, RESULTS
from .statistics import (
    Interval,
    McNemar,
    Mean,
    Paired,
    bootstrap_classes,
    holm,
    mcnemar,
    mean_over_seeds,
    paired_difference,
)


@dataclass(frozen=True)
class Row:
    """One suite on one set for one seed of one arm.

    Attributes:
        arm, seed: whose model.
        folder: where its files are.
        record: its entry of ``results.json``.
    """

    arm: str
    seed: int
    folder: str
    record: dict[str, Any]

    @property
    def dataset(self) -> str:
        """Name of the set."""
        return self.record["dataset"]

    @property
    def suite(self) -> str:
        """Name of the suite."""
        return self.record["suite"]

    @property
    def measured(self) -> tuple[Any, ...]:
        """What must be equal for numbers to be comparable."""
        return tuple(self.record[k] for k in ("dataset_digest", "text_hash", "options", "version", "split", "n"))

    def metric(self, name: str) -> float | None:
        """The value of a metric; None where it does not exist for this set.

        Raises:
            DataError: the suite has no such metric.
        """
        if name not in self.record["metrics"]:
            raise DataError(f"{self.suite} on {self.dataset}: {unknown('metric', name, self.record['metrics'])}")
        return self.record["metrics"][name]

    def outcomes(self) -> tuple[list[str], np.ndarray]:
        """Sample keys, and ``(n,) bool``: which were right."""
        table = pq.read_table(
            storage.local(storage.join(self.folder, self.record["outcomes"])), columns=["key", "correct"]
        )
        return table["key"].to_pylist(), table["correct"].to_numpy()


def gather(folders: Mapping[tuple[str, int], str]) -> list[Row]:
    """Read the results of every (arm, seed) -> folder, in that order.

    Raises:
        DataError: a folder has no finished results, or two arms were measured differently.
    """
    rows = []
    for (arm, seed), folder in folders.items():
        path = storage.join(folder, RESULTS)
        if not storage.exists(path):
            raise DataError(f"{path} is missing; the evaluation of {arm}, seed {seed}, is not finished")
        value = storage.read_json(path)
        if value.get("format") != FORMAT:
            raise DataError(f"{path} has format {value.get('format')}, not {FORMAT}; evaluate again")
        rows.extend(Row(arm, seed, folder, record) for record in value["results"])
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        other = first.setdefault((row.dataset, row.suite), row)
        if row.measured != other.measured:
            raise DataError(
                f"{row.suite} on {row.dataset}: {row.arm}, seed {row.seed}, and {other.arm}, seed {other.seed}, were "
                "measured differently (set, class names, templates or options); evaluate them alike"
            )
    return rows


def tidy(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One record per metric: ``arm, seed, dataset, suite, metric, value, n``; strict JSON, ready for a data frame."""
    found = []
    for row in rows:
        about = {"arm": row.arm, "seed": row.seed, "dataset": row.dataset, "suite": row.suite}
        found.extend(about | {"metric": m, "value": v, "n": row.record["n"]} for m, v in row.record["metrics"].items())
    return found


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
        mcnemar: of each common seed, on the same images.
    """

    control: str
    over_seeds: Paired
    p_holm: float | None
    over_classes: Interval | None
    mcnemar: dict[int, McNemar]


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
        n: samples; `classes`: number of classes; `chance`: accuracy of a uniform guess.
        control: the arm that the others are compared with.
        arms: by mean, best first; equal means in the order of the input.
        without: arms that have no value of the metric.
    """

    dataset: str
    suite: str
    metric: str
    n: int
    classes: int
    chance: float
    control: str
    arms: list[Arm]
    without: list[str]

    def to_json(self) -> dict[str, Any]:
        """As strict JSON; seeds become strings."""
        return asdict(self)


def leaderboards(rows: Sequence[Row], control: str | None = None) -> list[Leaderboard]:
    """A leaderboard of the main metric for every set and suite, in the order of the rows."""
    return [leaderboard(rows, d, s, control=control) for d, s in dict.fromkeys((r.dataset, r.suite) for r in rows)]


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
    metric = metric or str(record["main_metric"])
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

    compared = {a: _compare(seeds, against, metric) for a, seeds in by_arm.items() if a != control}
    found = {a: c for a, c in compared.items() if c is not None}
    adjusted = dict(zip(found, holm([c[0].p for c in found.values()]), strict=True))
    arms = [
        Arm(
            name,
            _values(seeds, metric),
            mean_over_seeds(list(_values(seeds, metric).values())),
            {s: _pair(r.record["wilson95"]) for s, r in seeds.items()} if metric.endswith("acc1") else None,
            Comparison(control, found[name][0], adjusted[name], *found[name][1:]) if name in found else None,
        )
        for name, seeds in by_arm.items()
    ]
    arms.sort(key=lambda arm: -arm.over_seeds.mean)
    return Leaderboard(
        dataset, suite, metric, record["n"], record["classes"], record["chance"], control, arms, list(without)
    )


def _pair(value: Sequence[float]) -> Interval:
    return (value[0], value[1])


def _values(seeds: Mapping[int, Row], metric: str) -> dict[int, float]:
    return {seed: float(row.record["metrics"][metric]) for seed, row in sorted(seeds.items())}


def _compare(
    arm: Mapping[int, Row], control: Mapping[int, Row], metric: str
) -> tuple[Paired, Interval | None, dict[int, McNemar]] | None:
    over_seeds = paired_difference(_values(arm, metric), _values(control, metric))
    if over_seeds is None:
        return None
    common = list(over_seeds.values)
    return over_seeds, _over_classes(arm, control, common, metric), {s: _mcnemar(arm[s], control[s]) for s in common}


def _over_classes(
    arm: Mapping[int, Row], control: Mapping[int, Row], seeds: Sequence[int], metric: str
) -> Interval | None:
    """Bootstrap over classes of the mean difference over `seeds` in accuracy or in mean per-class recall."""
    if not metric.endswith(("acc1", "mean_per_class_recall")):
        return None
    size = _column(arm[seeds[0]], "n")
    right = sum((_column(arm[s], "correct") - _column(control[s], "correct") for s in seeds), np.zeros(len(size)))
    difference = right / len(seeds) / np.maximum(size, 1)
    return bootstrap_classes(difference, size if metric.endswith("acc1") else (size > 0).astype(np.float64))


def _column(row: Row, name: str) -> np.ndarray:
    return np.array([entry[name] for entry in row.record["per_class"]], np.float64)


def _mcnemar(first: Row, second: Row) -> McNemar:
    keys, right = first.outcomes()
    other_keys, other_right = second.outcomes()
    if keys != other_keys:
        raise DataError(f"the outcomes in {first.folder} and {second.folder} are of different samples")
    return mcnemar(right, other_right)


def class_recall(rows: Sequence[Row], dataset: str, suite: str) -> dict[str, list[float | None]]:
    """Recall of every class, mean over seeds, per arm; None for classes without samples. For per-class tables."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if (row.dataset, row.suite) == (dataset, suite):
            found.setdefault(row.arm, []).append(row)
    table: dict[str, list[float | None]] = {}
    for arm, seeds in found.items():
        size = _column(seeds[0], "n")
        right = np.mean([_column(row, "correct") for row in seeds], axis=0)
        table[arm] = [float(r / n) if n else None for r, n in zip(right, size, strict=True)]
    return table
