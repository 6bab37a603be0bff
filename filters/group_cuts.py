"""Where each group's ranking is cut: exactly the best rows of every group, at any size, whatever the sharding.

Rows rank by a score, equal scores by uid, then part and row (or, without a score, by a keyed hash of the uid: a random
draw). As in `quantile.py` the float32 bits are counted in two passes of 16 bits, here per group: a part sends one row
per (group, digit) with a counter, a reducer finds the digit in which each group's cut lies, and every part finds the
cuts of its own groups again. Only rows that tie exactly at a cut, and cannot all stay, are compared by uid.

Neither the driver nor a worker holds rows, whatever the number of groups. Price: the score is read three or four
times, and the rows that tie at one group's cut are sorted in one worker, some 60 bytes each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .base import Emitted, Part, Pool, Routed
from .group_ranking import Ranking, groups_of, names_of

NONE, ALL = 1 << 16, -1  # digits no row and every row lies above
ROWS_PER_BUCKET = 1_000_000
MAX_BUCKETS = 256
MAX_TOLD = 1000  # groups that a part describes


@dataclass(frozen=True)
class Share:
    """How many rows of a group stay: a count, or a share of its rows rounded down; of groups not named, the default.

    Attributes:
        count: rows of each group; None = no rule.
        fraction: share of each group's rows, those without a score included; None = no rule.
        counts: rows by `group_key`.
        fractions: shares by `group_key`.
        ties: keep what ties with element ``int(rows * fraction)``, from 0, too (DataComp's rule), instead of an exact
            number.
    """

    count: int | None = None
    fraction: float | None = None
    counts: Mapping[int, int] = field(default_factory=dict)
    fractions: Mapping[int, float] = field(default_factory=dict)
    ties: bool = False

    def wanted(self, key: int, rows: int) -> int:
        """Rows that should stay of a group's `rows`; 0 for a group without a rule."""
        if key in self.counts:
            return self.counts[key]
        if key in self.fractions:
            return int(rows * self.fractions[key])
        if self.count is not None:
            return self.count
        return int(rows * self.fraction) if self.fraction is not None else 0


@dataclass(frozen=True)
class Cuts:
    """Where the groups are cut, row by row of the pool's files.

    Attributes:
        ranking: of the rows.
        share: of each group.
        high: per counted row: ``key``, ``high`` (digit of the cut), ``left`` (place of the cut in that digit, from 0).
        low: the same one digit further, with ``whole``: whether everything that ties at the cut stays.
        ties: per tying row that is compared by uid: ``stays``; None when all ties stay everywhere.
    """

    ranking: Ranking
    share: Share
    high: Routed
    low: Routed
    ties: Routed | None

    def keep(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """``(n,) bool``, which of the part's alive rows stay, and ``(n,) bool``, which have a group."""
        place = _place(part, self.ranking, self.high, self.low)
        kept = place.above | (place.tie & place.whole)
        if self.ties is not None:
            found = self.ties.of(part)
            if found["found"].any():
                kept |= found["stays"]
        return kept, place.grouped


@dataclass
class _Place:
    """Where the rows of a part lie: above their group's cut, exactly on it, or neither."""

    keys: np.ndarray
    grouped: np.ndarray
    above: np.ndarray
    tie: np.ndarray
    whole: np.ndarray
    left: np.ndarray


def fit_cuts(pool: Pool, ranking: Ranking, share: Share) -> Cuts:
    """Find the cut of every group: three shuffles of counters, the last one of rows that tie."""
    buckets = 1 if ranking.per is None else min(MAX_BUCKETS, 1 + sum(pool.map(_length)) // ROWS_PER_BUCKET)
    high = pool.shuffle(_emit_high, _reduce_high, buckets, buckets, ranking, share)
    low = pool.shuffle(_emit_low, _reduce_low, buckets, buckets, ranking, share, high)
    ties = None if share.ties else pool.shuffle(_emit_ties, _reduce_ties, buckets, buckets, ranking, high, low)
    return Cuts(ranking, share, high, low, ties)


def tell(pool: Pool, cuts: Cuts) -> dict[str, dict[str, Any]]:
    """Facts of each group by name: ``rows``, ``scored``, ``wanted`` and the value it was cut at (None: nowhere).

    Of very many groups only some are told: `MAX_TOLD` of those that each part leads.
    """
    told: dict[str, dict[str, Any]] = {}
    for facts in pool.map(_told, cuts):
        for name, fact in facts.items():
            told.setdefault(name, {"threshold": None}).update(fact)
    return {name: told[name] for name in sorted(told) if "rows" in told[name]}


def _length(part: Part) -> int:
    return len(part)


def _counters(part: Part, at: np.ndarray, keys: np.ndarray, digits: np.ndarray, buckets: int) -> Emitted:
    """One row for each (group, digit) among the rows `at`, with how many there are."""
    order = np.lexsort((digits, keys))
    keys, digits = keys[order], digits[order]
    starts = _starts(keys, digits)
    counts = np.diff(np.append(starts, len(order)))
    rows = at[order[starts]]
    bucket = (keys[starts] % np.uint64(buckets)).astype(np.int64)
    values = {"key": keys[starts], "digit": digits[starts].astype(np.int32), "count": counts.astype(np.int64)}
    return Emitted(bucket, part.rows[rows], part.uids()[rows], values)


def _starts(*keys: np.ndarray) -> np.ndarray:
    """Where each run of equal keys begins, ``(m,) int64``."""
    n = len(keys[0])
    new = np.zeros(n, bool)
    new[:1] = True
    for key in keys:
        new[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(new)


def _emit_high(part: Part, buckets: int, ranking: Ranking, share: Share) -> Emitted:
    keys, grouped = groups_of(part, ranking.per)
    bits, present = ranking.bits(part)
    digits = np.where(present, (bits >> np.uint32(16)).astype(np.int64), -1)  # -1: counts as a row, has no rank
    at = np.flatnonzero(grouped)
    return _counters(part, at, keys[at], digits[at], buckets)


@dataclass
class _Tally:
    """Counters of several groups, digits descending within each.

    Attributes:
        keys: ``(g,)`` groups.
        starts: ``(g,)``, where each begins in `digits` and `counts`.
        group: ``(m,)``, group of each.
    """

    keys: np.ndarray
    starts: np.ndarray
    group: np.ndarray
    digits: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, rows: dict[str, np.ndarray]) -> _Tally:
        order = np.lexsort((-rows["digit"], rows["key"]))
        keys, digits = rows["key"][order], rows["digit"][order]
        at = _starts(keys, digits)
        counts = np.add.reduceat(rows["count"][order], at)
        starts = _starts(keys[at])
        group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(at))))
        return cls(keys[at][starts], starts, group, digits[at], counts)

    def locate(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Digit of the element at descending ``(g,)`` `index`, its index there, and how many have that digit."""
        total = np.cumsum(self.counts)
        before = (total - self.counts)[self.starts]
        up_to = total - before[self.group]
        passed = np.add.reduceat((up_to <= index[self.group]).astype(np.int64), self.starts)
        at = np.minimum(self.starts + passed, len(self.digits) - 1)
        return self.digits[at], index - (up_to - self.counts)[at], self.counts[at]


def _spread(rows: dict[str, np.ndarray], tally: _Tally, facts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Facts of the groups, written to every counter of the group; ``lead`` marks one counter of each."""
    group = np.searchsorted(tally.keys, rows["key"])
    lead = np.zeros(len(group), bool)
    lead[np.unique(group, return_index=True)[1]] = True
    return {"key": rows["key"], "lead": lead} | {name: values[group] for name, values in facts.items()}


def _reduce_high(
    bucket: int, rows: dict[str, np.ndarray], buckets: int, ranking: Ranking, share: Share
) -> dict[str, np.ndarray]:
    tally = _Tally.of(rows)
    total = np.add.reduceat(tally.counts, tally.starts)
    scored = np.add.reduceat(np.where(tally.digits >= 0, tally.counts, 0), tally.starts)
    wanted = np.array([share.wanted(int(k), int(n)) for k, n in zip(tally.keys, total, strict=True)], np.int64)
    everything = wanted >= scored
    nothing = np.zeros(len(wanted), bool) if share.ties else wanted == 0
    index = np.clip(wanted if share.ties else wanted - 1, 0, np.maximum(scored - 1, 0))
    high, left, _ = tally.locate(index)
    high = np.where(nothing, NONE, np.where(everything, ALL, high)).astype(np.int32)
    facts = {"high": high, "left": left, "rows": total, "scored": scored, "wanted": wanted}
    return _spread(rows, tally, facts)


def _of_group(found: dict[str, np.ndarray], keys: np.ndarray, names: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the reducers said of each row's group; `names` with the value for groups that they said nothing of."""
    out = {name: np.full(len(keys), default) for name, default in names.items()}
    if found["found"].any():
        known, first = np.unique(found["key"][found["found"]], return_index=True)
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        told = known[at] == keys
        for name in names:
            out[name] = np.where(told, found[name][found["found"]][first][at], out[name])
    return out


def _emit_low(part: Part, buckets: int, ranking: Ranking, share: Share, high: Routed) -> Emitted:
    keys, grouped = groups_of(part, ranking.per)
    bits, present = ranking.bits(part)
    cut = _of_group(high.of(part), keys, {"high": NONE, "left": 0})
    at = np.flatnonzero(grouped & present & ((bits >> np.uint32(16)).astype(np.int64) == cut["high"]))
    emitted = _counters(part, at, keys[at], (bits[at] & np.uint32(0xFFFF)).astype(np.int64), buckets)
    place = np.searchsorted(part.rows, emitted.rows)
    emitted.values |= {"left": cut["left"][place], "high": cut["high"][place]}
    return emitted


def _reduce_low(
    bucket: int, rows: dict[str, np.ndarray], buckets: int, ranking: Ranking, share: Share, high: Routed
) -> dict[str, np.ndarray]:
    tally = _Tally.of(rows)
    first = np.unique(rows["key"], return_index=True)[1]
    low, left, count = tally.locate(rows["left"][first])
    bits = rows["high"][first].astype(np.int64) << 16 | low
    return _spread(rows, tally, {"bits": bits, "left": left, "whole": share.ties | (left + 1 == count)})


def _place(part: Part, ranking: Ranking, high: Routed, low: Routed) -> _Place:
    keys, grouped = groups_of(part, ranking.per)
    bits, present = ranking.bits(part)
    coarse = _of_group(high.of(part), keys, {"high": NONE})["high"]
    # a part without a row in the digit of its group's cut is not told the rest, and needs none of it
    fine = _of_group(low.of(part), keys, {"bits": NONE << 16, "left": 0, "whole": False})
    digit = (bits >> np.uint32(16)).astype(np.int64)
    inside = present & grouped & (digit == coarse)
    exact = bits.astype(np.int64)
    above = present & grouped & ((digit > coarse) | (inside & (exact > fine["bits"])))
    return _Place(keys, grouped, above, inside & (exact == fine["bits"]), fine["whole"].astype(bool), fine["left"])


def _emit_ties(part: Part, buckets: int, ranking: Ranking, high: Routed, low: Routed) -> Emitted:
    place = _place(part, ranking, high, low)
    at = np.flatnonzero(place.tie & ~place.whole)
    bucket = (place.keys[at] % np.uint64(buckets)).astype(np.int64)
    return Emitted(bucket, part.rows[at], part.uids()[at], {"key": place.keys[at], "left": place.left[at]})


def _reduce_ties(bucket: int, rows: dict[str, np.ndarray], *_: Any) -> dict[str, np.ndarray]:
    """The first of the rows that tie stay; they come in (uid, part, row) order."""
    order = np.argsort(rows["key"], kind="stable")
    starts = _starts(rows["key"][order])
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    stays = np.empty(len(order), bool)
    stays[order] = rank <= rows["left"][order]
    return {"stays": stays}


def _told(part: Part, cuts: Cuts) -> dict[str, dict[str, Any]]:
    """Facts of the groups whose leading counter lies in this part."""
    if cuts.ranking.per is None:
        names, codes = [""], np.zeros(len(part), np.int64)
    else:
        names, codes = names_of(part, cuts.ranking.per)
    told: dict[str, dict[str, Any]] = {}
    for routed in (cuts.high, cuts.low):
        found = routed.of(part)
        if not found["found"].any():
            continue
        for at in np.flatnonzero(found["found"] & found["lead"])[:MAX_TOLD]:
            fact = told.setdefault(names[codes[at]], {})
            if "bits" in found:
                fact["threshold"] = cuts.ranking.value(int(found["bits"][at]))
            else:
                fact.update({name: int(found[name][at]) for name in ("rows", "scored", "wanted")})
    return told
