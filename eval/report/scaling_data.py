"""What a report shows of a sweep: how the error falls with data and with training, and what law that follows.

Plain dataclasses as in `data`, which hands them out too. Errors are 1 - accuracy, fractions 0-1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from .estimates import Estimate, Metric

Axis = Literal["data", "budget"]


@dataclass
class ScalingPoint:
    """One training of a sweep, measured.

    Attributes:
        subset: name of the strategy.
        share: of the subset's rows that was asked for; None of a number of rows.
        distinct: different rows trained on; `samples`: the same with repeats.
        samples_seen: training budget.
        error: over seeds.
        model: name.
    """

    subset: str
    share: float | None
    distinct: int
    samples: int
    samples_seen: int
    error: Estimate
    model: str = ""

    @property
    def views(self) -> float:
        """How often a sample was seen, on average."""
        return self.samples_seen / self.samples if self.samples else 0.0


@dataclass
class FittedLaw:
    """A law that was fitted to a series.

    Attributes:
        kind: ``power`` (a x^-b), ``floor`` (a x^-b + c) or ``log`` (a - b ln x).
        exponent: b, with its interval; a bound is None where the points set none.
        floor: c; None of the other kinds.
        left_out: root mean square error of predicting each point from the others.
        possible: whether the points do not rule it out.
    """

    kind: Literal["power", "floor", "log"]
    scale: float
    exponent: Estimate
    floor: Estimate | None
    left_out: float
    possible: bool = True


@dataclass
class CurvePoint:
    """The fitted error at a size, and the interval in which a new mean of as many seeds would fall."""

    x: float
    error: float
    low: float
    high: float


@dataclass
class ScalingSeries:
    """Points that differ in one thing only, and their laws.

    Attributes:
        held: what they have in common beside the subset, such as "12,800 samples seen".
        points: by size.
        laws: the best first; empty when there are too few points.
        curve: of the best, by size, up to ten times the largest.
        predictions: at twice and ten times the largest size.
        falls: whether the error clearly falls with size; None = not tested.
        note: what the fit cannot say, as a sentence.
    """

    subset: str
    held: str
    points: Sequence[ScalingPoint]
    laws: Sequence[FittedLaw] = ()
    curve: Sequence[CurvePoint] = ()
    predictions: Sequence[CurvePoint] = ()
    falls: bool | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """As shown where several series stand together."""
        return f"{self.subset} · {self.held}" if self.held else self.subset


@dataclass
class ScalingCrossing:
    """Two series whose curves cross between the smaller of their sizes and ten times the larger.

    Attributes:
        below, above: which series has the lower error below and above the crossing.
        x: where; `low`, `high`: its interval, None where resamples do not cross.
        share: of the resamples that cross there at all.
        measured: whether it lies among the measured sizes of both.
    """

    below: str
    above: str
    x: float
    low: float | None
    high: float | None
    share: float
    measured: bool


@dataclass
class ScalingPanel:
    """One metric over one axis: ``data`` (different rows) or ``budget`` (samples seen)."""

    metric: Metric
    axis: Axis
    series: Sequence[ScalingSeries]
    crossings: Sequence[ScalingCrossing] = ()

    def x(self, point: ScalingPoint) -> int:
        """A point's size on this axis."""
        return point.distinct if self.axis == "data" else point.samples_seen


@dataclass
class Scaling:
    """A sweep: a panel per metric and axis."""

    panels: Sequence[ScalingPanel]
    notes: Sequence[str] = field(default_factory=list)


__all__ = [
    "Axis",
    "CurvePoint",
    "FittedLaw",
    "Scaling",
    "ScalingCrossing",
    "ScalingPanel",
    "ScalingPoint",
    "ScalingSeries",
]
