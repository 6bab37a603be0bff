"""All pairs of 64-bit hashes within a Hamming radius, exactly, without comparing all pairs.

The bits are cut into b blocks. Two hashes that differ in at most r bits differ in at most r blocks, so they agree in
b - r of them: hashes are sorted by every choice of k = b - r blocks, and only those that agree there are compared, by
XOR and popcount. More blocks mean more sorts and fewer comparisons; `plan` picks the cheapest b for the number of
hashes. Hashes of pictures are far from uniform, so many may agree in the blocks of a choice: such a group is searched
the same way by the bits that are left, and so is no square of its size.

Price, for r = 4: 15 sorts for 10^7 hashes (0.7 us a hash), 35 for 10^9; for r = 8 about 500 for 10^7. A pair is found
again by every choice in which it agrees, so what is done with pairs must not mind that (a minimum, a union).

Source: multi-index hashing (Norouzi, Punjani, Fleet, CVPR 2012, arXiv 1307.2982) with its exact-match keys combined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np

BITS = 64
SORT_NS, PAIR_NS, SQUARE_NS, CALL_NS = 40.0, 5.0, 1.5, 1e5
"""A hash in one sort, a comparison behind it, one where all are compared with all, and a sort of next to nothing."""
WALK = 64  # groups up to this size are compared shift by shift, all at once
CANDIDATES = 2**20  # comparisons at a time: 8 MB
QUERIES = 10_000  # looked up at a time, about
FACTOR = np.uint64(0x9E3779B97F4A7C15)
HALF = np.uint64(32)
LOW_HALF = np.uint64(0xFFFFFFFF)
EVERY_BIT = (1 << BITS) - 1

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Places of hashes ``(m,) int64``, of others, and their distances ``(m,) uint8``."""


@dataclass(frozen=True)
class Plan:
    """How hashes are sorted: by all choices of `chosen` out of `blocks`; none chosen = compare all pairs."""

    blocks: tuple[int, ...]
    chosen: int

    def masks(self, lead: int | None = None) -> list[int]:
        """Bit masks of the choices: all, or those whose first block is number `lead`."""
        if not self.chosen:
            return [0]
        numbers = range(len(self.blocks))
        choices = [c for c in combinations(numbers, self.chosen) if lead is None or c[0] == lead]
        return [sum(self.blocks[number] for number in choice) for choice in choices]

    def leads(self) -> list[int]:
        """Numbers of the blocks that can come first in a choice: radius + 1 of them."""
        return list(range(len(self.blocks) - self.chosen + 1)) if self.chosen else []


def plan(count: int, radius: int, bits: int = EVERY_BIT, others: int | None = None) -> Plan:
    """The cheapest way to find the near pairs among `count` hashes.

    Args:
        bits: mask of the bits in which they may differ.
        others: look for near ones among so many other hashes instead.
    """
    places = [bit for bit in range(BITS) if bits >> bit & 1]
    against = count / 2 if others is None else others
    best, cheapest = Plan((), 0), against * SQUARE_NS
    sort = SORT_NS + CALL_NS / max(1, count)
    for blocks in range(radius + 1, len(places) + 1):
        chosen = blocks - radius
        sorts, width = comb(blocks, chosen), len(places) * chosen // blocks
        cost = sorts * (sort + against * 0.5**width * PAIR_NS)
        if sorts * sort > cheapest:
            break
        if cost < cheapest:
            # every b-th bit: neighbours, which say nearly the same of a picture, are in different blocks
            best, cheapest = Plan(tuple(sum(1 << p for p in places[i::blocks]) for i in range(blocks)), chosen), cost
    return best


def near_pairs(hashes: np.ndarray, radius: int, keys: Sequence[int] | None = None) -> Iterator[Pairs]:
    """Pairs of hashes that differ in at most `radius` bits; the first place of a pair is the smaller one.

    Args:
        hashes: ``(n,) uint64``; equal ones are pairs too, so a million equal ones are a million million: collapse them.
        keys: only pairs that agree in all bits of one of these masks (`Plan.masks`).
    """
    masks = plan(len(hashes), radius).masks() if keys is None else keys
    yield from _search(hashes, np.arange(len(hashes)), radius, masks, EVERY_BIT)


def _search(hashes: np.ndarray, places: np.ndarray, radius: int, keys: Sequence[int], bits: int) -> Iterator[Pairs]:
    for key in keys:
        if not key:
            yield from _all_pairs(hashes, places, radius)
        else:
            yield from _agreeing(hashes, places, radius, key, bits & ~key)


