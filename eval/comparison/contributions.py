"""How a metric follows from stored outcome rows: what each row adds to it, and what is drawn again together.

Most metrics are weighted means of rows: accuracy weighs images alike, mean per-class recall by one over the size of
their class, recall@k of retrieval counts queries. `contributions` gives values, weights and units of such a metric;
intervals, paired tests and rank intervals follow from those (`bootstrap`, `compare`, `ranks`). Metrics that are no
means (worst group, macro F1) have none; `recomputed` draws those again as a whole.

Units are what was sampled when the set was made: a picture, with all its captions and directions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import DataError
from .bootstrap import CELLS, Units, interval
from .statistics import LEVEL, Interval, wilson

_CLASSES = re.compile(r"(?:(?:vtab1k|fast)_)?(?:[a-z0-9]+_)?(acc1|acc5|mean_per_class_recall)")
_RECALL = re.compile(r"(image|text)_retrieval_recall@(\d+)")
_GROUP = re.compile(r"acc_(top5_)?(.+):(\d+)")
_LANGUAGE = re.compile(r"acc1:(.+)")
AGREES = 1e-6
"""Stored rows give the recorded number to within this; some metrics were averaged in float32."""
_CELL = re.compile(r"([a-z_]+?):(\d+)(?:_|$)")
_JACCARD = re.compile(r"jaccard_score_(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class Contributions:
    """A metric as `sum(weight * value) / sum(weight)` over ``m`` rows.

    Attributes:
        keys: ``(m,)`` whose they are; two models are paired only if these agree.
        value: ``(m,) float64``.
        weight: ``(m,) float64``.
        cluster: ``(m,) int64`` unit of each row, 0..u-1: units are drawn again whole.
        stratum: ``(u,) int64`` of units that are drawn within classes; None = all alike.
    """

    keys: pa.Array
    value: np.ndarray
    weight: np.ndarray
    cluster: np.ndarray
    stratum: np.ndarray | None = None

    @cached_property
    def units(self) -> Units:
        """What each unit adds above and below the fraction bar."""
        return Units(
            np.bincount(self.cluster, self.weight * self.value), np.bincount(self.cluster, self.weight), self.stratum
        )

    @property
    def estimate(self) -> float:
        """The metric."""
        return self.units.estimate

    @property
    def plain(self) -> bool:
        """Whether it is a share of independent rows: then Wilson's interval is right."""
        alone = self.stratum is None and len(self.units) == len(self.value)
        return alone and bool(np.isin(self.value, (0, 1)).all() and (self.weight == self.weight[0]).all())


def contributions(table: pa.Table, metric: str, value: float | None = None) -> Contributions | None:
    """What each stored row adds to a metric, as `SampleOutcomes.table` stored them.

    Args:
        value: the recorded metric; where one column may belong to one of several metrics (shots), it tells which.

    Returns:
        None where the metric is not a mean of rows, or the columns that it needs are not there, or it has no row.
    """
    for rule in (_of_classes, _of_retrieval, _of_group, _of_association, _of_languages, _of_questions, _of_columns):
        found = rule(table, metric)
        if found is not None:
            return found if len(found.value) and found.weight.sum() > 0 else None
    shots = _of_draws(table, metric)
    return shots if shots is not None and value is not None and abs(shots.estimate - value) <= AGREES else None


def _array(table: pa.Table, name: str) -> np.ndarray:
    return table[name].combine_chunks().to_numpy(zero_copy_only=False)


def _has(table: pa.Table, *names: str) -> bool:
    return set(names) <= set(table.column_names)


def _keys(table: pa.Table, rows: np.ndarray | None = None) -> pa.Array:
    keys = table["key"].combine_chunks()
    return keys if rows is None else keys.filter(pa.array(rows))


def _rows(table: pa.Table, value: np.ndarray, chosen: np.ndarray | None = None) -> Contributions:
    """Every row is a unit of its own, all of one weight."""
    value = value if chosen is None else value[chosen]
    return Contributions(
        _keys(table, chosen), value.astype(np.float64), np.ones(len(value)), np.arange(len(value), dtype=np.int64)
    )


def _of_classes(table: pa.Table, metric: str) -> Contributions | None:
    match = _CLASSES.fullmatch(metric)
    if not match or _has(table, "direction"):
        return None
    kind = match[1]
    if kind == "acc1":
        return _rows(table, _array(table, "correct"))
    if kind == "acc5":
        return _rows(table, _array(table, "rank") < 5) if _has(table, "rank") else None
    if not _has(table, "label", "prediction"):
        return None
    label = _array(table, "label").astype(np.int64)
    _, stratum, size = np.unique(label, return_inverse=True, return_counts=True)
    right = (label == _array(table, "prediction").astype(np.int64)).astype(np.float64)
    rows = np.arange(len(label), dtype=np.int64)
    return Contributions(_keys(table), right, 1 / size[stratum], rows, stratum.astype(np.int64))


