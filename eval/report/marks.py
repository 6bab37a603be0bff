"""Geometry of the small drawings made of bars and dots, as percentages of their box.

They are inline SVG without a view box, so they stretch with the page while dots stay round and text stays sharp, and
they take their colours from the style sheet. No script is needed to see them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .data import Estimate


@dataclass(frozen=True)
class Scale:
    """A linear axis; positions are percentages of the box's width."""

    low: float
    high: float
    ticks: Sequence[float] = ()

    def at(self, x: float) -> float:
        """Position of `x`, clamped to the box."""
        return round(100 * min(max((x - self.low) / (self.high - self.low), 0.0), 1.0), 3)

    def width(self, a: float, b: float) -> float:
        """Length from `a` to `b`."""
        return round(abs(self.at(b) - self.at(a)), 3)

    def holds(self, x: float | None) -> bool:
        """Whether `x` lies on the axis."""
        return x is not None and self.low <= x <= self.high


def scale(values: Iterable[float | None], zero: bool = False, most: float = math.inf, ticks: int = 5) -> Scale:
    """A scale with round ticks that holds all `values` with some room on both sides.

    Args:
        zero: make 0 part of it.
        most: a bound that cannot be passed, such as 1 for accuracies.
    """
    known = [v for v in values if v is not None and math.isfinite(v)]
    known += [0.0] if zero or not known else []
    low, high = min(known), max(known)
    room = 0.08 * (high - low) or max(abs(high) * 0.1, 0.01)
    low, high = low - room, min(high + room, most + room / 2)
    step = _step((high - low) / ticks)
    first = math.ceil(low / step - 1e-9)
    marks = [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]
    return Scale(low, high, [m for m in marks if m <= most + 1e-12])


def _step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))


TIME_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)


def time_ticks(seconds: float, most: int = 4) -> list[float]:
    """Round times from 0 to `seconds`, at most about `most` of them."""
    step = next((s for s in TIME_STEPS if seconds / s <= most), TIME_STEPS[-1] * math.ceil(seconds / most / 86400))
    return [i * step for i in range(int(seconds / step) + 1)]


def extent(estimates: Iterable[Estimate]) -> list[float | None]:
    """All numbers of some estimates, for a scale that holds them."""
    return [x for e in estimates for x in (e.mean, e.low, e.high, *e.seeds)]


def heat(x: float | None) -> str:
    """Class of a cell shaded by a fraction, ``q0`` to ``q10``."""
    return "" if x is None or not math.isfinite(x) else f"q{round(10 * min(max(x, 0.0), 1.0))}"
