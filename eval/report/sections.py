"""From data to sections: which ones there are, in which order, and what each template needs.

The reader wants the result first, then what it rests on; a section without data is absent, and so is its link.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from . import marks, quantity
from .cluster_map import clusters_plot
from .data import Arm, Estimate, FilterFacts, Funnel, Headline, Leaderboard, Metric, PerClass, Report, Stages
from .facts import fact_lines
from .galleries import subset_galleries
from .leaks import leakage_section
from .learned import learned_section
from .looks import looks_section
from .networks import networks_section
from .overlaps import overlap_section
from .quota_plot import quota_view
from .repeats import repeat_bars
from .scaling import scaling_section
from .scores import scores_section
from .section import Section, Titled, first_shown
from .training import training_section
from .verdict import judge, verdict

COLORS = 7  # colours for arms in the style sheet, the control's aside


def sections(report: Report) -> list[Section]:
    """The page's sections in order."""
    return list(_sections(report))


def _sections(report: Report) -> Iterator[Section]:
    colors = arm_colors(report)
    if report.leaderboard and report.leaderboard.arms and report.leaderboard.metrics:
        yield _models(report.leaderboard, colors)
    if report.scaling and report.scaling.panels:
        yield scaling_section(report.scaling, colors)
    curves = [c for c in report.curves if c.samples]
    if curves or report.trainings:
        yield training_section(curves, report.trainings, colors, report.stages.currency if report.stages else "")
    if report.networks and report.networks.networks:
        yield networks_section(report.networks, colors)
    if report.pool:
        yield _pool(report)
    if report.looks:
        yield looks_section(report.looks)
    if report.funnels:
        yield _funnels(report)
    if report.overlap and report.overlap.subsets:
        yield overlap_section(report.overlap)
    if report.leakage:
        yield leakage_section(report.leakage)
    if report.histograms or report.commonest or report.score_facts:
        yield scores_section(report)
    if report.learned:
        yield learned_section(report.learned)
    if by_subset := subset_galleries(report.galleries):
        groups = [Titled(name, [Titled(v.filter, v) for v in views]) for name, views in by_subset.items()]
        lede = (
            "Examples of what each filter dropped, beside what it kept: at random, and where the decision was close. "
        )
        lede += "Captions are shown as they were found; characters that hide or reorder text appear as marks."
        content = {"groups": groups, "start": first_shown(groups, report)}
        yield Section("galleries", "Galleries", "Galleries", lede, content)
    if report.truth:
        yield _truth(report)
    if report.quotas or any(m.clusters for m in report.clusters):
        yield _clusters(report)
    if report.stages and report.stages.stages:
        yield _stages(report.stages)
    if report.provenance:
        lede = "What it takes to do this again."
        yield Section("provenance", "Provenance", "Provenance", lede, {"made": report.provenance})


def arm_colors(report: Report) -> dict[str, str]:
    """Arm or subset -> colour name: the control is neutral, the headline's arm has the first colour."""
    board = report.leaderboard
    first = [c.arm for c in report.headline.contrasts[:1]] if report.headline else []
    names = first + [a.name for a in board.arms] if board else first
    names += [c.arm for c in report.curves] + [t.arm for t in report.trainings] + [f.subset for f in report.funnels]
    names += [s.subset for n in report.networks.networks for s in n.subsets] if report.networks else []
    names += [s.subset for p in report.scaling.panels for s in p.series] if report.scaling else []
    control = board.control if board else ""
    rest = [n for n in dict.fromkeys(names) if n != control]
    colors = {name: f"arm-{i % COLORS}" for i, name in enumerate(rest)}
    return colors | ({control: "arm-control"} if control else {})


def tiles(report: Report) -> list[tuple[str, str, str]]:
    """Key figures at the top: label, value, remark."""
    return list(_tiles(report))


