"""Multinomial logistic regression on features, and the search for its regularisation; scikit-learn's objective.

L-BFGS (scipy's, as scikit-learn uses) in the features' principal axes, each scaled by the curvature that the loss has
along it where the fit starts. That takes 3 to 6 times fewer steps than from the raw features, and ends much nearer to
the minimum: scikit-learn's default tolerance stops 1 % above it at C = 100, and at several times its height at 10,000.
The search starts each fit where the nearest smaller C ended. Products are float32, sums and steps float64; one pass
over the features per step, in blocks of rows, so memory stays at one copy of them however many classes there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .principal_axes import ROWS, principal_axes

GRID = np.logspace(-6, 6, 97)
"""Values of C: 96 steps, 8 a decade (Radford et al., ICML 2021, appendix A.3)."""
SEARCH_TOLERANCE, TOLERANCE = 3e-5, 1e-5
"""Largest entry of the scaled gradient, over the root of the mean loss, at which a fit ends: in the search, and of the
last fit. (Half the scaled gradient's squared length is about the loss that is left to gain, so this is relative.)"""


class Score(NamedTuple):
    """How good a C is on held-out samples: more right is better, then the higher mean log-likelihood."""

    right: int
    log_likelihood: float


class Head(NamedTuple):
    """A linear classifier: ``weights (classes, d) float32``, ``bias (classes,) float32``, -inf for unseen classes.

    Attributes:
        iterations: steps of L-BFGS.
        converged: whether they ended by themselves.
    """

    weights: np.ndarray
    bias: np.ndarray
    iterations: int
    converged: bool

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Logits ``(n, classes) float32``."""
        return image @ self.weights.T + self.bias

    def score(self, image: np.ndarray, labels: np.ndarray) -> Score:
        """Of held-out samples; those of unseen classes are wrong, and have no likelihood."""
        right, total, known = 0, 0.0, 0
        for start in range(0, len(image), ROWS):
            logits, truth = self(image[start : start + ROWS]).astype(np.float64), labels[start : start + ROWS]
            right += int(np.count_nonzero(logits.argmax(1) == truth))
            highest = logits.max(1)
            log_sum = highest + np.log(np.exp(logits - highest[:, None]).sum(1))
            likelihood = logits[np.arange(len(truth)), truth] - log_sum
            seen = np.isfinite(likelihood)
            total, known = total + float(likelihood[seen].sum()), known + int(seen.sum())
        return Score(right, total / known if known else 0.0)


class Start(NamedTuple):
    """Where a fit begins: ``weights (r, seen) float64`` in principal axes, ``bias (seen,) float64``."""

    weights: np.ndarray
    bias: np.ndarray


class LogisticFits:
    """Fits of one set of samples with several C. The penalty is ``|w|^2 / (2 c)``; the bias is free."""

    def __init__(self, image: np.ndarray, labels: np.ndarray, classes: int, max_iter: int) -> None:
        """
        Args:
            image: ``(n, d) float32``.
            labels: ``(n,)``, at least two classes.
            classes: number of classes; those without samples are never predicted.
            max_iter: most steps of a fit.
        """
        self._axes = principal_axes(image)
        self._along = self._axes.along(image)
        self._seen, self._labels = np.unique(labels, return_inverse=True)
        self._classes, self._max_iter = classes, max_iter
        self._solved: dict[float, Start] = {}

    def __call__(self, c: float, tolerance: float = TOLERANCE) -> Head:
        """The head for `c`, started from the one of the nearest smaller C so far, or from zero."""
        from scipy.optimize import minimize

        n, r, seen = len(self._labels), len(self._axes.values), len(self._seen)
        # scikit-learn fits two classes with one logit, whose penalty is twice that of a softmax's pair
        penalty = (2 if seen == 2 else 1) / (c * n)
        smaller = [known for known in self._solved if known <= c]
        start = self._solved[max(smaller)] if smaller else Start(np.zeros((r, seen)), np.zeros(seen))
        curvature = np.maximum(self._pass(start)[3], 1e-12)  # mean of p (1 - p), per class
        scale = 1 / np.sqrt(self._axes.values[:, None] / n * curvature + penalty)
        scale_bias = 1 / np.sqrt(curvature)

        def split(point: np.ndarray) -> Start:
            both = point.reshape(r + 1, seen)
            return Start(both[:r] * scale, both[r] * scale_bias)

        near = False

        def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
            nonlocal near
            at = split(point)
            loss, of_weights, of_bias, _ = self._pass(at)
            of_weights += penalty * at.weights
            gradient = np.concatenate([of_weights * scale, (of_bias * scale_bias)[None]])
            loss += penalty / 2 * float((at.weights**2).sum())
            near = float(np.abs(gradient).max()) <= tolerance * loss**0.5
            return loss, gradient.ravel()

        def after_step(intermediate_result: object) -> None:
            if near:
                raise StopIteration

        found = minimize(
            objective,
            np.concatenate([start.weights / scale, (start.bias / scale_bias)[None]]).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": self._max_iter, "maxls": 50, "gtol": 1e-12, "ftol": 1e-13},
            callback=after_step,
        )
        self._solved[c] = solution = split(found.x)
        # out of steps, or (else) the line search met the rounding of float32, which is as near as it gets
        return self._head(solution, int(found.nit), near or found.nit < self._max_iter)

    def _pass(self, at: Start) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Mean loss, its gradients by weights and bias, and the mean of p (1 - p) per class."""
        n, weights = len(self._labels), at.weights.astype(np.float32)
        loss, of_weights = 0.0, np.zeros(at.weights.shape)
        of_bias, curvature = np.zeros(len(at.bias)), np.zeros(len(at.bias))
        for first in range(0, n, ROWS):
            along, labels = self._along[first : first + ROWS], self._labels[first : first + ROWS]
            logits = (along @ weights).astype(np.float64)
            logits += at.bias
            logits -= logits.max(1, keepdims=True)
            target = logits[np.arange(len(labels)), labels]
            p = np.exp(logits, out=logits)
            total = p.sum(1, keepdims=True)
            loss += float(np.log(total).sum() - target.sum())
            p /= total
            curvature += p.sum(0) - np.einsum("nc,nc->c", p, p)
            p[np.arange(len(labels)), labels] -= 1
            of_bias += p.sum(0)
            of_weights += along.T @ p.astype(np.float32)
        return loss / n, of_weights / n, of_bias / n, curvature / n

    def _head(self, solution: Start, iterations: int, converged: bool) -> Head:
        rotated = self._axes.axes @ solution.weights  # (d, seen)
        weights = np.zeros((self._classes, len(rotated)), np.float32)
        bias = np.full(self._classes, -np.inf, np.float32)
        weights[self._seen] = rotated.T
        bias[self._seen] = solution.bias - solution.bias.mean() - self._axes.mean @ rotated
        return Head(weights, bias, iterations, converged)


def fit_logistic(image: np.ndarray, labels: np.ndarray, classes: int, c: float, max_iter: int = 1000) -> Head:
    """One fit, from zero; see `LogisticFits`."""
    return LogisticFits(image, labels, classes, max_iter)(c)


def choose_c(
    train: tuple[np.ndarray, np.ndarray], held: tuple[np.ndarray, np.ndarray], classes: int, max_iter: int = 1000
) -> tuple[float, Score, int]:
    """The C of `GRID` that is best on the held-out samples, its score, and how many were tried.

    Args:
        train, held: features ``(n, d) float32`` and labels ``(n,)`` to fit on and to score on.
    """
    fits = LogisticFits(*train, classes, max_iter)
    return search(lambda c: fits(c, SEARCH_TOLERANCE).score(*held))


def search(score: Callable[[float], Score]) -> tuple[float, Score, int]:
    """The best C on `GRID`, its score, and how many were tried; of equals the smallest C.

    7 values from end to end, then both neighbours of the best at distances of 8, 4, 2, 1 steps.
    """
    scores = {i: score(float(GRID[i])) for i in range(0, len(GRID), 16)}

    def best() -> int:
        return max(scores, key=lambda i: (scores[i], -i))

    for step in (8, 4, 2, 1):
        centre = best()
        for i in (centre - step, centre + step):
            if 0 <= i < len(GRID) and i not in scores:
                scores[i] = score(float(GRID[i]))
    chosen = best()
    return float(GRID[chosen]), scores[chosen], len(scores)
