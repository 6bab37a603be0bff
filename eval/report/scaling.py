"""The scaling section: how the error falls with data and with training, per strategy, and what may be expected of more.

A law is a summary of few trainings. Its interval says how much their chance leaves open; that the law itself goes on
beyond the largest size is an assumption, and the page says so where it matters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from . import quantity
from .data import Estimate, Metric
from .scaling_data import CurvePoint, FittedLaw, Scaling, ScalingCrossing, ScalingPanel, ScalingSeries
from .scaling_plot import scaling_plot
from .section import Section, Titled

LAWS = {"power": "power law", "floor": "power law with a floor", "log": "equal steps per doubling"}
WHAT = {"data": "by data", "budget": "by training"}
UNITS = {"data": "different samples", "budget": "samples seen"}
SURE = 0.95  # part of the resamples that must cross before a crossing is told without a caveat
LEAST = 0.5  # ... to be told at all


@dataclass(frozen=True)
class LawView:
    """One law as text."""

    name: str
    exponent: str
    interval: str
    floor: str
    missed: str
    shown: bool
    possible: bool


@dataclass(frozen=True)
class SeriesView:
    """One line of the table."""

    name: str
    subset: str
    trend: str
    law: LawView | None
    last: str
    last_at: str
    ahead: list[tuple[str, str]]
    laws: list[LawView]
    note: str


def scaling_section(scaling: Scaling, colors: Mapping[str, str]) -> Section:
    """The section; `colors` are the names of the arms' colours."""
    panels, plots = [], []
    for i, panel in enumerate(scaling.panels):
        painted = {name: f"var(--{color})" for name, color in colors.items()}
        plot = scaling_plot(panel, painted, _says(panel), f"plot-scaling-{i}")
        plots.append(plot)
        several = len({p.axis for p in scaling.panels}) > 1
        title = f"{panel.metric.label}, {WHAT[panel.axis]}" if several else panel.metric.label
        said = [told for c in panel.crossings if (told := _crossing(panel, c))]
        said += [f"{s.name}: {s.note}" for s in panel.series if s.note and s.laws]
        content = {
            "plot": plot,
            "rows": [_view(panel, s) for s in panel.series],
            "unit": UNITS[panel.axis],
            "said": said,
            "chance": panel.metric.chance,
        }
        panels.append(Titled(title, content))
    lede = (
        "How the error falls when a strategy has more data or more training. Every dot is one size, trained anew; the "
    )
    lede += (
        "smaller sizes are parts of the larger ones. Beyond the last dot the curve is a guess, and its band says how "
    )
    lede += "wide a guess."
    content = {"panels": panels, "notes": scaling.notes, "colors": colors}
    return Section("scaling", "Scaling", "Scaling", lede, content, plots)


def _view(panel: ScalingPanel, series: ScalingSeries) -> SeriesView:
    metric, last = panel.metric, series.points[-1]
    laws = [_law(law, i == 0, metric) for i, law in enumerate(series.laws)]
    fits = bool(laws) and laws[0].possible
    trend = "not fitted" if series.falls is None else "falls clearly" if series.falls else "no clear fall"
    return SeriesView(
        series.name,
        series.subset,
        trend,
        laws[0] if laws else None,
        quantity.reading(last.error.mean, metric),
        quantity.compact(panel.x(last)),
        [(quantity.reading(c.error, metric) if fits else "", _range(c, metric)) for c in series.predictions],
        laws,
        series.note,
    )


def _law(law: FittedLaw, shown: bool, metric: Metric) -> LawView:
    if law.kind == "log":
        steps = Estimate(*(None if v is None else v * _LN2 for v in _three(law.exponent)))  # type: ignore[arg-type]
        exponent = quantity.change(-steps.mean, metric)
        told = _bounds(steps.high, steps.low, lambda v: quantity.change(-v, metric, unit=False))
    else:
        known = law.exponent.low is not None or law.exponent.high is not None
        exponent = _two(law.exponent.mean) if known else quantity.NONE
        told = _bounds(law.exponent.low, law.exponent.high, _two)
    floor = quantity.reading(law.floor.mean, metric) if law.floor else quantity.NONE
    if law.floor and law.floor.low is not None and law.floor.high is not None:
        floor += f" {quantity.interval(law.floor, metric)}"
    missed = quantity.change(law.left_out, metric).lstrip("+")
    return LawView(LAWS[law.kind], exponent, told, floor, missed, shown, law.possible)


_LN2 = 0.6931471805599453


def _three(e: Estimate) -> tuple[float, float | None, float | None]:
    return e.mean, e.low, e.high


def _two(x: float) -> str:
    text = f"{x:.2f}".replace("-", quantity.MINUS)
    return "0.00" if text == f"{quantity.MINUS}0.00" else text


def _bounds(low: float | None, high: float | None, text: Callable[[float], str]) -> str:
    """``[0.21, 0.38]``, or which side is open."""
    if low is None:
        return f"below {text(high)}" if high is not None else "not determined"
    if high is None:
        return f"above {text(low)}"
    return f"[{text(low)}, {text(high)}]"


def _range(c: CurvePoint, metric: Metric) -> str:
    return quantity.interval(Estimate(c.error, c.low, c.high), metric)


def _crossing(panel: ScalingPanel, c: ScalingCrossing) -> str | None:
    """The crossing as a sentence, as sure as it is; None where most resamples do not cross."""
    if c.share < LEAST:
        return None
    unit = UNITS[panel.axis]
    about = f"{c.below} has the lower error up to about {quantity.compact(c.x)} {unit}, {c.above} beyond"
    low = "?" if c.low is None else quantity.compact(c.low)
    where = f"[{low}, {quantity.compact(c.high)}]" if c.high is not None else f"[{low}, or never]"
    told = f"{about} {where}"
    if not c.measured:
        told += ", which lies beyond what was measured"
    if c.share < SURE:
        told += f"; {quantity.percent(1 - c.share, 0)} of the resamples do not cross, so it may not be so"
    return f"{told}."


def _says(panel: ScalingPanel) -> str:
    """The panel in words."""
    parts = []
    for series in panel.series:
        view = _view(panel, series)
        first = quantity.reading(series.points[0].error.mean, panel.metric)
        ahead = f", {view.ahead[-1][0]} {view.ahead[-1][1]} expected at ten times that" if view.ahead else ""
        parts.append(f"{series.name} from {first} to {view.last} at {view.last_at}{ahead}, {view.trend}")
    return f"{panel.metric.label}: error against {UNITS[panel.axis]} on logarithmic axes. " + "; ".join(parts) + "."
