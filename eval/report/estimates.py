"""A number, how sure it is, and what it measures: what most sections of the page are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Unit = Literal["percent", "number"]


@dataclass
class Estimate:
    """A mean over seeds with its 95 % interval.

    Attributes:
        mean, low, high: in the metric's unit; the bounds are None when there is no interval (one seed).
        seeds: each seed's own value, in seed order.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    seeds: Sequence[float] = ()


@dataclass
class Metric:
    """One number by which models are judged.

    Attributes:
        name: key in `Arm.scores`.
        label: as shown, such as "digits, zero-shot top-1".
        chance: what guessing reaches, if known.
        unit: ``percent`` for fractions 0-1, ``number`` for anything else.
    """

    name: str
    label: str
    chance: float | None = None
    unit: Unit = "percent"
    higher_is_better: bool = True
    description: str = ""
