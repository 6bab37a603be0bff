"""Metrics that are no means of rows, drawn again as a whole: worst groups, macro F1 and macro recall over what is said.

Samples are drawn again and the metric is computed again, for several models on the same draws, so differences are
paired. Samples with equal label, group and answers of all models are one *cell*; a draw is a multinomial count per cell
(`bootstrap` says why), which makes 1,000 draws of 43,000 samples a matter of a second.

A minimum is pulled down by chance: the worst of several groups that are equally good looks worse than each. Draws of it
lie lower still, so its interval reaches further down than up, and is about *some* group being so bad, not a named one.
Average precision needs scores, which are not stored; it has no interval from rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import permutations

import numpy as np
import pyarrow as pa

from .bootstrap import COUNTERS
from .contributions import check_same
from .statistics import LEVEL, Interval

DRAWS = 1_000
AGREES = 1e-6

_WORST = re.compile(r"acc_(?:(top5)_)?(?:wg|worst_(.+))")
_ASKED = re.compile(r"((?:acc|toxicity)_[a-z_]+)_wg")  # of one of the questions of `fairness`
_MACRO = {"F1-macro_all": "f1", "recall-macro_all": "recall"}

Metric = Callable[[np.ndarray], np.ndarray]


def redraw(
    tables: Sequence[pa.Table], metric: str, values: Sequence[float], seed: int = 0, draws: int = DRAWS
) -> np.ndarray | None:
    """``(draws, models)`` values of a metric when the samples, shared by all models, are drawn again.

    Args:
        tables: stored rows of each model.
        values: the recorded metric of each; it tells which field of groups the metric is about.

    Returns:
        None when the rows cannot give the metric, or give another number than was recorded.

    Raises:
        DataError: the models were measured on different samples.
    """
    for other, name in zip(tables[1:], range(1, len(tables)), strict=True):
        check_same(_key(tables[0]), _key(other), ("model 0", f"model {name}"))
    match, asked = _WORST.fullmatch(metric), _ASKED.fullmatch(metric)
    if match or asked:
        fields = [c for c in tables[0].column_names if c.startswith("group:")]
        if match and match[2]:
            fields = [c for c in fields if c == f"group:{match[2]}"]
        choices = [(one,) for one in fields] + (list(permutations(fields, 2)) if asked else [])
        most = -1 if metric.startswith("toxicity_") else 1  # of bad things the worst group has the most
        if asked and not match:
            hits = [_array(t, f"{asked[1]}_avg") if f"{asked[1]}_avg" in t.column_names else None for t in tables]
        else:
            hits = [_hits(table, 5 if match and match[1] else 1) for table in tables]
        there = [hit * most for hit in hits if hit is not None]
        if len(there) < len(hits):
            return None
        for choice in choices:
            group = _cells(tables[0], choice)
            known = group >= 0  # others are in no group
            mine = [hit[known] for hit in there]
            wanted = np.asarray(values) * most
            if known.any() and np.allclose([_worst(group[known], hit) for hit in mine], wanted, atol=AGREES):
                return _redraw_worst(group[known], np.stack(mine, 1), seed, draws) * most
        return None
    if metric in _MACRO and all({"label", "prediction"} <= set(t.column_names) for t in tables):
        label = _array(tables[0], "label")
        said = np.stack([_array(table, "prediction") for table in tables], 1)
        return _redraw_macro(_MACRO[metric], label, said, values, seed, draws)
    return None


def interval(
    table: pa.Table, metric: str, value: float, seed: int = 0, draws: int = DRAWS, level: float = LEVEL
) -> Interval | None:
    """Percentile interval of one model's metric for other test samples."""
    return _ends(redraw([table], metric, [value], seed, draws), 1, level)


