"""Filter networks: each one's own accuracy, and that of models trained on what it keeps, side by side.

The two are not the same and need not even rank alike (Fang et al., Data Filtering Networks, arXiv 2309.17425), so
neither may stand in for the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import marks, quantity
from .data import Estimate, FilterNetwork, FilterNetworks, Metric
from .figures import Key, Plot, Table, number
from .section import Section, Titled
from .visible import plot_text

SYMBOLS = ("circle", "diamond", "square", "triangle-up", "star", "hexagon", "x")
"""They tell networks apart without colour."""

LEDE = (
    "A network that classifies better is not always a better filter (Data Filtering Networks, arXiv 2309.17425), so "
    "both are shown: the accuracy of each network itself, and of models trained on what it keeps."
)


def networks_section(networks: FilterNetworks, colors: Mapping[str, str]) -> Section:
    """The section; `colors` are those of the arms."""
    panels, plots = [], []
    for i, metric in enumerate(networks.metrics):
        plot = networks_plot(networks, metric, f"plot-networks-{i}")
        plots += [plot] if plot else []
        panels.append(Titled(metric.label, _panel(networks, metric) | {"plot": plot}))
    content = {"networks": networks, "panels": panels, "colors": colors, "trained": _trained(networks)}
    return Section("networks", "Filter networks", "Filter networks", LEDE, content, plots)


def made(network: FilterNetwork) -> str:
    """How it came about, in a line."""
    told = [network.made or "of unknown origin", network.model]
    if network.pairs is not None:
        told.append(f"{quantity.count(network.pairs)} distinct pairs")
    if network.samples_seen is not None:
        told.append(f"{quantity.count(network.samples_seen)} samples seen")
    return ", ".join(t for t in told if t)


def _trained(networks: FilterNetworks) -> bool:
    """Whether a model was trained on what any of them keeps."""
    return any(s.scores for n in networks.networks for s in n.subsets)


def _panel(networks: FilterNetworks, metric: Metric) -> dict[str, Any]:
    known = [e for n in networks.networks for e in _estimates(n, metric)]
    known += [e for e in [networks.control_scores.get(metric.name)] if e]
    most = 1.0 if metric.unit == "percent" else float("inf")
    axis = marks.scale([*marks.extent(known), metric.chance], most=most)
    percent = metric.unit == "percent"
    digits = 0 if all(float(round(100 * t, 9)).is_integer() for t in axis.ticks) else 1
    ticks = [(axis.at(t), quantity.percent(t, digits) if percent else quantity.value(t)) for t in axis.ticks]
    return {"metric": metric, "axis": axis, "ticks": ticks, "made": {n.encoder: made(n) for n in networks.networks}}


def _estimates(network: FilterNetwork, metric: Metric) -> list[Estimate]:
    found = [network.scores.get(metric.name), *(s.scores.get(metric.name) for s in network.subsets)]
    return [e for e in found if e is not None]


def networks_plot(networks: FilterNetworks, metric: Metric, id: str) -> Plot | None:
    """Own accuracy against that of what is kept, a point per network and subset; None with fewer than two networks."""
    told = [n for n in networks.networks if metric.name in n.scores and any(metric.name in s.scores for s in n.subsets)]
    if len(told) < 2:
        return None
    traces, legend, rows = [], [], []
    means = [n.scores[metric.name].mean for n in told]
    middle = (min(means) + max(means)) / 2
    for i, network in enumerate(told):
        color, own = f"var(--arm-{i % 7})", network.scores[metric.name]
        kept = [(s, s.scores[metric.name]) for s in network.subsets if metric.name in s.scores]
        name = plot_text(network.encoder, 32)
        legend.append(Key(network.encoder, color, [i]))
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": name,
                "x": [number(own.mean)] * len(kept),
                "y": [number(e.mean) for _, e in kept],
                "error_x": _bars([own] * len(kept), color),
                "error_y": _bars([e for _, e in kept], color),
                "marker": {"size": 11, "color": color, "symbol": SYMBOLS[i % len(SYMBOLS)]},
                "text": [f"{name} → {plot_text(s.subset, 24)}" for s, _ in kept],
                "textposition": "top left" if own.mean > middle else "top right",  # towards the middle: room for names
                "textfont": {"size": 12, "color": "var(--ink)"},
                "cliponaxis": False,
                "customdata": [_hover(network, s.subset, own, e, metric) for s, e in kept],
                "hovertemplate": "%{customdata}<extra></extra>",
            }
        )
        rows += [[s.subset, network.encoder, *_told(own, metric), *_told(e, metric)] for s, e in kept]
    form = ".0%" if metric.unit == "percent" else "~g"
    shapes, annotations = _control_line(networks, metric)
    control = [e for e in [networks.control_scores.get(metric.name)] if e]
    layout = {
        "xaxis": {
            "title": {"text": "accuracy of the network itself" if form == ".0%" else "the network itself"},
            "tickformat": form,
            "range": _range([n.scores[metric.name] for n in told], 0.08),
        },
        "yaxis": {
            "title": {"text": "models trained on what it keeps"},
            "tickformat": form,
            "range": _range([*(e for n in told for e in _estimates(n, metric)[1:]), *control], 0.12),
        },
        "hovermode": "closest",
        "shapes": shapes,
        "annotations": annotations,
    }
    says = f"{metric.label}: own accuracy of {len(told)} filter networks against that of models trained on {len(rows)} "
    says += "subsets that they keep."
    headers = ["subset", "network", "network itself", "interval", "models on what it keeps", "interval"]
    return Plot(id, says, {"data": traces, "layout": layout}, Table(headers, rows), 380, metric.label, legend)


def _told(estimate: Estimate, metric: Metric) -> list[str]:
    return [quantity.reading(estimate.mean, metric), quantity.interval(estimate, metric) or quantity.NONE]


def _hover(network: FilterNetwork, subset: str, own: Estimate, kept: Estimate, metric: Metric) -> str:
    said = [f"{plot_text(subset, 32)}, kept by {plot_text(network.encoder, 32)}"]
    said.append("its models " + " ".join(_told(kept, metric)))
    said.append("network itself " + " ".join(_told(own, metric)))
    return "<br>".join(said)


def _bars(estimates: Sequence[Estimate], color: str) -> dict[str, Any]:
    """Error bars; none where there is no interval."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [number((e.mean if e.high is None else e.high) - e.mean) for e in estimates],
        "arrayminus": [number(e.mean - (e.mean if e.low is None else e.low)) for e in estimates],
        "color": color,
        "thickness": 1.2,
        "width": 4,
    }


def _range(estimates: Sequence[Estimate], room: float) -> list[float | None]:
    """An axis that holds all intervals, with room on the right for names."""
    known = [v for v in marks.extent(estimates) if v is not None]
    low, high = min(known), max(known)
    span = high - low or 0.02
    return [number(low - 0.08 * span), number(high + room * span)]


def _control_line(networks: FilterNetworks, metric: Metric) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    control = networks.control_scores.get(metric.name)
    if control is None:
        return [], []
    y = number(control.mean)
    line = {"color": "var(--arm-control)", "width": 1.5, "dash": "4px,3px"}
    shape = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line, "layer": "below"}
    text = f"{plot_text(networks.control, 24)} {quantity.reading(control.mean, metric)}"
    font = {"size": 11, "color": "var(--muted)"}
    place = {"xref": "paper", "x": 0, "y": y, "xanchor": "left", "yanchor": "bottom", "showarrow": False}
    return [shape], [{**place, "text": text, "font": font, "bgcolor": "var(--veil)"}]
