"""A tar's index, kept in a file: any sample by key, uid or row without walking the tar, also over the network.

One walk writes it; after that opening a shard maps the index (Arrow IPC, uncompressed, so nothing is parsed or copied)
and a lookup is a binary search in sorted hashes. A tar on an object store is read member by member: one range request
each, nothing else is fetched.

An index knows its tar by size, both ends and 16 of its headers, and its row table by size and footer. One that does not
fit is made again, so it is a cache that can always be deleted. It is never called ``*.json``: img2dataset would take it
for one of its own.

Price: about 60 bytes per sample and 20 per member on the disk; a tar whose payloads were changed in place, sizes and
headers left as they were, passes for the same tar.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError, StorageError
from . import storage
from .storage import url_to_fs
from .tar import TarReader, mapped
from .tar_header import BLOCK, MAX_OCTAL, is_header, size_of
from .tar_walk import Members, Walk
from .uid import RECORD, argsort, to_records

SUFFIX = ".index.arrow"
VERSION = "1"
_ENDS = 4096  # bytes of both ends of the tar that are looked at
_HEADERS = 16  # members whose headers are looked at


def index_path(tar: str, folder: str | None = None) -> str:
    """Where the index of a tar lies: beside it, or in a folder of its own."""
    stem = tar.removesuffix(".tar")
    return (storage.join(folder, stem.rsplit("/", 1)[-1]) if folder else stem) + SUFFIX


def key_hash(key: str) -> int:
    """64 bits of a key, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class TarIndex:
    """The index of one tar.

    Attributes:
        walk: what the walk found, read from the file.
        uids: ``(n,)`` records of `shards.uid.RECORD`, or None when the samples have none.
        rows: ``(n,) int32`` row of each sample in the row table, -1 = none.
        facts: sizes and identities of the tar and the table.
    """

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        facts = {k.decode(): v.decode() for k, v in (batch.schema.metadata or {}).items()}
        if facts.get("version") != VERSION:
            raise ValueError(f"index version {facts.get('version')!r}")
        self.facts = facts
        members = batch["members"]
        inner = members.values
        first = members.offsets.to_numpy()
        self.walk = Walk(
            Members(
                batch["key"],
                first,
                inner.field("kind").to_numpy(),
                inner.field("offset").to_numpy(),
                inner.field("size").to_numpy(),
                json.loads(facts["extensions"]),
            ),
            facts["torn"] or None,
            Counter(json.loads(facts["passed_over"])),
        )
        self.rows: np.ndarray = batch["row"].to_numpy()
        self.uids: np.ndarray | None = None
        if facts["uids"] == "yes":
            self.uids = np.frombuffer(batch["uid"].buffers()[1], RECORD, len(batch))

    @classmethod
    def build(cls, tar: TarReader, table: str | None = None) -> TarIndex:
        """The index of a tar that was walked, with uids and rows from its row table if there is one.

        Raises:
            DataError: a uid in the table is not hexadecimal.
        """
        m = tar.members
        n = len(m)
        rows, uids = _from_table(m.keys, table)
        hashes = np.array([key_hash(key) for key in m.keys], np.uint64)
        by_key = np.argsort(hashes, kind="stable")
        records = uids if uids is not None else np.zeros(n, RECORD)
        by_uid = argsort(records)
        members = pa.ListArray.from_arrays(
            pa.array(m.first, pa.int32()),
            pa.StructArray.from_arrays(
                [pa.array(m.kind, pa.int32()), pa.array(m.offset, pa.int64()), pa.array(m.size, pa.int64())],
                ["kind", "offset", "size"],
            ),
        )
        columns = {
            "key": pa.array(m.keys, pa.string()),
            "uid": pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), n, [None, pa.py_buffer(records.tobytes())]),
            "row": pa.array(rows, pa.int32()),
            "members": members,
            "key_hash": pa.array(hashes[by_key]),
            "key_order": pa.array(by_key, pa.int32()),
            "uid_high": pa.array(records["f0"][by_uid]),
            "uid_order": pa.array(by_uid, pa.int32()),
        }
        data = tar.view()
        facts = {
            "version": VERSION,
            "tar_bytes": str(len(data)),
            "tar": tar_identity(data, m),
            "table": table_identity(table),
            "uids": "no" if uids is None else "yes",
            "torn": tar.torn or "",
            "passed_over": json.dumps(tar.passed_over),
            "extensions": json.dumps(m.extensions),
        }
        batch = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
        return cls(batch.replace_schema_metadata(facts))

    @classmethod
    def open(cls, path: str) -> TarIndex:
        """Map an index file.

        Raises:
            DataError: it is no index, or one of another version.
            FileNotFoundError: there is none.
        """
        try:
            with pa.memory_map(storage.local(path)) as file:
                return cls(pa.ipc.open_file(file).get_batch(0))
        except (pa.ArrowException, ValueError, KeyError) as error:
            raise DataError(f"{path}: not an index of a tar ({error}); delete it") from error

    def save(self, path: str) -> None:
        """Publish the index; the same tar and table always give the same bytes."""
        with (
            storage.publishing(path) as temporary,
            pa.OSFile(temporary, "wb") as file,
            pa.ipc.new_file(file, self._batch.schema) as writer,
        ):
            writer.write_batch(self._batch)

    def __len__(self) -> int:
        return len(self.walk.members)

    def find(self, key: str) -> int | None:
        """Place of a sample, by key; None when it is not there."""
        hashed, hashes, names = np.uint64(key_hash(key)), self._key_hash, self.walk.members.names
        at = int(np.searchsorted(hashes, hashed))
        while at < len(hashes) and hashes[at] == hashed:
            place = int(self._key_order[at])
            if names[place].as_py() == key:
                return place
            at += 1
        return None

    def find_uid(self, uid: str) -> list[int]:
        """Places of the samples with a uid (hexadecimal text), in file order."""
        if self.uids is None:
            return []
        record = to_records([uid])[0]
        low, high = (
            np.searchsorted(self._uid_high, record["f0"], "left"),
            np.searchsorted(self._uid_high, record["f0"], "right"),
        )
        places = self._uid_order[low:high]
        return sorted(places[self.uids["f1"][places] == record["f1"]].tolist())

    def find_row(self, row: int) -> int | None:
        """Place of the sample of a row of the row table; None when the row has no sample."""
        place = int(self._by_row[row]) if 0 <= row < len(self._by_row) else -1
        return place if place >= 0 else None

    @cached_property
    def _key_hash(self) -> np.ndarray:
        return self._batch["key_hash"].to_numpy()

    @cached_property
    def _key_order(self) -> np.ndarray:
        return self._batch["key_order"].to_numpy()

    @cached_property
    def _uid_high(self) -> np.ndarray:
        return self._batch["uid_high"].to_numpy()

    @cached_property
    def _uid_order(self) -> np.ndarray:
        return self._batch["uid_order"].to_numpy()

    @cached_property
    def _by_row(self) -> np.ndarray:
        places = np.full(int(self.rows.max(initial=-1)) + 1, -1, np.int32)
        known = np.flatnonzero(self.rows >= 0)
        places[self.rows[known]] = known
        return places

    def fits(self, data: np.ndarray, table: str | None) -> bool:
        """Whether it is the index of this tar (its bytes, mapped) and this row table."""
        return (
            str(len(data)) == self.facts["tar_bytes"]
            and self.facts["tar"] == tar_identity(data, self.walk.members)
            and self.facts["table"] == table_identity(table)
        )


