"""`knn`: vote of the nearest train images, weighted by exp(cosine / temperature) (Caron et al., ICCV 2021: DINO).

Nothing is trained, so it is the most direct look at the image space. All k come from one exact top-k search. The k of
``knn_acc1`` is chosen by leave-one-out on the train split (on at most 10,000 of its samples); the accuracy of every
other k is reported beside it as ``knn_acc1@k``, for comparison with papers that show them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from ...errors import DataError
from ..metrics import BLOCK, Outcomes, outcomes, top_k_accuracy
from .base import SUITES, EvalContext, ProbeSuite, SuiteResult

LEAVE_ONE_OUT = 10_000
CELLS = 1 << 24  # similarities in memory


@SUITES.register
class KNN(ProbeSuite):
    """Weighted vote of the k nearest train images."""

    task: ClassVar[str] = "knn"
    main_metric: ClassVar[str] = "knn_acc1"

    type: Literal["knn"] = "knn"
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(10, 20, 100, 200), min_length=1, description="Numbers of neighbours to try."
    )
    temperature: float = Field(default=0.07, gt=0, description="Of the weights exp(cosine / temperature).")

    def evaluate(self, context: EvalContext) -> SuiteResult:
        train, labels = context.features(self.train_split)
        if len(train) < 2:
            raise DataError(f"{context.evalset.folder}: split {self.train_split!r} holds one sample; knn needs two")
        ks = sorted({min(k, len(train) - 1) for k in self.k})  # a small split cannot have more neighbours
        classes = len(context.evalset.classnames)

        rows = np.unique(np.linspace(0, len(train) - 1, min(len(train), LEAVE_ONE_OUT)).astype(np.int64))
        others = neighbours(train, train[rows], ks[-1], leave_out=rows)
        left_out = {k: self._outcomes(others, k, labels, classes, labels[rows]) for k in ks}
        validation = {k: top_k_accuracy(found.rank, 1) for k, found in left_out.items()}
        chosen = max(ks, key=lambda k: (validation[k], -k))

        test, truth = context.features(self.split)
        nearest = neighbours(train, test, ks[-1])
        by_k = {k: self._outcomes(nearest, k, labels, classes, truth) for k in ks}
        metrics = by_k[chosen].metrics("knn_")
        metrics |= {f"knn_acc1@{k}": top_k_accuracy(found.rank, 1) for k, found in by_k.items()}
        facts = {"k": chosen, "validation_acc1": validation[chosen], "validation_n": len(rows), "train_n": len(train)}
        return SuiteResult(metrics, by_k[chosen], facts)

    def _outcomes(self, nearest: Neighbours, k: int, labels: np.ndarray, classes: int, truth: np.ndarray) -> Outcomes:
        return outcomes(votes(nearest, k, labels, classes, self.temperature), truth)


class Neighbours(NamedTuple):
    """Nearest train samples of each query, nearest first: ``index (q, k) int64`` and ``cosine (q, k) float32``."""

    index: np.ndarray
    cosine: np.ndarray


def neighbours(train: np.ndarray, queries: np.ndarray, k: int, leave_out: np.ndarray | None = None) -> Neighbours:
    """Exact search; of equal similarities the lower train row is the nearer.

    Args:
        train: ``(n, d) float32``, L2-normalised.
        queries: ``(q, d) float32``, L2-normalised.
        k: at most n, or n - 1 with `leave_out`.
        leave_out: ``(q,)`` train row that each query may not find (itself).
    """
    n = len(train)
    ends = np.uint64(n - 1) - np.arange(n, dtype=np.uint64)
    index, cosine = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    block = max(1, CELLS // n)
    for start in range(0, len(queries), block):
        similarity = queries[start : start + block] @ train.T
        if leave_out is not None:
            similarity[np.arange(len(similarity)), leave_out[start : start + block]] = -np.inf
        # one integer that sorts by similarity, then by row: a partition of it leaves no tie to chance
        keys = _ascending_bits(similarity).astype(np.uint64) << np.uint64(32) | ends
        best = np.sort(np.partition(keys, n - k, axis=1)[:, n - k :], axis=1)[:, ::-1]
        found = n - 1 - (best & np.uint64(0xFFFFFFFF)).astype(np.int64)
        index[start : start + block] = found
        cosine[start : start + block] = np.take_along_axis(similarity, found, 1)
    return Neighbours(index, cosine)


def _ascending_bits(values: np.ndarray) -> np.ndarray:
    """float32 -> uint32 in the same order (negative zero counts as zero)."""
    bits = (values + np.float32(0)).view(np.uint32)
    return np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000))


def votes(nearest: Neighbours, k: int, labels: np.ndarray, classes: int, temperature: float) -> Iterator[np.ndarray]:
    """Sum of the first `k` neighbours' weights per class, in blocks ``(b, classes) float64``."""
    for start in range(0, len(nearest.index), BLOCK):
        cosine = nearest.cosine[start : start + BLOCK, :k].astype(np.float64)
        weights = np.exp((cosine - cosine[:, :1]) / temperature)  # the nearest weighs 1: no overflow, same order
        rows = np.arange(len(cosine))[:, None] * classes
        cells = rows + labels[nearest.index[start : start + BLOCK, :k]]
        yield np.bincount(cells.ravel(), weights.ravel(), len(cosine) * classes).reshape(-1, classes)
