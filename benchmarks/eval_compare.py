"""Numbers of both sides of the evaluation benchmark: read from the files that each leaves, and compared."""

from __future__ import annotations

import json
from pathlib import Path

Numbers = dict[tuple[str, str], float | None]
"""By set and metric; None where a side says that there is no such number."""


def their_metrics(out: Path, names: list[str]) -> Numbers:
    """What clip-benchmark wrote, by set and metric; its NaN is None."""
    found: Numbers = {}
    for name in names:
        for metric, value in json.loads((out / f"{name.replace('/', '_')}.json").read_text())["metrics"].items():
            found[name, metric] = None if value != value else value
    return found


def our_metrics(out: Path, names: list[str]) -> Numbers:
    """What we wrote, by set and metric."""
    plain = {name.replace("/", "-"): name for name in names}
    results = json.loads((out / "results.json").read_text())["results"]
    return {(plain[r["dataset"]], metric): value for r in results for metric, value in r["metrics"].items()}


def difference(ours: Numbers, theirs: Numbers) -> tuple[float, dict[str, float]]:
    """Largest difference over the metrics that clip-benchmark has, and the largest of each metric.

    Raises:
        SystemExit: one of them is missing here, or only one side has a number.
    """
    largest: dict[str, float] = {}
    for (name, metric), value in theirs.items():
        if (name, metric) not in ours:
            raise SystemExit(f"{name}: clip-benchmark has {metric}, ours has not")
        mine = ours[name, metric]
        if (mine is None) != (value is None):
            raise SystemExit(f"{name}: {metric} is {mine} here and {value} there")
        gap = 0.0 if mine is None or value is None else abs(mine - value)
        largest[metric] = max(largest.get(metric, 0.0), gap)
    return max(largest.values()), largest
