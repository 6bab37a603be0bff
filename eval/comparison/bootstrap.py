"""Drawing test samples again: the distribution of a weighted mean, exactly, without drawing samples one by one.

Every mean here is `sum(top) / sum(bottom)` over *units* (an image; or an image with its captions) that are drawn again
with replacement, within strata (classes) where the metric fixes their sizes. Units with equal (top, bottom) are of one
*type*; drawing units is drawing a multinomial count per type, so 50,000 right-or-wrong answers cost one binomial per
draw, not 50,000 indices: 1,000 draws take 0.1 ms instead of 243. The distribution is the same, not an approximation.

Draws come from Philox keyed by the seed: the same arguments give the same interval, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from .statistics import LEVEL, Interval

DRAWS = 2_000
"""Enough for an interval's ends to be within 5 % of its width."""
COUNTERS = 1_000_000
"""Counters in memory at a time; a constant, because the stream of random numbers is cut at its multiples."""
CELLS = 200
"""Types up to which `interval` draws; 2,000 draws of so many cost 20 ms."""

Method = Literal["percentile", "bca"]


@dataclass(frozen=True)
class Units:
    """What is drawn: ``u`` units, and what each adds above and below the fraction bar.

    Attributes:
        top, bottom: ``(u,) float64``.
        stratum: ``(u,) int64`` from 0 on, drawn within; None = one stratum.
    """

    top: np.ndarray
    bottom: np.ndarray
    stratum: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.top)

    @property
    def estimate(self) -> float:
        """The mean as it was measured."""
        return float(self.top.sum() / self.bottom.sum())


def influence(units: Units) -> np.ndarray:
    """``(u,)`` how much each unit moves the mean: its standard error is the root of the sum of squares.

    The covariance of two means over the same units is the product of their influences, so intervals of all pairs of
    models follow from one matrix product. Widened by n / (n - 1) in each stratum; a unit that is alone in its stratum
    has no spread that could be seen, and adds none (the error is then somewhat too small).
    """
    moved = (units.top - units.estimate * units.bottom) / units.bottom.sum()
    if units.stratum is None:
        n = len(units)
        return (moved - moved.mean()) * math.sqrt(n / (n - 1)) if n > 1 else np.zeros(n)
    size = np.bincount(units.stratum)
    mean = np.bincount(units.stratum, moved) / np.maximum(size, 1)
    wider = np.where(size > 1, np.sqrt(size / np.maximum(size - 1, 1)), 0.0)
    return (moved - mean[units.stratum]) * wider[units.stratum]


def standard_error(units: Units) -> float:
    """Of the mean, for other units of the same kind (linearised)."""
    return float(np.sqrt(np.square(influence(units)).sum()))


@dataclass(frozen=True)
class _Types:
    """Distinct units of each stratum: ``(s, k)`` values and shares, ``(s,)`` sizes; missing types have share 0."""

    top: np.ndarray
    bottom: np.ndarray
    share: np.ndarray
    size: np.ndarray


