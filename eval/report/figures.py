"""The plots that need more than bars and dots: score histograms, learning curves, cluster maps, as plotly JSON.

Figures are plain dictionaries, so that they are the same bytes every time and plotly's slow Python objects stay out.
A colour is written as ``var(--name)``; the page puts in the value that the name has in the current theme, and again when
the theme changes. Each figure comes with a sentence and a table that say the same to those who cannot see it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import quantity
from .data import Cluster, ClusterMap, Curve, Histogram, Split
from .visible import plot_text

CLEAR = "rgba(0,0,0,0)"
_AXIS: dict[str, Any] = {
    "gridcolor": "var(--grid)",
    "linecolor": "var(--rule)",
    "tickcolor": "var(--rule)",
    "zeroline": False,
    "showline": True,
    "ticks": "outside",
    "ticklen": 4,
    "automargin": True,
    "title": {"standoff": 10, "font": {"size": 12, "color": "var(--muted)"}},
}
TEMPLATE: dict[str, Any] = {
    "layout": {
        "font": {
            "family": "system-ui, -apple-system, Segoe UI, Roboto, Arial, sans-serif",
            "size": 12,
            "color": "var(--soft)",
        },
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "xaxis": {**_AXIS, "showgrid": False},
        "yaxis": {**_AXIS, "showline": False, "ticks": ""},
        "margin": {"l": 48, "r": 14, "t": 10, "b": 44},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "bgcolor": CLEAR},
        "hoverlabel": {"bgcolor": "var(--surface)", "bordercolor": "var(--rule)", "font": {"color": "var(--ink)"}},
        "dragmode": False,
    }
}
"""Look shared by all figures; a plotly template."""


@dataclass(frozen=True)
class Table:
    """Text alternative of a plot."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes:
        id: of its element in the page.
        says: one sentence for those who cannot see it.
        figure: plotly's ``data`` and ``layout``.
        height: CSS pixels.
        title: of the tab that shows it, where several share a place.
    """

    id: str
    says: str
    figure: dict[str, Any]
    table: Table
    height: int = 320
    title: str = ""


def histogram_plots(histogram: Histogram, prefix: str) -> list[Plot]:
    """One plot per subset that cuts the column, or one of the pool alone."""
    splits = [*histogram.splits] or [None]
    return [_histogram(histogram, split, f"{prefix}-{i}") for i, split in enumerate(splits)]


def _histogram(histogram: Histogram, split: Split | None, id: str) -> Plot:
    edges = [_short(e) for e in histogram.edges]
    bins = {
        "x": [_short((a + b) / 2) for a, b in zip(edges, edges[1:], strict=False)],
        "width": [_short(b - a) for a, b in zip(edges, edges[1:], strict=False)],
        "customdata": [f"{quantity.value(a)} to {quantity.value(b)}" for a, b in zip(edges, edges[1:], strict=False)],
        "type": "bar",
    }
    data = [_bars(bins, "fetched pool", histogram.counts, "var(--pool)")]
    if split and split.kept:
        data.append(_bars(bins, "kept", split.kept, "var(--kept)"))
    if split and split.dropped:
        data.append(_bars(bins, "dropped", split.dropped, "var(--dropped)", base=split.kept))
    for name, counts, color, dash in (
        ("right captions", histogram.correct, "var(--right)", "solid"),
        ("wrong captions", histogram.wrong, "var(--wrong)", "4px,3px"),
    ):
        if counts:
            line = {"shape": "hv", "color": color, "width": 2, "dash": dash}
            steps = [*counts, counts[-1]]
            data.append(
                {"type": "scatter", "mode": "lines", "name": name, "x": edges, "y": steps, "line": line}
                | {"hovertemplate": f"{name} %{{y:,}}<extra></extra>"}
            )
    shapes, annotations = _threshold_marks(histogram, split)
    layout = {
        "barmode": "overlay",
        "bargap": 0,
        "hovermode": "closest",
        "xaxis": {"title": {"text": plot_text(histogram.column)}, "range": [edges[0], edges[-1]]},
        "yaxis": {"title": {"text": "rows"}, "rangemode": "tozero", "tickformat": "~s"},
        "shapes": shapes,
        "annotations": annotations,
        "margin": {"t": 10 + 16 * bool(annotations)},
    }
    title = split.subset if split else "pool"
    return Plot(
        id, _histogram_says(histogram, split), _figure(data, layout), _histogram_table(histogram, split), 340, title
    )


def _bars(
    bins: Mapping[str, Any], name: str, counts: Sequence[int], color: str, base: Sequence[int] = ()
) -> dict[str, Any]:
    trace: dict[str, Any] = {**bins, "name": name, "y": list(counts), "text": [quantity.count(n) for n in counts]}
    trace |= {"marker": {"color": color, "line": {"width": 0.5, "color": "var(--surface)"}}, "textposition": "none"}
    trace |= {"hovertemplate": f"%{{customdata}}<br>{name} %{{text}}<extra></extra>"}
    if base:
        trace["base"] = list(base)
    return trace


def _threshold_marks(histogram: Histogram, chosen: Split | None) -> tuple[list[Any], list[Any]]:
    """Lines at the thresholds of all subsets: the chosen one's solid, the others dotted."""
    shapes, annotations = [], []
    middle = (histogram.edges[0] + histogram.edges[-1]) / 2
    for level, (split, at) in enumerate((s, t) for s in histogram.splits for t in s.thresholds):
        mine = split is chosen
        line = {"color": "var(--ink)" if mine else "var(--muted)", "width": 1.6 if mine else 1}
        line["dash"] = "solid" if mine else "dot"
        shapes.append({"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper", "line": line})
        annotations.append(
            {
                "x": at,
                "y": 1 - 0.085 * (level % 8),
                "yref": "paper",
                "xanchor": "left" if at < middle else "right",
                "yanchor": "top",
                "showarrow": False,
                "xshift": 4 if at < middle else -4,
                "text": f"{plot_text(split.subset, 24)} {quantity.value(at)}",
                "font": {"size": 11, "color": "var(--ink)" if mine else "var(--muted)"},
                "bgcolor": "var(--veil)",
            }
        )
    return shapes, annotations


