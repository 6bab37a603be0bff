"""Inner products of many rows with many others, tile by tile, the same whatever rows stand beside.

A matrix product rounds a row differently according to where in the matrix it stands. So the float32 product only
nominates: pairs that rounding cannot tell from the wanted ones are computed again in float64. The price is a pass over
each tile while it is in cache, a tenth of the product's time at 512 dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

TILE_ROWS, TILE_COLUMNS = 1024, 512
PAIRS = 4096  # recomputed at a time


def _doubt(dimensions: int) -> np.float32:
    """Twice the worst error of a float32 product of unit rows."""
    return np.float32(2 * (dimensions + 2) * np.finfo(np.float32).eps)


def _tiles(rows: np.ndarray, others: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    buffer = np.empty(TILE_ROWS * TILE_COLUMNS, np.float32)
    for top in range(0, len(rows), TILE_ROWS):
        some = rows[top : top + TILE_ROWS]
        for left in range(0, len(others), TILE_COLUMNS):
            more = others[left : left + TILE_COLUMNS]
            tile = buffer[: len(some) * len(more)].reshape(len(some), len(more))
            np.matmul(some, more.T, out=tile)
            yield slice(top, top + len(some)), slice(left, left + len(more)), tile


def _exact(rows: np.ndarray, i: np.ndarray, others: np.ndarray, j: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Products ``<rows[i], others[j]>`` in float64, some pairs at a time."""
    for start in range(0, len(i), PAIRS):
        pairs = slice(start, start + PAIRS)
        a, b = rows[i[pairs]].astype(np.float64), others[j[pairs]].astype(np.float64)
        yield pairs, np.einsum("ij,ij->i", a, b)


def raise_to_largest(best: np.ndarray, rows: np.ndarray, others: np.ndarray) -> None:
    """Raise `best` to the largest product of each row with any of `others`, in place.

    Args:
        best: ``(n,) float64``, -inf to begin with.
        rows, others: ``(n, d)`` and ``(m, d) float32`` unit rows.
    """
    doubt = _doubt(rows.shape[1])
    for at, left, tile in _tiles(rows, others):
        mine = best[at]
        largest = tile.max(axis=1)
        above = np.flatnonzero(largest >= mine - doubt)
        if not len(above):
            continue
        limit = np.maximum(largest[above], mine[above]) - doubt
        row, column = np.nonzero(tile[above] >= limit[:, None])
        row = above[row]
        for pairs, exact in _exact(rows[at], row, others[left], column):
            np.maximum.at(mine, row[pairs], exact)


def pairs_at_least(rows: np.ndarray, others: np.ndarray, limit: np.float32) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places ``(m,)`` of rows and others whose product, rounded to float32, is at least `limit`."""
    doubt = _doubt(rows.shape[1])
    for at, left, tile in _tiles(rows, others):
        row, column = np.nonzero(tile >= limit - doubt)
        for pairs, exact in _exact(rows[at], row, others[left], column):
            near = exact.astype(np.float32) >= limit
            yield row[pairs][near] + at.start, column[pairs][near] + left.start
