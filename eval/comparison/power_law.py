"""How an error falls with data or compute: power laws with intervals, from few points and few seeds.

Three laws of an error ``e`` over a size ``x`` are fitted, and judged by how well they predict points left out:

* ``power``: ``e = a x^-b``, a straight line on log-log axes (Hestness et al., arXiv 1712.00409; Kaplan et al., arXiv
  2001.08361; for CLIP models Cherti et al., arXiv 2212.07143);
* ``floor``: ``e = a x^-b + c`` with ``c >= 0``, an error that no amount removes (as in Hoffmann et al., arXiv
  2203.15556);
* ``log``: ``e = a - b ln x``, accuracy that grows by equal steps per doubling (Sun et al., arXiv 1707.02968). It
  reaches 0 at a finite size, so it describes and takes part in intervals, but no prediction is made from it alone.

Fits are exact where they can be: for a fixed exponent the rest is linear least squares, so only the exponent is
searched, over a whole grid and then ever finer, and no start value matters. Points weigh by their seeds' spread, each
spread drawn towards that of all points, because that of two seeds alone is worth little. Intervals are a parametric
bootstrap: noise as large as that between seeds, or as the misfit if that is larger, is put on the fitted curve, with
chi-square draws for not knowing how large it is, and all is fitted again. A prediction takes together the intervals of
all laws that the points do not rule out. What they do not hold: that no such law may be true, and the chance that all
points share (the test set, the pool, the one draw of nested samples).

The price is about 0.1 s per law at 2,000 draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from .statistics import Interval

Kind = Literal["power", "floor", "log"]
LEVEL = 0.95
DRAWS = 2000
PRIOR_DF = 4.0  # seeds' worth of belief that all points spread alike
BETTER = 0.8  # another law than the simplest must miss left-out points by a fifth less
WORSE = 2.0  # a law that misses them by more than twice as much as the best counts as wrong
LEAST_POINTS: dict[Kind, int] = {"power": 3, "floor": 4, "log": 3}
EXPONENTS: dict[Kind, Interval] = {"power": (-2.0, 4.0), "floor": (0.02, 4.0)}
ZOOMS = 5  # each ten times finer: exponents to 1e-6
_NONE = 1e-15  # sums of squares below this are rounding
_EXACT = 1e-6  # errors that differ by less are equal


@dataclass(frozen=True)
class Bounds:
    """A 95 % interval; a bound is None where the data sets none."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class Prediction:
    """An error at some size, and where the mean of as many seeds as a point has would fall in 95 of 100 cases."""

    x: float
    error: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Law:
    """A fitted law.

    Attributes:
        kind: which.
        a, b, c: ``a x^-b + c``, or of ``log``: ``a - b ln x`` (c = 0).
        b95: interval of the exponent (of ``log``: of the slope); a bound that lies at the end of the search is None.
        c95: interval of the floor.
        left_out: root mean square error of predicting each point from the others, in units of the error.
        chance: probability of so large a misfit by the noise between seeds (F-test); None without several seeds.
        low, high: least and largest size that it was fitted to.
        most: errors do not go above it.
        draws: ``(draws, 3)``, parameters of the bootstrap, over ``ln x - centre``.
        noise: ``(draws,)``, a new point's deviation from the curve.
    """

    kind: Kind
    a: float
    b: float
    c: float
    b95: Bounds
    c95: Bounds
    left_out: float
    chance: float | None
    low: float
    high: float
    most: float
    centre: float
    draws: np.ndarray
    noise: np.ndarray

    def errors(self, x: np.ndarray) -> np.ndarray:
        """The curve at sizes ``(m,)``."""
        return np.clip(_curve(self.kind, self._own, np.log(x) - self.centre)[0], 0.0, self.most)

    @property
    def excused(self) -> bool:
        """Whether its misfit may well be noise between seeds."""
        return self.chance is not None and self.chance > 1 - LEVEL

    @property
    def _own(self) -> np.ndarray:
        scale = self.a - self.b * self.centre if self.kind == "log" else self.a * math.exp(-self.b * self.centre)
        return np.array([[scale, self.b, self.c]])

    def sampled(self, x: np.ndarray) -> np.ndarray:
        """The curve of every bootstrap draw, ``(draws, m)``."""
        return np.clip(_curve(self.kind, self.draws, np.log(x) - self.centre), 0.0, self.most)

    def predict(self, x: Sequence[float]) -> list[Prediction]:
        """Errors at sizes, with intervals for the mean of as many seeds as a point has."""
        at = np.asarray(x, np.float64)
        new = np.clip(self.sampled(at) + self.noise[:, None], 0.0, self.most)
        low, high = np.quantile(new, _TAILS, axis=0)
        return [
            Prediction(float(p), float(e), float(min(lo, e)), float(max(hi, e)))
            for p, e, lo, hi in zip(at, self.errors(at), low, high, strict=True)
        ]


