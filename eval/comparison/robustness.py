"""Effective robustness: accuracy under a distribution shift beyond what accuracy without it would lead to expect.

Models that are better on ImageNet are better on its shifted versions too, along a line on logit axes (Taori et al.,
"Measuring Robustness to Natural Distribution Shifts", NeurIPS 2020; Miller et al., ICML 2021). A line is fitted to
*baseline* models; a model's residual above it, in accuracy, is its effective robustness. With baselines that were all
trained alike on different data (arms of one run) the line is about that family, not about the models of the paper.

A line through two models fits anything; one that is read far outside its models says nothing, and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from ...errors import DataError
from .statistics import LEVEL, Interval

Scale = Literal["logit", "probit"]

REFERENCE = "imagenet1k"
SHIFTS: dict[str, tuple[str, ...]] = {
    REFERENCE: ("imagenetv2", "imagenet_sketch", "imagenet-a", "imagenet-o", "imagenet-r", "objectnet")
}
"""Sets of DataComp, by name: reference -> its shifted versions. -A, -O, -R and ObjectNet have fewer classes than their
reference, so their lines compare unlike tasks; residuals of models on one line remain comparable."""

MARGIN = 0.25
"""How far outside the baselines a line is read, as a share of the range that they cover on its axis."""


@dataclass(frozen=True)
class Accuracy:
    """`correct` out of `n`."""

    correct: float
    n: int

    @property
    def value(self) -> float:
        """Share."""
        return self.correct / self.n

    def on(self, scale: Scale) -> float:
        """On the axis of the line; half a sample is added to both sides, so that 0 and 1 stay finite."""
        share = (self.correct + 0.5) / (self.n + 1)
        return float(special.logit(share) if scale == "logit" else special.ndtri(share))

    def error_on(self, scale: Scale) -> float:
        """Standard error on the axis, by the delta method."""
        share = (self.correct + 0.5) / (self.n + 1)
        slope = share * (1 - share) if scale == "logit" else _density(float(special.ndtri(share)))
        return math.sqrt(share * (1 - share) / self.n) / slope


def _density(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _back(z: float, scale: Scale) -> float:
    return float(special.expit(z) if scale == "logit" else special.ndtr(z))


@dataclass(frozen=True)
class Robustness:
    """One model against the line.

    Attributes:
        expected: accuracy under the shift that the line gives for its reference accuracy.
        residual: measured minus expected: effective robustness, as a fraction.
        interval: 95 %, for other images of both sets and, from three baselines on, other baselines of the same family;
            of a baseline too, which pulls the line towards itself (its residual is somewhat too small).
        in_fit: whether it is a baseline.
    """

    expected: float
    residual: float
    interval: Interval
    in_fit: bool


@dataclass(frozen=True)
class Line:
    """The fitted line, and every model that it can speak of.

    Attributes:
        scale, slope, intercept: shifted = intercept + slope * reference, on the scale.
        baselines: names of the models that it was fitted to.
        range: reference accuracies (fractions) between which it is read.
        spread: residual standard deviation on the scale; None for two baselines, which fit exactly.
        models: name -> residual; None for models outside the range.
        sentence: what it is, for the page.
    """

    scale: Scale
    slope: float
    intercept: float
    baselines: list[str]
    range: Interval
    spread: float | None
    models: dict[str, Robustness | None]
    sentence: str


def effective_robustness(
    reference: Mapping[str, Accuracy],
    shifted: Mapping[str, Accuracy],
    baselines: Sequence[str] | None = None,
    scale: Scale = "logit",
    margin: float = MARGIN,
    level: float = LEVEL,
) -> Line:
    """Fit the baselines' line and measure every model that has both accuracies against it.

    Args:
        reference, shifted: model -> its accuracy on the reference set and on a shifted one.
        baselines: models to fit; default: all.

    Raises:
        DataError: fewer than two baselines, or all of one reference accuracy; a baseline was not measured.
    """
    both = [name for name in reference if name in shifted]
    chosen = both if baselines is None else list(dict.fromkeys(baselines))
    missing = [name for name in chosen if name not in both]
    if missing:
        raise DataError(f"effective robustness: the baseline {missing[0]!r} has no result on both sets")
    if len(chosen) < 2:
        raise DataError(f"effective robustness needs at least 2 baseline models to fit a line; there are {len(chosen)}")
    x = np.array([reference[name].on(scale) for name in chosen])
    y = np.array([shifted[name].on(scale) for name in chosen])
    mean, width = float(x.mean()), float(np.square(x - x.mean()).sum())
    if np.ptp(x) < 1e-9:
        raise DataError("effective robustness: all baselines have the same reference accuracy; a line needs two")
    slope = float(((x - mean) * y).sum() / width)
    intercept = float(y.mean()) - slope * mean
    n = len(chosen)
    spread = float(np.sqrt(np.square(y - intercept - slope * x).sum() / (n - 2))) if n > 2 else None
    reach = margin * float(np.ptp(x))
    low, high = float(x.min()) - reach, float(x.max()) + reach

    def against(name: str) -> Robustness | None:
        at = reference[name].on(scale)
        if not low - 1e-12 <= at <= high + 1e-12:
            return None
        line = intercept + slope * at
        of_line = (spread or 0.0) ** 2 * (1 / n + (at - mean) ** 2 / width)
        of_images = shifted[name].error_on(scale) ** 2 + (slope * reference[name].error_on(scale)) ** 2
        tail = (1 + level) / 2
        half = math.hypot(
            float(special.ndtri(tail)) * math.sqrt(of_images),
            (float(special.stdtrit(n - 2, tail)) if n > 2 else 0.0) * math.sqrt(of_line),
        )
        expected, measured, z = _back(line, scale), shifted[name].value, shifted[name].on(scale)
        ends = sorted(_back(z + sign * half, scale) - expected for sign in (-1, 1))
        residual = measured - expected
        return Robustness(expected, residual, (min(ends[0], residual), max(ends[1], residual)), name in chosen)

    models = {name: against(name) for name in both}
    return Line(
        scale, slope, intercept, chosen, (_back(low, scale), _back(high, scale)), spread, models,
        _sentence(scale, n, sum(m is None for m in models.values())),
    )  # fmt: skip


def _sentence(scale: Scale, baselines: int, outside: int) -> str:
    told = f"Residuals from a line through {baselines} baseline models on {scale} axes"
    if baselines == 2:
        told += "; a line through two models fits them exactly, so their own residuals are 0 and its error is unknown"
    if outside:
        told += f"; {outside} model{'s lie' if outside > 1 else ' lies'} too far outside the baselines to be judged"
    return told + "."


def pairs(datasets: Sequence[str], extra: Mapping[str, Sequence[str]] | None = None) -> list[tuple[str, str]]:
    """(reference, shifted) among the sets that were measured: DataComp's, or those of `extra` if it is given."""
    known = SHIFTS if extra is None else extra
    return [(a, b) for a, shifted in known.items() if a in datasets for b in shifted if b in datasets]