class IndexedTar(TarReader):
    """A `TarReader` that did not walk: its members come from an index."""

    def __init__(self, path: str, data: Any, index: TarIndex) -> None:
        self.path, self._map, self.index = path, data, index
        self._found(index.walk)

    def number(self, key: str) -> int | None:
        return self.index.find(key)


def open_indexed(tar: str, index: str, table: str | None = None) -> IndexedTar:
    """Open a tar through its index; makes and keeps the index if there is none, or none that fits.

    Where the index cannot be written (read-only storage), it serves this reader only.
    """
    data = mapped(tar)
    try:
        found = TarIndex.open(index)
        if found.fits(np.frombuffer(data, np.uint8), table):
            return IndexedTar(tar, data, found)
    except (OSError, DataError):  # none, unreadable, or not one
        pass
    found = TarIndex.build(TarReader(tar), table)
    try:
        found.save(index)
    except (OSError, StorageError):  # it is a cache: without it the next reader walks again
        pass
    return IndexedTar(tar, data, found)


class RemoteTar:
    """Members of a tar on any fsspec file system by range requests, given its index.

    Raises:
        DataError: the tar's size is not the one that the index knows.
    """

    def __init__(self, url: str, index: TarIndex) -> None:
        self.url, self.index = url, index
        self._fs, self._path = url_to_fs(url)
        size = int(self._fs.size(self._path))
        if str(size) != index.facts["tar_bytes"]:
            raise DataError(f"{url} has {size} bytes, its index is of {index.facts['tar_bytes']}; index it again")

    def read(self, key: str, *extensions: str) -> bytes | None:
        """Bytes of the first of `extensions` that the sample has, or None; one request.

        Raises:
            DataError: what lies there is not the member that the index tells of.
        """
        place = self.index.find(key)
        return None if place is None else self.read_at(place, *extensions)

    def read_at(self, place: int, *extensions: str) -> bytes | None:
        """As `read`, by the sample's place in the tar (see `TarIndex.find_uid` and `find_row`)."""
        m = self.index.walk.members
        for extension in extensions:
            for j in range(int(m.first[place]), int(m.first[place + 1])):
                if m.extensions[m.kind[j]] == extension:
                    return self._member(int(m.offset[j]), int(m.size[j]))
        return None

    def _member(self, offset: int, size: int) -> bytes:
        data = self._fs.cat_file(self._path, start=offset - BLOCK, end=offset + size)  # the header comes along
        header = data[:BLOCK]
        if len(data) != BLOCK + size or not is_header(header) or size_of(header) != (size if size < MAX_OCTAL else 0):
            raise DataError(f"{self.url}: no member of {size} bytes at byte {offset}; index it again")
        return data[BLOCK:]


