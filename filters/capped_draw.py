"""Draw exactly `total` samples by weight, no row more than `cap` times, out of core: find the last ring that counts.

`arrivals.py` turns a draw into a race; here the pool is asked, in a few passes of counters, when the race ends. cap = 1
is weighted sampling without replacement, no cap is sampling with replacement (multinomial counts), and a cap between
them is Hard Cap Sampling. Exact in law and in size, no approximation: the driver holds a few thousand counters per part
and, at the end, the at most 65,536 rings around the last one. Price: three to five readings of the weight column.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .arrivals import Rings, Weights, rings_until
from .base import Part, Pool
from .draw import uid_hash

BINS = 4096
COLLECT = 65_536  # rings that may pass through the driver
SPREADS = 8.0  # standard deviations of the end's place on each side of the first guess


@dataclass(frozen=True)
class Mass:
    """The weights of a pool.

    Attributes:
        rows: rows looked at.
        possible: rows whose weight is above 0.
        log_total: logarithm of the sum of weights, only good for a first guess: it depends on the order of summation.
    """

    rows: int
    possible: int
    log_total: float


@dataclass(frozen=True)
class Race:
    """Who races: a weight column and the key of the waits."""

    weights: Weights
    seed: int
    purpose: str
    cap: int | None

    def rings(self, part: Part, end: float) -> tuple[np.ndarray, Rings]:
        """uid records of the part's alive rows, and their rings until `end`."""
        uids = part.uids()
        log_weights = self.weights.log(self.weights.values(part))
        return uids, rings_until(uid_hash(uids, self.seed, self.purpose), log_weights, end, self.cap)


@dataclass(frozen=True)
class End:
    """The last ring that counts, in (time, uid, part, row, number) order."""

    time: float
    high: int
    low: int
    part: int
    row: int
    number: int

    def times(self, race: Race, part: Part) -> np.ndarray:
        """How often each alive row of the part is drawn, ``(n,) int32``."""
        uids, rings = race.rings(part, self.time)
        counts = rings.time < self.time
        last = (self.high, self.low, self.part, self.row, self.number)
        for i in np.flatnonzero(~counts):
            at = rings.place[i]
            ring = (int(uids["f0"][at]), int(uids["f1"][at]), part.index, int(part.rows[at]), int(rings.number[i]))
            counts[i] = ring <= last
        return np.bincount(rings.place[counts], minlength=len(part)).astype(np.int32)


def weigh(pool: Pool, weights: Weights, name: str) -> Mass:
    """Look at every weight once.

    Args:
        name: of the filter, for messages.

    Raises:
        DataError: a weight is missing, negative or infinite. A draw from the others would be another draw.
    """
    found = pool.map(_weigh, weights)
    rows, possible = sum(f[0] for f in found), sum(f[1] for f in found)
    missing, bad = sum(f[2] for f in found), sum(f[3] for f in found)
    if missing:
        raise DataError(
            f"{name}: {missing} of {rows} rows have no value in {weights.column!r}, so they have no weight; "
            "drop them first (a threshold on the column does)"
        )
    if bad:
        kind = "infinite" if weights.temperature is not None else "negative or infinite"
        raise DataError(f"{name}: {bad} of {rows} values of {weights.column!r} are {kind} and are no weights")
    tops = np.array([f[4] for f in found if f[1]])
    sums = np.array([f[5] for f in found if f[1]])
    top = float(tops.max()) if len(tops) else -np.inf
    log_total = top + float(np.log(np.sum(sums * np.exp(tops - top)))) if len(tops) else -np.inf
    return Mass(rows, possible, log_total)


def _weigh(part: Part, weights: Weights) -> tuple[int, int, int, int, float, float]:
    values = weights.values(part)
    missing = np.isnan(values)
    logs = weights.log(values[~missing])
    bad = np.isnan(logs) | (logs == np.inf)
    good = logs[~bad & (logs > -np.inf)]
    top = float(good.max()) if len(good) else -np.inf
    mass = float(np.exp(good - top).sum()) if len(good) else 0.0
    return len(values), len(good), int(missing.sum()), int(bad.sum()), top, mass


def last_ring(pool: Pool, race: Race, total: int, mass: Mass) -> End:
    """The ring number `total` of the whole pool, at least 1.

    Raises:
        DataError: the rows cannot ring so often.
    """
    if total < 1 or not mass.possible or (race.cap is not None and race.cap * mass.possible < total):
        raise DataError(f"{total} draws from {mass.possible} rows, each at most {race.cap} times, cannot be")
    margin = SPREADS / np.sqrt(total)
    guess = np.log(total) - mass.log_total
    start, end = guess - margin, guess + margin
    while True:
        found = pool.map(_census, race, start, end)
        below = sum(f[0] for f in found)
        counts = np.zeros(BINS, np.int64)
        for _, bins, inside in found:
            counts[bins] += inside
        if below >= total:  # the end is earlier
            start, end, margin = start - 4 * margin, start, 4 * margin
            continue
        if below + counts.sum() < total:  # later: rows at their cap ring no more
            start, end, margin = end, end + 4 * margin, 4 * margin
            continue
        if counts.sum() <= COLLECT or end - start <= 1e-12 * max(1.0, abs(start), abs(end)):
            return _pick(pool, race, total, below, start, end)
        place = int(np.searchsorted(np.cumsum(counts), total - below))
        width = (end - start) / BINS
        slack = 1e-13 * max(1.0, abs(start), abs(end))  # what rounding may do to a bin's borders
        start, end = start + place * width - slack, start + (place + 1) * width + slack


def _census(part: Part, race: Race, start: float, end: float) -> tuple[int, np.ndarray, np.ndarray]:
    """Rings before `start`, and the bins between `start` and `end` that are not empty with their counts."""
    _, rings = race.rings(part, end)
    inside = rings.time[rings.time >= start]
    bins = np.minimum(((inside - start) * (BINS / (end - start))).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    filled = np.flatnonzero(counts)
    return len(rings.time) - len(inside), filled, counts[filled]


def _pick(pool: Pool, race: Race, total: int, below: int, start: float, end: float) -> End:
    columns = [np.concatenate(c) for c in zip(*pool.map(_between, race, start, end), strict=True)]
    time, high, low, part, row, number = columns
    last = np.lexsort((number, row, part, low, high, time))[total - below - 1]
    return End(float(time[last]), int(high[last]), int(low[last]), int(part[last]), int(row[last]), int(number[last]))


def _between(part: Part, race: Race, start: float, end: float) -> tuple[np.ndarray, ...]:
    uids, rings = race.rings(part, end)
    chosen = np.flatnonzero(rings.time >= start)
    at = rings.place[chosen]
    where = np.full(len(at), part.index, np.int64)
    return rings.time[chosen], uids["f0"][at], uids["f1"][at], where, part.rows[at], rings.number[chosen]
