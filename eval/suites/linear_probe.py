"""`linear_probe`: logistic regression on frozen features, as Radford et al. (ICML 2021, appendix A.3) did it.

Full-batch L-BFGS, and the regularisation chosen on a held-out slice of the *train* split: 7 values of C, then steps 8,
4, 2, 1 around the best on a logarithmic grid of 97 (15 fits instead of 97), then one fit on the whole train split.
Skipping this choice costs several points on some sets; making it on the test split is cheating. The slice is
stratified and the same for every model, so arms differ in their features alone. Features are the L2-normalised
embeddings (CLIP's paper took those before the projection), hence the wide grid. The price: 16 fits, about a minute for
10,000 x 512 features on one core; fix `c` to have one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from ...errors import DataError
from ..metrics import BLOCK, outcomes
from .base import SUITES, EvalContext, ProbeSuite, SuiteResult

GRID = np.logspace(-6, 6, 97)
"""Values of C: 8 a decade."""


@SUITES.register
class LinearProbe(ProbeSuite):
    """Logistic regression on the train split's features."""

    task: ClassVar[str] = "linear_probe"
    main_metric: ClassVar[str] = "lp_acc1"

    type: Literal["linear_probe"] = "linear_probe"
    c: float | None = Field(
        default=None, gt=0, description="Inverse regularisation; default: chosen on part of `train`."
    )
    validation: float = Field(default=0.2, gt=0, lt=1, description="Share of the train split that C is chosen on, 0-1.")
    max_iter: int = Field(default=1000, ge=1, description="Most iterations of L-BFGS.")

    def evaluate(self, context: EvalContext) -> SuiteResult:
        image, labels = context.features(self.train_split)
        classes = len(context.evalset.classnames)
        if len(np.unique(labels)) < 2:
            raise DataError(
                f"{context.evalset.folder}: split {self.train_split!r} holds one class; a linear probe needs two"
            )
        facts: dict[str, float | int | bool | None]
        if self.c is None:
            fit, held = stratified_split(labels, self.validation)
            if not len(held):
                raise DataError(
                    f"{context.evalset.folder}: no class has two samples in split {self.train_split!r}, so C cannot be "
                    "chosen; set `c`"
                )

            def score(c: float) -> Score:
                head = fit_logistic(image[fit], labels[fit], classes, c, self.max_iter)
                return head.score(image[held], labels[held])

            c, best, tried = search(score)
            facts = {"c": c, "validation_acc1": best.right / len(held), "validation_n": len(held), "c_tried": tried}
        else:
            c = self.c
            facts = {"c": c, "validation_acc1": None, "validation_n": 0, "c_tried": 0}
        head = fit_logistic(image, labels, classes, c, self.max_iter)
        facts |= {"train_n": len(labels), "iterations": head.iterations, "converged": head.iterations < self.max_iter}
        test, truth = context.features(self.split)
        found = outcomes((head(test[start : start + BLOCK]) for start in range(0, len(test), BLOCK)), truth)
        return SuiteResult(found.metrics("lp_"), found, facts)


class Score(NamedTuple):
    """How good a C is on the held-out slice: more right is better, then the higher mean log-likelihood."""

    right: int
    log_likelihood: float


class Head(NamedTuple):
    """A linear classifier: ``weights (classes, d) float32``, ``bias (classes,) float32``, -inf for unseen classes."""

    weights: np.ndarray
    bias: np.ndarray
    iterations: int

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Logits ``(n, classes) float32``."""
        return image @ self.weights.T + self.bias

    def score(self, image: np.ndarray, labels: np.ndarray) -> Score:
        """Of held-out samples, all of classes that were seen."""
        logits = self(image).astype(np.float64)
        highest = logits.max(1)
        log_sum = highest + np.log(np.exp(logits - highest[:, None]).sum(1))
        likelihood = logits[np.arange(len(labels)), labels] - log_sum
        return Score(int(np.count_nonzero(logits.argmax(1) == labels)), float(likelihood.mean()))


def fit_logistic(image: np.ndarray, labels: np.ndarray, classes: int, c: float, max_iter: int) -> Head:
    """Multinomial logistic regression with penalty ``|w|^2 / (2 c)`` (the bias is free); from zero, so deterministic.

    Args:
        image: ``(n, d) float32``; computed in float64, in which L-BFGS's line search does not get stuck.
        labels: ``(n,)``, at least two classes.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # kept as a fact of the result instead
        model = LogisticRegression(C=c, max_iter=max_iter).fit(image.astype(np.float64), labels)
    coefficients, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn fits one logit: that of the second class
        coefficients = np.stack([np.zeros_like(coefficients[0]), coefficients[0]])
        intercept = np.array([0.0, intercept[0]])
    weights = np.zeros((classes, image.shape[1]), np.float32)
    bias = np.full(classes, -np.inf, np.float32)
    weights[model.classes_], bias[model.classes_] = coefficients, intercept
    return Head(weights, bias, int(np.max(model.n_iter_)))


def stratified_split(labels: np.ndarray, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on and rows held out, both ascending; a function of the labels, not of the model.

    Of each class `share` is held out (rounded), at least one sample and not all of them; none of a class with one.
    """
    draw = np.random.Generator(np.random.Philox(key=seed)).random(len(labels))
    order = np.lexsort((draw, labels))
    size = np.bincount(labels)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(size) - size, size)  # within the class, in drawn order
    take = np.where(size > 1, np.clip(np.rint(size * share), 1, np.maximum(size - 1, 1)), 0)
    out = np.zeros(len(labels), bool)
    out[order] = place < np.repeat(take, size)
    return np.flatnonzero(~out), np.flatnonzero(out)


def search(score: Callable[[float], Score]) -> tuple[float, Score, int]:
    """The best C on `GRID`, its score, and how many were tried; of equals the smallest C."""
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
