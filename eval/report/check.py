"""A report whose numbers do not add up is not shown: this finds the first place where they do not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from ...errors import DataError
from .check_scaling import scaling_complaints
from .check_scores import score_complaints
from .check_subsets import subset_complaints
from .data import ClusterMap, Confusion, Curve, FilterTruth, Funnel, Histogram, Leaderboard, Pool, Report, Training


def check_report(report: Report) -> None:
    """Refuse data that contradicts itself.

    Raises:
        DataError: names the section, the place and the numbers that disagree.
    """
    for complaint in _complaints(report):
        raise DataError(f"the report's data does not add up: {complaint}")


def _complaints(report: Report) -> Iterator[str]:
    if report.pool:
        yield from _pool(report.pool)
    for funnel in report.funnels:
        yield from _funnel(funnel, report.pool)
    yield from _twice("funnel", [f.subset for f in report.funnels])
    for histogram in report.histograms:
        yield from _histogram(histogram)
    for truth in report.truth:
        yield from _truth(truth)
    for map_ in report.clusters:
        yield from _clusters(map_)
    for curve in report.curves:
        yield from _curve(curve)
    for training in report.trainings:
        yield from _training(training)
    yield from _twice("training", [f"{t.arm}, seed {t.seed}" for t in report.trainings])
    if report.headline and not report.headline.contrasts:
        yield "the headline has no contrast"
    if report.leaderboard:
        yield from _leaderboard(report.leaderboard)
    yield from scaling_complaints(report.scaling)
    yield from score_complaints(report)
    yield from subset_complaints(report)


def _pool(pool: Pool) -> Iterator[str]:
    failed = sum(pool.failures.values())
    if pool.rows - pool.fetched != failed:
        yield f"pool: {pool.rows} rows - {pool.fetched} fetched is not the {failed} failures"


def _funnel(funnel: Funnel, pool: Pool | None) -> Iterator[str]:
    where = f"funnel of {funnel.subset!r}"
    if pool and funnel.pool != pool.rows:
        yield f"{where} starts with {funnel.pool} rows, the pool has {pool.rows}"
    before = funnel.pool
    for step in funnel.steps:
        reasons = sum(step.reasons.values())
        if step.entered != before:
            yield f"{where}: {step.entered} rows enter {step.label!r}, but {before} came before"
        if not 0 <= step.kept <= step.entered:
            yield f"{where}: {step.label!r} keeps {step.kept} of {step.entered}"
        if reasons != step.dropped:
            yield f"{where}: {step.label!r} drops {step.dropped} rows, its reasons add up to {reasons}"
        before = step.kept


def _histogram(histogram: Histogram) -> Iterator[str]:
    where, bins = f"histogram of {histogram.column!r}", len(histogram.counts)
    edges = list(histogram.edges)
    if bins < 1 or len(edges) != bins + 1:
        yield f"{where}: {len(edges)} edges for {bins} bins"
    if not all(math.isfinite(e) for e in edges) or any(a >= b for a, b in itertools.pairwise(edges)):
        yield f"{where}: its edges are not finite and ascending"
    if histogram.low is not None and not edges[0] <= histogram.low <= edges[-1]:
        yield f"{where}: its lowest value {histogram.low} is off the axis"
    if histogram.high is not None and not edges[0] <= histogram.high <= edges[-1]:
        yield f"{where}: its highest value {histogram.high} is off the axis"
    if histogram.missing < 0:
        yield f"{where}: {histogram.missing} rows without a value"
    yield from _within(where, "correct + wrong", histogram.counts, histogram.correct, histogram.wrong)
    for split in histogram.splits:
        yield from _within(f"{where}, {split.subset!r}", "kept + dropped", histogram.counts, split.kept, split.dropped)
        if not all(math.isfinite(t) for t in split.thresholds):
            yield f"{where}, {split.subset!r}: a threshold is not a finite number"


def _within(where: str, what: str, whole: Sequence[int], *parts: Sequence[int]) -> Iterator[str]:
    if any(part and len(part) != len(whole) for part in parts):
        yield f"{where}: {what} do not have {len(whole)} bins"
        return
    filled = [part for part in parts if part]
    for i, counts in enumerate(zip(whole, *filled, strict=True)):
        if sum(counts[1:]) > counts[0]:
            yield f"{where}: {what} in bin {i} is {sum(counts[1:])}, more than its {counts[0]} rows"


def _truth(truth: FilterTruth) -> Iterator[str]:
    where = f"truth of {truth.subset!r} / {truth.filter!r}"
    smaller = [
        ("dropped", truth.dropped, "entered", truth.entered),
        ("faulty", truth.faulty, "entered", truth.entered),
        ("caught", truth.caught, "faulty", truth.faulty),
        ("caught", truth.caught, "dropped", truth.dropped),
        ("good_dropped", truth.good_dropped, "good", truth.good),
        *((f"{f.kind} dropped", f.dropped, "present", f.present) for f in truth.faults),
    ]
    for part, few, whole, many in smaller:
        if not 0 <= few <= many:
            yield f"{where}: {part} {few} of {whole} {many}"


def _clusters(map_: ClusterMap) -> Iterator[str]:
    for cluster in map_.clusters:
        if not 0 <= cluster.kept <= cluster.size:
            yield f"cluster {cluster.id} of {map_.subset!r}: keeps {cluster.kept} of {cluster.size}"
        if not (math.isfinite(cluster.x) and math.isfinite(cluster.y)):
            yield f"cluster {cluster.id} of {map_.subset!r}: its place is not finite"


def _curve(curve: Curve) -> Iterator[str]:
    where = f"curve of {curve.arm!r}, seed {curve.seed}"
    if len(curve.samples) != len(curve.loss):
        yield f"{where}: {len(curve.samples)} places, {len(curve.loss)} losses"
    for name, line in curve.others.items():
        if len(line.samples) != len(line.values):
            yield f"{where}: {len(line.samples)} places, {len(line.values)} values of {name!r}"


def _training(training: Training) -> Iterator[str]:
    where = f"training of {training.arm!r}, seed {training.seed}"
    if training.data_wait is not None and not 0 <= training.data_wait <= 1:
        yield f"{where}: waits for data {training.data_wait} of its time"
    if training.samples is not None and training.distinct is not None and training.distinct > training.samples:
        yield f"{where}: {training.distinct} distinct samples of {training.samples}"


def _leaderboard(board: Leaderboard) -> Iterator[str]:
    names = {m.name for m in board.metrics}
    yield from _twice("arm", [a.name for a in board.arms])
    yield from _twice("metric", [m.name for m in board.metrics])
    for name in board.shown:
        if name not in names:
            yield f"leaderboard: {name!r} is to be shown, which is no metric"
    for arm in board.arms:
        for name in [*arm.scores, *arm.differences]:
            if name not in names:
                yield f"leaderboard: arm {arm.name!r} has a value for {name!r}, which is no metric"
    if board.control and board.control not in {a.name for a in board.arms}:
        yield f"leaderboard: the control {board.control!r} is no arm"
    for table in board.per_class:
        for arm, values in table.arms.items():
            if len(values) != len(table.classes):
                yield f"per-class accuracy of {arm!r}: {len(values)} values for {len(table.classes)} classes"
    for confusion in board.confusions:
        yield from _confusion(confusion)


def _confusion(confusion: Confusion) -> Iterator[str]:
    n = len(confusion.classes)
    if len(confusion.counts) != n or any(len(row) != n for row in confusion.counts):
        yield f"confusion of {confusion.arm!r} is not {n} x {n}"


def _twice(what: str, names: Sequence[str]) -> Iterator[str]:
    for i, name in enumerate(names):
        if name in names[:i]:
            yield f"{what} {name!r} is there twice"
