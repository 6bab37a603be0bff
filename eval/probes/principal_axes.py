"""Features along the axes of their own spread: what makes linear heads cheap to fit.

One Gram matrix and one eigendecomposition of it (of ``X'X`` with more samples than dimensions, of ``XX'`` otherwise),
in float64. Ridge regression then costs a division per penalty (`ridge.py`), and the logistic loss is well conditioned
for L-BFGS (`logistic.py`). Memory beside the features: one block of rows, and a matrix of the smaller side squared.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...errors import DataError

ROWS = 4096
"""Rows worked on at a time; a constant, because a matrix product's last bit depends on its shape."""


class PrincipalAxes(NamedTuple):
    """The spread of ``n`` features around their mean.

    Attributes:
        mean: ``(d,) float64``.
        values: ``(r,) float64``, eigenvalues of the centred Gram matrix, largest first; only those that are not 0.
        axes: ``(d, r) float64``, orthonormal columns.
    """

    mean: np.ndarray
    values: np.ndarray
    axes: np.ndarray

    def along(self, image: np.ndarray) -> np.ndarray:
        """Coordinates ``(n, r) float32`` of features ``(n, d)``."""
        found = np.empty((len(image), len(self.values)), np.float32)
        for start in range(0, len(image), ROWS):
            found[start : start + ROWS] = (image[start : start + ROWS] - self.mean) @ self.axes
        return found


def principal_axes(image: np.ndarray) -> PrincipalAxes:
    """Axes of ``image (n, d) float32``; n is at least 2.

    Raises:
        DataError: a feature is not a number.
    """
    n, d = image.shape
    mean = image.mean(0, dtype=np.float64)
    if not np.isfinite(mean).all():
        raise DataError("a feature is not a number; the model's embeddings are broken")
    if n < d:
        centred = image - mean
        values, rows = np.linalg.eigh(centred @ centred.T)
        kept = _kept(values, d)
        axes = centred.T @ rows[:, kept]
        return PrincipalAxes(mean, values[kept], axes / np.sqrt(values[kept]))
    gram = np.zeros((d, d))
    for start in range(0, n, ROWS):
        centred = image[start : start + ROWS] - mean
        gram += centred.T @ centred
    values, axes = np.linalg.eigh(gram)
    kept = _kept(values, n)
    return PrincipalAxes(mean, values[kept], axes[:, kept])


def _kept(values: np.ndarray, longer: int) -> np.ndarray:
    """Places of the eigenvalues that are more than rounding, largest first."""
    floor = max(float(values[-1]), 0.0) * longer * np.finfo(np.float64).eps
    return np.flatnonzero(values > floor)[::-1]