def _histogram_says(histogram: Histogram, split: Split | None) -> str:
    total = quantity.count(sum(histogram.counts))
    says = f"Histogram of {histogram.column} over {total} rows"
    if split and split.thresholds:
        at = " and ".join(quantity.value(t) for t in split.thresholds)
        says += f"; {split.subset} cuts at {at}"
    if split and split.kept:
        says += f", keeps {quantity.count(sum(split.kept))} and drops {quantity.count(sum(split.dropped))}"
    return says + "."


def _histogram_table(histogram: Histogram, split: Split | None) -> Table:
    columns: list[tuple[str, Sequence[int]]] = [("fetched", histogram.counts)]
    if split:
        columns += [("kept", split.kept), ("dropped", split.dropped)]
    columns += [("right captions", histogram.correct), ("wrong captions", histogram.wrong)]
    columns = [(name, counts) for name, counts in columns if counts]
    rows = [
        [f"{quantity.value(a)} to {quantity.value(b)}", *(quantity.count(counts[i]) for _, counts in columns)]
        for i, (a, b) in enumerate(zip(histogram.edges, histogram.edges[1:], strict=False))
    ]
    return Table([histogram.column, *(name for name, _ in columns)], rows)


DASHES = ("solid", "7px,3px", "2px,3px", "9px,3px,2px,3px")


