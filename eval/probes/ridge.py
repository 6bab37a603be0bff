"""Ridge regression to +-1 targets in closed form: a whole path of penalties for one eigendecomposition.

In the principal axes of the features (`principal_axes.py`) the solution for a penalty is a division, and so is what the
regression would have said of a train sample without having seen it (the leave-one-out identity), so the choice of the
penalty costs one matrix product per penalty and no second fit. The intercept is free, as in scikit-learn's
`RidgeClassifier`, whose predictions these are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...errors import DataError
from .principal_axes import ROWS, PrincipalAxes, principal_axes
from .train_samples import evenly_spaced

RELATIVE_PENALTIES = np.logspace(-6, 4, 31)
"""Penalties as multiples of the mean eigenvalue of the Gram matrix: 3 a decade. Free of n and of scale."""
LEFT_OUT = 10_000


class Fit(NamedTuple):
    """How good a penalty is on samples that it has not seen.

    Attributes:
        right: samples whose class is recognised.
        error: mean squared error of their targets.
    """

    right: int
    error: float


class RidgePath:
    """All ridge regressions of one set of samples.

    Attributes:
        penalties: ``(31,) float64``, ascending: `RELATIVE_PENALTIES` times the mean eigenvalue.
    """

    def __init__(self, image: np.ndarray, labels: np.ndarray, classes: int) -> None:
        """
        Args:
            image: ``(n, d) float32``, n at least 2 and not all rows the same.
            labels: ``(n,)``, at least two classes.
            classes: number of classes; those without samples are never predicted.
        """
        self._labels, self._classes, self._n = labels, classes, len(labels)
        self._axes: PrincipalAxes = principal_axes(image)
        self._share = np.bincount(labels, minlength=classes) / len(labels)
        self._seen = self._share > 0
        self.penalties = RELATIVE_PENALTIES * float(self._axes.values.sum() / image.shape[1])
        # Z'(Y - mean Y) for Y = +-1: column sums of Z vanish, so it is twice the sum of each class's rows
        self._cross = np.zeros((len(self._axes.values), classes))
        for start in range(0, self._n, ROWS):
            rows = labels[start : start + ROWS]
            along = (image[start : start + ROWS] - self._axes.mean) @ self._axes.axes
            target = np.zeros((len(rows), classes))
            target[np.arange(len(rows)), rows] = 2
            self._cross += along.T @ target

    def head(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """``weights (classes, d) float32`` and ``bias (classes,) float32`` for |error|^2 + penalty |w|^2; the bias of
        classes without samples is -inf."""
        weights = self._axes.axes @ (self._cross / (self._axes.values + penalty)[:, None])
        bias = 2 * self._share - 1 - self._axes.mean @ weights
        return weights.T.astype(np.float32), np.where(self._seen, bias, -np.inf).astype(np.float32)

    def left_out(self, image: np.ndarray, most: int = LEFT_OUT) -> tuple[list[Fit], int]:
        """Exact leave-one-out fit of every penalty, on at most `most` evenly spaced train samples; and how many.

        Args:
            image: the features that the path was made of.
        """
        rows = evenly_spaced(self._n, most)
        return self._score(image, rows, self._labels[rows], leave_out=True), len(rows)

    def held_out(self, image: np.ndarray, labels: np.ndarray) -> list[Fit]:
        """Fit of every penalty on samples that the path was not made of."""
        return self._score(image, np.arange(len(labels)), labels, leave_out=False)

    def _score(self, image: np.ndarray, rows: np.ndarray, labels: np.ndarray, leave_out: bool) -> list[Fit]:
        divided = 1 / (self._axes.values[:, None] + self.penalties)  # (r, penalties)
        right, error = np.zeros(len(self.penalties), np.int64), np.zeros(len(self.penalties))
        base = (2 * self._share - 1).astype(np.float32)
        worst = np.where(self._seen, 0, -np.inf).astype(np.float32)
        cross = self._cross.astype(np.float32)
        for start in range(0, len(rows), ROWS):
            truth = labels[start : start + ROWS]
            at = np.arange(len(truth))
            along = ((image[rows[start : start + ROWS]] - self._axes.mean) @ self._axes.axes).astype(np.float32)
            leverage = 1 / self._n + (along.astype(np.float64) ** 2) @ divided  # (b, penalties), below 1
            for number in range(len(self.penalties)):
                said = along @ (cross * divided[:, number, None].astype(np.float32)) + base
                target = np.full_like(said, -1)
                target[at, truth] = 1
                miss = said - target
                if leave_out:
                    miss /= np.maximum(1 - leverage[:, number], 1e-7).astype(np.float32)[:, None]
                right[number] += np.count_nonzero((target + miss + worst).argmax(1) == truth)
                error[number] += float(np.einsum("nc,nc->", miss, miss, dtype=np.float64))
        return [Fit(int(r), float(e) / len(rows)) for r, e in zip(right, error, strict=True)]


def best_penalty(fits: list[Fit]) -> int:
    """Place of the best: most right, then least error, then the larger penalty."""
    return max(range(len(fits)), key=lambda i: (fits[i].right, -fits[i].error, i))


def solve_ridge(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """``(X'X + penalty)^-1 X'Y``, ``(d, classes) float64``, through the smaller of ``X'X`` and ``XX'``.

    Args:
        x: ``(n, d) float64``; nothing is centred or added.
        y: ``(n, classes) float64``.

    Raises:
        DataError: a feature is not a number.
    """
    n, d = x.shape
    if not np.isfinite(x).all():
        raise DataError("a feature is not a number; the model's embeddings are broken")
    if n >= d:
        values, axes = np.linalg.eigh(x.T @ x)
        return axes @ ((axes.T @ (x.T @ y)) / (np.maximum(values, 0) + penalty)[:, None])
    values, rows = np.linalg.eigh(x @ x.T)
    return x.T @ (rows @ ((rows.T @ y) / (np.maximum(values, 0) + penalty)[:, None]))
