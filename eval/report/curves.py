"""Learning curves: loss against samples seen, a thin line per seed and a thick one for their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import quantity
from .data import Curve
from .figures import DASHES, Key, Plot, Table, number, svg_dash
from .visible import plot_text


def curves_plot(curves: Sequence[Curve], colors: Mapping[str, str], id: str) -> Plot:
    """One plot of all arms; `colors` are those of the arms."""
    by_arm: dict[str, list[Curve]] = {}
    for curve in curves:
        by_arm.setdefault(curve.arm, []).append(curve)
    thin: list[dict[str, Any]] = []
    thick: list[dict[str, Any]] = []
    legend, rows = [], []
    for i, (arm, seeds) in enumerate(by_arm.items()):
        dash, name = DASHES[i % len(DASHES)], plot_text(arm, 32)
        traces = [*range(len(thin), len(thin) + len(seeds)), len(curves) + i]
        legend.append(Key(arm, colors[arm], traces, svg_dash(dash)))
        for curve in seeds:
            place, loss = list(curve.samples), [number(v) for v in curve.loss]
            line = {"color": colors[arm], "width": 1}
            thin.append(_line(f"{name}, seed {curve.seed}", place, loss, line) | {"opacity": 0.35, "hoverinfo": "skip"})
        place, mean = _mean(seeds)
        hover = {"hovertemplate": f"{name}<br>%{{x:,}} samples<br>loss %{{y:.3f}}<extra></extra>"}
        thick.append(_line(name, place, mean, {"color": colors[arm], "width": 2.4, "dash": dash}) | hover)
        last = " · ".join(quantity.value(c.loss[-1]) for c in seeds if c.loss)
        points = [quantity.value(mean[k]) for k in (0, len(mean) // 2, -1)] if mean else [quantity.NONE] * 3
        rows.append([arm, quantity.count(len(seeds)), *points, last])
    layout = {
        "xaxis": {"title": {"text": "samples seen"}, "tickformat": "~s", "rangemode": "tozero"},
        "yaxis": {"title": {"text": "training loss"}},
    }
    ends = ", ".join(f"{row[0]} {row[4]}" for row in rows)
    says = f"Training loss against samples seen for {len(by_arm)} arms. Mean loss at the end: {ends}."
    table = Table(["arm", "seeds", "first loss", "half way", "last loss", "last loss of each seed"], rows)
    return Plot(id, says, {"data": [*thin, *thick], "layout": layout}, table, 380, legend=legend)


def _line(name: str, x: Sequence[int], y: Sequence[float | None], line: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line}


def _mean(seeds: Sequence[Curve]) -> tuple[list[int], list[float | None]]:
    """Mean loss where all seeds have a point."""
    by_place = [dict(zip(c.samples, c.loss, strict=True)) for c in seeds]
    common = sorted(set.intersection(*(set(b) for b in by_place)))
    return common, [number(sum(b[x] for b in by_place) / len(by_place)) for x in common]
