"""Sums of sparse counters over all parts of a pool, without all parts' counters in one process.

A part counts keys (entries of a list, cells of a table). The sum is small enough for the driver; what all parts send
together is not, with 100,000 parts. So parts are put into at most `GROUPS` groups, each is summed by one reducer of a
shuffle, and the driver adds up `GROUPS` sums. Counters travel packed on rows of the part, `width` to a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .base import Emitted, Part, Pool, Routed

GROUPS = 64
Count = Callable[..., "Counters"]


@dataclass(frozen=True)
class Counters:
    """Counts by key.

    Attributes:
        keys: ``(m,) int64``, ascending, none negative.
        counts: ``(m,) int64``.
    """

    keys: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray, counts: np.ndarray | None = None) -> Counters:
        """Equal keys added up; without `counts` each is one."""
        found, place = np.unique(np.asarray(keys, np.int64), return_inverse=True)
        if counts is None:
            return cls(found, np.bincount(place.reshape(-1), minlength=len(found)).astype(np.int64))
        total = np.zeros(len(found), np.int64)
        np.add.at(total, place.reshape(-1), np.asarray(counts, np.int64))
        return cls(found, total)

    def at(self, keys: np.ndarray) -> np.ndarray:
        """Count of each key, 0 when it has none."""
        if not len(self.keys):
            return np.zeros(len(keys), np.int64)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, self.counts[place], 0)


def sum_counters(pool: Pool, count: Count, *arguments: Any, width: int = 1) -> Counters:
    """The sum over all parts of ``count(part, *arguments) -> Counters``.

    Args:
        count: a module-level function.
        width: no part has more than `width` keys for each of its rows.
    """
    if len(pool.parts) <= GROUPS:
        found = pool.map(count, *arguments)
    else:
        per_group = -(-len(pool.parts) // GROUPS)
        found = pool.map(_collect, pool.shuffle(_emit, _reduce, GROUPS, count, arguments, width, per_group))
    empty = np.empty(0, np.int64)
    keys = np.concatenate([empty, *(c.keys for c in found)])
    return Counters.of(keys, np.concatenate([empty, *(c.counts for c in found)]))


def _emit(part: Part, count: Count, arguments: tuple[Any, ...], width: int, per_group: int) -> Emitted:
    found = count(part, *arguments)
    m = -(-len(found.keys) // width)
    assert m <= len(part), "more counters than fit on the rows of the part"
    return Emitted(
        np.full(m, part.index // per_group, np.int64), part.rows[:m], part.uids()[:m], _pack(found, m, width)
    )


def _pack(found: Counters, m: int, width: int) -> dict[str, np.ndarray]:
    keys, counts = np.full(m * width, -1, np.int64), np.zeros(m * width, np.int64)
    keys[: len(found.keys)], counts[: len(found.keys)] = found.keys, found.counts
    return {"key": keys.reshape(m, width), "count": counts.reshape(m, width)}


def _unpack(keys: np.ndarray, counts: np.ndarray) -> Counters:
    used = keys.reshape(-1) >= 0
    return Counters.of(keys.reshape(-1)[used], counts.reshape(-1)[used])


def _reduce(
    bucket: int, rows: dict[str, np.ndarray], count: Count, arguments: tuple[Any, ...], width: int, per_group: int
) -> dict[str, np.ndarray]:
    return _pack(_unpack(rows["key"], rows["count"]), len(rows["key"]), width)


def _collect(part: Part, routed: Routed) -> Counters:
    columns = routed.of(part)
    found = columns["found"]
    if not found.any():
        return Counters.of(np.empty(0, np.int64))
    return _unpack(columns["key"][found], columns["count"][found])