def _tiles(report: Report) -> Iterator[tuple[str, str, str]]:
    if pool := report.pool:
        yield "rows in the pool", quantity.count(pool.rows), ""
        yield "images fetched", quantity.count(pool.fetched), quantity.share(pool.fetched, pool.rows)
    arm = report.headline.contrasts[0].arm if report.headline else ""
    chosen = [f for f in report.funnels if f.subset == arm] or list(report.funnels[-1:])
    for funnel in chosen:
        yield f"kept by {funnel.subset}", quantity.count(funnel.kept), quantity.share(funnel.kept, funnel.pool)
    if board := report.leaderboard:
        models = sum(max((len(e.seeds) for e in a.scores.values()), default=0) for a in board.arms)
        if models:
            yield "models trained", quantity.count(models), f"{len(board.arms)} arms"
    if report.stages and report.stages.wall_seconds is not None:
        yield "wall time", quantity.duration(report.stages.wall_seconds), ""
    for label, text in report.header.facts.items():
        yield label, text, ""


def hero(headline: Headline) -> dict[str, Any]:
    """The headline in words, and its contrasts on one axis with 0 on it."""
    metric = headline.metric
    axis = marks.scale(marks.extent(c.difference for c in headline.contrasts), zero=True)
    rows = [{"contrast": c, "verdict": verdict(c, metric), "kind": judge(c, metric)} for c in headline.contrasts]
    ticks = [(axis.at(t), quantity.change(t, metric, unit=False, round_off=True)) for t in axis.ticks]
    return {"metric": metric, "rows": rows, "axis": axis, "ticks": ticks, "first": rows[0]["verdict"]}


def _models(board: Leaderboard, colors: Mapping[str, str]) -> Section:
    shown = [m for m in board.metrics if not board.shown or m.name in board.shown]
    panels = [Titled(m.label, _panel(board, m)) for m in shown]
    labels = {m.label for m in shown}
    confusions = [Titled(c.arm + (f" · {c.metric}" if c.metric else ""), c) for c in board.confusions]
    lede = "Every arm is trained alike on equally many samples; only the data differs. Each dot is one seed, the bar "
    lede += f"is the {board.interval}. Overlapping bars do not mean no difference: read the paired difference."
    content = {
        "board": board,
        "panels": panels,
        "more": len(board.metrics) - len(shown),
        "colors": colors,
        "per_class": [
            Titled(t.metric, (t, _shades(t))) for t in board.per_class if not board.shown or t.metric in labels
        ],
        "confusions": confusions,
        "equal_budget": len({a.samples_seen for a in board.arms}) == 1,
    }
    return Section("models", "Models", "Models", lede, content)


def _panel(board: Leaderboard, metric: Metric) -> dict[str, Any]:
    arms: list[tuple[Arm, Estimate, Estimate | None]] = [
        (a, a.scores[metric.name], a.differences.get(metric.name)) for a in board.arms if metric.name in a.scores
    ]
    most = 1.0 if metric.unit == "percent" else float("inf")
    axis = marks.scale(marks.extent(e for _, e, _ in arms), most=most)
    digits = 0 if all(float(100 * t).is_integer() for t in axis.ticks) else 1
    percent = metric.unit == "percent"
    ticks = [(axis.at(t), quantity.percent(t, digits) if percent else quantity.value(t)) for t in axis.ticks]
    best = sorted(arms, key=lambda a: a[1].mean, reverse=metric.higher_is_better)
    return {"metric": metric, "arms": arms, "axis": axis, "ticks": ticks, "best": best[0][0].name if best else ""}


