"""Error against data or budget on two logarithmic axes: points with intervals, fitted curves, and what lies ahead.

Both axes are logarithmic because a power law is a straight line there, and a floor a line that bends. Beyond the
largest size a curve is dotted, and its band is what the points leave open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import quantity
from .data import Estimate, Metric
from .figures import DASHES, Key, Plot, Table, number, svg_dash
from .networks import SYMBOLS
from .scaling_data import CurvePoint, ScalingPanel, ScalingPoint, ScalingSeries
from .visible import plot_text

AXES = {"data": "different samples trained on", "budget": "samples seen in training"}
OPACITY = 0.13  # of bands
ROOM = 1.12  # factor of room above and below what is drawn


def scaling_plot(panel: ScalingPanel, colors: Mapping[str, str], says: str, id: str) -> Plot:
    """The plot of one panel; `colors` are those of the subsets."""
    traces: list[dict[str, Any]] = []
    legend, rows = [], []
    helds = list(dict.fromkeys(s.held for s in panel.series))
    subsets = list(dict.fromkeys(s.subset for s in panel.series))
    bottom, top = _range(panel)
    for series in panel.series:
        color = colors.get(series.subset, "var(--muted)")
        dash = DASHES[helds.index(series.held) % len(DASHES)]
        symbol = SYMBOLS[subsets.index(series.subset) % len(SYMBOLS)]
        name, first = plot_text(series.name, 40), len(traces)
        traces += _band(series.curve, color, bottom)
        end = max(panel.x(p) for p in series.points)
        traces += _curves(series.curve, end, color, dash, name, bool(series.laws) and series.laws[0].possible)
        traces.append(_points(panel, series, color, symbol, name))
        legend.append(Key(series.name, color, list(range(first, len(traces))), svg_dash(dash)))
        rows += [_row(series, p, panel.metric) for p in series.points]
    percent = panel.metric.unit == "percent"
    ticks = log_ticks(bottom, min(top, 1.0) if percent else top)
    layout = {
        "xaxis": {
            "type": "log",
            "title": {"text": AXES[panel.axis]},
            **_ticks(_whole_ticks(panel), quantity.compact),
        },
        "yaxis": {
            "type": "log",
            "title": {"text": "error"},
            "range": [number(math.log10(bottom)), number(math.log10(top))],
            **_ticks(ticks, _percent if percent else quantity.value),
            "showgrid": True,
        },
        "hovermode": "closest",
    }
    headers = ["strategy", "share", "different samples", "samples seen", "each seen", "error", "interval", "seeds"]
    return Plot(id, says, {"data": traces, "layout": layout}, Table(headers, rows), 460, "", legend)


def _ticks(values: Sequence[float], text: Callable[[float], str]) -> dict[str, Any]:
    return {"tickmode": "array", "tickvals": [number(v) for v in values], "ticktext": [text(v) for v in values]}


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.3g}{quantity.NARROW}%"


def log_ticks(low: float, high: float, most: int = 9) -> list[float]:
    """Round values from `low` to `high`: 1-2-5 of every power of ten, fewer or more where that is too many or few."""
    found: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(1 + i / 4 for i in range(36))):
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        values = [round(s * 10.0**k, 12) for k in range(first, last + 1) for s in steps]
        now = [v for v in values if low <= v <= high]
        if found and len(now) > most:
            break
        found = now
        if len(found) > most:
            return found[:: math.ceil(len(found) / most)]
    return found


def _whole_ticks(panel: ScalingPanel) -> list[float]:
    known = [float(panel.x(p)) for s in panel.series for p in s.points] + [c.x for s in panel.series for c in s.curve]
    return log_ticks(min(known) / ROOM, max(known) * ROOM, 7)


def _range(panel: ScalingPanel) -> tuple[float, float]:
    """Errors that the plot holds: all points, and curves not too far below them; bands may reach out of it."""
    points = [p.error.mean for s in panel.series for p in s.points if p.error.mean > 0] or [0.01, 1.0]
    curves = [c.error for s in panel.series for c in s.curve]
    low, high = max(min([*points, *curves]), min(points) / 10), max([*points, *curves])
    room = max(ROOM, (high / low) ** 0.06)
    return low / room, high * room


def _band(curve: Sequence[CurvePoint], color: str, bottom: float) -> list[dict[str, Any]]:
    """The interval as a filled outline; a logarithmic axis has no 0, so it ends far below the plot."""
    if not curve:
        return []
    least = bottom / 10
    x = [c.x for c in curve]
    y = [max(c.high, least) for c in curve] + [max(c.low, least) for c in reversed(curve)]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [number(v) for v in (*x, *reversed(x))],
            "y": [number(v) for v in y],
            "fill": "toself",
            "fillcolor": color,
            "line": {"width": 0, "color": color},
            "opacity": OPACITY,
            "hoverinfo": "skip",
        }
    ]


def _curves(
    curve: Sequence[CurvePoint], end: float, color: str, dash: str, name: str, goes_on: bool
) -> list[dict[str, Any]]:
    """The curve over the measured sizes, and its continuation, fainter and dotted, unless the law is ruled out."""
    inside = [c for c in curve if c.x <= end * 1.0001]
    beyond = [*inside[-1:], *(c for c in curve if c.x > end * 1.0001)]
    return [
        _line(part, {"color": color, "width": width, "dash": style}, name)
        for part, width, style in ((inside, 2.2, dash), (beyond, 1.4, "1px,4px"))
        if len(part) > 1 and (goes_on or part is inside)
    ]


def _line(curve: Sequence[CurvePoint], line: Mapping[str, Any], name: str) -> dict[str, Any]:
    says = [f"{name}, fitted<br>{_percent(c.error)} at {quantity.compact(c.x)}<br>" + _between(c) for c in curve]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [number(c.x) for c in curve],
        "y": [number(c.error) if c.error > 0 else None for c in curve],
        "line": dict(line),
        "customdata": says,
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _between(c: CurvePoint) -> str:
    return f"95{quantity.NARROW}% between {_percent(c.low)} and {_percent(c.high)}"


def _points(panel: ScalingPanel, series: ScalingSeries, color: str, symbol: str, name: str) -> dict[str, Any]:
    points = series.points
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [panel.x(p) for p in points],
        "y": [number(p.error.mean) if p.error.mean > 0 else None for p in points],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [number((p.error.high or p.error.mean) - p.error.mean) for p in points],
            "arrayminus": [number(p.error.mean - _low(p.error)) for p in points],
            "color": color,
            "thickness": 1.2,
            "width": 4,
        },
        "marker": {"size": 9, "color": color, "symbol": symbol, "line": {"width": 1, "color": "var(--surface)"}},
        "customdata": [_hover(name, p, panel.metric) for p in points],
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _low(error: Estimate) -> float:
    """Where its bar ends: above 0, which a logarithmic axis does not have."""
    return error.mean if error.low is None else max(error.low, error.mean / 10)


def _hover(name: str, point: ScalingPoint, metric: Metric) -> str:
    said = [f"{name}: error {quantity.reading(point.error.mean, metric)} {quantity.interval(point.error, metric)}"]
    said.append(f"{quantity.count(point.distinct)} different samples, {quantity.count(point.samples_seen)} seen")
    return "<br>".join(said)


def _row(series: ScalingSeries, point: ScalingPoint, metric: Metric) -> list[str]:
    return [
        series.name,
        quantity.percent(point.share, 1) if point.share is not None else quantity.NONE,
        quantity.count(point.distinct),
        quantity.count(point.samples_seen),
        quantity.ratio(point.views),
        quantity.reading(point.error.mean, metric),
        quantity.interval(point.error, metric) or quantity.NONE,
        " · ".join(quantity.reading(v, metric) for v in point.error.seeds),
    ]