def difference_interval(
    first: Sequence[pa.Table],
    second: Sequence[pa.Table],
    metric: str,
    values: tuple[Sequence[float], Sequence[float]],
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> Interval | None:
    """Percentile interval of the difference (first minus second) of means over models (seeds), on the same draws."""
    found = redraw([*first, *second], metric, [*values[0], *values[1]], seed, draws)
    if found is None:
        return None
    cut = len(first)
    return _ends((found[:, :cut].mean(1) - found[:, cut:].mean(1))[:, None], 1, level)


def _ends(drawn: np.ndarray | None, models: int, level: float) -> Interval | None:
    if drawn is None:
        return None
    column = drawn[:, :models].mean(1)
    low, high = np.quantile(column, [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high)) if high > low else None


def _key(table: pa.Table) -> pa.Array:
    return table["key"].combine_chunks()


def _array(table: pa.Table, name: str) -> np.ndarray:
    return table[name].combine_chunks().to_numpy(zero_copy_only=False).astype(np.int64)


def _hits(table: pa.Table, k: int) -> np.ndarray | None:
    if k == 1:
        return _array(table, "correct") if "correct" in table.column_names else None
    return (_array(table, "rank") < k).astype(np.int64) if "rank" in table.column_names else None


def _cells(table: pa.Table, fields: Sequence[str]) -> np.ndarray:
    """``(n,)`` number of each row's combination of groups; negative where one is not known."""
    number = np.zeros(len(table), np.int64)
    for field in fields:
        group = _array(table, field)
        number = np.where((number < 0) | (group < 0), -1, number * (int(group.max(initial=0)) + 1) + group)
    return number


def _worst(group: np.ndarray, hit: np.ndarray) -> float:
    _, number, size = np.unique(group, return_inverse=True, return_counts=True)
    return float((np.bincount(number, hit) / size).min())


def _redraw_worst(group: np.ndarray, hits: np.ndarray, seed: int, draws: int) -> np.ndarray:
    """Groups keep their sizes: sets with groups are collected group by group."""
    rng = np.random.Generator(np.random.Philox(key=seed))
    found = np.full((draws, hits.shape[1]), np.inf)
    for one in np.unique(group):
        answers, count = np.unique(hits[group == one], axis=0, return_counts=True)
        size = int(count.sum())
        drawn = rng.multinomial(size, count / size, size=draws) @ answers / size
        np.minimum(found, drawn, out=found)
    return found


def _redraw_macro(
    kind: str, label: np.ndarray, said: np.ndarray, values: Sequence[float], seed: int, draws: int
) -> np.ndarray | None:
    rows, count = np.unique(np.concatenate([label[:, None], said], 1), axis=0, return_counts=True)
    classes = int(rows.max()) + 1
    metrics = [_macro(kind, rows[:, 0], rows[:, i], classes) for i in range(1, rows.shape[1])]
    measured = [float(metric(count[None])[0]) for metric in metrics]
    if not np.allclose(measured, values, atol=AGREES):
        return None
    rng = np.random.Generator(np.random.Philox(key=seed))
    found, step = [], max(1, COUNTERS // len(rows))
    for start in range(0, draws, step):
        drawn = rng.multinomial(len(label), count / len(label), size=min(step, draws - start))
        found.append(np.stack([metric(drawn) for metric in metrics], 1))
    return np.concatenate(found)


def _macro(kind: str, label: np.ndarray, said: np.ndarray, classes: int) -> Metric:
    """Mean over classes that are there or are said, as scikit-learn averages: a class without a hit counts 0."""
    from scipy.sparse import csr_matrix

    def summed(chosen: np.ndarray, which: np.ndarray) -> csr_matrix:
        return csr_matrix((np.ones(len(chosen)), (which[chosen], chosen)), (classes, len(label)))

    everything = np.arange(len(label))
    size, told = summed(everything, label), summed(everything, said)
    hit = summed(np.flatnonzero(label == said), label)

    def metric(counts: np.ndarray) -> np.ndarray:
        there, claimed, right = (np.asarray(m @ counts.T) for m in (size, told, hit))
        below = there + claimed if kind == "f1" else there
        above = 2 * right if kind == "f1" else right
        score = np.divide(above, below, out=np.zeros_like(above, dtype=np.float64), where=below > 0)
        present = (there + claimed) > 0
        return score.sum(0) / present.sum(0)

    return metric
