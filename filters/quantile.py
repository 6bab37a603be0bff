"""Exact order statistics of a float32 column over any number of parts, in two passes and flat memory.

The bits of a float32, read as an unsigned integer, order like the number once the sign is dealt with. Pass one counts
the upper 16 bits, which tells in which of 65,536 bins the wanted element lies and how deep in it; pass two counts the
lower 16 bits inside that bin. Exact for any size, at the price of reading the column twice. Parts return only the
counters that are not zero, so the driver holds a few kilobytes a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BINS = 65_536


def to_bits(values: np.ndarray) -> np.ndarray:
    """``(n,) uint32`` that order like the ``(n,) float32`` `values`, none of them NaN; -0.0 and 0.0 are one value."""
    bits = (np.asarray(values, np.float32) + np.float32(0)).view(np.uint32)  # adding 0 turns -0.0 into 0.0
    return np.where(bits >> 31, ~bits, bits | np.uint32(0x8000_0000))


def from_bits(bits: int) -> np.float32:
    """The float32 whose `to_bits` is `bits`."""
    raw = bits & 0x7FFF_FFFF if bits >> 31 else ~bits & 0xFFFF_FFFF
    return np.uint32(raw).view(np.float32)


@dataclass(frozen=True)
class Histogram:
    """Counters of one part.

    Attributes:
        bins: ``(m,) uint16``, the bins that are not empty, ascending.
        counts: ``(m,) int64``.
        missing: how many values are NaN; they are in no bin.
    """

    bins: np.ndarray
    counts: np.ndarray
    missing: int = 0


def _histogram(digits: np.ndarray, missing: int) -> Histogram:
    counts = np.bincount(digits, minlength=BINS)
    bins = np.flatnonzero(counts)
    return Histogram(bins.astype(np.uint16), counts[bins].astype(np.int64), missing)


def histogram_high(values: np.ndarray) -> Histogram:
    """Pass one: counts of the upper 16 bits of ``(n,) float32``."""
    present = ~np.isnan(values)
    return _histogram(to_bits(values[present]) >> 16, int(len(values) - present.sum()))


def histogram_low(values: np.ndarray, high: int) -> Histogram:
    """Pass two: counts of the lower 16 bits of the values whose upper 16 bits are `high`."""
    bits = to_bits(values[~np.isnan(values)])
    return _histogram(bits[bits >> 16 == high] & 0xFFFF, 0)


def merge(histograms: Sequence[Histogram]) -> np.ndarray:
    """Dense sum ``(65536,) int64`` of sparse counters."""
    total = np.zeros(BINS, np.int64)
    for histogram in histograms:
        total[histogram.bins] += histogram.counts
    return total


def locate(counts: np.ndarray, index: int) -> tuple[int, int]:
    """Where the element at descending `index` (0 = largest) is: its bin, and its index inside the bin.

    Raises:
        IndexError: `index` is not smaller than the sum of `counts`.
    """
    up_to = np.cumsum(counts[::-1])
    if not 0 <= index < up_to[-1]:
        raise IndexError(f"there are {up_to[-1]} values; index {index} is outside")
    place = int(np.searchsorted(up_to, index, side="right"))
    above = int(up_to[place - 1]) if place else 0
    return len(counts) - 1 - place, index - above


def descending_element(parts: Sequence[np.ndarray], index: int) -> np.float32:
    """The element at `index` of all values sorted descending, NaN left out: the two passes over arrays in memory.

    Raises:
        IndexError: there are not so many values.
    """
    high, inside = locate(merge([histogram_high(p) for p in parts]), index)
    low, _ = locate(merge([histogram_low(p, high) for p in parts]), inside)
    return from_bits(high << 16 | low)
