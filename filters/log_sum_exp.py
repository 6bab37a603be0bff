"""Log-sum-exp along the rows and the columns of ``a b' / tau`` at once, without ever holding the matrix.

The product is made in tiles that stay in cache; one exponential per element serves both directions, since both sums
are of the same numbers. That takes one shift for all of them instead of one per row. A shift by the largest possible
value, 1/tau, would at tau = 0.01 leave ordinary rows (cosines below 0.13) among float32's denormals; here the largest
value is put at the *top* of float32's range, which leaves room down to a cosine of -0.5. A row or column whose sum ends
too close to the bottom is done again in float64 with a maximum of its own, so any tau is right, and an unusual one is
slow. The cost is that of the matrix product and a tenth.

Source: the log-sum-exps of s-CLIPLoss (arXiv 2405.19547, section 3).
"""

from __future__ import annotations

import numpy as np

TILE_ROWS, TILE_COLUMNS = 1024, 512  # 2 MB
TOP = 80.0  # largest exponent: a tile's sum stays below the largest float32, exp(88.7)
LOST = 2.0**-102  # a sum of m terms above m times this has lost less than 2**-24 of itself to underflow
EXACT_VALUES = 2**20


def log_sum_exp_both(a: np.ndarray, b: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """Both log-sum-exps of ``S = a b' / tau``.

    Args:
        a, b: ``(n, d)`` and ``(m, d)`` float32, finite; unit rows for the speed, any for the result.
        tau: temperature, above 0.

    Returns:
        ``(n,) float64``, log sum_j exp S_ij, and ``(m,) float64``, log sum_i exp S_ij.
    """
    n, m = len(a), len(b)
    bound = _longest(a) * _longest(b) / tau
    shift = max(0.0, bound - TOP)
    rows, columns = np.zeros(n), np.zeros(m)
    buffer = np.empty(min(n, TILE_ROWS) * min(m, TILE_COLUMNS), np.float32)
    ones = np.ones(max(TILE_ROWS, TILE_COLUMNS), np.float32)
    for top in range(0, n, TILE_ROWS):
        height = min(TILE_ROWS, n - top)
        for left in range(0, m, TILE_COLUMNS):
            width = min(TILE_COLUMNS, m - left)
            tile = buffer[: height * width].reshape(height, width)
            np.matmul(a[top : top + height], b[left : left + width].T, out=tile)
            tile *= np.float32(1 / tau)
            if shift:
                tile -= np.float32(shift)
            np.exp(tile, out=tile)
            rows[top : top + height] += tile @ ones[:width]
            columns[left : left + width] += ones[:height] @ tile
    shift = float(np.float32(shift))
    return _logarithms(rows, shift, a, b, tau), _logarithms(columns, shift, b, a, tau)


def _longest(rows: np.ndarray) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows).max(initial=0.0)))


def _logarithms(sums: np.ndarray, shift: float, a: np.ndarray, b: np.ndarray, tau: float) -> np.ndarray:
    """Logarithms of the shifted sums; those that underflow (or overflow) may have touched are computed again."""
    sure = (sums > len(b) * LOST) & np.isfinite(sums)
    out = np.log(sums, out=np.empty(len(sums)), where=sure) + shift
    unsure = np.flatnonzero(~sure)
    if len(unsure):
        out[unsure] = log_sum_exp_rows(a[unsure], b, tau)
    return out


def log_sum_exp_rows(a: np.ndarray, b: np.ndarray, tau: float) -> np.ndarray:
    """``(n,) float64``, log sum_j exp(a_i b_j / tau), in float64, each row shifted by its own maximum."""
    out = np.empty(len(a))
    wide = 4096
    step = max(1, EXACT_VALUES // wide)
    for start in range(0, len(a), step):
        block = a[start : start + step].astype(np.float64)
        largest, total = np.full(len(block), -np.inf), np.zeros(len(block))
        for left in range(0, len(b), wide):
            tile = block @ b[left : left + wide].astype(np.float64).T
            tile /= tau
            grown = np.maximum(largest, tile.max(axis=1))
            total *= np.exp(largest - grown)
            tile -= grown[:, None]
            total += np.exp(tile, out=tile).sum(axis=1)
            largest = grown
        out[start : start + len(block)] = largest + np.log(total)
    return out
