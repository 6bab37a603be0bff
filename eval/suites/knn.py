"""`knn`: vote of the nearest train images, weighted by exp(cosine / temperature) (Caron et al., ICCV 2021: DINO).

Nothing is trained, so it is the most direct look at the image space. All k come from one exact top-k search. The k and
the temperature of ``knn_acc1`` are chosen by leave-one-out on the train split (on at most 10,000 of its samples); the
accuracy of every other k, at its own best temperature, is reported beside it as ``knn_acc1@k``, for comparison with
papers that show them all.

DINO's defaults: k = 10, 20, 100, 200, temperature 0.07. "Revisiting a kNN-based image classification system" (2022)
tunes both, the temperature over 22 values from 1e-4 to 10, and takes the mean off the features before it normalises
them: `centre: true`, with a list as `temperature`; exp(-distance / T) for the cosine distance 1 - cosine is the same
vote.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveFloat, field_validator

from ...errors import DataError
from ..metrics.accuracy import BLOCK, top_k_accuracy
from ..metrics.outcomes import outcomes
from ..probes.train_samples import evenly_spaced
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
    temperature: PositiveFloat | tuple[PositiveFloat, ...] = Field(
        default=0.07, description="Of the weights exp(cosine / temperature); a list is chosen from, as k is."
    )
    centre: bool = Field(
        default=False, description="Take the train features' mean off all features and normalise them again."
    )

    @field_validator("temperature")
    @classmethod
    def _some(cls, value: float | tuple[float, ...]) -> float | tuple[float, ...]:
        if value == ():
            raise ValueError("the list of temperatures is empty")
        return value

    def evaluate(self, context: EvalContext) -> SuiteResult:
        train, labels = context.features(self.train_split)
        if len(train) < 2:
            raise DataError(f"{context.evalset.folder}: split {self.train_split!r} holds one sample; knn needs two")
        test, truth = context.features(self.split)
        if self.centre:
            mean = train.mean(0, dtype=np.float64).astype(np.float32)
            train, test = centred(train, mean), centred(test, mean)
        ks = sorted({min(k, len(train) - 1) for k in self.k})  # a small split cannot have more neighbours
        temperatures = sorted(set(self.temperature if isinstance(self.temperature, tuple) else (self.temperature,)))
        classes = len(context.evalset.classnames)

        rows = evenly_spaced(len(train), LEAVE_ONE_OUT)
        others = neighbours(train, train[rows], ks[-1], leave_out=rows)
        right = np.array([recognised(others, ks, labels, classes, t, labels[rows]) for t in temperatures])
        best = {k: int(right[:, i].argmax()) for i, k in enumerate(ks)}  # of equals the sharper
        chosen = max(ks, key=lambda k: (right[best[k], ks.index(k)], -k))

        nearest = neighbours(train, test, ks[-1])
        by_k = {k: outcomes(votes(nearest, k, labels, classes, temperatures[best[k]]), truth) for k in ks}
        metrics = by_k[chosen].metrics("knn_")
        metrics |= {f"knn_acc1@{k}": top_k_accuracy(found.rank, 1) for k, found in by_k.items()}
        facts = {
            "k": chosen,
            "temperature": temperatures[best[chosen]],
            "temperatures": {str(k): temperatures[best[k]] for k in ks},
            "validation_acc1": int(right[best[chosen], ks.index(chosen)]) / len(rows),
            "validation_n": len(rows),
            "train_n": len(train),
        }
        hits = {f"knn_acc1@{k}": pa.array(found.correct) for k, found in by_k.items()}
        return SuiteResult(metrics, replace(by_k[chosen], counted=hits), facts)


def centred(image: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Features ``(n, d) float32`` without `mean`, L2-normalised again; one that is the mean stays 0."""
    moved = image - mean
    return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), np.float32(1e-12))


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
        (votes_of_k,) = _votes(nearest, start, [k], labels, classes, temperature)
        yield votes_of_k


def recognised(
    nearest: Neighbours, ks: list[int], labels: np.ndarray, classes: int, temperature: float, truth: np.ndarray
) -> list[int]:
    """How many queries each k (ascending) recognises."""
    right = [0] * len(ks)
    for start in range(0, len(nearest.index), BLOCK):
        for i, found in enumerate(_votes(nearest, start, ks, labels, classes, temperature)):
            right[i] += int(np.count_nonzero(found.argmax(1) == truth[start : start + BLOCK]))
    return right


def _votes(
    nearest: Neighbours, start: int, ks: list[int], labels: np.ndarray, classes: int, temperature: float
) -> Iterator[np.ndarray]:
    """Votes of the block at `start` for each k, ascending; every neighbour is counted once, nearest first."""
    cosine = nearest.cosine[start : start + BLOCK, : ks[-1]].astype(np.float64)
    weights = np.exp((cosine - cosine[:, :1]) / temperature)  # the nearest weighs 1: no overflow, same order
    cells = np.arange(len(cosine))[:, None] * classes + labels[nearest.index[start : start + BLOCK, : ks[-1]]]
    total = np.zeros(len(cosine) * classes)
    for first, last in zip([0, *ks], ks, strict=False):
        total += np.bincount(cells[:, first:last].ravel(), weights[:, first:last].ravel(), len(total))
        yield total.reshape(-1, classes).copy()