_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)


@dataclass(frozen=True)
class Fits:
    """All laws that the points allow.

    Attributes:
        laws: the better of the two power laws first, then by how well they predict left-out points; empty if there are
            too few points.
        why_not: what is missing, as a sentence; "" when nothing is.
    """

    laws: list[Law]
    why_not: str = ""

    @property
    def best(self) -> Law | None:
        return self.laws[0] if self.laws else None

    @property
    def not_a_power_law(self) -> bool:
        """Whether equal steps per doubling predict left-out points clearly better than a power law, whose misfit seeds'
        noise does not excuse."""
        steps = [law for law in self.laws if law.kind == "log"]
        return bool(steps) and steps[0].left_out < BETTER * self.laws[0].left_out and not self.laws[0].excused

    def ruled_out(self, law: Law) -> bool:
        """Whether it predicts left-out points much worse than the best, and seeds' noise does not excuse its misfit.

        Never the law with a floor, which holds the plain one: what it leaves open is open.
        """
        least = min(w.left_out for w in self.laws)
        return law.kind != "floor" and law.left_out > WORSE * least + _EXACT and not law.excused

    @property
    def possible(self) -> list[Law]:
        """The first law, and all that the points do not rule out."""
        return [law for i, law in enumerate(self.laws) if not i or not self.ruled_out(law)]

    def predict(self, x: Sequence[float]) -> list[Prediction]:
        """The first law's errors, with the intervals of all possible laws taken together; nothing without a law."""
        each = [law.predict(x) for law in self.possible]
        return [
            Prediction(own.x, own.error, min(p.low for p in at), max(p.high for p in at))
            for own, at in zip(self.laws[0].predict(x) if self.laws else [], zip(*each, strict=True), strict=True)
        ]


@dataclass(frozen=True)
class Crossing:
    """Where two curves cross.

    Attributes:
        x: of the fitted curves.
        bounds: 95 % interval over the draws of both; a bound is None where draws do not cross within the range.
        share: of the draws that do cross there, for the pair of laws where they are fewest.
    """

    x: float
    bounds: Bounds
    share: float


def fit_laws(
    points: Sequence[tuple[float, Sequence[float]]], seed: int = 0, draws: int = DRAWS, most: float = 1.0
) -> Fits:
    """Fit every law that so many points allow.

    Args:
        points: ``(x, errors)``, one error per seed, in any order; points of equal `x` are put together.
        seed: of the bootstrap; the same points and seed give the same intervals.
        most: the largest error there is; infinity for a loss.

    Raises:
        ValueError: a size that is not positive, an error that is no number, or a point without one.
    """
    merged: dict[float, list[float]] = {}
    for x, errors in points:
        if not (x > 0 and math.isfinite(x)) or not len(errors) or not all(math.isfinite(e) for e in errors):
            raise ValueError(f"no law can be fitted to errors {list(errors)} at size {x}")
        merged.setdefault(float(x), []).extend(float(e) for e in errors)
    if len(merged) < LEAST_POINTS["power"]:
        n = len(merged)
        return Fits([], f"{n} size{'' if n == 1 else 's'}: a power law needs at least {LEAST_POINTS['power']}.")
    x = np.array(sorted(merged))
    seeds = [np.array(merged[v]) for v in x]
    laws = [_fit(kind, x, seeds, seed, draws, most) for kind in LEAST_POINTS if len(x) >= LEAST_POINTS[kind]]
    if len(x) < LEAST_POINTS["floor"]:
        return Fits(laws, f"{len(x)} sizes cannot show a floor; it takes {LEAST_POINTS['floor']}. Taken for none.")
    plain, floor = laws[:2]
    first = floor if floor.left_out < BETTER * plain.left_out - _EXACT else plain
    return Fits([first, *sorted((law for law in laws if law is not first), key=lambda law: law.left_out)])