def _of_retrieval(table: pa.Table, metric: str) -> Contributions | None:
    """Recall of one direction, or the mean of both; a picture and its captions are one unit."""
    if not _has(table, "direction", "rank", "owner"):
        return None
    direction = table["direction"].cast(pa.string())
    match = _RECALL.fullmatch(metric)
    if not match and metric != "mean_recall@1":
        return None
    wanted = [match[1]] if match else ["image", "text"]
    k = int(match[2]) if match else 1
    weight = np.zeros(len(table))
    for name in wanted:
        rows = pc.equal(direction, name).to_numpy(zero_copy_only=False)  # pyright: ignore[reportAttributeAccessIssue]
        if not rows.any():
            return None
        weight[rows] = 1 / np.count_nonzero(rows)
    chosen = weight > 0
    _, cluster = np.unique(_array(table, "owner")[chosen], return_inverse=True)
    hit = (_array(table, "rank") < k).astype(np.float64)
    return Contributions(_keys(table, chosen), hit[chosen], weight[chosen], cluster.astype(np.int64))


def _of_group(table: pa.Table, metric: str) -> Contributions | None:
    """Accuracy within one group, ``acc_{field}:{number}``, or the share whose class is among the best five."""
    if metric == "acc_top5_avg":
        return _rows(table, _array(table, "rank") < 5) if _has(table, "rank") else None
    match = _GROUP.fullmatch(metric)
    column = f"group:{match[2]}" if match else ""
    if not match or not _has(table, column, "correct", "rank"):
        return None
    hit = _array(table, "rank") < 5 if match[1] else _array(table, "correct")
    return _rows(table, hit, _array(table, column) == int(match[3]))


def _of_association(table: pa.Table, metric: str) -> Contributions | None:
    """Jaccard score of WinoGAViL over all questions, or those with so many candidates."""
    if not _has(table, "jaccard"):
        return None
    score = _array(table, "jaccard")
    if metric == "avg_jaccard_score":
        return _rows(table, score)
    match = _JACCARD.fullmatch(metric)
    if not match or not _has(table, "candidates"):
        return None
    candidates = _array(table, "candidates")
    wanted = np.isin(candidates, [int(number) for number in match.groups() if number])
    return _rows(table, score, wanted)


def _of_languages(table: pa.Table, metric: str) -> Contributions | None:
    """Top-1 in one language, or the mean over languages, plain or above chance; a picture in all its languages is one
    unit."""
    match = _LANGUAGE.fullmatch(metric)
    corrected = metric == "acc1_above_chance:mean" and _has(table, "classes")
    if not (match or corrected) or not _has(table, "language", "correct"):
        return None
    if match and match[1] != "mean":
        return _rows(table, _array(table, "correct"), pc.equal(table["language"], match[1]).to_numpy())  # pyright: ignore[reportAttributeAccessIssue]
    _, language, size = np.unique(_array(table, "language").astype(str), return_inverse=True, return_counts=True)
    _, cluster = np.unique(_array(table, "key").astype(str), return_inverse=True)
    right, weight = _array(table, "correct").astype(np.float64), 1 / size[language]
    if corrected:  # (accuracy - 1/k) / (1 - 1/k) is linear in the rows, and not known with one class
        classes = np.maximum(_array(table, "classes").astype(np.float64), 1)
        weight = np.where(classes > 1, weight, 0)
        right = (right - 1 / classes) / np.where(classes > 1, 1 - 1 / classes, 1)
    return Contributions(_keys(table), right, weight, cluster.astype(np.int64))


def _of_draws(table: pa.Table, metric: str) -> Contributions | None:
    """Few-shot accuracy, mean over draws of the shots: a sample counts by the share of draws that got it right."""
    if not metric.startswith("fewshot_acc1@") or not _has(table, "right_draws"):
        return None
    right = _array(table, "right_draws").astype(np.float64)
    return _rows(table, right / max(1.0, right.max(initial=0.0)))


def _of_questions(table: pa.Table, metric: str) -> Contributions | None:
    """Share of a group of `fairness`, ``acc_gender_x_race:1_gender:0``: what is counted is the column of its mean."""
    for column in table.column_names:
        head = column.removesuffix("_avg")
        rest = metric.removeprefix(f"{head}_")
        cells = _CELL.findall(rest)
        if head in (column, metric) or not cells or "_".join(f"{name}:{number}" for name, number in cells) != rest:
            continue
        if _has(table, *(f"group:{name}" for name, _ in cells)):
            there = [_array(table, f"group:{name}") == int(number) for name, number in cells]
            return _rows(table, _array(table, column), np.logical_and.reduce(there))
    return None


