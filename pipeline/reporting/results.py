"""Leaderboard and headline: what the subsets did to the models."""

from __future__ import annotations

import numpy as np

from ...eval.comparison.labels import measure_label
from ...eval.comparison.leaderboard import Arm as ArmResult
from ...eval.comparison.leaderboard import Leaderboard as Board
from ...eval.comparison.leaderboard import Row, class_recall, gather, leaderboard, leaderboards
from ...eval.comparison.statistics import Mean, Paired
from ...eval.report.data import Arm, Confusion, Contrast, Estimate, Headline, Leaderboard, Metric, PerClass
from ...shards import storage
from .source import RunData

MOST_METRICS = 6
"""Main metrics that a report's own section shows."""


def results(run: RunData) -> tuple[Headline | None, Leaderboard | None]:
    """Every arm's metrics with intervals over seeds, and the comparison with the control arm."""
    evaluated = run.named("eval")
    if not evaluated or run.config.eval is None:
        return None, None
    folders = {
        (arm, int(seed.removeprefix("seed"))): storage.join(artifact.data, seed)
        for arm, artifact in evaluated.items()
        for seed in artifact.summary["seeds"]
    }
    rows = gather(folders)
    control = run.config.eval.control or next(iter(evaluated))
    if control not in evaluated:
        control = next(iter(evaluated))
    boards = leaderboards(rows, control)
    if not boards:
        return None, None  # no set has a metric of its own to rank by
    metrics = metrics_of(boards)
    arms = [_arm(run, name, boards, metrics) for name in evaluated]
    arms.sort(key=lambda a: -a.scores[metrics[0].name].mean if metrics[0].name in a.scores else 0.0)
    board = Leaderboard(
        metrics,
        arms,
        control,
        shown=_shown_first(rows, boards, metrics),
        per_class=_per_class(rows, boards, metrics, list(evaluated)),
        confusions=[c for arm in dict.fromkeys((arms[0].name, control)) for c in _confusions(rows, boards[0], arm)],
    )
    return _headline(run, rows, boards[0], metrics[0], control), board


def _shown_first(rows: list[Row], boards: list[Board], metrics: list[Metric]) -> list[str]:
    """Names of the metrics that a section has room for, () = all: one of each kind of task, then of other suites.

    The first is the headline's; further sets of the same suite are left to the page of all results.
    """
    if len(metrics) <= MOST_METRICS:
        return []
    chosen: dict[int, None] = {}
    for what in ("kind", "suite"):
        seen = {_first(rows, boards[i]).record.get(what) for i in chosen}
        for i, board in enumerate(boards):
            found = _first(rows, board).record.get(what)
            if found not in seen and len(chosen) < MOST_METRICS:
                chosen[i] = None
                seen.add(found)
    return [metrics[i].name for i in sorted(chosen)]


def metrics_of(boards: list[Board]) -> list[Metric]:
    """The main metric of every board; its name holds the set's where there are several."""
    several = len({b.dataset for b in boards}) > 1
    return [metric_of(b, several) for b in boards]


def metric_of(board: Board, several_sets: bool = False) -> Metric:
    """The main metric of one set and suite."""
    name = f"{board.dataset} {board.suite} {board.metric}" if several_sets else f"{board.suite} {board.metric}"
    return Metric(name, measure_label(board.dataset, board.suite, board.metric), chance=board.chance)


def _estimate(value: Mean | Paired, seeds: dict[int, float]) -> Estimate:
    low, high = value.ci95 or (None, None)
    if low == high:  # seeds that happen to agree: a spread that was not seen is not a spread of 0
        low = high = None
    return Estimate(value.mean, low, high, list(seeds.values()))


def _of(board: Board, arm: str) -> ArmResult | None:
    return next((a for a in board.arms if a.name == arm), None)


def _arm(run: RunData, name: str, boards: list[Board], metrics: list[Metric]) -> Arm:
    scores, differences, like_chance = {}, {}, []
    for board, metric in zip(boards, metrics, strict=True):
        found = _of(board, name)
        if found is None:
            continue
        scores[metric.name] = _estimate(found.over_seeds, found.values)
        chance = board.chance
        if chance is not None and found.wilson95 and all(a <= chance <= b for a, b in found.wilson95.values()):
            like_chance.append(metric.name)
        if found.comparison:
            differences[metric.name] = _estimate(found.comparison.over_seeds, found.comparison.over_seeds.values)
    trained = run.named("pretrain")[name].summary["seeds"].values()
    first = next(iter(trained))
    return Arm(name, scores, differences, first["distinct"], first["samples_seen"], like_chance=like_chance)


def _headline(run: RunData, rows: list[Row], board: Board, metric: Metric, control: str) -> Headline | None:
    """Contrasts of the main arm (the released one, else the last trained) with the control, and with random subsets."""
    arms = list(run.named("eval"))
    released = run.config.release.subsets if run.config.release else []
    main = next((s for s in [*released, *reversed(arms)] if s in arms and s != control), None)
    if main is None:
        return None
    contrasts = []
    for other in dict.fromkeys([control, *(s for s in arms if _is_random(run, s))]):
        if other == main:
            continue
        against = leaderboard(rows, board.dataset, board.suite, control=other)
        mine, theirs = _of(against, main), _of(against, other)
        if mine is None or theirs is None or mine.comparison is None:
            continue
        contrasts.append(
            Contrast(
                main,
                other,
                _estimate(mine.over_seeds, mine.values),
                _estimate(theirs.over_seeds, theirs.values),
                _estimate(mine.comparison.over_seeds, mine.comparison.over_seeds.values),
                "random, same size" if _is_random(run, other) else "" if run.config.subsets[other] else "no filter",
            )
        )
    return Headline(metric, contrasts) if contrasts else None


def _is_random(run: RunData, subset: str) -> bool:
    filters = run.config.subsets[subset]
    return bool(filters) and all(f.type == "random" for f in filters)


def _per_class(rows: list[Row], boards: list[Board], metrics: list[Metric], arms: list[str]) -> list[PerClass]:
    found = []
    for board, metric in zip(boards, metrics, strict=True):
        if "per_class" not in _first(rows, board).record:
            continue
        classes = [e["name"] for e in _first(rows, board).record["per_class"]]
        table = class_recall(rows, board.dataset, board.suite)
        known = {a: [v if v is not None else float("nan") for v in table[a]] for a in arms if a in table}
        if all(np.isfinite(v).all() for v in known.values()):
            found.append(PerClass(metric.label, classes, known))
    return found


def _first(rows: list[Row], board: Board) -> Row:
    return next(r for r in rows if (r.dataset, r.suite) == (board.dataset, board.suite))


def _confusions(rows: list[Row], board: Board, arm: str) -> list[Confusion]:
    mine = [r for r in rows if (r.dataset, r.suite, r.arm) == (board.dataset, board.suite, arm)]
    tables = [t for r in mine if (t := r.record.get("confusion")) is not None]
    if not tables or len(tables) < len(mine):
        return []
    classes = [e["name"] for e in mine[0].record["per_class"]]
    return [Confusion(arm, classes, np.sum(tables, axis=0).tolist(), metric_of(board).label)]
