"""What happened to each sample: the rows that are kept for ever, and the tables that follow from them.

A metric can be had again from these rows years later, on any part of the samples, and two models can be compared
sample by sample; so every suite leaves them. `comparison/contributions.py` says how metrics follow from stored rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ...errors import DataError
from .accuracy import (
    confusion_matrix,
    mean_per_class_recall,
    most_confused,
    per_class_table,
    target_rank,
    top_k_accuracy,
)

if TYPE_CHECKING:
    from ...shards.evalsets.base import EvalSet, EvalSplit

FULL_CONFUSION = 100  # classes up to which results.json holds the whole matrix
MOST_CONFUSED = 50


class SampleOutcomes(ABC):
    """Outcomes of one suite on one set, one row per sample or query."""

    @abstractmethod
    def __len__(self) -> int:
        """Rows."""

    @property
    @abstractmethod
    def correct(self) -> np.ndarray:
        """``(rows,) bool``: right at the first guess."""

    @abstractmethod
    def table(self, split: EvalSplit) -> pa.Table:
        """What is stored: columns ``key`` (string) and ``correct`` (bool), and what else the metrics need.

        Integers are stored in as few bytes as they need (`small`).
        """

    def tables(self, evalset: EvalSet, split: EvalSplit) -> dict[str, Any]:
        """What ``results.json`` holds of them beside the metrics, as strict JSON: ``per_class``, ``groups``..."""
        return {}


@dataclass(frozen=True)
class Outcomes(SampleOutcomes):
    """Outcomes of a classification.

    Attributes:
        labels: ``(n,) int64`` true classes.
        prediction: ``(n,) int64`` predicted classes.
        rank: ``(n,) int64`` rank of the true class, 0 = predicted.
        classes: number of classes that could be predicted.
        rows: ``(n,) int64`` which samples of the split these are; None = all of them, in order.
        counted: metric -> what each sample adds to it, for metrics that do not follow from the rank; null where a
            sample does not count. They become columns of that name.
    """

    labels: np.ndarray
    prediction: np.ndarray
    rank: np.ndarray
    classes: int
    rows: np.ndarray | None = None
    counted: Mapping[str, pa.Array] = field(default_factory=dict, kw_only=True)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> np.ndarray:
        """``(n,) bool``."""
        return self.rank == 0

    def metrics(self, prefix: str = "") -> dict[str, float | None]:
        """``acc1``, ``acc5`` (None with fewer than 5 classes) and ``mean_per_class_recall``, fractions 0-1."""
        return {
            f"{prefix}acc1": top_k_accuracy(self.rank, 1),
            f"{prefix}acc5": top_k_accuracy(self.rank, 5) if self.classes >= 5 else None,
            f"{prefix}mean_per_class_recall": mean_per_class_recall(self.labels, self.prediction),
        }

    def table(self, split: EvalSplit) -> pa.Table:
        keys = split.keys if self.rows is None else [split.keys[i] for i in self.rows.tolist()]
        return pa.table(
            {
                "key": pa.array(keys, pa.string()),
                "label": small(self.labels, self.classes),
                "prediction": small(self.prediction, self.classes),
                "correct": pa.array(self.correct),
                "rank": small(self.rank, self.classes),
                **self.counted,
            }
        )

    def tables(self, evalset: EvalSet, split: EvalSplit) -> dict[str, Any]:
        classes = len(evalset.classnames)
        confusion = confusion_matrix(self.labels, self.prediction, classes)
        return {
            "per_class": per_class_table(confusion, evalset.classnames),
            "confusion": confusion.tolist() if classes <= FULL_CONFUSION else None,
            "most_confused": most_confused(confusion, MOST_CONFUSED),
        }


def outcomes(blocks: Iterable[np.ndarray], labels: np.ndarray) -> Outcomes:
    """Outcomes from class scores that come in blocks ``(b, classes)``, in row order; no block is kept."""
    predictions, ranks = [], []
    start = classes = 0
    for scores in blocks:
        rank = target_rank(scores, labels[start : start + len(scores)])
        ranks.append(rank)
        predictions.append(scores.argmax(1))
        start, classes = start + len(scores), scores.shape[1]
    if start != len(labels) or not start:
        raise DataError(f"scores of {start} samples for {len(labels)} labels")
    return Outcomes(labels, np.concatenate(predictions), np.concatenate(ranks), classes)


def small(values: np.ndarray, below: int) -> pa.Array:
    """Numbers from 0 to `below`, in 16 or 32 bits."""
    return pa.array(values).cast(pa.uint16() if below < 1 << 16 else pa.uint32())
