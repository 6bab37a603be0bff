"""Cutting a growing sorted list into parts so that what is added somewhere leaves the parts elsewhere alone.

Counting off so many names would move every part behind an addition. Here a part ends where a name's own hash says so:
at the smallest hash among the names that would make it between half full and full. The same names therefore give the
same cuts again soon after an addition, and only the part that it falls into (now and then the next) changes.

Price: parts are three quarters full on average.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def cut(names: Sequence[str], most: int) -> list[tuple[int, int]]:
    """Ranges of at most `most` of the sorted `names`, in order; all but the last hold at least half as many.

    >>> cut(["a", "b", "c"], 3)
    [(0, 3)]
    """
    parts, start = [], 0
    while len(names) - start > most:
        candidates = range(start + max(1, most // 2), start + most + 1)
        end = min(candidates, key=lambda i: _hash(names[i]))
        parts.append((start, end))
        start = end
    return [*parts, (start, len(names))] if len(names) > start else parts


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