def _shades(table: PerClass) -> dict[str, list[str]]:
    """Shade of every cell, from the table's lowest value to its highest."""
    known = [v for values in table.arms.values() for v in values if math.isfinite(v)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    span = high - low or 1.0
    return {arm: [marks.heat((v - low) / span) for v in values] for arm, values in table.arms.items()}


def _pool(report: Report) -> Section:
    pool = report.pool
    assert pool is not None
    failures = sorted(pool.failures.items(), key=lambda f: (-f[1], f[0]))
    languages = sorted(pool.languages.items(), key=lambda f: (-f[1], f[0]))
    lede = "What the input named, what of it could be fetched, and why the rest could not."
    content = {"pool": pool, "failures": failures, "languages": languages, "meanings": report.meanings}
    return Section("pool", "Pool", "Pool", lede, content)


def _clusters(report: Report) -> Section:
    maps = [m for m in report.clusters if m.clusters]
    plots = [clusters_plot(m, f"plot-clusters-{i}") for i, m in enumerate(maps)]
    quotas = [quota_view(quotas, f"plot-quotas-{i}") for i, quotas in enumerate(report.quotas)]
    lede = "What filters kept of each cluster or group. "
    if maps:
        lede += "On the map each bubble is a cluster of embeddings; its area is the number of rows that entered, its "
        lede += "colour the share kept. Distances on the plane are only roughly those in the embedding space."
    content = {
        "maps": [Titled(p.title, (m, p)) for m, p in zip(maps, plots, strict=True)],
        "quotas": [Titled(v.title, v) for v in quotas],
    }
    plots += [v.plot for v in quotas if v.plot is not None]
    return Section("clusters", "Clusters and quotas" if quotas else "Cluster map", "Clusters", lede, content, plots)


def _funnels(report: Report) -> Section:
    colors = arm_colors(report)
    panels = [Titled(f.subset, f) for f in report.funnels]
    lede = "Every row of the pool ends in exactly one place: kept, or dropped by one filter for one reason. A row that "
    lede += "several filters would drop counts for the first of them."
    content = {
        "panels": panels,
        "colors": colors,
        "meanings": report.meanings,
        "start": first_shown(panels, report),
        "made": {f.subset: _made(report, f) for f in report.funnels},
        "repeats": {f.subset: repeat_bars(f.repeats) for f in report.funnels if max(f.repeats, default=1) > 1},
    }
    return Section("funnel", "Subsets", "Subsets", lede, content)


def _made(report: Report, funnel: Funnel) -> list[tuple[FilterFacts, list[tuple[str, str]]]]:
    """What the filters of a subset say of themselves, in their order."""
    facts = {f.filter: f for f in report.filter_facts if funnel.subset in (f.subset, *f.also)}
    return [(facts[s.label], fact_lines(facts[s.label].facts)) for s in funnel.steps if s.label in facts]


def _truth(report: Report) -> Section:
    panels = []
    for name in dict.fromkeys(t.subset for t in report.truth):
        mine = [t for t in report.truth if t.subset == name]
        kinds = list(dict.fromkeys(f.kind for t in mine for f in t.faults))
        rows = [(t, {f.kind: f for f in t.faults}) for t in mine]
        panels.append(Titled(name, {"rows": rows, "kinds": kinds}))
    lede = "Faults were planted in the pool and recorded where no filter could see them. Precision: how much of what a "
    lede += "filter dropped deserved it. Recall: how much of what deserved it the filter dropped."
    return Section(
        "truth", "Filters against the truth", "Truth", lede, {"panels": panels, "start": first_shown(panels, report)}
    )


def _stages(stages: Stages) -> Section:
    ends = [(s.start or 0.0) + s.seconds for s in stages.stages if s.state == "run"]
    whole = max([*ends, stages.wall_seconds or 0.0, 1e-9])
    axis = marks.Scale(0.0, whole)
    grid = [(axis.at(t), quantity.clock(t)) for t in marks.time_ticks(whole)]
    shown = {
        name: any(getattr(s, name) is not None for s in stages.stages)
        for name in ("parts", "items", "bytes", "peak_bytes", "cost")
    }
    total = {
        "seconds": sum(s.seconds for s in stages.stages if s.state == "run"),
        "bytes": sum(s.bytes or 0 for s in stages.stages),
        "peak_bytes": max((s.peak_bytes or 0 for s in stages.stages), default=0),
        "cost": sum(s.cost or 0.0 for s in stages.stages),
    }
    lede = (
        "What each stage took: seconds of work, all its calls together. A reused stage was finished by an earlier run; "
        "its bar is hollow."
    )
    content = {"stages": stages, "axis": axis, "grid": grid, "shown": shown, "total": total}
    return Section("stages", "Time and resources", "Stages", lede, content)


__all__ = ["Section", "arm_colors", "hero", "sections", "tiles"]
