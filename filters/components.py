"""Connected components of pairs that come in any order, many of them more than once.

Pairs are collected and, when there are many, replaced by the components that they make so far, so memory depends on the
number of things and not on the number of pairs: about 60 bytes a thing, and 300 MB for the pairs in waiting.
"""

from __future__ import annotations

import numpy as np

WAITING = 4_000_000  # pairs


class Components:
    """Things ``0 .. n - 1``, joined pair by pair."""

    def __init__(self, count: int) -> None:
        self._labels = np.arange(count)
        self._pairs: list[tuple[np.ndarray, np.ndarray]] = []
        self._waiting = 0

    def join(self, one: np.ndarray, other: np.ndarray) -> None:
        """Pairs ``(m,)`` of things that belong together."""
        self._pairs.append((one, other))
        self._waiting += len(one)
        if self._waiting >= WAITING:
            self._settle()

    def labels(self) -> np.ndarray:
        """``(n,) int64``: the smallest member of each thing's component."""
        self._settle()
        return self._labels

    def _settle(self) -> None:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not self._pairs:
            return
        n = len(self._labels)
        one = np.concatenate([np.arange(n), *(a for a, _ in self._pairs)])
        other = np.concatenate([self._labels, *(b for _, b in self._pairs)])
        self._pairs, self._waiting = [], 0
        graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(n, n))
        _, component = connected_components(graph.tocsr(), directed=False)
        smallest = np.full(int(component.max(initial=-1)) + 1, n)
        np.minimum.at(smallest, component, np.arange(n))
        self._labels = smallest[component]
