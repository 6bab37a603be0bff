"""The labelled samples of a pool as numbered samples with their labels as captions, for trainings by labels alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ..errors import ConfigError, DataError
from ..shards.shard import Shard
from .dataset import SubsetDataset


def label_texts(values: pa.ChunkedArray | pa.Array, where: str) -> list[str | None]:
    """Labels as text: strings as they are, integers and bools as they are written; null stays None.

    Raises:
        ConfigError: the column holds something else.
    """
    kind = values.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean, pa.types.is_null)
    if not any(test(kind) for test in tests):
        raise ConfigError(f"{where} holds {kind}; labels are text, integers or bools")
    return values.cast(kind).cast(pa.string()).to_pylist()


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
