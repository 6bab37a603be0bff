"""Where the data about scores contradicts itself, or another section of the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from .data import Report
from .estimates import Estimate
from .score_data import Commonest, FilterNetworks, Learned, Look, Weight


def score_complaints(report: Report) -> Iterator[str]:
    """Sentences about what does not add up, in the order of the page."""
    if report.networks:
        yield from _networks(report.networks, report)
    for look in report.looks:
        yield from _look(look, report)
    yield from _twice("look of", [f"{look.kind} {look.name}" for look in report.looks])
    columns = [h.column for h in report.histograms] + [c.column for c in report.commonest]
    yield from _twice("distribution of column", columns)
    for commonest in report.commonest:
        yield from _commonest(commonest, report)
    for learned in report.learned:
        yield from _learned(learned)
    yield from _twice("learned score", [learned.score for learned in report.learned])
    yield from _twice("facts of score", [facts.name for facts in report.score_facts])


def _networks(networks: FilterNetworks, report: Report) -> Iterator[str]:
    names = {m.name for m in networks.metrics}
    funnels = {f.subset: f.kept for f in report.funnels}
    arms = {a.name: a.scores for a in report.leaderboard.arms} if report.leaderboard else {}
    if report.pool and networks.pool != report.pool.rows:
        yield f"filter networks: their pool has {networks.pool} rows, the pool {report.pool.rows}"
    yield from _twice("filter network", [n.encoder for n in networks.networks])
    yield from _scores("filter networks: the control", networks.control_scores, names)
    for network in networks.networks:
        where = f"filter network {network.encoder!r}"
        yield from _scores(where, network.scores, names)
        yield from _twice(f"{where}: subset", [s.subset for s in network.subsets])
        for subset in network.subsets:
            here = f"{where}, subset {subset.subset!r}"
            yield from _scores(here, subset.scores, names)
            if not 0 <= subset.kept <= networks.pool:
                yield f"{here}: keeps {subset.kept} of {networks.pool}"
            if funnels.get(subset.subset, subset.kept) != subset.kept:
                yield f"{here}: keeps {subset.kept} rows, its funnel {funnels[subset.subset]}"
            for name, estimate in subset.scores.items():
                board = arms.get(subset.subset, {}).get(name)
                if board is not None and board.mean != estimate.mean:
                    yield f"{here}: {name} is {estimate.mean}, on the leaderboard {board.mean}"


def _scores(where: str, scores: Mapping[str, Estimate], names: set[str]) -> Iterator[str]:
    for name, estimate in scores.items():
        if name not in names:
            yield f"{where} has a value for {name!r}, which is no metric"
        yield from _interval(f"{where}, {name}", estimate.mean, estimate.low, estimate.high)


def _interval(where: str, value: float, low: float | None, high: float | None) -> Iterator[str]:
    if not math.isfinite(value):
        yield f"{where}: {value} is no number"
    if (low is None) != (high is None):
        yield f"{where}: an interval needs both bounds"
    if low is not None and high is not None and not low - 1e-9 <= value <= high + 1e-9:
        yield f"{where}: {value} is not between {low} and {high}"


def _look(look: Look, report: Report) -> Iterator[str]:
    where = f"look of {look.name!r}"
    if report.pool and look.rows != report.pool.rows:
        yield f"{where}: {look.rows} rows, the pool has {report.pool.rows}"
    for tally in look.tallies:
        nulls = sum(tally.nulls.values())
        if tally.values < 0 or min(tally.nulls.values(), default=0) < 0:
            yield f"{where}: a negative count of {tally.what}"
        if tally.values + nulls != look.rows:
            yield f"{where}: {tally.values} {tally.what} and {nulls} rows without are not its {look.rows} rows"


def _commonest(commonest: Commonest, report: Report) -> Iterator[str]:
    where, shown = f"values of {commonest.column!r}", len(commonest.values)
    counts = [*commonest.values.values(), commonest.others, commonest.missing]
    if min(counts) < 0:
        yield f"{where}: a negative count"
    if report.pool and sum(counts) != report.pool.fetched:
        yield f"{where}: {sum(counts)} rows, the pool has {report.pool.fetched} fetched ones"
    if commonest.distinct < shown or (commonest.distinct == shown) != (commonest.others == 0):
        yield f"{where}: {commonest.distinct} distinct values, {shown} shown, {commonest.others} rows with others"


def _learned(learned: Learned) -> Iterator[str]:
    where = f"learned score {learned.score!r}"
    yield from _twice(f"{where}: column", [w.column for w in learned.weights])
    for weight in learned.weights:
        yield from _weight(f"{where}, weight of {weight.column!r}", weight)
    for curve in learned.curves:
        if len(curve.steps) != len(curve.loss):
            yield f"{where}, seed {curve.seed}: {len(curve.steps)} steps, {len(curve.loss)} losses"
    yield from _twice(f"{where}: seed", [str(curve.seed) for curve in learned.curves])
    for auc in (learned.auc, *(w.auc for w in learned.weights)):
        if auc is not None and not 0 <= auc <= 1:
            yield f"{where}: an AUC of {auc}"


def _weight(where: str, weight: Weight) -> Iterator[str]:
    yield from _interval(where, weight.weight, weight.low, weight.high)
    if weight.std is not None and not weight.std >= 0:
        yield f"{where}: a standard deviation of {weight.std}"
    if weight.missing is not None and weight.missing < 0:
        yield f"{where}: {weight.missing} missing rows"


def _twice(what: str, names: Sequence[str]) -> Iterator[str]:
    for name in dict.fromkeys(n for i, n in enumerate(names) if n in names[:i]):
        yield f"{what} {name!r} is there twice"
