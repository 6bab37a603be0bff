"""Which train samples a probe learns from and chooses on; functions of labels alone, so the same for every model."""

from __future__ import annotations

import numpy as np


def stratified_split(labels: np.ndarray, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit on and rows held out, both ascending.

    Of each class `share` is held out (rounded), at least one sample and not all of them; none of a class with one.
    """
    draw = np.random.Generator(np.random.Philox(key=seed)).random(len(labels))
    order = np.lexsort((draw, labels))
    size = np.bincount(labels)
    place = _place_in_class(size)
    take = np.where(size > 1, np.clip(np.rint(size * share), 1, np.maximum(size - 1, 1)), 0)
    out = np.zeros(len(labels), bool)
    out[order] = place < np.repeat(take, size)
    return np.flatnonzero(~out), np.flatnonzero(out)


def first_per_class(labels: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """The first `k` rows of each class in a drawn order of all rows, ascending (CLIP_benchmark's k-shot).

    A class with fewer samples gives all of them.
    """
    drawn = np.random.Generator(np.random.Philox(key=seed)).permutation(len(labels))
    order = drawn[np.argsort(labels[drawn], kind="stable")]
    return np.sort(order[_place_in_class(np.bincount(labels)) < k])


def short_classes(labels: np.ndarray, k: int, classes: int) -> list[int]:
    """Classes with fewer than `k` samples."""
    return np.flatnonzero(np.bincount(labels, minlength=classes) < k).tolist()


def evenly_spaced(n: int, most: int) -> np.ndarray:
    """At most `most` of `n` rows, evenly spaced, ascending."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def _place_in_class(size: np.ndarray) -> np.ndarray:
    """0, 1, 2... within each class, for rows that are sorted by class."""
    return np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
