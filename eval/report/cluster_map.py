"""Cluster maps: clusters as bubbles on a plane; area is the size before, colour the share kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from . import quantity
from .data import Cluster, ClusterMap
from .figures import Plot, Table, number
from .visible import plot_text


def clusters_plot(map_: ClusterMap, id: str) -> Plot:
    """The map of one filter's clusters."""
    clusters = sorted(map_.clusters, key=lambda c: (-c.size, c.id))  # small ones on top
    widest = min(54.0, 360 / len(clusters) ** 0.5)  # CSS pixels; many bubbles are small ones
    largest = max((c.size for c in clusters), default=1) or 1
    marker = {
        "size": [c.size for c in clusters],
        "sizemode": "area",
        "sizeref": 2 * largest / widest**2,
        "sizemin": 4,
        "color": [number(_kept(c)) for c in clusters],
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
        "x": [number(c.x) for c in clusters],
        "y": [number(c.y) for c in clusters],
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
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
    }
    kept, rows = sum(c.kept for c in clusters), sum(c.size for c in clusters)
    says = (
        f"Map of {len(clusters)} clusters of {map_.filter} in {map_.subset}: "
        f"{quantity.count(kept)} of {quantity.count(rows)} rows kept."
    )
    figure = {"data": [trace], "layout": layout}
    return Plot(id, says, figure, _cluster_table(map_.clusters), 460, f"{map_.subset} · {map_.filter}")


def _kept(cluster: Cluster) -> float:
    return cluster.kept / cluster.size if cluster.size else 0.0


def _cluster_says(cluster: Cluster) -> Iterator[str]:
    # Line breaks only: plotly draws <b> and the like by style attributes, which the page's policy refuses.
    yield f"cluster {cluster.id} · {plot_text(cluster.label, 40)}"
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
    return [number(low - pad), number(high + pad)]  # type: ignore[list-item]
