"""The labelled samples of a pool as numbered samples, read where they lie, for the loader that also serves captions."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ..errors import ConfigError, DataError
from ..shards.shard import IMAGE_EXTENSIONS, Shard, succeeded


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


class LabelledDataset:
    """Fetched samples with a label, in pool order; as `dataset.SubsetDataset` with a label in the caption's place.

    Attributes:
        distinct: number of samples; none is repeated.
    """

    def __init__(self, shards: Sequence[Shard], column: str) -> None:
        """
        Args:
            column: of the row tables, with the labels.

        Raises:
            DataError: no sample has a label, or a tar lacks its samples.
        """
        self._tars: list[np.ndarray] = []
        self._names: list[str] = []
        labels: list[str] = []
        places: list[np.ndarray] = []
        digest = hashlib.blake2b(digest_size=16)
        for shard in shards:
            table = shard.read_table(["key", "status", column])
            found = label_texts(table[column], f"column {column!r} of {shard.table}")
            there = [i for i in np.flatnonzero(succeeded(table)).tolist() if found[i] is not None]
            if not there:
                continue
            keys = table["key"].take(pa.array(there)).to_pylist()
            tar = shard.open()
            spans = tar.spans(*IMAGE_EXTENSIONS)
            lost = [key for key in keys if key not in spans]
            if lost:
                raise DataError(f"{shard.tar} lacks {len(lost)} of {len(keys)} labelled samples, such as {lost[0]}")
            place = np.array([(len(self._tars), *spans[key]) for key in keys], np.int64).reshape(-1, 3)
            places.append(place)
            self._tars.append(tar.view())
            self._names.append(shard.name)
            labels += [str(found[i]) for i in there]
            digest.update("\n".join([shard.name, *keys, *(str(found[i]) for i in there), ""]).encode())
        if not places:
            raise DataError(f"no fetched sample has a label in the column {column!r}; nothing to train on")
        self._places = np.concatenate(places)
        self._labels = pa.array(labels, pa.large_string())
        self._digest = digest.hexdigest()
        self.distinct = len(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def identity(self) -> str:
        """32 hexadecimal characters over which samples these are, in which order, with which labels."""
        return self._digest

    def source(self, i: int) -> int:
        """Number of the distinct sample."""
        return i

    def image(self, i: int) -> bytes:
        """The encoded image of sample `i`."""
        tar, offset, size = self._places[i].tolist()
        return self._tars[tar][offset : offset + size].tobytes()

    def caption(self, i: int) -> str:
        """The label of sample `i`."""
        return self._labels[i].as_py()

    def name(self, i: int) -> str:
        """Where sample `i` is, for messages."""
        return f"{self._names[int(self._places[i, 0])]}, sample {i}"
