"""Features of pictures that were met before in an evaluation, found by the hash of the picture's bytes.

Memory holds the features of the latest split, and up to `REMEMBERED` bytes of those of earlier splits; what is older is
forgotten, and embedded again if it is met again. The arrays are those of the splits themselves: nothing is copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from .feature_cache import Chunk

REMEMBERED = 1 << 30
"""Bytes of features of earlier splits, of all models together."""


class SeenPictures:
    """Features of one model by the hash of the picture, of the latest splits."""

    def __init__(self, limit: int) -> None:
        """
        Args:
            limit: bytes of features that are remembered; the latest split is remembered in any case.
        """
        self._limit, self._next = limit, 0
        self._splits: deque[tuple[int, np.ndarray, np.ndarray | None, list[bytes]]] = deque()
        self._by_number: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}
        self._place: dict[bytes, tuple[int, int]] = {}
        self._ahead: dict[bytes, tuple[np.ndarray, np.float32]] = {}

    def __contains__(self, name: bytes) -> bool:
        return name in self._place or name in self._ahead

    def remember(self, names: Sequence[bytes], image: np.ndarray, norms: np.ndarray | None) -> None:
        """Pictures of splits that are still to come, until those come. What is not a number is embedded again then,
        and told with its name."""
        for row, name in enumerate(names):
            if np.isfinite(image[row]).all():
                self._ahead[name] = image[row].copy(), np.float32(0 if norms is None else norms[row])

    def segment(self, image: np.ndarray, norms: np.ndarray | None) -> Callable[[np.ndarray, np.ndarray], None]:
        """A new split, whose features will be written to `image`; call the result with hashes and rows that were."""
        number, names = self._next, []
        self._next += 1
        self._splits.append((number, image, norms, names))
        self._by_number[number] = image, norms
        while len(self._splits) > 1 and sum(one.nbytes for _, one, _, _ in self._splits) > self._limit:
            oldest, *_, forgotten = self._splits.popleft()
            del self._by_number[oldest]
            for name in forgotten:
                del self._place[name]

        def add(content: np.ndarray, rows: np.ndarray) -> None:
            for name, row in zip(_names(content), rows.tolist(), strict=True):
                self._ahead.pop(name, None)
                if name not in self._place:
                    self._place[name] = number, row
                    names.append(name)

        return add

    def fill(self, content: np.ndarray, at: dict[bytes, int], fresh: Chunk) -> Chunk:
        """The chunk of pictures `content`, of which those in `at` lie in `fresh`, and the others were seen."""
        image = np.empty((len(content), fresh.image.shape[1]), np.float32)
        norms = None if fresh.norms is None else np.empty(len(content), np.float32)
        for row, name in enumerate(_names(content)):
            if name in at:
                source, lengths, place = fresh.image, fresh.norms, at[name]
            elif name in self._place:
                number, place = self._place[name]
                source, lengths = self._by_number[number]
            else:
                image[row], length = self._ahead[name]
                if norms is not None:
                    norms[row] = length
                continue
            image[row] = source[place]
            if norms is not None and lengths is not None:
                norms[row] = lengths[place]
        return Chunk(image, norms, content)


def _names(content: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in content]
