"""`fewshot`: closed-form ridge regression on a handful of images per class, as big_vision measures it.

Per seed and number of shots k: the first k images of each class in a drawn order, features whitened with the mean and
deviation (+ 1e-5) of those images, a constant feature of 100 in the place of a bias, targets +-1, penalty 2^10, and the
solution in closed form. Fewer shots are the first of more. Nothing is chosen, so a number costs milliseconds; what it
costs is noise, so each seed is reported beside the mean (``fewshot_acc1@10``).

The draw is numpy's ``default_rng(seed)``, one permutation per class in class order, which is big_vision's, so the same
images are drawn where a split is in the same order. Differences: features are L2-normalised embeddings (big_vision
takes those before the logits of any model), and the eigendecomposition is float64. A class with fewer than k images
gives what it has and is named in the facts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...shards.evalsets.base import EvalSet, EvalSplit
from ..metrics.accuracy import BLOCK
from ..metrics.outcomes import Outcomes, SampleOutcomes, outcomes
from ..probes.ridge import solve_ridge
from ..probes.train_samples import short_classes
from .base import SUITES, EvalContext, ProbeSuite, SuiteResult

MAIN_SHOTS = 10
CONSTANT = 100.0


@SUITES.register
class FewShot(ProbeSuite):
    """Ridge regression on k images per class, over several draws."""

    task: ClassVar[str] = "fewshot"
    main_metric: ClassVar[str] = f"fewshot_acc1@{MAIN_SHOTS}"

    type: Literal["fewshot"] = "fewshot"
    shots: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 5, 10, 25), min_length=1, description="Images per class."
    )
    seeds: int = Field(default=3, ge=1, description="Draws, with seeds 0, 1, ...")
    penalty: float = Field(
        default=1024.0, gt=0, description="Of the squared weights, beside the sum of squared errors."
    )

    def main_metric_of(self, evalset: EvalSet) -> str:
        return f"fewshot_acc1@{self._main}"

    @property
    def _main(self) -> int:
        """10 shots, or the most where those are not asked for."""
        return MAIN_SHOTS if MAIN_SHOTS in self.shots else max(self.shots)

    def evaluate(self, context: EvalContext) -> SuiteResult:
        train, labels = context.features(self.train_split)
        test, truth = context.features(self.split)
        classes, name = len(context.evalset.classnames), context.evalset.name
        accuracy: dict[int, list[float]] = {k: [] for k in sorted(set(self.shots))}
        main: list[Outcomes] = []
        hits = {k: np.zeros(len(truth)) for k in accuracy}
        for seed in range(self.seeds):
            order = drawn(labels, classes, seed)
            for k in accuracy:
                rows = np.concatenate([rows[:k] for rows in order])
                found = outcomes(classified(train[rows], labels[rows], test, classes, self.penalty), truth)
                accuracy[k].append(int(found.correct.sum()) / len(truth))
                hits[k] += found.correct
                if k == self._main:
                    main.append(found)
        metrics: dict[str, float | None] = {
            f"fewshot_acc1@{k}": float(np.mean(values)) for k, values in accuracy.items()
        }
        facts: dict[str, Any] = {
            "seeds": {
                f"{name}_{k}shot-seed-{seed}": value
                for k, values in accuracy.items()
                for seed, value in enumerate(values)
            },
            "deviation": {
                f"fewshot_acc1@{k}": float(np.std(values, ddof=1)) if self.seeds > 1 else None
                for k, values in accuracy.items()
            },
            "short_classes": {str(k): short for k in accuracy if (short := short_classes(labels, k, classes))},
            "outcomes_of": f"{self._main}shot-seed-0",
            "train_n": len(labels),
        }
        shares = {f"fewshot_acc1@{k}": right / self.seeds for k, right in hits.items() if k != self._main}
        return SuiteResult(metrics, FewShotOutcomes(tuple(main), shares), facts, chance=1 / classes)


def drawn(labels: np.ndarray, classes: int, seed: int) -> list[np.ndarray]:
    """Rows of each class in the order in which they are taken."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(np.flatnonzero(labels == c)) for c in range(classes)]


def classified(train: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int, penalty: float):
    """Class scores ``(b, classes) float64`` of `test`, a block at a time, after a ridge regression on `train`."""
    x = train.astype(np.float64)
    mean, deviation = x.mean(0), x.std(0) + 1e-5

    def whitened(rows: np.ndarray) -> np.ndarray:
        return np.pad((rows - mean) / deviation, ((0, 0), (0, 1)), constant_values=CONSTANT)

    targets = np.full((len(labels), classes), -1.0)
    targets[np.arange(len(labels)), labels] = 1
    weights = solve_ridge(whitened(x), targets, penalty)
    for start in range(0, len(test), BLOCK):
        yield whitened(test[start : start + BLOCK]) @ weights


@dataclass(frozen=True)
class FewShotOutcomes(SampleOutcomes):
    """What every draw of the main number of shots said of each sample.

    Attributes:
        draws: one per seed; that of seed 0 is what `correct` and the tables are about.
        shares: metric of another number of shots -> share of draws that were right, ``(n,) float64``.
    """

    draws: tuple[Outcomes, ...]
    shares: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.draws[0])

    @property
    def correct(self) -> np.ndarray:
        """``(n,) bool``, of seed 0."""
        return self.draws[0].correct

    def table(self, split: EvalSplit) -> pa.Table:
        """As of a classification, and ``right_draws``: how many draws were right. Their sum is the main metric; of the
        other numbers of shots there is a column each, by the metric's name."""
        right = np.sum([one.correct for one in self.draws], axis=0)
        table = self.draws[0].table(split).append_column("right_draws", pa.array(right.astype(np.uint16)))
        for name, share in self.shares.items():
            table = table.append_column(name, pa.array(share))
        return table

    def tables(self, evalset: EvalSet, split: EvalSplit) -> dict[str, Any]:
        return self.draws[0].tables(evalset, split)