def _agreeing(hashes: np.ndarray, places: np.ndarray, radius: int, key: int, left: int) -> Iterator[Pairs]:
    """Near pairs among hashes that agree in the bits of `key`; those of `left` are the ones they may differ in."""
    marked = _marked(hashes, key)
    marked.sort()
    order = (marked & LOW_HALF).astype(np.int64)
    opens = np.flatnonzero(np.diff(marked >> HALF, prepend=~(marked[:1] >> HALF)))
    sizes = np.diff(np.append(opens, len(marked)))
    few = (sizes > 1) & (sizes <= WALK)
    starts, lengths = opens[few], sizes[few]
    for shift in range(1, int(lengths.max(initial=1))):
        starts, lengths = starts[lengths > shift], lengths[lengths > shift]
        for one in _ranges(starts, lengths - shift):
            yield from _near(hashes, places, order[one], order[one + shift], radius)
    for start, size in zip(opens[sizes > WALK].tolist(), sizes[sizes > WALK].tolist(), strict=True):
        members = order[start : start + size]
        yield from _search(hashes[members], places[members], radius, plan(size, radius, left).masks(), left)


def _marked(hashes: np.ndarray, key: int) -> np.ndarray:
    """Sortable words: 32 bits that are equal where the masked bits are (and now and then elsewhere), then the place."""
    mixed = (hashes & np.uint64(key)) * FACTOR
    mixed ^= mixed >> HALF  # the product's high half alone would forget the highest bits' order; both halves count
    mixed *= FACTOR
    return (mixed & ~LOW_HALF) | np.arange(len(hashes), dtype=np.uint64)


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """The numbers of all ranges, at most about `CANDIDATES` at a time."""
    ends = np.cumsum(lengths)
    at = 0
    while at < len(starts):
        before = int(ends[at - 1]) if at else 0
        stop = max(at + 1, int(np.searchsorted(ends, before + CANDIDATES, "right")))
        counts = lengths[at:stop]
        offsets = np.arange(int(counts.sum())) - np.repeat(ends[at:stop] - counts - before, counts)
        yield np.repeat(starts[at:stop], counts) + offsets
        at = stop


def _near(hashes: np.ndarray, places: np.ndarray, one: np.ndarray, other: np.ndarray, radius: int) -> Iterator[Pairs]:
    distance = np.bitwise_count(hashes[one] ^ hashes[other])
    near = np.flatnonzero(distance <= radius)
    if len(near):
        a, b = places[one[near]], places[other[near]]
        yield np.minimum(a, b), np.maximum(a, b), distance[near]


def _all_pairs(hashes: np.ndarray, places: np.ndarray, radius: int) -> Iterator[Pairs]:
    step = max(1, CANDIDATES // max(1, len(hashes)))
    for start in range(0, len(hashes), step):
        block = hashes[start : start + step]
        distance = np.bitwise_count(block[:, None] ^ hashes[None, start:])
        one, other = np.nonzero(distance <= radius)
        later = other > one
        one, other = one[later], other[later]
        if len(one):
            a, b = places[start + one], places[start + other]
            yield np.minimum(a, b), np.maximum(a, b), distance[one, other]


class HashIndex:
    """Hashes that others are looked up in, by radius.

    Memory: 8 bytes for each hash and sort; 70 MB for half a million hashes and a radius of 4.
    """

    def __init__(self, hashes: np.ndarray, radius: int) -> None:
        """Args: hashes: ``(n,) uint64``, distinct."""
        self.hashes, self.radius = np.asarray(hashes, np.uint64), radius
        self._keys = plan(QUERIES, radius, others=len(hashes)).masks()
        self._sorted = [np.sort(_marked(self.hashes, key)) for key in self._keys]

    def within(self, queries: np.ndarray) -> Iterator[Pairs]:
        """Pairs of (place of a query, place of a hash) within the radius; a pair may come more than once."""
        for key, marked in zip(self._keys, self._sorted, strict=True):
            wanted = _marked(queries, key) & ~LOW_HALF
            first = np.searchsorted(marked, wanted)
            counts = np.searchsorted(marked, wanted | LOW_HALF, "right") - first
            some = np.flatnonzero(counts)
            for start in range(0, len(some), 2**16):
                chosen = some[start : start + 2**16]
                yield from self._compare(queries, chosen, first[chosen], counts[chosen], marked)

    def _compare(
        self, queries: np.ndarray, chosen: np.ndarray, first: np.ndarray, counts: np.ndarray, marked: np.ndarray
    ) -> Iterator[Pairs]:
        asked = 0
        who = np.repeat(chosen, counts)
        for at in _ranges(first, counts):
            one, asked = who[asked : asked + len(at)], asked + len(at)
            other = (marked[at] & LOW_HALF).astype(np.int64)
            distance = np.bitwise_count(queries[one] ^ self.hashes[other])
            near = np.flatnonzero(distance <= self.radius)
            if len(near):
                yield one[near], other[near], distance[near]


def bucket_of(values: np.ndarray, buckets: int) -> np.ndarray:
    """A bucket for each of ``(n,) uint64`` values, ``(n,) int64``: equal ones together, others spread evenly."""
    mixed = (values ^ (values >> HALF)) * FACTOR
    return ((mixed >> HALF) % np.uint64(buckets)).astype(np.int64)
