"""`linear_probe`: logistic regression on frozen features, as Radford et al. (ICML 2021, appendix A.3) did it.

Full-batch L-BFGS, and the regularisation chosen on samples that are not the test split's: 7 values of C from 1e-6 to
1e6, then steps 8, 4, 2, 1 around the best on a logarithmic grid of 97 (15 fits instead of 97), then one fit on the
whole train split. Skipping this choice costs several points on some sets; making it on the test split is cheating. C is
chosen on a slice of the train split, stratified and the same for every model, or on a split of its own
(`validation_split`), which the last fit then learns from, too, as CLIP_benchmark does. Features are the L2-normalised
embeddings (CLIP's paper took those before the projection), hence the wide grid.

With `fewshot_k` it learns from k samples per class, and from nothing else (CLIP_benchmark's k-shot). A class with fewer
gives what it has and is named in the facts; CLIP_benchmark gives no result then.

``lp_acc5`` is None with fewer than 5 classes, as the zero-shot ``acc5`` (CLIP_benchmark wants 6 for this one metric).
The price: 16 fits, 4 seconds for 10,000 x 512 features of 10 classes on one core, 13 of 100 (`logistic.py`).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ...errors import DataError
from ..metrics.accuracy import BLOCK
from ..metrics.outcomes import outcomes
from ..probes.logistic import choose_c, fit_logistic
from ..probes.train_samples import first_per_class, short_classes, stratified_split
from .base import SUITES, EvalContext, ProbeSuite, SuiteResult


@SUITES.register
class LinearProbe(ProbeSuite):
    """Logistic regression on the train split's features."""

    version: ClassVar[int] = 2
    task: ClassVar[str] = "linear_probe"
    main_metric: ClassVar[str] = "lp_acc1"

    type: Literal["linear_probe"] = "linear_probe"
    c: float | None = Field(
        default=None, gt=0, description="Inverse regularisation; default: chosen on part of `train`."
    )
    validation: float = Field(default=0.2, gt=0, lt=1, description="Share of the train split that C is chosen on, 0-1.")
    validation_split: str | None = Field(
        default=None, description="Split that C is chosen on, instead of a share of the train split."
    )
    fewshot_k: int | None = Field(default=None, ge=1, description="Learn from this many samples of each class.")
    seed: int = Field(default=0, ge=0, description="Of the draw of `fewshot_k`.")
    normalize: Literal["unit", "standard"] = Field(
        default="unit",
        description="Features: L2-normalised, or besides with mean 0 and deviation 1 over the train samples.",
    )
    max_iter: int = Field(default=1000, ge=1, description="Most iterations of L-BFGS.")

    def splits(self) -> list[str]:
        wanted = [self.train_split, self.validation_split, self.split]
        return list(dict.fromkeys(name for name in wanted if name))

    def evaluate(self, context: EvalContext) -> SuiteResult:
        image, labels = context.features(self.train_split)
        classes, where = len(context.evalset.classnames), f"{context.evalset.folder}: split {self.train_split!r}"
        facts: dict[str, Any] = {}
        if self.fewshot_k:
            facts["short_classes"] = short_classes(labels, self.fewshot_k, classes)
            rows = first_per_class(labels, self.fewshot_k, self.seed)
            image, labels = image[rows], labels[rows]
        if len(np.unique(labels)) < 2:
            raise DataError(f"{where} holds one class; a linear probe needs two")
        shift, factor = standard(image) if self.normalize == "standard" else (np.float32(0), np.float32(1))
        image = (image - shift) * factor
        held = None
        if self.c is not None:
            c = self.c
            facts |= {"c": c, "validation_acc1": None, "validation_n": 0, "c_tried": 0}
        else:
            if self.validation_split:
                other, truth = context.features(self.validation_split)
                held = (other - shift) * factor, truth
                train = image, labels
            else:
                fit, out = stratified_split(labels, self.validation)
                if not len(out):
                    raise DataError(
                        f"{where}: no class has two samples to learn from, so C cannot be chosen; set `c` or "
                        "`validation_split`"
                    )
                train, held = (image[fit], labels[fit]), (image[out], labels[out])
            if len(np.unique(train[1])) < 2:
                raise DataError(f"{where}: without the samples that C is chosen on it holds one class; set `c`")
            c, best, tried = choose_c(train, held, classes, self.max_iter)
            n = len(held[1])
            facts |= {"c": c, "validation_acc1": best.right / n, "validation_n": n, "c_tried": tried}
        if self.validation_split and held is not None and not self.fewshot_k:
            image, labels = np.concatenate([image, held[0]]), np.concatenate([labels, held[1]])
        head = fit_logistic(image, labels, classes, c, self.max_iter)
        facts |= {"train_n": len(labels), "iterations": head.iterations, "converged": head.converged}
        test, truth = context.features(self.split)
        blocks = (head((test[start : start + BLOCK] - shift) * factor) for start in range(0, len(test), BLOCK))
        found = outcomes(blocks, truth)
        return SuiteResult(found.metrics("lp_"), found, facts)


def standard(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and 1 / (deviation + 1e-5) of each feature, both ``(d,) float32``."""
    mean = image.mean(0, dtype=np.float64)
    deviation = np.sqrt(np.maximum(np.square(image, dtype=np.float64).mean(0) - mean**2, 0))
    return mean.astype(np.float32), (1 / (deviation + 1e-5)).astype(np.float32)
