"""Which of several duplicates stays: the one that a column says is best, then the smallest uid.

A row's place is a function of the row, never of where it lies: `prefer` largest first, rows without a number last, then
uid. Reducers get their rows in uid order, so a stable sort by preference is all that is left to do.
"""

from __future__ import annotations

import numpy as np

from .base import Part, numbers

SIGN = np.uint64(1) << np.uint64(63)


def preference(part: Part, column: str | None) -> dict[str, np.ndarray]:
    """What a reducer needs to put the alive rows in order: ``prefer``, ``(n,) uint64``, smallest first; or nothing.

    Raises:
        DataError: the column does not hold numbers.
    """
    return {} if column is None else {"prefer": largest_first(numbers(part, column, np.float64))}


def largest_first(values: np.ndarray) -> np.ndarray:
    """``(n,) float64`` as uint64 that sort the other way round, NaN last; exact."""
    bits = (values + 0.0).view(np.uint64)  # -0.0 + 0.0 is 0.0: the two zeros are equal
    rising = np.where(bits & SIGN, ~bits, bits | SIGN)
    return np.where(np.isnan(values), ~np.uint64(0), ~rising)


def best_first(rows: dict[str, np.ndarray], tie: np.ndarray) -> np.ndarray:
    """Order of a reducer's rows.

    Args:
        rows: ``uids``, ascending, and ``prefer`` if there is one.
        tie: ``(n,)``, settles rows of equal preference and uid (a repeated uid), so that no place in the pool does.
    """
    uids, prefer = rows["uids"], rows.get("prefer")
    if (uids[1:] == uids[:-1]).any():
        keys = (tie, uids["f1"], uids["f0"])
        return np.lexsort(keys if prefer is None else (*keys, prefer))
    return np.arange(len(uids)) if prefer is None else np.argsort(prefer, kind="stable")