def curves_plot(curves: Sequence[Curve], colors: Mapping[str, str], id: str) -> Plot:
    """Loss against samples seen: a thin line per seed, a thick one for their mean."""
    arms = list(dict.fromkeys(c.arm for c in curves))
    thin, thick, rows = [], [], []
    for i, arm in enumerate(arms):
        seeds = [c for c in curves if c.arm == arm]
        for curve in seeds:
            thin.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": f"{plot_text(arm)}, seed {curve.seed}",
                    "legendgroup": f"arm{i}",
                    "showlegend": False,
                    "hoverinfo": "skip",
                    "opacity": 0.35,
                    "x": list(curve.samples),
                    "y": [_short(v) for v in curve.loss],
                    "line": {"color": colors[arm], "width": 1},
                }
            )
        x, mean = _mean(seeds)
        line = {"color": colors[arm], "width": 2.4, "dash": DASHES[i % len(DASHES)]}
        name = plot_text(arm, 32)
        thick.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "legendgroup": f"arm{i}",
                "x": x,
                "y": mean,
                "line": line,
            }
            | {"hovertemplate": f"{name}<br>%{{x:,}} samples<br>loss %{{y:.3f}}<extra></extra>"}
        )
        last = [c.loss[-1] for c in seeds if c.loss]
        rows.append([arm, quantity.count(len(seeds)), _at(mean, 0), _at(mean, len(mean) // 2), _at(mean, -1)])
        rows[-1].append(" · ".join(quantity.value(v) for v in last))
    layout = {
        "xaxis": {"title": {"text": "samples seen"}, "tickformat": "~s", "rangemode": "tozero"},
        "yaxis": {"title": {"text": "training loss"}},
    }
    ends = ", ".join(f"{row[0]} {row[4]}" for row in rows)
    table = Table(["arm", "seeds", "first loss", "half way", "last loss", "last loss of each seed"], rows)
    says = f"Training loss against samples seen for {len(arms)} arms. Mean loss at the end: {ends}."
    return Plot(id, says, _figure([*thin, *thick], layout), table, 380)


def _mean(seeds: Sequence[Curve]) -> tuple[list[int], list[float | None]]:
    """Mean loss where all seeds have a point."""
    by_place = [dict(zip(c.samples, c.loss, strict=True)) for c in seeds]
    common = sorted(set.intersection(*(set(b) for b in by_place)))
    return common, [_short(sum(b[x] for b in by_place) / len(by_place)) for x in common]


def _at(values: Sequence[float | None], i: int) -> str:
    return quantity.value(values[i]) if values else quantity.NONE


def clusters_plot(map_: ClusterMap, id: str) -> Plot:
    """Clusters as bubbles: area is the size before, colour the share kept."""
    clusters = sorted(map_.clusters, key=lambda c: (-c.size, c.id))  # small ones on top
    largest = max((c.size for c in clusters), default=1) or 1
    marker = {
        "size": [c.size for c in clusters],
        "sizemode": "area",
        "sizeref": 2 * largest / 54**2,
        "sizemin": 4,
        "color": [_short(_kept(c)) for c in clusters],
        "cmin": 0,
        "cmax": 1,
        "colorscale": [[0, "var(--scale-0)"], [0.5, "var(--scale-1)"], [1, "var(--scale-2)"]],
        "opacity": 0.9,
        "line": {"width": 1.2, "color": "var(--surface)"},
    }
    few = len(clusters) <= 40  # more labels than that cover one another
    trace = {
        "type": "scatter",
        "mode": "markers+text" if few else "markers",
        "x": [_short(c.x) for c in clusters],
        "y": [_short(c.y) for c in clusters],
        "marker": marker,
        "text": [plot_text(c.label, 18) for c in clusters],
        "textposition": "top center",
        "textfont": {"size": 12, "color": "var(--ink)"},
        "cliponaxis": False,
        "customdata": ["<br>".join(_cluster_says(c)) for c in clusters],
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    blank = {"showgrid": False, "showticklabels": False, "ticks": "", "showline": False, "title": {"text": ""}}
    layout = {
        "xaxis": blank | {"range": _padded([c.x for c in clusters])},
        "yaxis": blank | {"range": _padded([c.y for c in clusters])},
        "hovermode": "closest",
        "showlegend": False,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
    }
    kept, rows = sum(c.kept for c in clusters), sum(c.size for c in clusters)
    says = (
        f"Map of {len(clusters)} clusters of {map_.filter} in {map_.subset}: "
        f"{quantity.count(kept)} of {quantity.count(rows)} rows kept."
    )
    return Plot(
        id, says, _figure([trace], layout), _cluster_table(map_.clusters), 460, f"{map_.subset} · {map_.filter}"
    )


def _kept(cluster: Cluster) -> float:
    return cluster.kept / cluster.size if cluster.size else 0.0


def _cluster_says(cluster: Cluster) -> Iterator[str]:
    yield f"<b>cluster {cluster.id}</b> {plot_text(cluster.label, 40)}"
    share = quantity.percent(_kept(cluster))
    yield f"{quantity.count(cluster.kept)} of {quantity.count(cluster.size)} kept ({share})"
    if cluster.d_intra is not None:
        yield f"spread {quantity.value(cluster.d_intra)}"
    for example in cluster.examples[:3]:
        yield f"“{plot_text(example, 60)}”"


def _cluster_table(clusters: Sequence[Cluster]) -> Table:
    rows = [
        [
            str(c.id),
            c.label,
            quantity.count(c.size),
            quantity.count(c.kept),
            quantity.percent(_kept(c)),
            quantity.value(c.d_intra),
            quantity.value(c.d_inter),
        ]
        for c in clusters
    ]
    return Table(["cluster", "about", "rows", "kept", "share kept", "spread", "distance to others"], rows)


def _padded(values: Sequence[float]) -> list[float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = 0.16 * (high - low) or 1.0
    return [_short(low - pad), _short(high + pad)]  # type: ignore[list-item]


def _figure(data: list[dict[str, Any]], layout: dict[str, Any]) -> dict[str, Any]:
    return {"data": data, "layout": layout}


def _short(x: float) -> float | None:
    """Six significant digits are more than a screen shows; plotly leaves a gap where there is no number."""
    return float(f"{x:.6g}") if math.isfinite(x) else None
