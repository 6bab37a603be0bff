"""Score histograms: where the pool's scores lie, and where subsets cut them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from . import quantity
from .data import Histogram, Split
from .figures import SOLID, Key, Plot, Table, number, svg_dash
from .visible import plot_text


def histogram_plots(histogram: Histogram, prefix: str) -> list[Plot]:
    """One plot per subset that cuts the column, or one of the pool alone."""
    splits = [*histogram.splits] or [None]
    return [_histogram(histogram, split, f"{prefix}-{i}") for i, split in enumerate(splits)]


def _histogram(histogram: Histogram, split: Split | None, id: str) -> Plot:
    bounds = list(itertools.pairwise(histogram.edges))
    bins = {
        "type": "bar",
        "x": [number((a + b) / 2) for a, b in bounds],
        "width": [number(b - a) for a, b in bounds],
        "customdata": [_bin(a, b) for a, b in bounds],
        "textposition": "none",
    }
    traces, legend = [_bars(bins, "fetched", histogram.counts, "var(--pool)")], [Key("fetched", "var(--pool)", [0])]
    if split and split.kept:
        legend.append(Key("kept", "var(--kept-soft)", [len(traces)]))
        traces.append(_bars(bins, "kept", split.kept, "var(--kept-soft)"))
    if split and split.dropped:
        legend.append(Key("dropped", "var(--dropped-soft)", [len(traces)]))
        traces.append(_bars(bins, "dropped", split.dropped, "var(--dropped-soft)", above=split.kept))
    for name, counts, color, dash in (
        ("right captions", histogram.correct, "var(--right)", SOLID),
        ("wrong captions", histogram.wrong, "var(--wrong)", "4px,3px"),
    ):
        if counts:
            legend.append(Key(name, color, [len(traces)], svg_dash(dash)))
            traces.append(_steps(histogram.edges, name, counts, {"color": color, "width": 2, "dash": dash}))
    shapes, annotations = _threshold_marks(histogram, split)
    layout = {
        "barmode": "overlay",
        "bargap": 0,
        "hovermode": "closest",
        "xaxis": {"title": {"text": plot_text(histogram.column)}, "range": [histogram.edges[0], histogram.edges[-1]]},
        "yaxis": {"title": {"text": "rows"}, "rangemode": "tozero", "tickformat": "~s"},
        "shapes": shapes,
        "annotations": annotations,
    }
    figure = {"data": traces, "layout": layout}
    title = _title(split) if split else "pool"
    return Plot(id, _says(histogram, split), figure, histogram_table(histogram, split), 340, title, legend)


def _title(split: Split) -> str:
    return f"{split.subset} · {split.filter}" if split.filter else split.subset


def _bin(low: float, high: float) -> str:
    return f"{quantity.value(low)} to {quantity.value(high)}"


def _bars(
    bins: Mapping[str, Any], name: str, counts: Sequence[int], color: str, above: Sequence[int] = ()
) -> dict[str, Any]:
    """Bars of counts, standing on the counts `above`."""
    return {
        **bins,
        "name": name,
        "y": list(counts),
        "base": list(above) or None,
        "text": [quantity.count(n) for n in counts],
        "marker": {"color": color, "line": {"width": 0.5, "color": "var(--surface)"}},
        "hovertemplate": f"%{{customdata}}<br>{name} %{{text}}<extra></extra>",
    }


def _steps(edges: Sequence[float], name: str, counts: Sequence[int], line: Mapping[str, Any]) -> dict[str, Any]:
    """The outline of a histogram."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [number(e) for e in edges],
        "y": [*counts, counts[-1]],
        "line": {"shape": "hv", **line},
        "hovertemplate": f"{name} %{{y:,}}<extra></extra>",
    }


LABELS = 5  # with more thresholds than this, only the chosen subset's have labels


def _threshold_marks(histogram: Histogram, chosen: Split | None) -> tuple[list[Any], list[Any]]:
    """Lines at the thresholds of all subsets: the chosen one's solid, the others dotted."""
    shapes, annotations = [], []
    low, high = histogram.edges[0], histogram.edges[-1]
    cuts = [(s, t) for s in histogram.splits for t in s.thresholds if low <= t <= high]
    last = max((t for _, t in cuts), default=high)
    for level, (split, at) in enumerate(cuts):
        mine = split is chosen
        color = "var(--ink)" if mine else "var(--muted)"
        line = {"color": color, "width": 1.6 if mine else 1, "dash": SOLID if mine else "dot"}
        shapes.append({"type": "line", "x0": at, "x1": at, "y0": 0, "y1": 1, "yref": "paper", "line": line})
        if (not mine and len(cuts) > LABELS) or at not in _labelled(split):
            continue
        right = at == last and at < low + 0.7 * (high - low)  # labels stand where they cross no other line
        annotations.append(
            {
                "x": at,
                "y": 1 - 0.085 * (level % LABELS),
                "yref": "paper",
                "xanchor": "left" if right else "right",
                "yanchor": "top",
                "showarrow": False,
                "xshift": 4 if right else -4,
                "text": f"{plot_text(split.subset, 24)} {quantity.value(at)}",
                "font": {"size": 11, "color": color},
                "bgcolor": "var(--veil)",
            }
        )
    return shapes, annotations


def _labelled(split: Split) -> tuple[float, ...]:
    """Thresholds that are named: of several groups' only the lowest and the highest."""
    return (min(split.thresholds), max(split.thresholds)) if split.groups else tuple(split.thresholds)


def _says(histogram: Histogram, split: Split | None) -> str:
    total = quantity.count(sum(histogram.counts))
    says = f"Histogram of {histogram.column} over {total} rows"
    if split and split.thresholds:
        at = " and ".join(quantity.value(t) for t in split.thresholds)
        groups = f" its {quantity.count(split.groups)} groups, each by itself, among others" if split.groups else ""
        says += f"; {_title(split)} cuts{groups} at {at}"
    if split and split.kept:
        says += f", keeps {quantity.count(sum(split.kept))} and drops {quantity.count(sum(split.dropped))}"
    return says + "."


def histogram_table(histogram: Histogram, split: Split | None) -> Table:
    """Rows per bin, in numbers."""
    columns = {"fetched": histogram.counts}
    if split:
        columns |= {"kept": split.kept, "dropped": split.dropped}
    columns |= {"right captions": histogram.correct, "wrong captions": histogram.wrong}
    columns = {name: counts for name, counts in columns.items() if counts}
    rows = [
        [_bin(a, b), *(quantity.count(counts[i]) for counts in columns.values())]
        for i, (a, b) in enumerate(itertools.pairwise(histogram.edges))
    ]
    return Table([histogram.column, *columns], rows)
