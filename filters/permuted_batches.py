"""Random batches of exactly B rows over the whole pool, several times, the same ones however the pool is cut.

Every eligible row gets a rank, its place in the order of a keyed hash of its uid. One shuffle finds it exactly: rows
go to buckets by the upper bits of the hash, a bucket sorts its own, and how many rows lie in the buckets before it is a
sum over counts that only the last row of each bucket reports. So the driver holds one number per 65,536 rows. From then
on batches cost nothing: permutation k sends rank r to position pi_k(r) by a keyed bijection of 0..n-1
(`pretrain/data/order.py`), and batch b is positions b B to (b + 1) B - 1.

n is rarely a multiple of B. The rows that are left over form a batch of their own, filled up to B with the rows at the
first positions, which are there as context only: they have their result from their own batch. A pool that is not larger
than B is one batch of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..pretrain import streams
from ..pretrain.data.order import permuted
from .base import Emitted, Part, Pool, Routed
from .draw import Source, uid_hash

ROWS_PER_BUCKET = 65_536


@dataclass(frozen=True)
class Ranks:
    """The place of every eligible row in one seeded order of the pool.

    Attributes:
        count: eligible rows.
        routed: ``place`` inside the bucket, per row; None for an empty pool.
        before: ``(buckets,) int64``, eligible rows in the buckets before each.
        seed, purpose: what the order depends on besides the uids.
    """

    count: int
    routed: Routed | None
    before: np.ndarray
    seed: int
    purpose: str

    def of(self, part: Part) -> np.ndarray:
        """Ranks of the part's alive rows, ``(n,) int64``; -1 where a row is not eligible."""
        if self.routed is None or not len(part):
            return np.full(len(part), -1, np.int64)
        found = self.routed.of(part)
        if not found["found"].any():
            return np.full(len(part), -1, np.int64)
        bucket = _bucket(uid_hash(part.uids(), self.seed, self.purpose), len(self.before))
        return np.where(found["found"], self.before[bucket] + found["place"], -1)


def rank_rows(pool: Pool, seed: int, purpose: str, source: Source, arguments: tuple[Any, ...] = ()) -> Ranks:
    """Rank the eligible rows of the pool in the order of (hash, uid, part, row).

    Args:
        source: module-level ``source(part, *arguments) -> (eligible (n,) bool, {})``, as for `draw.draw`.
    """
    total = sum(pool.map(_length))
    if not total:
        return Ranks(0, None, np.zeros(0, np.int64), seed, purpose)
    buckets = -(-total // ROWS_PER_BUCKET)
    routed = pool.shuffle(_emit, _reduce, buckets, seed, purpose, buckets, source, arguments)
    sizes = np.zeros(buckets, np.int64)
    for bucket, size in pool.map(_sizes, routed, seed, purpose, buckets):
        sizes[bucket] = size
    return Ranks(int(sizes.sum()), routed, np.cumsum(sizes) - sizes, seed, purpose)


def _length(part: Part) -> int:
    return len(part)


def _bucket(hashes: np.ndarray, buckets: int) -> np.ndarray:
    """``(n,) int64``, ascending with the hash."""
    return ((hashes >> np.uint64(32)) * np.uint64(buckets) >> np.uint64(32)).astype(np.int64)


def _emit(part: Part, seed: int, purpose: str, buckets: int, source: Source, arguments: tuple[Any, ...]) -> Emitted:
    eligible, _ = source(part, *arguments)
    uids = part.uids()[eligible]
    return Emitted(_bucket(uid_hash(uids, seed, purpose), buckets), part.rows[eligible], uids)


def _reduce(
    bucket: int, rows: dict[str, np.ndarray], seed: int, purpose: str, buckets: int, source: Source, arguments: Any
) -> dict[str, np.ndarray]:
    order = np.argsort(uid_hash(rows["uids"], seed, purpose), kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return {"place": place, "last": place == len(order) - 1}


def _sizes(part: Part, routed: Routed, seed: int, purpose: str, buckets: int) -> tuple[np.ndarray, np.ndarray]:
    """Buckets whose last row is in this part, and how many rows they hold."""
    found = routed.of(part)
    if not found["found"].any():
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    last = found["last"]
    return _bucket(uid_hash(part.uids()[last], seed, purpose), buckets), found["place"][last] + 1


@dataclass(frozen=True)
class Permutation:
    """One cut of `count` ranked rows into batches of `size`.

    Attributes:
        number: which permutation; others are independent of it.
    """

    count: int
    size: int
    seed: int
    purpose: str
    number: int

    @property
    def whole(self) -> int:
        """Batches that need no filling up. A pool not larger than a batch is one such batch."""
        return max(1, self.count // self.size)

    @property
    def left_over(self) -> int:
        """Rows of the batch that has to be filled up; 0 = there is none."""
        return self.count % self.size if self.count > self.size else 0

    def places(self, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where ranked rows go.

        Args:
            ranks: ``(n,) int64``, -1 = a row that takes no part.

        Returns:
            ``(n,) int64`` batch, ``whole`` for the one that is filled up and -1 for none, and ``(n,) bool``, whether
            the row also serves as context in the batch that is filled up.
        """
        batch, context = np.full(len(ranks), -1, np.int64), np.zeros(len(ranks), bool)
        some = np.flatnonzero(ranks >= 0)
        if self.count <= self.size:
            batch[some] = 0
            return batch, context
        stream = streams.key(self.seed, self.purpose, self.number)
        position = permuted(ranks[some].astype(np.uint64), self.count, stream)
        batch[some] = position // self.size
        context[some] = (position < self.size - self.left_over) if self.left_over else False
        return batch, context
