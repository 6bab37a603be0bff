"""`prototypes`: drop what lies closest to the middle of its cluster, the same share of every cluster (D4, SSL
prototypes).

The samples next to a centroid are the ones of which the pool has many alike. D4 (arXiv 2308.12284) is SemDeDup, then
clusters of what is left, then this: a config says ``semantic_dedup`` and below it ``prototypes``, which clusters the
survivors anew. It equals density-based pruning with a uniform rate and ``select: hard``, so that is how it is done.
Quotas are the sizes times the rate, by largest remainders, and sum to the budget exactly.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from .base import FILTERS
from .concept_clusters import WithQuotas
from .quotas import round_quotas


@FILTERS.register
class Prototypes(WithQuotas):
    """Drop the most typical samples of every cluster, the same share of each (D4)."""

    type: Literal["prototypes"] = "prototypes"

    def quotas(self, sizes: np.ndarray, budget: int, complexities: np.ndarray) -> np.ndarray:
        return round_quotas(uniform(sizes, budget), sizes, budget)


def uniform(sizes: np.ndarray, budget: int) -> np.ndarray:
    """``(k,) float64``: the same share of every cluster; whole where it comes out whole."""
    rows = int(sizes.sum())
    return np.array([size * budget / rows for size in sizes.tolist()])  # Python's integers: exact products