def _types(units: Units) -> _Types:
    stratum = np.zeros(len(units), np.int64) if units.stratum is None else units.stratum
    tops, top_code = np.unique(units.top, return_inverse=True)
    bottoms, bottom_code = np.unique(units.bottom, return_inverse=True)
    code, count = np.unique((stratum * len(tops) + top_code) * len(bottoms) + bottom_code, return_counts=True)
    rows = np.stack([code // (len(tops) * len(bottoms)), code // len(bottoms) % len(tops), code % len(bottoms)], 1)
    names, start, kinds = np.unique(rows[:, 0], return_index=True, return_counts=True)
    width = int(kinds.max())
    row = np.repeat(np.arange(len(names)), kinds)
    # what is missing comes first: the last type takes what is left of the draw, so it must be a real one
    column = np.arange(len(rows)) - np.repeat(start, kinds) + np.repeat(width - kinds, kinds)
    top, bottom, found = (np.zeros((len(names), width)) for _ in range(3))
    top[row, column], bottom[row, column], found[row, column] = tops[rows[:, 1]], bottoms[rows[:, 2]], count
    size = found.sum(1)
    return _Types(top, bottom, found / size[:, None], size.astype(np.int64))


def resample(units: Units, seed: int = 0, draws: int = DRAWS) -> np.ndarray:
    """``(draws,)`` means of units drawn again."""
    types = _types(units)
    rng = np.random.Generator(np.random.Philox(key=seed))
    found = np.empty(draws)
    for start, stop in _blocks(draws, types.share.size):
        counts = rng.multinomial(types.size, types.share, size=(stop - start, len(types.size)))
        bottom = np.tensordot(counts, types.bottom, 2)
        found[start:stop] = np.tensordot(counts, types.top, 2) / bottom
    return found


def _blocks(draws: int, width: int) -> Iterator[tuple[int, int]]:
    step = max(1, COUNTERS // width)
    return ((start, min(start + step, draws)) for start in range(0, draws, step))


def bootstrap(
    units: Units, seed: int = 0, draws: int = DRAWS, level: float = LEVEL, method: Method = "percentile"
) -> Interval | None:
    """Interval of the mean when units are drawn again.

    Within strata draws are too narrow by n / (n - 1) in variance (Rao and Wu, JASA 83, 1988); they are widened by that.

    Args:
        method: ``percentile``, or ``bca``: corrected for bias and skewness (Efron, JASA 82, 1987), for means near 0
            or 1.

    Returns:
        None with fewer than 2 units, or when all draws agree: a spread that was not seen is not a spread of 0.
    """
    if len(units) < 2:
        return None
    found = np.sort(resample(units, seed, draws))
    if found[-1] - found[0] <= 1e-12:
        return None
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        tails = _bca(units, found, tails)
    ends = np.quantile(found, tails)
    if units.stratum is not None:
        ends = units.estimate + (ends - units.estimate) * _widening(units)
    return float(ends[0]), float(ends[1])


def interval(
    units: Units, seed: int = 0, level: float = LEVEL, method: Method = "percentile", cells: int = CELLS
) -> tuple[Interval, str] | tuple[None, None]:
    """The interval of the mean that its size allows, and which kind it is.

    The bootstrap, unless there are more than `cells` types to count (macro recall of hundreds of classes): there the
    normal interval from the linearised error is the same to a few per cent of its width, and a hundred times cheaper.
    """
    if len(units) < 2:
        return None, None
    error = standard_error(units)
    if error <= 1e-12:
        return None, None
    if not cells or _types(units).share.size > cells:
        half = float(special.ndtri((1 + level) / 2)) * error
        return (units.estimate - half, units.estimate + half), "normal"
    found = bootstrap(units, seed, level=level, method=method)
    return (found, "bca" if method == "bca" else "bootstrap") if found else (None, None)


def _bca(units: Units, found: np.ndarray, tails: np.ndarray) -> np.ndarray:
    """The tails that BCa reads instead of the nominal ones."""
    below = np.count_nonzero(found < units.estimate) + np.count_nonzero(found == units.estimate) / 2
    bias = special.ndtri(np.clip(below / len(found), 0.5 / len(found), 1 - 0.5 / len(found)))
    moved = influence(units)
    acceleration = np.power(moved, 3).sum() / (6 * np.power(np.square(moved).sum(), 1.5))
    wanted = bias + special.ndtri(tails)
    return special.ndtr(bias + wanted / (1 - acceleration * wanted))


def _widening(units: Units) -> float:
    """Ratio of the standard error to that of draws within strata."""
    assert units.stratum is not None
    size = np.bincount(units.stratum)[units.stratum]
    wide = np.square(influence(units))
    narrow = float((wide * (size - 1) / size).sum())
    return math.sqrt(float(wide.sum()) / narrow) if narrow else 1.0


def sign_flip(units: Units, seed: int = 0, draws: int = 10_000) -> float:
    """Two-sided p that a mean difference is 0, by giving each unit's difference either sign (Fisher's permutation).

    Units of equal size are drawn as one binomial. With one size only (right or wrong answers) it is McNemar's test, and
    exact; else `draws` random signs decide, the measured one included.
    """
    size, count = np.unique(np.round(np.abs(units.top[units.top != 0]), 12), return_counts=True)
    if not len(size):
        return 1.0
    observed = abs(float(units.top.sum()))
    if len(size) == 1:
        flips = int(count[0])
        fewer = round((flips - observed / size[0]) / 2)
        return min(1.0, 2 * float(special.bdtr(fewer, flips, 0.5)))
    rng = np.random.Generator(np.random.Philox(key=seed))
    extreme = 0
    for start, stop in _blocks(draws, len(size)):
        ups = rng.binomial(count, 0.5, size=(stop - start, len(size)))
        extreme += int(np.count_nonzero(np.abs((2 * ups - count) @ size) >= observed - 1e-9))
    return (extreme + 1) / (draws + 1)


__all__ = ["DRAWS", "Units", "bootstrap", "influence", "interval", "resample", "sign_flip", "standard_error"]
