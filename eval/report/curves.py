"""Learning curves: loss, rates and scales against samples seen, a thin line per seed and a thick one for their mean.

A measure that is the same for all trainings, as learning rates mostly are, is one line and not many on top of each
other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import quantity
from .data import Curve, Line
from .figures import DASHES, Key, Plot, Table, number, svg_dash
from .visible import plot_text, shorten

LOSS = "loss"
LABELS = {
    LOSS: "training loss",
    "validation_loss": "validation loss",
    "validation/top1": "validation top-1",
    "validation/image_to_text_R@1": "validation, image to text R@1",
    "validation/text_to_image_R@1": "validation, text to image R@1",
    "lr": "learning rate",
    "logit_scale": "logit scale",
    "grad_norm": "gradient norm",
}
"""Measures that are known by name, in the order of their tabs; the others are parts of the loss."""


def curve_plots(curves: Sequence[Curve], colors: Mapping[str, str]) -> list[Plot]:
    """A plot per measure, the training loss first; `colors` are those of the arms."""
    others = {name: None for curve in curves for name, line in curve.others.items() if line.samples}
    names = [LOSS, *(n for n in LABELS if n in others), *(n for n in others if n not in LABELS)]
    return [measure_plot(curves, name, colors, _id(i)) for i, name in enumerate(names)]


def _id(i: int) -> str:
    return f"plot-curves-{i}" if i else "plot-curves"


def curves_plot(curves: Sequence[Curve], colors: Mapping[str, str], id: str) -> Plot:
    """The training loss of all arms."""
    return measure_plot(curves, LOSS, colors, id)


def measure_plot(curves: Sequence[Curve], measure: str, colors: Mapping[str, str], id: str) -> Plot:
    """One measure of all arms."""
    by_arm: dict[str, list[tuple[int, Line]]] = {}
    for curve in curves:
        line = Line(curve.samples, curve.loss) if measure == LOSS else curve.others.get(measure)
        if line is not None and line.samples:
            by_arm.setdefault(curve.arm, []).append((curve.seed, line))
    label = LABELS.get(measure, f"part of the loss: {shorten(measure, 40)}")
    title, drawn = label[:1].upper() + label[1:], plot_text(label, 60)
    alike = _alike(by_arm)
    told, hue = (alike, {next(iter(alike)): "var(--ink)"}) if alike else (by_arm, colors)
    thin: list[dict[str, Any]] = []
    thick: list[dict[str, Any]] = []
    legend, rows = [], []
    seeds_in_all = sum(len(seeds) for seeds in told.values())
    for i, (arm, seeds) in enumerate(told.items()):
        dash, name = DASHES[i % len(DASHES)], plot_text(arm, 32)
        traces = [*range(len(thin), len(thin) + len(seeds)), seeds_in_all + i]
        legend.append(Key(arm, hue[arm], traces, svg_dash(dash)))
        for seed, line in seeds:
            place, values = list(line.samples), [number(v) for v in line.values]
            look = {"color": hue[arm], "width": 1}
            thin.append(_line(f"{name}, seed {seed}", place, values, look) | {"opacity": 0.35, "hoverinfo": "skip"})
        place, mean = _mean([line for _, line in seeds])
        hover = {"hovertemplate": f"{name}<br>%{{x:,}} samples<br>{drawn} %{{y:.4~g}}<extra></extra>"}
        thick.append(_line(name, place, mean, {"color": hue[arm], "width": 2.4, "dash": dash}) | hover)
        rows.append(_row(arm, by_arm, seeds, mean))
    layout = {
        "xaxis": {"title": {"text": "samples seen"}, "tickformat": "~s", "rangemode": "tozero"},
        "yaxis": {"title": {"text": drawn}, **({"tickformat": "~g"} if measure == "lr" else {})},
    }
    ends = ", ".join(f"{row[0]} {row[4]}" for row in rows)
    if alike:
        says = f"{title} against samples seen, the same for all trainings. At the end: {rows[0][4]}."
    else:
        says = f"{title} against samples seen for {len(by_arm)} arms. Mean at the end: {ends}."
    short = "loss" if "loss" in measure else label
    headers = ["arm", "seeds", f"first {short}", "half way", f"last {short}", f"last {short} of each seed"]
    return Plot(
        id,
        says,
        {"data": [*thin, *thick], "layout": layout},
        Table(headers, rows),
        380,
        title=title,
        legend=[] if alike else legend,
    )


def _alike(by_arm: Mapping[str, Sequence[tuple[int, Line]]]) -> dict[str, list[tuple[int, Line]]]:
    """One line for several arms whose trainings have all the same; else nothing."""
    lines = [line for seeds in by_arm.values() for _, line in seeds]
    if len(by_arm) < 2:
        return {}
    first = (list(lines[0].samples), list(lines[0].values))
    same = all((list(line.samples), list(line.values)) == first for line in lines)
    return {"all trainings": [(0, lines[0])]} if same else {}


def _row(
    arm: str,
    by_arm: Mapping[str, Sequence[Any]],
    seeds: Sequence[tuple[int, Line]],
    mean: Sequence[float | None],
) -> list[str]:
    count = len(by_arm[arm]) if arm in by_arm else sum(len(all_seeds) for all_seeds in by_arm.values())
    last = " · ".join(quantity.value(line.values[-1]) for _, line in seeds if line.values)
    points = [quantity.value(mean[k]) for k in (0, len(mean) // 2, -1)] if mean else [quantity.NONE] * 3
    return [arm, quantity.count(count), *points, last]


def _line(name: str, x: Sequence[int], y: Sequence[float | None], line: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line}


def _mean(seeds: Sequence[Line]) -> tuple[list[int], list[float | None]]:
    """Mean where all seeds have a point."""
    by_place = [dict(zip(line.samples, line.values, strict=True)) for line in seeds]
    common = sorted(set.intersection(*(set(b) for b in by_place)))
    return common, [number(sum(b[x] for b in by_place) / len(by_place)) for x in common]
