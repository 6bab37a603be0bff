"""Embeddings as float64 unit rows, block by block: what scorers multiply with a few vectors.

Embedding files are float16, whose rounding leaves lengths of 1 +- 0.0005; times a logit scale of 100 that shows. The
products are made in float64, at half the speed of float32, so that a value does not change in its float32 digits with
the rows that stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def unit_blocks(rows: np.ndarray, size: int = 512) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Blocks of at most `size` rows.

    Args:
        rows: ``(n, d)`` floats.

    Yields:
        where the block is, ``(b, d) float64`` unit rows (zeros where a row has no direction), and their lengths before
        that, ``(b,) float64``: 0 for a zero row, NaN for one with NaN or infinity.
    """
    for start in range(0, len(rows), size):
        block = rows[start : start + size].astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            norm = np.sqrt(np.einsum("ij,ij->i", block, block))
        norm[~np.isfinite(norm)] = np.nan
        some = norm > 0
        np.divide(block, norm[:, None], out=block, where=some[:, None])
        block[~some] = 0
        yield slice(start, start + len(block)), block, norm
