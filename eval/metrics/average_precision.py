"""Average precision: where the right pictures stand in each class's ranking.

Non-interpolated, as CLIP_benchmark takes it (and scikit-learn, where scores do not tie): the mean over a class's
positives of the precision at the place of each. Of equal scores the earlier sample comes first.

All classes are sorted at once: score, sample and whether it is a positive are packed into one 64-bit number, so that a
plain sort, which is vectorised, is also stable.
"""

from __future__ import annotations

import numpy as np

from ...errors import DataError


def average_precision(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Average precision of each class, ``(classes,) float64``; NaN for a class without positives.

    Args:
        scores: ``(n, classes) float32``, higher is better; -inf for a class that cannot be predicted.
        right: ``(n, classes) bool``.

    Raises:
        DataError: a score is NaN.
    """
    if np.isnan(scores).any():
        raise DataError("a class score is NaN; the model's embeddings are broken")
    n, classes = scores.shape
    hits = _sorted_hits(scores, right)
    row, place = np.divmod(np.flatnonzero(hits), max(n, 1))
    positives = np.bincount(row, minlength=classes)
    before = np.arange(len(row)) - (np.cumsum(positives) - positives)[row]
    total = np.bincount(row, (before + 1) / (place + 1), classes)
    return np.divide(total, positives, out=np.full(classes, np.nan), where=positives > 0)


def _sorted_hits(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``(classes, n)``, not 0 where the sample at that place of the class's ranking is a positive."""
    n = len(scores)
    if scores.dtype != np.float32 or n >= 1 << 31:
        return np.take_along_axis(right, np.argsort(-scores, 0, "stable"), 0).T
    bits = (np.ascontiguousarray(scores.T) + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
    # of positive floats larger bits are larger; of negative ones smaller; turned, so that the best comes first
    falling = np.where(bits >> 31, bits, ~bits & np.uint32(0x7FFFFFFF))
    packed = falling.astype(np.uint64) << np.uint64(32)
    packed |= np.arange(n, dtype=np.uint64) << np.uint64(1)
    packed |= right.T
    packed.sort(1)
    return packed & np.uint64(1)


def mean_average_precision(scores: np.ndarray, right: np.ndarray) -> float:
    """Mean over all classes of the average precision; as in CLIP_benchmark a class without positives counts 0.

    Args:
        scores: ``(n, classes)``, higher is better.
        right: ``(n, classes) bool``.
    """
    return float(np.nan_to_num(average_precision(scores, right)).mean())


def expected_average_precision(n: int, positives: np.ndarray) -> np.ndarray:
    """What a random ranking of `n` samples reaches on average, for each number of positives (0 without any).

    A positive at place k has one hit by itself and ``(k - 1) (R - 1) / (n - 1)`` others before it, and every place is
    equally likely: E[AP] = (H_n + (R - 1) / (n - 1) (n - H_n)) / n, with H_n the n-th harmonic number.
    """
    harmonic = float((1 / np.arange(1, n + 1)).sum())
    expected = (harmonic + (positives - 1) / max(n - 1, 1) * (n - harmonic)) / n
    return np.where(positives > 0, expected, 0.0)
