"""What the loader asks of a data set: numbered samples with an image each, captions and labels where there are some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Samples(Protocol):
    """A data set: one subset, or a mixture of several.

    Attributes:
        distinct: number of different samples.
        without_caption: selected rows that nothing can be learned from, and that were left out.
        classes: names of the classes that label numbers count; empty without labels.
    """

    distinct: int
    without_caption: int

    @property
    def classes(self) -> Sequence[str]: ...

    def __len__(self) -> int:
        """Samples per epoch, repeats included."""
        ...

    def identity(self) -> str:
        """32 hexadecimal characters over which samples these are, in which order."""
        ...

    def order(self, seed: int, start: int, stop: int) -> np.ndarray:
        """Samples at positions ``start..stop-1`` of a training, ``(stop - start,) int64``."""
        ...

    def substitute(self, i: int, word: int) -> int:
        """A sample that may stand in for sample `i`, drawn by a uniform 64-bit word."""
        ...

    def source(self, i: int) -> int:
        """Number of the distinct sample behind sample `i`: equal for its repeats."""
        ...

    def image(self, i: int) -> bytes:
        """The encoded image of sample `i`."""
        ...

    def name(self, i: int) -> str:
        """``shard/key`` of sample `i`, for messages."""
        ...

    def texts(self, samples: np.ndarray, seed: int, positions: np.ndarray) -> list[str | None]:
        """The caption of each sample at its position in the training; None = it has none."""
        ...

    def labels(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class numbers of ``samples (b,)``: rows ``(k,) int64`` ascending in 0..b-1, and ids ``(k,) int64``."""
        ...
