"""Soft Cap Sampling on arrays: batch after batch without replacement, and every draw makes a row less likely later.

    until `total` rows are drawn:  p = softmax(s);  draw b rows without replacement by p;  s[drawn] -= alpha

(FLYT, arXiv 2503.08805.) As published every batch touches every row: total / b passes of five temporaries. Drawn as a
race (`arrivals.py`) it is the same law without that. A batch is the next b rings, its end is the last of them. Rows
that did not ring keep their waits, because an exponential wait that has not ended is as good as new; a row that rang
stays silent until the batch ends and starts a new wait from there, with its lower weight.

So only the front, the rows that ring next, is looked at: about sqrt(n b) of them, found anew when they are used up.
O(sqrt(n b)) per batch instead of O(n); 24 bytes a row, and 9 more for a moment when the front is found.
"""

from __future__ import annotations

import numpy as np

from .arrivals import Weights, first_rings, waits


def soft_cap(
    hashes: np.ndarray, values: np.ndarray, weights: Weights, total: int, batch: int, alpha: float
) -> np.ndarray:
    """How often each row is drawn, ``(n,) int32``, summing to `total`. Equal rings go to the first row.

    Args:
        hashes: ``(n,) uint64``, keyed uid hashes.
        values: ``(n,) float32``, the weight column.
        batch: rows per batch, at most the rows with a weight above 0; the last batch is what is left.
        alpha: what a draw takes from the logarithm of a row's weight.
    """
    times = np.zeros(len(hashes), np.int32)
    rings = first_rings(hashes, weights.log(values))
    front, when = np.empty(0, np.int64), np.empty(0)
    border = -np.inf  # rows outside the front ring later than this
    drawn = 0
    while drawn < total:
        count = min(batch, total - drawn)
        if len(front) < count:
            border = _border(rings, max(count, int(np.sqrt(len(rings) * float(batch)))))
            front = np.flatnonzero(rings <= border)
            when = rings[front]
        end = np.partition(when, count - 1)[count - 1]
        chosen = when <= end
        if (surplus := int(chosen.sum()) - count) > 0:
            chosen[np.flatnonzero(when == end)[-surplus:]] = False
        rows = front[chosen]
        times[rows] += 1
        log_weight = weights.log(values[rows]) - alpha * times[rows]
        rings[rows] = again = np.logaddexp(end, np.log(waits(hashes[rows], times[rows] + 1)) - log_weight)
        when[chosen] = again
        stays = when <= border
        front, when = front[stays], when[stays]
        drawn += count
    return times


def _border(rings: np.ndarray, count: int) -> float:
    """The time until which at least `count` rows ring."""
    count = min(count, len(rings))
    return float(np.partition(rings, count - 1)[count - 1])
