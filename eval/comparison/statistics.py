"""How sure a number is: intervals, paired tests and what a comparison could have detected at all.

Two sources of chance, two kinds of interval, never mixed. *Training* chance: another seed gives another model; the
t-interval over seeds covers it. *Test-set* chance: other test images give another accuracy; Wilson's interval (one
model), McNemar's test (two models, same images) and the bootstrap over classes cover it. Two models are always
compared as pairs (same seed, same images): overlapping bars of two arms do not mean that they do not differ.

Everything returned is strict JSON: None where a statistic does not exist (one seed has no interval), never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

Interval = tuple[float, float]

LEVEL = 0.95
POWER = 0.8
DRAWS = 10_000
_EQUAL = 1e-12  # values closer than this are equal; differences of fractions are not exact


def wilson(correct: int, n: int, level: float = LEVEL) -> Interval | None:
    """Wilson's score interval of a share (JASA 22, 1927), within 0-1 and right for small `n`; None if n = 0."""
    if n == 0:
        return None
    z = float(special.ndtri((1 + level) / 2))
    p = correct / n
    centre = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = ((centre + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    # the ends are exact where rounding would leave 1e-17
    return (0.0 if correct == 0 else low, 1.0 if correct == n else high)


@dataclass(frozen=True)
class Mean:
    """Mean over seeds.

    Attributes:
        n: seeds.
        mean: of their values.
        sd: sample standard deviation (n - 1); None for one seed.
        ci95: Student's t-interval of the mean; None for one seed.
    """

    n: int
    mean: float
    sd: float | None
    ci95: Interval | None

    @property
    def half_width(self) -> float | None:
        """Half the interval's width: the number after +-."""
        return None if self.ci95 is None else (self.ci95[1] - self.ci95[0]) / 2


def mean_over_seeds(values: Sequence[float], level: float = LEVEL) -> Mean:
    """Mean and t-interval of one value per seed (at least one)."""
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Mean(1, mean, None, None)
    sd = _sd(values, mean)
    half = _t_quantile((1 + level) / 2, n - 1) * sd / math.sqrt(n)
    return Mean(n, mean, sd, (mean - half, mean + half))


def _sd(values: Sequence[float], mean: float) -> float:
    if max(values) - min(values) <= _EQUAL:
        return 0.0
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def _t_quantile(p: float, df: int) -> float:
    return float(special.stdtrit(df, p))


@dataclass(frozen=True)
class SignTest:
    """Exact sign test: how often one arm was better; ties are left out. `p` is two-sided."""

    wins: int
    losses: int
    ties: int
    p: float


def sign_test(differences: Sequence[float]) -> SignTest:
    """Sign test of paired differences. With n pairs p cannot be below 2 ** (1 - n): 5 seeds reach 0.0625 at best."""
    wins = sum(d > _EQUAL for d in differences)
    losses = sum(d < -_EQUAL for d in differences)
    return SignTest(wins, losses, len(differences) - wins - losses, _fair_coin_p(wins, losses))


def _fair_coin_p(heads: int, tails: int) -> float:
    """Two-sided exact p of so unequal a split or a more unequal one."""
    return min(1.0, 2 * float(special.bdtr(min(heads, tails), heads + tails, 0.5)))


@dataclass(frozen=True)
class McNemar:
    """Exact McNemar test of two models on the same samples.

    Attributes:
        wins: samples that only the first got right.
        losses: samples that only the second got right.
        n: samples.
        p: two-sided; of the discordant samples alone.
    """

    wins: int
    losses: int
    n: int
    p: float


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Compare per-sample outcomes ``(n,) bool`` of two models (McNemar, Psychometrika 12, 1947; exact binomial).

    It is about these two models and other images, not about other seeds.
    """
    if first.shape != second.shape:
        raise ValueError(f"outcomes of {first.shape} and {second.shape} samples cannot be paired")
    wins = int(np.count_nonzero(first & ~second))
    losses = int(np.count_nonzero(second & ~first))
    return McNemar(wins, losses, len(first), _fair_coin_p(wins, losses))


@dataclass(frozen=True)
class Paired:
    """Difference between two arms (first minus second) over the seeds that both have.

    Attributes:
        values: difference of each common seed.
        n, mean, sd, ci95: as in `Mean`; no interval when all differences are equal.
        p: two-sided paired t-test; None for one seed or when all differences are equal.
        sign: sign test over seeds.
        detectable: the smallest true difference that this number of seeds finds with 80 % power at the 5 % level, given
            the spread seen; None where there is no spread.
    """

    values: dict[int, float]
    n: int
    mean: float
    sd: float | None
    ci95: Interval | None
    p: float | None
    sign: SignTest
    detectable: float | None


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> Paired | None:
    """Compare two arms by seed; None when they have no seed in common."""
    values = {seed: first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())}
    if not values:
        return None
    found = mean_over_seeds(list(values.values()))
    p = detectable = None
    if found.sd:
        error, df = found.sd / math.sqrt(found.n), found.n - 1
        p = 2 * float(special.stdtr(df, -abs(found.mean) / error))
        detectable = minimum_detectable_effect(error, df)
    interval = found.ci95 if found.sd else None  # seeds that happen to agree tell nothing of their spread
    return Paired(values, found.n, found.mean, found.sd, interval, p, sign_test(list(values.values())), detectable)


def minimum_detectable_effect(
    standard_error: float, df: int | None = None, level: float = LEVEL, power: float = POWER
) -> float:
    """Smallest true effect that a two-sided test finds with probability `power`, in the unit of the error.

    Bloom's multiple of the standard error (Evaluation Review 19, 1995): t quantiles with `df` degrees of freedom, or
    normal ones when `df` is None (2.80 standard errors).
    """
    needed = ((1 + level) / 2, power)
    if df is None:
        return standard_error * sum(float(special.ndtri(q)) for q in needed)
    return standard_error * sum(_t_quantile(q, df) for q in needed)


def detectable_difference(n: int, discordant: float, level: float = LEVEL, power: float = POWER) -> float | None:
    """Smallest difference in accuracy of two models that `n` shared images find with probability `power`.

    Args:
        discordant: share of images that only one of the two gets right; at most so large can the difference be. Of two
            models on *different* images of equal accuracy p it is 2 p (1 - p): shared images need fewer.

    Returns:
        None with no image or no discordant one.
    """
    if not n or not discordant:
        return None
    return minimum_detectable_effect(math.sqrt(discordant / n), level=level, power=power)


def seeds_needed(sd: float, effect: float, level: float = LEVEL, power: float = POWER, most: int = 1000) -> int | None:
    """Fewest paired seeds that find a true `effect`, `sd` being the differences' spread; None beyond `most`."""
    for n in range(2, most + 1):
        if minimum_detectable_effect(sd / math.sqrt(n), n - 1, level, power) <= abs(effect):
            return n
    return None


Verdict = Literal["above", "below", "like"]


@dataclass(frozen=True)
class ChanceTest:
    """Whether an accuracy can be told from guessing.

    Attributes:
        p: two-sided exact binomial.
        verdict: ``like`` chance unless p is below the level.
    """

    p: float
    verdict: Verdict


def against_chance(correct: int, n: int, chance: float, level: float = LEVEL) -> ChanceTest:
    """Exact binomial test of `correct` out of `n` against the share that a guess gets right."""
    if not n:
        return ChanceTest(1.0, "like")
    below = float(special.bdtr(correct, n, chance))
    above = float(special.bdtrc(correct - 1, n, chance)) if correct else 1.0
    p = min(1.0, 2 * min(below, above))
    if p >= 1 - level:
        return ChanceTest(p, "like")
    return ChanceTest(p, "above" if above < below else "below")


def bootstrap_classes(
    differences: np.ndarray, weights: np.ndarray, seed: int = 0, draws: int = DRAWS, level: float = LEVEL
) -> Interval | None:
    """Percentile bootstrap over classes of a weighted mean difference; a pure function of its arguments.

    Images of one class are not independent, so classes are drawn, not images. With few classes (ten) the interval is
    somewhat too narrow.

    Args:
        differences: ``(classes,)`` difference in recall of each class.
        weights: ``(classes,)``; class sizes for the difference in accuracy, ones for mean per-class recall. Classes of
            weight 0 are left out.

    Returns:
        None with fewer than 2 classes.
    """
    present = weights > 0
    values, sizes = (weights * differences)[present], weights[present].astype(np.float64)
    m = len(sizes)
    if m < 2:
        return None
    rng = np.random.Generator(np.random.Philox(key=seed))
    block = max(1, 1_000_000 // m)  # counters in memory
    found = []
    for start in range(0, draws, block):
        counts = rng.multinomial(m, np.full(m, 1 / m), size=min(block, draws - start))
        found.append((counts @ values) / (counts @ sizes))
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values (Scand. J. Stat. 6, 1979) for a family of tests; None stays None and is no member.

    Comparing several arms with one control finds a difference by chance more often than one comparison does; an
    adjusted p below 0.05 keeps the chance of any false claim in the family below 5 %.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    worst = 0.0
    for place, (p, i) in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - place) * p))
        adjusted[i] = worst
    return adjusted


def family_sentence(tests: int, level: float = LEVEL) -> str:
    """What so many comparisons mean, for the page."""
    if tests < 2:
        return "One comparison was made; its p-value stands as it is."
    chance = 1 - level
    return (
        f"{tests} comparisons were made. If nothing differed, about {tests * chance:.1f} of them would still have "
        f"p < {chance:.2g}; p-values are adjusted by Holm's method, which keeps the chance of any false claim "
        f"among them below {100 * chance:.3g} %. Intervals are not adjusted."
    )
