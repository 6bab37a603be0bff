"""Mixing score columns: moments of the pool, z-scores, and two plain learners of trusted-versus-pool.

Everything is float64 over rows by a handful of columns. A missing value (null, NaN, infinite) stands at its column's
mean, which is 0 once z-scored; a column with one value only says nothing and is 0 everywhere. Sums run in part order
without a BLAS, so results depend on neither workers nor threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .base import Part, numbers

NEWTON_STEPS = 100
ROUNDING = 1e-12  # of a mean loss near 1


@dataclass(frozen=True)
class Moments:
    """Of score columns over rows.

    Attributes:
        rows: all of them; unscored: rows in which every column is missing.
        count: ``(k,)`` values per column; `mean`, `spread` (sum of squared deviations), `low`, `high`: of them.
    """

    rows: int
    unscored: int
    count: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def std(self) -> np.ndarray:
        """``(k,)`` standard deviations of the population; exactly 0 for a column with one value."""
        root = np.sqrt(self.spread / np.maximum(self.count, 1))
        return np.where(self.low < self.high, root, 0.0)

    @property
    def missing(self) -> np.ndarray:
        """``(k,)`` missing values."""
        return self.rows - self.count


def column_matrix(part: Part, columns: Sequence[str]) -> np.ndarray:
    """Score columns of the alive rows, ``(n, k) float64``; what is missing or infinite is NaN."""
    values = np.stack([numbers(part, column) for column in columns], 1).astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    return values


def moments_of(part: Part, columns: Sequence[str]) -> Moments:
    """Moments of one part, in two passes over it."""
    x = column_matrix(part, columns)
    known = ~np.isnan(x)
    count = known.sum(0)
    filled = np.where(known, x, 0.0)
    mean = filled.sum(0) / np.maximum(count, 1)
    spread = (np.where(known, x - mean, 0.0) ** 2).sum(0)
    low = np.where(known, x, np.inf).min(0, initial=np.inf)
    high = np.where(known, x, -np.inf).max(0, initial=-np.inf)
    return Moments(len(x), int((~known.any(1)).sum()), count, mean, spread, low, high)


def combined(parts: Sequence[Moments], columns: Sequence[str]) -> Moments:
    """Moments of all parts together, in the order given (Chan, Golub & LeVeque, 1979).

    Raises:
        DataError: a column has no value at all.
    """
    k = len(columns)
    count, mean, spread = np.zeros(k, np.int64), np.zeros(k), np.zeros(k)
    for part in parts:
        total = np.maximum(count + part.count, 1)
        step = part.mean - mean
        spread = spread + part.spread + step**2 * (count / total) * part.count
        mean = mean + step * (part.count / total)
        count = count + part.count
    rows = sum(part.rows for part in parts)
    empty = [name for name, values in zip(columns, count, strict=True) if not values]
    if empty:
        raise DataError(f"column {empty[0]!r} has no value in {rows} rows; was its score computed?")
    low = np.min([part.low for part in parts], 0)
    high = np.max([part.high for part in parts], 0)
    return Moments(rows, sum(part.unscored for part in parts), count, mean, spread, low, high)


def standardised(x: np.ndarray, moments: Moments) -> np.ndarray:
    """z-scores ``(n, k) float64`` of ``x (n, k)``; 0 where a value is missing or its column has one value only."""
    std = moments.std
    z = (x - moments.mean) / np.where(std > 0, std, 1.0)
    return np.where(np.isnan(z) | (std == 0), 0.0, z)


def mixed(x: np.ndarray, moments: Moments, weights: np.ndarray) -> np.ndarray:
    """Weighted sum of z-scores, ``(n,) float32``; NaN where every column is missing."""
    z, score = standardised(x, moments), np.zeros(len(x))
    for column, weight in zip(z.T, weights, strict=True):  # column by column: a row's sum knows no other row
        score += weight * column
    return np.where(np.isnan(x).all(1), np.nan, score).astype(np.float32)


@dataclass(frozen=True)
class Fitted:
    """Weights ``(k,)``, their standard errors, and the intercept."""

    weights: np.ndarray
    errors: np.ndarray
    intercept: float


def balance(y: np.ndarray) -> np.ndarray:
    """``(n,)`` case weights that sum to 1 and let both classes count alike, however many rows each has."""
    positives = y.sum()
    return np.where(y, 0.5 / positives, 0.5 / (len(y) - positives))


def least_squares(z: np.ndarray, y: np.ndarray, ridge: float) -> Fitted:
    """Ridge regression of ``y (n,) bool`` on ``z (n, k)``, classes balanced, intercept not penalised.

    Minimises ``sum_i c_i (y_i - b - w z_i)^2 + ridge |w|^2`` with ``sum c = 1``. Errors are the sandwich's (White,
    Econometrica 1980), which hold although the residuals of a 0-1 target vary with z.
    """
    x, c = _with_one(z), balance(y)
    bread = np.linalg.pinv(_gram(x, c) + _penalty(x, ridge))
    found = bread @ np.einsum("n,ni->i", c * y, x)
    residual = y - np.einsum("ni,i->n", x, found)
    return _fitted(found, bread, _gram(x, (c * residual) ** 2))


def logistic(z: np.ndarray, y: np.ndarray, ridge: float) -> Fitted:
    """Logistic regression of ``y (n,) bool`` on ``z (n, k)`` by Newton's method, classes balanced.

    Minimises ``sum_i c_i log(1 + e^(-s_i (b + w z_i))) + ridge/2 |w|^2``, s = +-1. Errors are the sandwich's. The
    ridge keeps the weights finite when the classes can be told apart perfectly.

    Raises:
        DataError: it does not converge (only without a ridge).
    """
    x, c, penalty = _with_one(z), balance(y), _penalty(z, ridge, intercept=True)
    sign = np.where(y, 1.0, -1.0)

    def value(b: np.ndarray) -> float:
        losses = np.logaddexp(0, -sign * np.einsum("ni,i->n", x, b))
        return float((c * losses).sum() + 0.5 * b @ penalty @ b)

    found = np.zeros(x.shape[1])
    now = value(found)
    for _ in range(NEWTON_STEPS):
        p = _sigmoid(np.einsum("ni,i->n", x, found))
        gradient = np.einsum("n,ni->i", c * (p - y), x) + penalty @ found
        hessian = _gram(x, c * p * (1 - p)) + penalty
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        if np.abs(step).max() < 1e-10:
            meat = _gram(x, (c * (p - y)) ** 2)
            return _fitted(found, np.linalg.pinv(hessian), meat)
        size = 1.0
        while (tried := value(found - size * step)) > now + ROUNDING and size > ROUNDING:
            size /= 2
        found, now = found - size * step, tried
    raise DataError("the logistic mixer does not converge: the trusted rows can be told apart perfectly; raise `ridge`")


def auc(score: np.ndarray, y: np.ndarray) -> float:
    """Chance that a positive has the higher score than a negative, ties counting half; NaN if a class is empty."""
    positives = int(y.sum())
    negatives = len(y) - positives
    if not positives or not negatives:
        return float("nan")
    ordered = np.sort(score)
    ranks = (np.searchsorted(ordered, score, "left") + np.searchsorted(ordered, score, "right") + 1) / 2
    return float((ranks[y].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _sigmoid(t: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -t))


def _with_one(z: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(z), 1)), z], 1)


def _gram(x: np.ndarray, c: np.ndarray) -> np.ndarray:
    return np.einsum("ni,nj->ij", x * c[:, None], x)


def _penalty(x: np.ndarray, ridge: float, intercept: bool = False) -> np.ndarray:
    """Diagonal that penalises all but the first coefficient; `intercept`: `x` lacks the column of ones."""
    return ridge * np.diag(np.r_[0.0, np.ones(x.shape[1] - (not intercept))])


def _fitted(found: np.ndarray, bread: np.ndarray, meat: np.ndarray) -> Fitted:
    errors = np.sqrt(np.maximum(np.diag(bread @ meat @ bread), 0))
    return Fitted(found[1:], errors[1:], float(found[0]))
