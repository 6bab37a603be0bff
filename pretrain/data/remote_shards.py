"""Images of shards on an object store: ranged reads of many neighbours at a time, kept on local disk while they last.

A tar's index tells where every image lies. Images that lie close together are fetched as one range of up to 8 MiB,
and the ranges are kept, in unnamed temporary files, until a bound is reached and the one that was used longest ago
goes. The order of a training (`order.py`) reads a window of 65,536 samples from 512 places, so with room for a window
each byte is fetched once per epoch; with less, ranges are fetched again. A failed read is tried again after a pause;
what lies in the range is compared with the index by a member's header.

Price: every process fetches what its share of the batches touches. Several processes on one machine do not share, and
together read each range up to as many times as there are processes.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import OrderedDict
from typing import IO

import numpy as np

from ...errors import DataError, StorageError
from ...shards import storage
from ...shards.shard import Shard
from ...shards.tar import TarReader
from ...shards.tar_header import BLOCK, MAX_OCTAL, is_header, size_of
from ...shards.tar_index import TarIndex, index_path

RANGE_BYTES = 8 << 20  # fetched at a time, at most (a larger image is fetched whole)
GAP_BYTES = 1 << 18  # between two images that are fetched together: what a request costs, in bytes
CACHE_BYTES = 4 << 30
RETRIES = 4
_PAUSE_S = 0.5  # before the first retry, doubled for each further one


class RemoteCache:
    """Ranges of remote files in unnamed local files, the most recently used ones up to a number of bytes.

    Attributes:
        fetched_bytes, requests: so far.
    """

    def __init__(self, limit: int = CACHE_BYTES, pause_s: float = _PAUSE_S) -> None:
        self._limit, self._pause = limit, pause_s
        self._kept: OrderedDict[tuple[str, int], IO[bytes]] = OrderedDict()
        self._sizes: dict[tuple[str, int], int] = {}
        self._busy: dict[tuple[str, int], threading.Event] = {}
        self._lock = threading.Lock()
        self._used = self.fetched_bytes = self.requests = 0

    def read(self, url: str, start: int, stop: int, offset: int, size: int) -> bytes:
        """``size`` bytes at `offset` of a file, by way of the range ``start..stop`` that holds them.

        Raises:
            StorageError: it cannot be read, after several tries.
        """
        key = (url, start)
        while True:
            with self._lock:
                file = self._kept.get(key)
                if file is not None:
                    self._kept.move_to_end(key)
                    return os.pread(file.fileno(), size, offset - start)
                event = self._busy.get(key)
                if event is None:
                    mine = self._busy[key] = threading.Event()
                    break
            event.wait()
        try:
            data = self._fetch(url, start, stop)
            self._keep(key, data)
        finally:
            with self._lock:
                del self._busy[key]
            mine.set()
        return data[offset - start : offset - start + size]

    def _fetch(self, url: str, start: int, stop: int) -> bytes:
        fs, path = storage.url_to_fs(url)
        for attempt in range(RETRIES + 1):
            try:
                data = fs.cat_file(path, start=start, end=stop)
                if len(data) == stop - start:
                    with self._lock:
                        self.requests += 1
                        self.fetched_bytes += len(data)
                    return data
                reason = f"{len(data)} bytes came instead of {stop - start}"
            except FileNotFoundError as error:
                raise StorageError(f"{url} is not there any more") from error
            except Exception as error:  # noqa: BLE001  (each file system has errors of its own; told below)
                reason = str(error) or type(error).__name__
            if attempt < RETRIES:
                time.sleep(self._pause * 2**attempt)
        raise StorageError(f"cannot read bytes {start} to {stop} of {url}, tried {RETRIES + 1} times: {reason}")

    def _keep(self, key: tuple[str, int], data: bytes) -> None:
        if len(data) > self._limit:
            return
        file = tempfile.TemporaryFile(prefix="curate-range-")  # noqa: SIM115  (closed when it is let go)
        file.write(data)
        file.flush()
        with self._lock:
            self._kept[key], self._sizes[key] = file, len(data)
            self._used += len(data)
            while self._used > self._limit:
                oldest, old = self._kept.popitem(last=False)
                self._used -= self._sizes.pop(oldest)
                old.close()


_SHARED: list[RemoteCache] = []


def shared_cache() -> RemoteCache:
    """The cache of this process."""
    if not _SHARED:
        _SHARED.append(RemoteCache())
    return _SHARED[0]


class RemoteImages:
    """Images of a remote tar. See `shard_images.ShardImages`."""

    def __init__(self, url: str, offset: np.ndarray, size: np.ndarray, cache: RemoteCache | None = None) -> None:
        """
        Args:
            offset, size: of the images in the tar, ``(n,) int64`` bytes.
            cache: default: `shared_cache`.
        """
        self.url, self._offset, self._size = url, offset, size
        self._cache = cache or shared_cache()
        self._range, self._start, self._stop = ranges(offset - BLOCK, offset + size)
        self._checked: set[int] = set()

    def read(self, i: int) -> bytes:
        """The bytes of image `i`.

        Raises:
            DataError: something else lies there. StorageError: it cannot be read.
        """
        r = int(self._range[i])
        start, stop = int(self._start[r]), int(self._stop[r])
        offset, size = int(self._offset[i]), int(self._size[i])
        data = self._cache.read(self.url, start, stop, offset - BLOCK, size + BLOCK)
        if r not in self._checked:
            header = data[:BLOCK]
            if not is_header(header) or size_of(header) != (size if size < MAX_OCTAL else 0):
                raise DataError(f"{self.url}: no member of {size} bytes at byte {offset}; index it again")
            self._checked.add(r)
        return data[BLOCK:]


def ranges(
    begin: np.ndarray, end: np.ndarray, most: int = RANGE_BYTES, gap: int = GAP_BYTES
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spans of bytes -> ranges to fetch them by.

    Args:
        begin, end: ``(n,) int64``, in any order.
        most: bytes of a range, unless one span is larger.
        gap: the largest hole in a range.

    Returns:
        Number of each span's range ``(n,)``, and where the ranges begin and end.
    """
    by_place = np.argsort(begin, kind="stable")
    number = np.empty(len(begin), np.int64)
    starts: list[int] = []
    stops: list[int] = []
    sorted_begin, sorted_end = begin[by_place].tolist(), end[by_place].tolist()
    for at, (low, high) in enumerate(zip(sorted_begin, sorted_end, strict=True)):
        if not starts or low - stops[-1] > gap or max(high, stops[-1]) - starts[-1] > most:
            starts.append(low)
            stops.append(high)
        stops[-1] = max(stops[-1], high)
        number[by_place[at]] = len(starts) - 1
    return number, np.array(starts, np.int64), np.array(stops, np.int64)


def open_index(shard: Shard) -> TarIndex:
    """The index of a remote tar: the one that was kept, if the tar has still its size; else from one download of it.

    Raises:
        StorageError: the tar cannot be read.
    """
    path = shard.index or index_path(shard.tar)
    fs, remote = storage.url_to_fs(shard.tar)
    try:
        found = TarIndex.open(path)
        if found.facts["tar_bytes"] == str(int(fs.size(remote))):
            return found
    except (OSError, DataError):  # none, unreadable, or not one
        pass
    handle, copy = tempfile.mkstemp(prefix="curate-tar-")
    os.close(handle)
    try:
        fs.get_file(remote, copy)
        found = TarIndex.build(TarReader(copy), shard.table)
    except Exception as error:  # each file system has errors of its own
        raise StorageError(f"cannot read {shard.tar}: {error}") from error
    finally:
        os.unlink(copy)
    try:
        found.save(path)
    except Exception:  # noqa: BLE001  (read-only, in whatever words: the next reader downloads the tar again)
        pass
    return found
