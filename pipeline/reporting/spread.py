"""How the values that a filter decided by are spread among the kept and the dropped rows: exact quantiles, flat memory.

Two passes over the decisions, as in `filters/quantile.py`; nothing is sorted and nothing pool-sized is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ...filters.quantile import BINS, from_bits, histogram_high, histogram_low, locate
from ..decisions import read_decision

AT = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Shares of the values that are smaller."""


@dataclass(frozen=True)
class Spread:
    """Values of the kept, or of the dropped rows.

    Attributes:
        rows: all of them.
        missing: those without a value.
        quantiles: at `AT`, each the value of a row (the nearest rank, halves downward); empty when there is none.
    """

    rows: int
    missing: int
    quantiles: Sequence[float]


def spreads(folder: str, parts: Sequence[str]) -> dict[bool, Spread]:
    """The spread of the values of kept (True) and dropped (False) rows of the decisions in a folder."""
    high = {side: np.zeros(BINS, np.int64) for side in (True, False)}
    rows = dict.fromkeys((True, False), 0)
    for side, values in _sides(folder, parts):
        found = histogram_high(values)
        high[side][found.bins] += found.counts
        rows[side] += len(values)
    places = {side: _places(counts) for side, counts in high.items()}
    low = {(side, bin_): np.zeros(BINS, np.int64) for side, at in places.items() for bin_, _ in at}
    for side, values in _sides(folder, parts):
        for bin_ in {bin_ for bin_, _ in places[side]}:
            found = histogram_low(values, bin_)
            low[side, bin_][found.bins] += found.counts
    return {
        side: Spread(
            rows[side],
            rows[side] - int(high[side].sum()),
            [float(from_bits(bin_ << 16 | locate(low[side, bin_], inside)[0])) for bin_, inside in places[side]],
        )
        for side in (True, False)
    }


def _places(counts: np.ndarray) -> list[tuple[int, int]]:
    """Bin of the upper bits, and descending index in it, of every quantile."""
    n = int(counts.sum())
    return [locate(counts, n - 1 - int(np.ceil((n - 1) * share - 0.5))) for share in AT] if n else []


def _sides(folder: str, parts: Sequence[str]) -> Iterator[tuple[bool, np.ndarray]]:
    for part in parts:
        table = read_decision(folder, part)
        keep, values = table["keep"].to_numpy(), table["value"].to_numpy()
        yield True, values[keep]
        yield False, values[~keep]
