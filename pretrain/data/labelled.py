"""The labelled samples of a pool as numbered samples with their labels as captions, for trainings by labels alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import DataError
from ...shards.shard import Shard
from .dataset import SubsetDataset


class LabelledDataset(SubsetDataset):
    """Fetched samples with a label, in pool order; the caption of each is its label (the first of several)."""

    def __init__(self, shards: Sequence[Shard], column: str) -> None:
        """
        Args:
            column: of the row tables, with the labels.

        Raises:
            DataError: no sample has a label, or a tar lacks its samples.
        """
        try:
            super().__init__(shards, captions=None, labels=column)
        except DataError as error:
            if "nothing to train on" not in str(error):
                raise
            raise DataError(f"no fetched sample has a label in the column {column!r}; nothing to train on") from error

    def caption(self, i: int) -> str:
        """The label of sample `i`."""
        return self.classes[int(self.labels(np.array([i]))[1][0])]

    def texts(self, samples: np.ndarray, seed: int, positions: np.ndarray) -> list[str | None]:
        """The label of each sample."""
        return [self.caption(i) for i in samples.tolist()]