_COLUMNS = {"acc": "correct", "acc_avg": "correct", "image_acc": "image_correct", "text_acc": "text_correct"}


def _of_columns(table: pa.Table, metric: str) -> Contributions | None:
    """Metrics that are the mean of a stored column; null rows do not count."""
    if metric == "top1_right" and _has(table, "right_classes", "correct"):
        return _rows(table, _array(table, "correct"), _array(table, "right_classes") > 0)
    column = _COLUMNS.get(metric, metric)
    if not _has(table, column) or column in ("key", "label", "prediction", "rank", "owner"):
        return None
    kind = table.schema.field(column).type
    if not (pa.types.is_boolean(kind) or pa.types.is_floating(kind)):
        return None
    if not table[column].null_count:
        return _rows(table, _array(table, column))
    values = table[column].fill_null(False if pa.types.is_boolean(kind) else 0.0)
    return _rows(table, values.to_numpy(), table[column].is_valid().to_numpy())


@dataclass(frozen=True)
class Estimate:
    """A metric with the interval for other test samples.

    Attributes:
        value: of these samples.
        interval: 95 %; None where none can be had.
        kind: how it was made: ``wilson``, ``wilson_effective`` (all units alike: Wilson's of as many equal weights),
            ``bca``, ``normal`` (very many types: `bootstrap.interval`), ``bootstrap`` (recomputed); None without one.
    """

    value: float
    interval: Interval | None
    kind: str | None


def estimate(found: Contributions, seed: int = 0, level: float = LEVEL, draw: bool = True) -> Estimate:
    """A metric and its interval: Wilson's for plain shares, else BCa over the units; normal ones if not to `draw`."""
    units = found.units
    if found.plain:
        return Estimate(found.estimate, wilson(round(found.value.sum()), len(found.value), level), "wilson")
    ends, kind = interval(units, seed, level, "bca", CELLS if draw else 0)
    if ends is not None:
        return Estimate(found.estimate, (max(ends[0], 0.0), min(ends[1], 1.0)), kind)
    if np.isin(found.value, (0, 1)).all() and found.estimate in (0.0, 1.0):
        n = round(units.bottom.sum() ** 2 / np.square(units.bottom).sum())
        return Estimate(found.estimate, wilson(n if found.estimate else 0, n, level), "wilson_effective")
    return Estimate(found.estimate, None, None)


def difference(
    first: Contributions, second: Contributions, names: tuple[str, str] = ("first", "second")
) -> Contributions:
    """Contributions to the difference (first minus second) of one metric of two models on the same samples.

    Raises:
        DataError: the samples differ; names the first that does.
    """
    check_same(first.keys, second.keys, names)
    if not np.array_equal(first.cluster, second.cluster) or not np.allclose(first.weight, second.weight, rtol=1e-12):
        raise DataError(f"{names[0]} and {names[1]} have the same samples with other labels, groups or owners")
    return Contributions(first.keys, first.value - second.value, first.weight, first.cluster, first.stratum)


def mean_of(several: list[Contributions], names: list[str] | None = None) -> Contributions:
    """The mean of several models (seeds) on the same samples."""
    names = names or [f"model {i}" for i in range(len(several))]
    for other, name in zip(several[1:], names[1:], strict=True):
        difference(several[0], other, (names[0], name))
    value = np.mean([one.value for one in several], axis=0)
    head = several[0]
    return Contributions(head.keys, value, head.weight, head.cluster, head.stratum)


def check_same(first: pa.Array, second: pa.Array, names: tuple[str, str] = ("first", "second")) -> None:
    """Refuse to pair different samples.

    Raises:
        DataError: other keys, or another order; names the first key that differs.
    """
    if len(first) == len(second) and first.equals(second):
        return
    both = min(len(first), len(second))
    same = pc.equal(first.slice(0, both), second.slice(0, both)).to_numpy(zero_copy_only=False)  # pyright: ignore[reportAttributeAccessIssue]
    place = both if same.all() else int(np.argmin(same))
    here, there = (repr(k[place].as_py()) if place < len(k) else "nothing" for k in (first, second))
    raise DataError(
        f"{names[0]} and {names[1]} are of different samples ({len(first)} and {len(second)}) and cannot be paired: "
        f"sample {place} is {here} in one and {there} in the other"
    )
