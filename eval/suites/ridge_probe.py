"""`ridge_probe`: the fast linear probe. Ridge regression to +-1 targets, its penalty chosen on the train split.

A protocol of its own, not a quick logistic regression: with many classes it is 3 to 5 points lower, and it ranks models
much alike, for a hundredth of the time (31 penalties for one eigendecomposition: a second for 10,000 x 512). The
penalty is chosen by exact leave-one-out on the train split (on at most 10,000 of its samples), or on a held-out share
of it (`choose: held_out`). See `ridge.py`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...errors import DataError
from ..metrics.accuracy import BLOCK
from ..metrics.outcomes import outcomes
from ..probes.ridge import RELATIVE_PENALTIES, RidgePath, best_penalty
from ..probes.train_samples import stratified_split
from .base import SUITES, EvalContext, ProbeSuite, SuiteResult


@SUITES.register
class RidgeProbe(ProbeSuite):
    """Ridge regression on the train split's features."""

    task: ClassVar[str] = "ridge_probe"
    main_metric: ClassVar[str] = "ridge_acc1"

    type: Literal["ridge_probe"] = "ridge_probe"
    choose: Literal["leave_one_out", "held_out"] = Field(
        default="leave_one_out", description="What the penalty is chosen on: every train sample left out, or a share."
    )
    validation: float = Field(default=0.2, gt=0, lt=1, description="Share of the train split for `choose: held_out`.")

    def evaluate(self, context: EvalContext) -> SuiteResult:
        image, labels = context.features(self.train_split)
        where, classes = f"{context.evalset.folder}: split {self.train_split!r}", len(context.evalset.classnames)
        if len(np.unique(labels)) < 2:
            raise DataError(f"{where} holds one class; a ridge probe needs two")
        if not np.ptp(image, axis=0).any():
            raise DataError(f"{where}: the model gives every picture the same feature; there is nothing to learn from")
        path = RidgePath(image, labels, classes)
        if self.choose == "leave_one_out":
            fits, n = path.left_out(image)
        else:
            fit, held = stratified_split(labels, self.validation)
            if not len(held):
                raise DataError(f"{where}: no class has two samples, so there is no share to choose on")
            fits, n = RidgePath(image[fit], labels[fit], classes).held_out(image[held], labels[held]), len(held)
        chosen = best_penalty(fits)
        weights, bias = path.head(float(path.penalties[chosen]))
        test, truth = context.features(self.split)
        blocks = (test[start : start + BLOCK] @ weights.T + bias for start in range(0, len(test), BLOCK))
        found = outcomes(blocks, truth)
        facts: dict[str, Any] = {
            "penalty": float(path.penalties[chosen]),
            "relative_penalty": float(RELATIVE_PENALTIES[chosen]),
            "validation_acc1": fits[chosen].right / n,
            "validation_n": n,
            "train_n": len(labels),
        }
        return SuiteResult(found.metrics("ridge_"), found, facts)
