"""The encoded images of some rows of one shard: slices of the mapped tar, or ranged reads of a remote one.

Price: 16 bytes per row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from ...errors import DataError
from ...shards import storage
from ...shards.shard import IMAGE_EXTENSIONS, Shard
from ...shards.tar import TarReader
from ...shards.tar_index import IndexedTar, TarIndex

if TYPE_CHECKING:
    from .remote_shards import RemoteCache


class ShardImages(Protocol):
    """Encoded images by number."""

    def read(self, i: int) -> bytes: ...


class MappedImages:
    """Images of a local tar."""

    def __init__(self, tar: np.ndarray, offset: np.ndarray, size: np.ndarray) -> None:
        self._tar, self._offset, self._size = tar, offset, size

    def read(self, i: int) -> bytes:
        """The bytes of image `i`, copied out of the mapping."""
        start = int(self._offset[i])
        return self._tar[start : start + int(self._size[i])].tobytes()


def open_images(shard: Shard, rows: np.ndarray, keys: pa.Array, cache: RemoteCache | None = None) -> ShardImages:
    """The images of rows of a shard.

    Args:
        rows: ascending numbers in the row table.
        keys: of those rows.
        cache: of remote shards; default: one that all datasets of the process share.

    Raises:
        DataError: the tar lacks some of them.
    """
    if not storage.is_local(shard.tar):
        from . import remote_shards

        index = remote_shards.open_index(shard)
        offset, size = indexed_spans(index, rows, keys)
        _require(shard, None, keys, offset)
        return remote_shards.RemoteImages(shard.tar, offset, size, cache)
    tar = shard.open()
    if isinstance(tar, IndexedTar):
        offset, size = indexed_spans(tar.index, rows, keys)
    else:
        spans = tar.spans(*IMAGE_EXTENSIONS)
        where = [spans.get(key, (-1, 0)) for key in keys.to_pylist()]
        offset, size = np.array(where, np.int64).reshape(-1, 2).T
    _require(shard, tar, keys, offset)
    return MappedImages(tar.view(), np.ascontiguousarray(offset), np.ascontiguousarray(size))


def indexed_spans(index: TarIndex, rows: np.ndarray, keys: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Offset and size in the tar of the images of `rows`, ``(n,) int64`` each; offset -1 = not there."""
    offset, size = index.walk.members.located(*IMAGE_EXTENSIONS)
    known = np.flatnonzero(index.rows >= 0)
    places = np.full(max(int(rows.max(initial=-1)), int(index.rows.max(initial=-1))) + 1, -1, np.int64)
    places[index.rows[known]] = known
    place = places[rows]
    for i in np.flatnonzero(place < 0).tolist():  # an index that was made without the table
        found = index.find(keys[i].as_py())
        place[i] = -1 if found is None else found
    return np.where(place >= 0, offset[place], -1), np.where(place >= 0, size[place], 0)


def _require(shard: Shard, tar: TarReader | None, keys: pa.Array, offset: np.ndarray) -> None:
    lost = np.flatnonzero(offset < 0)
    if len(lost):
        torn = f" ({tar.torn})" if tar is not None and tar.torn else ""
        raise DataError(
            f"{shard.tar}{torn} lacks {len(lost)} of {len(keys)} selected samples, such as {keys[int(lost[0])].as_py()}"
        )
