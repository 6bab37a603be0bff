"""How often kept rows are repeated: one bar per multiplicity, ranges where there are many."""

from __future__ import annotations

from collections.abc import Mapping

SINGLE = 10  # different multiplicities up to which each has a bar


def repeat_bars(repeats: Mapping[int, int]) -> list[tuple[str, int]]:
    """Label and rows of every bar, the smallest multiplicity first; ranges end at powers of two."""
    if len(repeats) <= SINGLE:
        return [(f"{times}×", rows) for times, rows in sorted(repeats.items())]
    bars: dict[int, int] = {}
    for times, rows in sorted(repeats.items()):
        last = 1 << (times - 1).bit_length()
        bars[last] = bars.get(last, 0) + rows
    return [(f"{last}×" if last < 3 else f"{last // 2 + 1}–{last}×", rows) for last, rows in bars.items()]