def _fit(kind: Kind, x: np.ndarray, seeds: Sequence[np.ndarray], seed: int, draws: int, most: float) -> Law:
    e = np.array([s.mean() for s in seeds])
    variance, degrees = _variances(seeds)
    weight = 1.0 / variance if variance is not None else np.ones(len(x))
    weight = weight / weight.mean()
    centre = float(np.average(np.log(x), weights=weight))
    z = np.log(x) - centre
    own = _solve(kind, z, weight, e[None])
    fitted = _curve(kind, own, z)[0]

    free = len(x) - (3 if kind == "floor" else 2)
    misfit = float((weight * (e - fitted) ** 2).sum()) / free
    known = float(1 / (1 / variance).mean()) if variance is not None else 0.0
    chance = float(special.fdtrc(free, degrees, misfit / known)) if variance is not None else None
    unit = max(misfit, known)  # variance of a point of weight 1
    generator = np.random.default_rng(np.random.SeedSequence([seed, *kind.encode()]))
    unsure = np.sqrt((degrees + free) / generator.chisquare(degrees + free, draws))
    normal = generator.standard_normal((draws, len(x)))
    spread = math.sqrt(unit) * unsure[:, None]
    again = _solve(kind, z, weight, fitted + spread * normal / np.sqrt(weight))
    noise = spread[:, 0] * generator.standard_normal(draws)  # of a point that spreads like the average one

    a, b, c = (float(v) for v in own[0])
    a = a + b * centre if kind == "log" else a * math.exp(b * centre)
    ends = EXPONENTS.get(kind, (-math.inf, math.inf))
    return Law(
        kind,
        a,
        b,
        c,
        _bounds(again[:, 1], ends),
        _bounds(again[:, 2], (-math.inf, math.inf)),
        _left_out(kind, z, weight, e),
        chance,
        float(x[0]),
        float(x[-1]),
        most,
        centre,
        again,
        noise,
    )


def _variances(seeds: Sequence[np.ndarray]) -> tuple[np.ndarray | None, float]:
    """Variance of each point's mean, and degrees of freedom behind them; None if no point has two different seeds.

    Each point's own variance is averaged with that of all, which counts for `PRIOR_DF` seeds (after Smyth 2004).
    """
    free = np.array([len(s) - 1 for s in seeds], np.float64)
    squares = np.array([((s - s.mean()) ** 2).sum() for s in seeds])
    if squares.sum() <= _NONE:
        return None, 0.0
    pooled = squares.sum() / free.sum()
    each = (PRIOR_DF * pooled + squares) / (PRIOR_DF + free)
    return each / np.array([len(s) for s in seeds]), float(free.sum())


def _bounds(values: np.ndarray, ends: Interval) -> Bounds:
    low, high = (float(v) for v in np.quantile(values, _TAILS))
    near = 1e-3
    return Bounds(low if low > ends[0] + near else None, high if high < ends[1] - near else None)


def _left_out(kind: Kind, z: np.ndarray, weight: np.ndarray, e: np.ndarray) -> float:
    missed = []
    for i in range(len(z)):
        rest = np.arange(len(z)) != i
        law = _solve(kind, z[rest], weight[rest], e[None, rest])
        missed.append(_curve(kind, law, z[i : i + 1])[0, 0] - e[i])
    return float(np.sqrt(np.mean(np.square(missed))))


