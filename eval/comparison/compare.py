"""Two arms on the same test samples: how much they differ, and by which source of chance it could be otherwise.

Seeds and images are two sources. *Over seeds*: another training of either arm, on these images; a t-interval of
differences paired by seed. *Over samples*: other images, these very models; McNemar, paired bootstrap, sign flips. A
claim about a way of curating needs seeds; with one seed only the second exists, and it is a claim about two files of
weights. `both` adds the two variances: other models *and* other images. It is somewhat wide, for part of what images do
to a mean over few seeds is the seeds' own doing and is counted twice; it never hides a source.

Never unpaired: on shared images Var(A - B) = Var(A) + Var(B) - 2 Cov, and the covariance is most of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from ...errors import DataError
from .bootstrap import CELLS, Units, influence, interval, sign_flip, standard_error
from .contributions import Contributions, difference, mean_of
from .statistics import (
    LEVEL,
    Interval,
    McNemar,
    Paired,
    detectable_difference,
    mcnemar,
    minimum_detectable_effect,
    paired_difference,
)


@dataclass(frozen=True)
class PairedSamples:
    """Two models on the same samples by one metric.

    Attributes:
        difference: first minus second.
        interval: 95 % paired bootstrap over units, within classes for macro metrics; None if no unit differs.
        p: sign-flip permutation test over units; equals McNemar's exact p for accuracies.
        mcnemar: counts of discordant samples and exact p; None unless outcomes are right or wrong, one per unit.
        discordant: share of units that differ.
        detectable: smallest difference that so many samples find with 80 % power, given the spread seen; None if there
            is none.
        n: units.
    """

    difference: float
    interval: Interval | None
    p: float
    mcnemar: McNemar | None
    discordant: float
    detectable: float | None
    n: int


def compare_samples(
    first: Contributions,
    second: Contributions,
    names: tuple[str, str] = ("first", "second"),
    seed: int = 0,
    level: float = LEVEL,
    draw: bool = True,
) -> PairedSamples:
    """Compare two models by a metric of their stored rows.

    Args:
        draw: whether to draw samples and signs again; else interval and p are normal ones (McNemar is always exact).

    Raises:
        DataError: they were measured on different samples; names the first that differs.
    """
    found = difference(first, second, names)
    units = found.units
    n = len(units)
    differing = int(np.count_nonzero(np.abs(units.top) > 1e-15))
    right_or_wrong = first.plain and second.plain
    test = mcnemar(first.value > 0, second.value > 0) if right_or_wrong else None
    if right_or_wrong:
        detectable = detectable_difference(n, differing / n, level)
    else:
        detectable = minimum_detectable_effect(standard_error(units), level=level) if differing else None
    return PairedSamples(
        found.estimate,
        interval(units, seed, level, cells=CELLS if draw else 0)[0] if differing else None,
        test.p if test else sign_flip(units, seed) if draw else _normal_p(units),
        test,
        differing / n,
        detectable,
        n,
    )


def _normal_p(units: Units) -> float:
    error = standard_error(units)
    return 2 * float(special.ndtr(-abs(units.estimate) / error)) if error else 1.0


Basis = Literal["seeds", "samples"]


@dataclass(frozen=True)
class ArmDifference:
    """Two arms by one metric, over the seeds that both have.

    Attributes:
        basis: ``seeds`` with two or more common seeds, else ``samples``: what `interval` and `p` are about.
        difference: first minus second, mean over common seeds.
        interval, p: of the basis; None where they do not exist.
        over_seeds: paired t-interval, sign test, detectable effect.
        over_samples: 95 % interval for other images, of the mean over these seeds' models; None without stored rows.
        both: 95 % interval for other seeds and other images; None without either.
        wins, losses: samples that only one arm got right, over all common seeds; None unless right or wrong.
        detectable: smallest difference that the basis would have found; None where nothing varied.
        by_seed: seed -> the two models on the same samples; with several seeds without drawing (`compare_samples`).
    """

    basis: Basis
    difference: float
    interval: Interval | None
    p: float | None
    over_seeds: Paired
    over_samples: Interval | None
    both: Interval | None
    wins: int | None
    losses: int | None
    detectable: float | None
    by_seed: dict[int, PairedSamples]


def compare_arms(
    values: tuple[Mapping[int, float], Mapping[int, float]],
    rows: tuple[Mapping[int, Contributions], Mapping[int, Contributions]] = ({}, {}),
    names: tuple[str, str] = ("first", "second"),
    seed: int = 0,
    level: float = LEVEL,
) -> ArmDifference | None:
    """Compare two arms; None when they have no seed in common.

    Args:
        values: seed -> metric, of each arm.
        rows: seed -> contributions of the stored rows, where there are any.

    Raises:
        DataError: two models of one seed were measured on different samples.
    """
    over_seeds = paired_difference(*values)
    if over_seeds is None:
        return None
    common = list(over_seeds.values)
    by_seed = {
        s: compare_samples(rows[0][s], rows[1][s], _named(names, s), seed, level, draw=len(common) == 1)
        for s in common
        if s in rows[0] and s in rows[1]
    }
    samples, error = None, None
    if len(by_seed) == len(common):
        first, second = (
            mean_of([r[s] for s in common], [f"{n}, seed {s}" for s in common]) for r, n in _each(rows, names)
        )
        units = difference(first, second, names).units
        error = standard_error(units)
        samples = interval(units, seed, level)[0]
    counted = [one.mcnemar for one in by_seed.values() if one.mcnemar]
    whole = len(counted) == len(common)
    several = over_seeds.n > 1
    one = by_seed.get(common[0])
    return ArmDifference(
        "seeds" if several else "samples",
        over_seeds.mean,
        over_seeds.ci95 if several else samples,
        over_seeds.p if several else (one.p if one else None),
        over_seeds,
        samples,
        _both(over_seeds, error, level),
        sum(c.wins for c in counted) if whole else None,
        sum(c.losses for c in counted) if whole else None,
        over_seeds.detectable if several else (one.detectable if one else None),
        by_seed,
    )


def _named(names: tuple[str, str], seed: int) -> tuple[str, str]:
    return f"{names[0]}, seed {seed}", f"{names[1]}, seed {seed}"


def _each(
    rows: tuple[Mapping[int, Contributions], Mapping[int, Contributions]], names: tuple[str, str]
) -> list[tuple[Mapping[int, Contributions], str]]:
    return list(zip(rows, names, strict=True))


def _both(seeds: Paired, error: float | None, level: float) -> Interval | None:
    """t-interval from both variances; degrees of freedom by Welch and Satterthwaite, infinitely many of the images."""
    if seeds.sd is None or error is None:
        return None
    of_seeds = seeds.sd**2 / seeds.n
    whole = of_seeds + error**2
    if not whole:
        return None
    df = (seeds.n - 1) * (whole / of_seeds) ** 2 if of_seeds else math.inf
    tail = (1 + level) / 2
    quantile = float(special.stdtrit(df, tail)) if df < 1e6 else float(special.ndtri(tail))
    half = quantile * math.sqrt(whole)
    return seeds.mean - half, seeds.mean + half


def covariance(arms: list[Contributions], names: list[str]) -> np.ndarray:
    """``(a, a)`` covariance of the arms' values under other test samples: all pairs from one matrix product.

    Raises:
        DataError: two arms were measured on different samples.
    """
    if not arms:
        raise DataError("there is no arm to compare")
    for other, name in zip(arms[1:], names[1:], strict=True):
        difference(arms[0], other, (names[0], name))
    moved = np.stack([influence(one.units) for one in arms])
    return moved @ moved.T
