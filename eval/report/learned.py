"""Learned scores: the weight of every column with its interval, the moments behind the z-scores, the learning curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from . import marks, quantity
from .data import Learned, Weight
from .facts import fact_lines
from .figures import Plot, Table, number
from .section import Section, Titled

LEARNED_BY = {
    "fixed": "weights written in the config",
    "least_squares": "least squares, trusted rows against the pool",
    "logistic": "logistic regression, trusted rows against the pool",
    "m_flyt": "gradients of a downstream loss, through the weights of a batch (M-FLYT)",
    "flyt": "a scoring head, by gradients of a downstream loss (FLYT)",
}
LEDE = (
    "Scores that were fitted. A weight is per standard deviation of its column, so weights compare; the bar is a "
    "95\u202f% interval, and where it includes 0 the dot is hollow: that "
    "weight may be nothing."
)


def learned_section(learned: Sequence[Learned]) -> Section:
    """A tab per learned score."""
    panels, plots = [], []
    for i, one in enumerate(learned):
        plot = curve_plot(one, f"plot-learned-{i}") if any(c.steps for c in one.curves) else None
        plots += [plot] if plot else []
        panels.append(Titled(one.score, _panel(one) | {"plot": plot}))
    return Section("learned", "Learned weights", "Learned weights", LEDE, {"panels": panels}, plots)


def _panel(learned: Learned) -> dict[str, Any]:
    weights = sorted(learned.weights, key=lambda w: (-abs(w.weight), w.column))
    axis = marks.scale([v for w in weights for v in (w.weight, w.low, w.high, *w.seeds)], zero=True)
    form = weight_form(weights)
    return {
        "one": learned,
        "by": LEARNED_BY.get(learned.learned_by, learned.learned_by),
        "weights": [(w, signed(w.weight, form), _interval(w, form), includes_zero(w)) for w in weights],
        "axis": axis,
        "ticks": [(axis.at(t), signed(t, "g")) for t in axis.ticks],
        "seeds": any(w.seeds for w in weights),
        "alone": any(w.auc is not None for w in weights),
        "facts": fact_lines(learned.facts),
    }


def weight_form(weights: Sequence[Weight]) -> str:
    """One number format for all weights of a score: three digits of the largest."""
    largest = max((abs(w.weight) for w in weights), default=0.0)
    if not 1e-4 <= largest < 1e5:
        return ".2e" if largest else ".2f"
    return f".{min(max(2 - math.floor(math.log10(largest)), 0), 6)}f"


def signed(x: float, form: str) -> str:
    """A number with its sign: +0.42, −1.30; none on a zero."""
    text = f"{x:+{form}}"
    return (text if float(text) else text.lstrip("+-")).replace("-", quantity.MINUS)


def includes_zero(weight: Weight) -> bool:
    """Whether its interval lets the weight be nothing."""
    return weight.low is not None and weight.high is not None and weight.low <= 0 <= weight.high


def _interval(weight: Weight, form: str) -> str:
    if weight.low is None or weight.high is None:
        return "no interval"
    return f"[{signed(weight.low, form)}, {signed(weight.high, form)}]"


def curve_plot(learned: Learned, id: str) -> Plot:
    """Loss against steps, a line per seed and a thick one for their mean."""
    curves = [c for c in learned.curves if c.steps]
    traces = [_line(f"seed {c.seed}", c.steps, c.loss, 1.2 if len(curves) > 1 else 2.2) for c in curves]
    if len(curves) > 1:
        by_step = [dict(zip(c.steps, c.loss, strict=True)) for c in curves]
        steps = sorted(set.intersection(*(set(b) for b in by_step)))
        mean = [sum(b[s] for b in by_step) / len(by_step) for s in steps]
        traces = [t | {"opacity": 0.4, "hoverinfo": "skip", "hovertemplate": None} for t in traces]
        traces.append(_line("mean", steps, mean, 2.4))
    layout = {
        "xaxis": {"title": {"text": "step"}, "tickformat": "~s", "rangemode": "tozero"},
        "yaxis": {"title": {"text": "downstream loss"}},
    }
    rows = [
        [f"{c.seed}", *(quantity.value(c.loss[i]) for i in (0, len(c.loss) // 2, -1)), quantity.count(c.steps[-1])]
        for c in curves
    ]
    says = f"Downstream loss of {learned.score} in {len(curves)} trainings, from "
    says += f"{', '.join(r[1] for r in rows)} to {', '.join(r[3] for r in rows)}."
    table = Table(["seed", "first loss", "half way", "last loss", "last step"], rows)
    return Plot(id, says, {"data": traces, "layout": layout}, table, 260, learned.score)


def _line(name: str, steps: Sequence[int], loss: Sequence[float], width: float) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": list(steps),
        "y": [number(v) for v in loss],
        "line": {"color": "var(--arm-0)", "width": width},
        "hovertemplate": f"{name}, step %{{x:,}}<br>loss %{{y:.4f}}<extra></extra>",
    }