def _curve(kind: Kind, law: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Errors ``(m, n)`` of laws ``(m, 3)`` at ``(n,)``."""
    a, b, c = (law[:, i : i + 1] for i in range(3))
    return a - b * z if kind == "log" else a * np.exp(-b * z) + c


def _solve(kind: Kind, z: np.ndarray, weight: np.ndarray, e: np.ndarray) -> np.ndarray:
    """Least squares for many samples ``e (m, n)`` of errors at ``z (n,)``: laws ``(m, 3)``."""
    if kind == "log":
        _, a, slope = _line(np.broadcast_to(z, e.shape), weight, e)
        return np.stack([a, -slope, np.zeros(len(e))], 1)
    low, high = EXPONENTS[kind]
    grid = np.linspace(low, high, 61)
    step = grid[1] - grid[0]
    b = np.broadcast_to(grid, (len(e), len(grid)))
    for zoom in range(ZOOMS + 1):
        squares, _, _ = _profile(kind, b, z, weight, e)
        best = np.take_along_axis(b, squares.argmin(1)[:, None], 1)
        if zoom < ZOOMS:
            b = np.clip(best + np.linspace(-step, step, 21), low, high)
            step /= 10
    _, a, c = _profile(kind, best, z, weight, e)
    return np.stack([a[:, 0], best[:, 0], c[:, 0]], 1)


def _profile(
    kind: Kind, b: np.ndarray, z: np.ndarray, weight: np.ndarray, e: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of squares, scales and floors ``(m, k)`` that are best at exponents ``b (m, k)``."""
    p, e = np.exp(-b[:, :, None] * z), e[:, None, :]
    through_zero = np.maximum((weight * p * e).sum(2) / (weight * p * p).sum(2), 0.0)
    if kind == "power":
        a, c = through_zero, np.zeros_like(through_zero)
    else:
        _, c, a = _line(p, weight, e)
        flat = a < 0
        a, c = np.where(flat, 0.0, a), np.where(flat, np.average(e, axis=2, weights=weight), c)
        below = c < 0
        a, c = np.where(below, through_zero, a), np.where(below, 0.0, c)
    squares = (weight * (e - a[:, :, None] * p - c[:, :, None]) ** 2).sum(2)
    return squares, a, c


def _line(p: np.ndarray, weight: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means of `p`, and intercepts and slopes of straight lines through ``(p, e)``, along the last axis."""
    whole = weight.sum()
    middle = (weight * p).sum(-1, keepdims=True) / whole
    mean = (weight * e).sum(-1, keepdims=True) / whole
    apart = p - middle
    squares = (weight * apart * apart).sum(-1)
    slope = (weight * apart * (e - mean)).sum(-1) / np.where(squares > 0, squares, 1.0)
    return middle[..., 0], mean[..., 0] - slope * middle[..., 0], slope


def crossing(first: Fits, second: Fits, low: float, high: float) -> Crossing | None:
    """Where the first crossing of two curves lies between two sizes; None if the fitted ones do not cross there.

    Of all pairs of laws that the points do not rule out, the widest interval and the smallest share count. Draws of the
    two count as independent; if arms share seeds, which moves both curves together, that errs on the wide side.
    """
    if first.best is None or second.best is None:
        return None
    z = np.linspace(math.log(low), math.log(high), 241)
    x = np.exp(z)
    own = _first_crossing((first.best.errors(x) - second.best.errors(x))[None], z)
    if not np.isfinite(own[0]):
        return None
    edges, shares = [], []
    for a in first.possible:
        for b in second.possible:
            n = min(len(a.draws), len(b.draws))
            places = _first_crossing(a.sampled(x)[:n] - b.sampled(x)[:n], z)
            edges.append(np.quantile(places, _TAILS, method="nearest"))
            shares.append(float(np.isfinite(places).mean()))
    ends = (min(e[0] for e in edges), max(e[1] for e in edges))
    bounds = [float(np.exp(v)) if np.isfinite(v) else None for v in ends]
    return Crossing(float(np.exp(own[0])), Bounds(bounds[0], bounds[1]), min(shares))


def _first_crossing(apart: np.ndarray, z: np.ndarray) -> np.ndarray:
    """``(m,)`` places where differences ``(m, n)`` first change sign; infinity where they do not."""
    turns = apart[:, :-1] * apart[:, 1:] < 0
    at = turns.argmax(1)
    rows = np.arange(len(apart))
    before, after = apart[rows, at], apart[rows, at + 1]
    between = before / np.where(before == after, 1.0, before - after)
    return np.where(turns.any(1), z[at] + between * (z[1] - z[0]), np.inf)


__all__ = ["Bounds", "Crossing", "Fits", "Kind", "Law", "Prediction", "crossing", "fit_laws"]