def tar_identity(data: np.ndarray, members: Members) -> str:
    """Hash of a tar's size, both ends and some headers, 32 hexadecimal characters; about 30 KB are read."""
    digest = hashlib.blake2b(str(len(data)).encode(), digest_size=16)
    digest.update(data[:_ENDS].tobytes() + data[-_ENDS:].tobytes())
    if len(members.offset):
        for j in np.linspace(0, len(members.offset) - 1, _HEADERS).astype(np.int64):
            end = int(members.offset[j])
            digest.update(data[end - BLOCK : end].tobytes())
    return digest.hexdigest()


def table_identity(table: str | None) -> str:
    """Hash of a row table's size and footer; empty when there is no table."""
    if table is None or not storage.exists(table):
        return ""
    with open(storage.local(table), "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _ENDS))
        return hashlib.blake2b(str(size).encode() + file.read(), digest_size=16).hexdigest()


def _from_table(keys: list[str], table: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Row of each sample in the table, and the samples' uids if the table gives all of them one."""
    rows = np.full(len(keys), -1, np.int32)
    if table is None or not storage.exists(table):
        return rows, None
    names = pq.read_schema(storage.local(table)).names
    if "key" not in names:
        return rows, None
    columns = pq.read_table(storage.local(table), columns=[c for c in ("key", "uid") if c in names])
    number = {key: row for row, key in enumerate(columns["key"].to_pylist())}
    rows[:] = [number.get(key, -1) for key in keys]
    if "uid" not in names or (rows < 0).any():
        return rows, None
    uids = columns["uid"].take(pa.array(rows))
    return rows, None if uids.null_count else to_records(uids.to_pylist())
