"""Random multiplicities with a given make-up, group by group: the control that is like another subset in every count.

Each group's rows are ranked by the keyed hash of their uid; the first get the largest multiplicity, and so on as the
group's quota says. Ranks are exact and out of core: the hash's upper bits, counted first, tell where a bucket's ranks
begin, then each bucket is sorted by itself. Price: the columns are read three times. Quotas are kept in the driver, so
there may be 10,000 groups at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..errors import DataError
from .base import Emitted, Part, Pool, Routed
from .draw import uid_hash

GROUPS = 10_000
BUCKETS = 4096

Quota = Mapping[int, int]
"""Multiplicity -> how many rows get it; the rest of the group gets 0."""


@dataclass(frozen=True)
class Stratum:
    """One group of the pool.

    Attributes:
        rows: rows that reach the filter.
        times: how many of them are how often in the other subset; without those that are not in it.
    """

    rows: int
    times: dict[int, int]


def strata(pool: Pool, per: str | None, like: str | None) -> dict[str | None, Stratum]:
    """The pool's groups by their value of column `per` (text; None = missing), or one group.

    Args:
        like: column of multiplicities, ``subset.<name>``.

    Raises:
        DataError: more than 10,000 groups.
    """
    found: dict[str | None, Stratum] = {}
    for part in pool.map(_strata, per, like):
        for name, one in part.items():
            have = found.get(name, Stratum(0, {}))
            times = {m: have.times.get(m, 0) + one.times.get(m, 0) for m in {*have.times, *one.times}}
            found[name] = Stratum(have.rows + one.rows, times)
        if len(found) > GROUPS:
            raise DataError(f"column {per!r} has more than {GROUPS} different values; group by a coarser one")
    return dict(sorted(found.items(), key=lambda item: (item[0] is not None, item[0] or "")))


def _groups(part: Part, per: str | None) -> tuple[list[str | None], np.ndarray]:
    """Names of the part's groups, and the group of each row."""
    if per is None:
        return [None], np.zeros(len(part), np.int64)
    values = part.arrow(per)
    if pa.types.is_nested(values.type):
        raise DataError(f"column {per!r} of part {part.name} holds {values.type}; groups need one value per row")
    texts = pa.array([None if v is None else str(v) for v in values.to_pylist()], pa.string())
    coded = texts.dictionary_encode(null_encoding="encode")
    return coded.dictionary.to_pylist(), coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _strata(part: Part, per: str | None, like: str | None) -> dict[str | None, Stratum]:
    names, group = _groups(part, per)
    if len(names) > GROUPS:
        raise DataError(f"column {per!r} has more than {GROUPS} different values; group by a coarser one")
    rows = np.bincount(group, minlength=len(names))
    found: dict[str | None, Stratum] = {n: Stratum(int(r), {}) for n, r in zip(names, rows, strict=True) if r}
    if like is not None:
        times = np.asarray(part.array(like), np.int64)
        inside = times > 0
        pairs, counts = np.unique(np.stack([group[inside], times[inside]]), axis=1, return_counts=True)
        for (g, m), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
            found[names[g]].times[m] = count
    return found


def assign_times(
    pool: Pool, per: str | None, quotas: Mapping[str | None, Quota], seed: int, purpose: str
) -> Routed | None:
    """Give the groups' rows their multiplicities; ``times``, ``(n,) int32``, of what it returns. None: nothing to give.

    Args:
        quotas: of every group that has any rows.
    """
    if not quotas:
        return None
    names = list(quotas)
    bits = int(np.log2(np.clip(BUCKETS // len(names), 1, 256)))
    counted = pool.map(_count, per, names, bits, seed, purpose)
    counts = np.zeros((len(names), 1 << bits), np.int64)
    for places, inside in counted:
        counts.ravel()[places] += inside
    begins = np.cumsum(counts, axis=1) - counts
    ladders = [_ladder(quotas[name]) for name in names]
    return pool.shuffle(_emit, _reduce, counts.size, per, names, bits, seed, purpose, begins.ravel(), ladders)


def _ladder(quota: Quota) -> tuple[np.ndarray, np.ndarray]:
    """Rank at which each multiplicity ends, and the multiplicities, largest first, 0 last."""
    times = sorted((m for m, rows in quota.items() if m > 0 and rows > 0), reverse=True)
    return np.cumsum([quota[m] for m in times], dtype=np.int64), np.array([*times, 0], np.int32)


def _buckets(part: Part, per: str | None, names: list[str | None], bits: int, seed: int, purpose: str) -> np.ndarray:
    own, group = _groups(part, per)
    place = {name: i for i, name in enumerate(names)}
    group = np.array([place[name] for name in own], np.int64)[group] if len(group) else group
    upper = uid_hash(part.uids(), seed, purpose) >> np.uint64(64 - bits) if bits else np.zeros(len(part), np.uint64)
    return (group << bits) + upper.astype(np.int64)


def _count(
    part: Part, per: str | None, names: list[str | None], bits: int, seed: int, purpose: str
) -> tuple[np.ndarray, np.ndarray]:
    return np.unique(_buckets(part, per, names, bits, seed, purpose), return_counts=True)


def _emit(
    part: Part,
    per: str | None,
    names: list[str | None],
    bits: int,
    seed: int,
    purpose: str,
    begins: np.ndarray,
    ladders: list[tuple[np.ndarray, np.ndarray]],
) -> Emitted:
    return Emitted(_buckets(part, per, names, bits, seed, purpose), part.rows, part.uids())


def _reduce(
    bucket: int,
    rows: dict[str, np.ndarray],
    per: str | None,
    names: list[str | None],
    bits: int,
    seed: int,
    purpose: str,
    begins: np.ndarray,
    ladders: list[tuple[np.ndarray, np.ndarray]],
) -> dict[str, np.ndarray]:
    rank = np.empty(len(rows["uids"]), np.int64)
    order = np.argsort(uid_hash(rows["uids"], seed, purpose), kind="stable")
    rank[order] = begins[bucket] + np.arange(len(order))
    ends, times = ladders[bucket >> bits]
    return {"times": times[np.searchsorted(ends, rank, side="right")]}
