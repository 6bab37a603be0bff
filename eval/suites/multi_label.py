"""`multi_label`: rank the pictures for each class by its prompts; pictures may have several right classes, or none.

``mean_average_precision`` is CLIP_benchmark's: non-interpolated, averaged over all classes, where a class that no
picture has counts 0. ``mean_average_precision_present`` leaves such classes out. ``top1_right`` is the share of
pictures, among those that have a right class, whose nearest class is one. Prompts are made as in `zero_shot`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from ...errors import DataError
from ...shards.evalsets.base import EvalSet, EvalSplit, Kind
from ..metrics.accuracy import BLOCK
from ..metrics.average_precision import average_precision, expected_average_precision
from ..metrics.outcomes import SampleOutcomes, small
from ..tasks.prompts import ensemble
from .base import SUITES, EvalContext, SuiteResult
from .prompted import PromptedSuite


@SUITES.register
class MultiLabel(PromptedSuite):
    """Rank pictures for each class by the nearest prompts; nothing is learned."""

    kinds: ClassVar[tuple[Kind, ...]] = ("multilabel",)
    task: ClassVar[str] = "zeroshot_classification"
    main_metric: ClassVar[str] = "mean_average_precision"

    type: Literal["multi_label"] = "multi_label"

    def evaluate(self, context: EvalContext) -> SuiteResult:
        split = context.split(self.split)
        if split.right is None:
            raise DataError(f"{split.where}: the samples have no lists of right classes (`npy`)")
        image, words = context.features(self.split).image, self.texts_of(context.evalset)
        weights = ensemble(context.text, words.prompts, words.classnames, context.evalset.folder)
        if split.right.shape != (len(image), len(weights)):
            raise DataError(f"{split.where}: right classes of {split.right.shape} for {len(weights)} classes")
        scores = np.concatenate([image[i : i + BLOCK] @ weights.T for i in range(0, len(image), BLOCK)])
        found = multi_label_outcomes(scores, split.right)
        chance = float(expected_average_precision(len(image), split.right.sum(0)).mean())
        return SuiteResult(found.metrics(), found, {"prompts": words.count}, chance=chance)


@dataclass(frozen=True)
class MultiLabelOutcomes(SampleOutcomes):
    """One row per picture.

    Attributes:
        prediction: ``(n,) int64`` nearest class.
        rank: ``(n,) int64`` rank of the nearest class that is right, 0 = the nearest of all; -1 where none is right.
        right_classes: ``(n,) int64`` how many are right.
        average_precision: ``(classes,) float64``; NaN for a class that no picture has.
        positives: ``(classes,) int64`` pictures of each class.
    """

    prediction: np.ndarray
    rank: np.ndarray
    right_classes: np.ndarray
    average_precision: np.ndarray
    positives: np.ndarray

    def __len__(self) -> int:
        return len(self.prediction)

    @property
    def correct(self) -> np.ndarray:
        """``(n,) bool``: the nearest class is right."""
        return self.rank == 0

    def metrics(self) -> dict[str, float | None]:
        """See the module."""
        there, labelled = self.positives > 0, self.right_classes > 0
        return {
            "mean_average_precision": float(np.nan_to_num(self.average_precision).mean()),
            "mean_average_precision_present": float(self.average_precision[there].mean()) if there.any() else None,
            "top1_right": float(self.correct[labelled].mean()) if labelled.any() else None,
        }

    def table(self, split: EvalSplit) -> pa.Table:
        """Columns beside key and correct: ``prediction``, ``rank`` (null without a right class), ``right_classes``."""
        classes = len(self.positives)
        return pa.table(
            {
                "key": pa.array(split.keys, pa.string()),
                "prediction": small(self.prediction, classes),
                "correct": pa.array(self.correct),
                "rank": pa.array(self.rank, pa.int32(), mask=self.rank < 0),
                "right_classes": small(self.right_classes, classes + 1),
            }
        )

    def tables(self, evalset: EvalSet, split: EvalSplit) -> dict[str, Any]:
        """``per_class``: class, name, n pictures, average precision (None without pictures)."""
        return {
            "per_class": [
                {
                    "class": i,
                    "name": name,
                    "n": int(self.positives[i]),
                    "average_precision": float(self.average_precision[i]) if self.positives[i] else None,
                }
                for i, name in enumerate(evalset.classnames)
            ]
        }


def multi_label_outcomes(scores: np.ndarray, right: np.ndarray) -> MultiLabelOutcomes:
    """Outcomes from class scores; of equal classes the lower number is nearer.

    Args:
        scores: ``(n, classes) float32``.
        right: ``(n, classes) bool``.

    Raises:
        DataError: a score is NaN.
    """
    precision = average_precision(scores, right)
    best = np.where(right, scores, -np.inf)
    place = best.argmax(1)
    value = np.take_along_axis(scores, place[:, None], 1)
    ahead = (scores > value) | ((scores == value) & (np.arange(scores.shape[1]) < place[:, None]))
    counts = right.sum(1)
    rank = np.where(counts > 0, np.count_nonzero(ahead, 1), -1)
    return MultiLabelOutcomes(scores.argmax(1), rank, counts, precision, right.sum(0))
