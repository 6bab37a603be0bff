"""A subset of the pool as numbered samples, read where it lies: nothing is written again for training.

Opening walks each tar's headers once and keeps 20 bytes per sample and its caption; images are slices of the mapped
tars. Everything that would stop a training later (no samples, no captions, a tar that lacks its samples) is found here,
before the first step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..errors import DataError
from ..shards.shard import IMAGE_EXTENSIONS, Shard, succeeded

Selection = np.ndarray
"""Row numbers of one shard, ``(m,) int64``; a row that is named twice is seen twice as often."""


@dataclass(frozen=True)
class _Part:
    """The distinct rows of one shard that are trained on."""

    name: str
    tar: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    keys: list[str]
    captions: pa.Array


class SubsetDataset:
    """Samples of a subset in pool order, with repeats.

    Attributes:
        without_caption: rows that were selected but have no caption; they cannot be trained on and are left out.
        distinct: number of different rows.
    """

    def __init__(self, shards: Sequence[Shard], selections: Sequence[Selection] | None = None) -> None:
        """
        Args:
            shards: of the pool.
            selections: one per shard; default: every fetched sample once.

        Raises:
            DataError: nothing to train on, or a tar that lacks samples.
        """
        if selections is None:
            selections = [np.flatnonzero(succeeded(shard.read_table(["status"]))) for shard in shards]
        self._parts: list[_Part] = []
        self.without_caption = 0
        sources: list[np.ndarray] = []  # per sample: number of its distinct row
        self.distinct = 0
        for shard, selection in zip(shards, selections, strict=True):
            rows, place = np.unique(np.asarray(selection, np.int64), return_inverse=True)
            if not len(rows):
                continue
            part, captioned = _open(shard, rows)
            number = np.cumsum(captioned) - 1 + self.distinct
            sources.append(number[place][captioned[place]])
            self.without_caption += int((~captioned).sum())
            self.distinct += len(part.keys)
            if part.keys:
                self._parts.append(part)
        self._source = np.concatenate(sources) if sources else np.empty(0, np.int64)
        self._ends = np.cumsum([len(part.keys) for part in self._parts])
        if not len(self._source):
            if self.without_caption:
                raise DataError(
                    f"none of the {self.without_caption} selected samples has a caption; nothing to train on"
                )
            raise DataError("the subset is empty; nothing to train on")

    def __len__(self) -> int:
        """Samples per epoch, repeats included."""
        return len(self._source)

    def identity(self) -> str:
        """32 hexadecimal characters over which samples these are, in which order."""
        digest = hashlib.blake2b(self._source.tobytes(), digest_size=16)
        for part in self._parts:
            digest.update("\n".join([part.name, *part.keys, ""]).encode())
        return digest.hexdigest()

    def source(self, i: int) -> int:
        """Number of the distinct row behind sample `i`: equal for its repeats."""
        return int(self._source[i])

    def image(self, i: int) -> bytes:
        """The encoded image of sample `i`."""
        part, row = self._find(i)
        return part.tar[part.offset[row] : part.offset[row] + part.size[row]].tobytes()

    def caption(self, i: int) -> str:
        """The caption of sample `i`."""
        part, row = self._find(i)
        return part.captions[row].as_py()

    def name(self, i: int) -> str:
        """``shard/key`` of sample `i`, for messages."""
        part, row = self._find(i)
        return f"{part.name}/{part.keys[row]}"

    def _find(self, i: int) -> tuple[_Part, int]:
        number = self._source[i]
        p = int(np.searchsorted(self._ends, number, "right"))
        return self._parts[p], int(number - (self._ends[p - 1] if p else 0))


def _open(shard: Shard, rows: np.ndarray) -> tuple[_Part, np.ndarray]:
    """The captioned ones of the shard's `rows` (ascending), and a mask ``(len(rows),)`` of them."""
    names = shard.column_names()
    if "caption" not in names:
        raise DataError(f"{shard.table} has no column 'caption'; there is nothing to train on")
    table = shard.read_table(["key", "caption"]).take(rows)
    captions = table["caption"].cast(pa.large_string()).combine_chunks()
    captioned = ~np.asarray(captions.is_null())
    keys = [key for key, good in zip(table["key"].to_pylist(), captioned, strict=True) if good]
    tar = shard.open()
    spans = tar.spans(*IMAGE_EXTENSIONS)
    lost = [key for key in keys if key not in spans]
    if lost:
        torn = f" ({tar.torn})" if tar.torn else ""
        raise DataError(f"{shard.tar}{torn} lacks {len(lost)} of {len(keys)} selected samples, such as {lost[0]}")
    where = np.array([spans[key] for key in keys], np.int64).reshape(-1, 2)
    part = _Part(shard.name, tar.view(), where[:, 0], where[:, 1], keys, captions.drop_null())
    return part, captioned
