"""Weighted draws as races: every row rings again and again, at random times of its own, the faster the heavier it is.

A row of weight w rings after waits of E / w, with E exponential. The order in which a pool's rows ring is the order in
which weighted draws with replacement name them; counting only a row's first ring makes it draws without replacement
(Efraimidis & Spirakis, 2006), counting its first c rings makes it draws that stop at a cap. So a draw over the whole
pool is one number, the time of the last ring that counts, and every row knows its own rings without the others.

The waits come from the row's keyed uid hash (`draw.uid_hash`), so no sharding, order or restart changes them. Rows that
share a uid share their luck. Times are kept as logarithms in float64: weights may differ by any factor, none becomes 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Part, numbers
from .draw import mix

STEP = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64's: a row's waits are that generator's stream, begun at its hash
CHUNK = 2**18  # waits made at a time


@dataclass(frozen=True)
class Weights:
    """How a column becomes weights.

    Attributes:
        column: a score, or a number of the row table.
        temperature: weight = exp(value / temperature), softmax's numerator; None = the value itself is the weight.
    """

    column: str
    temperature: float | None = 1.0

    def values(self, part: Part) -> np.ndarray:
        """``(n,) float32`` of the alive rows, NaN where there is none."""
        return numbers(part, self.column)

    def log(self, values: np.ndarray) -> np.ndarray:
        """``(n,) float64`` logarithms of the weights; -inf = never drawn; NaN for what is no weight."""
        wide = np.asarray(values, np.float64)
        if self.temperature is not None:
            return wide / self.temperature
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(wide)


def waits(hashes: np.ndarray, ring: np.ndarray | int) -> np.ndarray:
    """Exponential waits before each row's ring number `ring` (from 1), float64, of the common shape; never 0."""
    number = np.asarray(ring, np.uint64)
    with np.errstate(over="ignore"):
        bits = mix(hashes + number * STEP) >> np.uint64(12)
    return -np.log((bits.astype(np.float64) + 0.5) * 2.0**-52)


def first_rings(hashes: np.ndarray, log_weights: np.ndarray) -> np.ndarray:
    """Log times of the first rings, ``(n,) float64``; inf for weight 0."""
    return np.log(waits(hashes, 1)) - log_weights


@dataclass(frozen=True)
class Rings:
    """Rings, sorted by nothing.

    Attributes:
        place: ``(m,) int64``, index of the row that rings.
        number: ``(m,) int64``, which of its rings, from 1.
        time: ``(m,) float64``, logarithm of the time.
    """

    place: np.ndarray
    number: np.ndarray
    time: np.ndarray


def rings_until(hashes: np.ndarray, log_weights: np.ndarray, end: float, cap: int | None) -> Rings:
    """All rings with log time <= `end`, at most the first `cap` of each row (None = all).

    Work and memory grow with the number of rings; waits are summed one after another, so a row's times do not depend on
    how many are made at once.
    """
    at = np.flatnonzero(log_weights > -np.inf)
    waited = np.zeros(len(at))
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    done, width = 0, 1
    while len(at) and (cap is None or done < cap):
        width = max(1, min(width, CHUNK // len(at), cap - done if cap is not None else width))
        number = np.arange(done + 1, done + width + 1)
        wait = waits(hashes[at][:, None], number[None, :])
        wait[:, 0] += waited
        total = np.cumsum(wait, axis=1)
        time = np.log(total) - log_weights[at][:, None]
        row, column = np.nonzero(time <= end)
        found.append((at[row], number[column], time[row, column]))
        goes_on = time[:, -1] <= end
        at, waited = at[goes_on], total[goes_on, -1]
        done, width = done + width, width * 2
    if not found:
        return Rings(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    place, number, time = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return Rings(place, number, time)
