"""How many samples each cluster keeps: the quotas of density-based pruning (arXiv 2401.04578), exactly.

    C_j = inter_j * intra_j            complexity: far from other clusters, and spread out
    P   = softmax(C / temperature)     share of the budget
    x   = argmin |x - P M|^2           subject to sum x = M and low_j <= x_j <= n_j

The quadratic programme is a projection on a box cut by a plane: x_j = clip(P_j M - lambda, low_j, n_j), where lambda is
found by sorting the 2k numbers at which a clip begins or ends. O(k log k), exact, where general solvers leave errors of
several per cent at their default tolerance.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..errors import DataError

NEIGHBOURS = 20


def mean_distance_to_neighbours(centroids: np.ndarray) -> np.ndarray:
    """Mean of 1 - inner product with the 20 nearest other centroids (all, when there are fewer), ``(k,) float32``.

    Self is left out by index, so a duplicate of a centroid counts as a neighbour at distance 0. 0 when k = 1.
    """
    k = len(centroids)
    count = min(NEIGHBOURS, k - 1)
    inter = np.zeros(k, np.float32)
    if count < 1:
        return inter
    for start in range(0, k, 256):
        similarity = centroids[start : start + 256] @ centroids.T
        block = np.arange(len(similarity))
        similarity[block, start + block] = -np.inf
        nearest = np.partition(similarity, k - count, axis=1)[:, k - count :]
        inter[start + block] = (1 - np.sort(nearest, axis=1)).mean(axis=1)
    return inter


def complexity(intra: np.ndarray, inter: np.ndarray) -> np.ndarray:
    """``inter * intra``, ``(k,) float32``; a cluster without rows (NaN) gets the mean of the others."""
    product = (inter * intra).astype(np.float32)
    return np.where(np.isnan(product), np.nanmean(product), product) if np.isnan(product).any() else product


def shares(complexities: np.ndarray, temperature: float) -> np.ndarray:
    """softmax of ``complexities / temperature``, ``(k,) float32``."""
    scaled = complexities.astype(np.float32) / np.float32(temperature)
    powers = np.exp(scaled - scaled.max())
    return powers / powers.sum()


def lower_bounds(sizes: np.ndarray, total: int, balance: float) -> np.ndarray:
    """Fewest rows that each cluster keeps, ``(k,) int64``: `balance` of an equal share, but not the whole cluster."""
    fewest = int(total / len(sizes) * balance) if balance > 0 else 1
    return np.maximum(np.minimum(fewest, sizes - 1), 0)


def project(target: np.ndarray, low: np.ndarray, high: np.ndarray, total: float) -> np.ndarray:
    """The point nearest to `target` with ``low <= x <= high`` and sum `total`, ``(k,) float64``.

    Raises:
        DataError: there is none, because `total` is below the sum of `low` or above the sum of `high`.
    """
    target, low, high = (np.asarray(a, np.float64) for a in (target, low, high))
    if not low.sum() <= total <= high.sum():
        raise DataError(
            f"cannot keep {total:.0f} samples: {len(high)} clusters must keep at least {low.sum():.0f} together "
            f"and hold {high.sum():.0f}; change `keep`, `balance` or the number of clusters"
        )
    # sum of clip(target - t, low, high) falls with t, with slope -1 for every x between its bounds.
    at = np.concatenate([target - high, target - low])
    order = np.argsort(at, kind="stable")
    slope = -np.cumsum(np.repeat([1.0, -1.0], len(target))[order])
    sums = high.sum() + np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(at[order]))])
    place = int(np.searchsorted(-sums, -total, side="left"))  # first breakpoint where the sum is <= total
    t = at[order][min(place, len(at) - 1)]
    before = at[order][place - 1] if place else t
    free = (target - high < (t + before) / 2) & (target - low > (t + before) / 2)
    if free.any() and place:  # solve the segment again from its members: no error accumulated along the way
        fixed = np.clip(target - (t + before) / 2, low, high)[~free].sum()
        t = (target[free].sum() + fixed - total) / free.sum()
    return np.clip(target - t, low, high)


def round_quotas(
    x: np.ndarray, high: np.ndarray, total: int, rounding: Literal["exact", "reference"] = "exact"
) -> np.ndarray:
    """Whole quotas, ``(k,) int64``.

    ``exact``: largest remainders (ties: the first cluster), so the sum is `total` and no bound is crossed.
    ``reference``: round half to even, as published; the sum may be off by k / 2.
    """
    if rounding == "reference":
        return np.rint(x).astype(np.int64)
    quotas = np.floor(x).astype(np.int64)
    missing = total - int(quotas.sum())
    by_remainder = np.argsort(quotas - x, kind="stable")
    while missing > 0:
        raised = by_remainder[(quotas < high)[by_remainder]][:missing]
        quotas[raised] += 1
        missing -= len(raised)
    return quotas
