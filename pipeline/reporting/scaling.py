"""The scaling section: every point of the sweep measured, grouped into series, and fitted.

A series holds points that differ in one thing only: in the data (same subset, budget and model), or in the budget (same
subset, size and model). A grid of sizes and budgets gives both.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ...eval.comparison.leaderboard import Leaderboard, gather, leaderboards
from ...eval.comparison.power_law import Bounds, Fits, Law, crossing, fit_laws
from ...eval.comparison.statistics import mean_over_seeds
from ...eval.report.data import Estimate
from ...eval.report.scaling_data import (
    Axis,
    CurvePoint,
    FittedLaw,
    Scaling,
    ScalingCrossing,
    ScalingPanel,
    ScalingPoint,
    ScalingSeries,
)
from ...shards import storage
from ..sweep_config import SWEEP, SweepPoint
from .results import metric_of
from .source import RunData

AHEAD = 10.0  # curves and crossings reach to ten times the largest size
CURVE_POINTS = 49
NEAR_CHANCE = 0.95  # part of a guess's error above which nothing was learned yet


def scaling(run: RunData) -> Scaling | None:
    """Panels of all metrics and axes; None without a sweep that was evaluated."""
    folders: dict[tuple[str, int], str] = {}
    planned = {f"{p.subset}/{p.name}": p for p in run.config.sweep_points()}
    evaluated = run.named(f"{SWEEP}-eval")
    for name in planned:
        for seed in evaluated[name].summary["seeds"] if name in evaluated else ():
            folders[name, int(seed.removeprefix("seed"))] = storage.join(evaluated[name].data, seed)
    if not folders:
        return None
    boards = leaderboards(gather(folders))
    several = len({b.dataset for b in boards}) > 1
    panels = [
        panel
        for board in boards
        for axis in ("data", "budget")
        if (panel := _panel(_measured(run, planned, board), board, axis, several)) is not None
    ]
    return Scaling(panels, _notes(panels)) if panels else None


@dataclass(frozen=True)
class _Measured:
    """A point of the plan, and what it gave."""

    plan: SweepPoint
    point: ScalingPoint


def _measured(run: RunData, planned: dict[str, SweepPoint], board: Leaderboard) -> list[_Measured]:
    subsets, trained = run.named(f"{SWEEP}-subset"), run.named(f"{SWEEP}-pretrain")
    arms = {arm.name: arm for arm in board.arms}
    found = []
    for name, plan in planned.items():
        if name not in arms:
            continue
        errors = [1.0 - value for _, value in sorted(arms[name].values.items())]
        over_seeds = mean_over_seeds(errors)
        low, high = over_seeds.ci95 or (None, None)
        subset, first = subsets[name].summary, next(iter(trained[name].summary["seeds"].values()))
        estimate = Estimate(over_seeds.mean, low, high, errors)
        point = ScalingPoint(
            plan.subset, plan.share, subset["kept"], subset["samples"], first["samples_seen"], estimate, plan.model
        )
        found.append(_Measured(plan, point))
    return found


def _panel(measured: list[_Measured], board: Leaderboard, axis: Axis, several: bool) -> ScalingPanel | None:
    """One metric over one axis; None where no series has two sizes."""
    panel = ScalingPanel(metric_of(board, several), axis, [])
    key: Callable[[SweepPoint], tuple[Hashable, ...]] = (
        (lambda p: (p.base, p.model)) if axis == "data" else (lambda p: (p.size, p.model))
    )
    groups: dict[tuple[Hashable, ...], list[_Measured]] = {}
    for one in measured:
        groups.setdefault((one.plan.subset, *key(one.plan)), []).append(one)
    groups = {k: g for k, g in groups.items() if len({panel.x(m.point) for m in g}) > 1}
    if not groups:
        return None
    models = len({m.plan.model for g in groups.values() for m in g}) > 1
    helds = {k: _held(g, axis) for k, g in groups.items()}
    if len(set(helds.values())) == 1:
        helds = dict.fromkeys(helds, "")
    series: list[ScalingSeries] = []
    fits: list[Fits] = []
    for k, group in groups.items():
        held = ", ".join(t for t in (helds[k], group[0].plan.model if models else "") if t)
        points = sorted((m.point for m in group), key=panel.x)
        fits.append(fit_laws([(panel.x(p), p.error.seeds) for p in points]))
        chance = board.chance if panel.metric.unit == "percent" else None
        series.append(_series(group[0].plan.subset, held, points, fits[-1], chance))
    order = list(zip(series, fits, strict=True))
    return replace(panel, series=series, crossings=_crossings(order))


def _held(group: Sequence[_Measured], axis: Axis) -> str:
    """What the points have in common."""
    first = group[0]
    if axis == "budget":
        size = first.plan.size
        return "all of it" if first.plan.whole else f"{100 * size:g} %" if first.plan.share else f"{int(size):,} rows"
    views = f"{first.point.samples_seen:,} samples seen"
    equal = len({m.point.samples_seen for m in group}) == 1
    return views if equal else f"{first.point.views:.3g} views each"


def _series(subset: str, held: str, points: Sequence[ScalingPoint], fits: Fits, chance: float | None) -> ScalingSeries:
    notes = [fits.why_not] if fits.why_not else []
    if chance is not None and (lost := sum(p.error.mean > NEAR_CHANCE * (1 - chance) for p in points)):
        notes.append(f"{lost} of {len(points)} points are near chance, where no such law holds.")
    best = fits.best
    if best is None:
        return ScalingSeries(subset, held, points, note=" ".join(notes))
    if fits.not_a_power_law:
        notes.append("Equal steps per doubling fit better than a power law: over these sizes there is no one exponent.")
    over = np.geomspace(best.low, AHEAD * best.high, CURVE_POINTS).tolist()
    told = fits.predict([*over, 2 * best.high, AHEAD * best.high])
    curve = [CurvePoint(p.x, p.error, p.low, p.high) for p in told]
    straight = next(law for law in fits.laws if law.kind == "power")
    return ScalingSeries(
        subset,
        held,
        points,
        [_law(law, not fits.ruled_out(law)) for law in fits.laws],
        curve[:CURVE_POINTS],
        curve[CURVE_POINTS:],
        straight.b95.low is not None and straight.b95.low > 0,
        " ".join(notes),
    )


def _law(law: Law, possible: bool) -> FittedLaw:
    def estimate(value: float, bounds: Bounds) -> Estimate:
        return Estimate(value, bounds.low, bounds.high)

    floor = estimate(law.c, law.c95) if law.kind == "floor" else None
    return FittedLaw(law.kind, law.a, estimate(law.b, law.b95), floor, law.left_out, possible)


def _crossings(fitted: Sequence[tuple[ScalingSeries, Fits]]) -> list[ScalingCrossing]:
    """Of every two strategies that are alike in all else."""
    found = []
    for (one, its), (other, theirs) in combinations(fitted, 2):
        if one.subset == other.subset or one.held != other.held or its.best is None or theirs.best is None:
            continue
        a, b = its.best, theirs.best
        low, high = max(a.low, b.low), AHEAD * max(a.high, b.high)
        crossed = crossing(its, theirs, low, high)
        if crossed is None:
            continue
        first = a.errors(np.array([low]))[0] < b.errors(np.array([low]))[0]
        below, above = (one, other) if first else (other, one)
        measured = crossed.x <= min(a.high, b.high)
        found.append(
            ScalingCrossing(
                below.name, above.name, crossed.x, crossed.bounds.low, crossed.bounds.high, crossed.share, measured
            )
        )
    return found


def _notes(panels: Sequence[ScalingPanel]) -> list[str]:
    """What the whole sweep leaves open."""
    points = {(p.subset, p.samples, p.samples_seen): p for panel in panels for s in panel.series for p in s.points}
    short = sum(p.views < 1 for p in points.values())
    notes = []
    if short and any(panel.axis == "data" for panel in panels):
        notes.append(
            f"{short} of {len(points)} trainings see less than all of their data once; there more data cannot show."
        )
    if any(len(p.error.seeds) < 2 for panel in panels for s in panel.series for p in s.points):
        notes.append("Points of one seed have no interval of their own; the curves' rest on how well they fit.")
    return notes
