"""Reading and writing shards as plain USTAR, without the tar library on the hot path.

`TarWriter` writes the bytes that `tar`, webdataset and img2dataset read: fixed owner, mode and mtime, so the same
samples always give the same file. `TarReader` maps a shard into memory, walks its headers once and then gives any
member as a slice: nothing is unpacked, no name from the archive ever becomes a path, and no member is unpickled.
A truncated or foreign file is told in `TarReader.torn`; members before the tear stay readable.

The price of the speed: payloads go to the kernel in large batches straight from the caller's buffers, so what is handed
to `TarWriter.write` must not change before `close`.
"""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import numpy as np

from ..errors import DataError
from . import storage
from .preallocate import preallocate
from .tar_header import BLOCK, MAX_OCTAL, member_header, plain_end, plain_header
from .tar_walk import Members, Walk, walk

_ZEROS = bytes(BLOCK)
_PADS = [_ZEROS[:n] for n in range(BLOCK)]
_BATCH_PARTS = 900  # buffers per system call
_MAX_PARTS = 1024  # that the kernel takes
_BATCH_BYTES = 8 << 20
_RESERVE = 64 << 20  # bytes of disk that are reserved at a time

Payload = bytes | memoryview


class TarWriter:
    """Append samples to a tar that is being written; `close` (or leaving the block) ends the archive.

    >>> with storage.publishing("00000000.tar") as path, TarWriter(path) as tar:
    ...     tar.write("000000000001", {"jpg": jpeg, "txt": b"a cat"})
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o666)
        self._open = True
        self._parts: list[Payload] = []
        self._waiting = 0  # bytes in `_parts`
        self._pad = b""  # zeros that the last member still needs
        self._written = self._reserved = 0
        self._ends: dict[tuple[str, int], bytes] = {}

    def write(self, key: str, members: Mapping[str, Payload]) -> None:
        """Write one sample; its members are adjacent and sorted by extension.

        Args:
            key: sample key, folders before a slash; readers cut a member's name at the base name's first dot.
            members: extension without its dot -> payload.

        Raises:
            ValueError: a reader could not give the key back (empty, or with a NUL, or a dot in its base name).
        """
        name = key.encode()
        length = len(name)
        base = key.rpartition("/")[2] if "/" in key else key
        if not base or "." in base or "\0" in key:
            raise ValueError(f"sample key {key!r}: its base name must not be empty or hold a dot or NUL")
        parts, ends, waiting, pad = self._parts, self._ends, self._waiting, self._pad
        for extension in sorted(members):
            data = members[extension]
            size = len(data)
            end = ends.get((extension, length))
            if end is None:
                end = self._end(extension, length)
            if end and size < MAX_OCTAL:
                header = plain_header(pad, name, end, size)  # the padding of the member before goes with it
            else:
                header = pad + member_header(name + b"." + extension.encode(), size)
            parts += (header, data)
            waiting += len(header) + size
            pad = _PADS[-size % BLOCK]
        self._waiting, self._pad = waiting, pad
        if len(parts) > _BATCH_PARTS or waiting > _BATCH_BYTES:
            self._flush()

    def _end(self, extension: str, length: int) -> bytes:
        """The header between a key of `length` bytes and the size; empty when the name does not fit in it."""
        suffix = b"." + extension.encode()
        if b"\0" in suffix or b"/" in suffix:
            raise ValueError(f"extension {extension!r} must not hold a slash or NUL")
        room = 100 - length - len(suffix)
        end = plain_end(suffix + bytes(room)) if room >= 0 else b""
        self._ends[extension, length] = end
        return end

    def _flush(self) -> None:
        if self._written + self._waiting > self._reserved and self._waiting > _RESERVE >> 6:
            self._reserved = self._written + self._waiting + _RESERVE
            preallocate(self._file, self._written, self._reserved - self._written)
        parts, self._parts = self._parts, []
        left, self._waiting = self._waiting, 0
        while parts:
            batch, parts = parts[:_MAX_PARTS], parts[_MAX_PARTS:]
            done = os.writev(self._file, batch)
            self._written += done
            left -= done
            if left == 0:
                break
            for place, part in enumerate(batch):  # the kernel may take less than it was given
                if done < len(part):
                    parts = [memoryview(part)[done:], *batch[place + 1 :], *parts]
                    break
                done -= len(part)

    def close(self) -> None:
        """Write the two closing blocks."""
        if self._open:
            try:
                self._parts.append(self._pad + _ZEROS * 2)
                self._waiting += len(self._pad) + 2 * BLOCK
                self._flush()
            finally:
                self._release()

    def _release(self) -> None:
        self._open = False
        try:
            os.ftruncate(self._file, self._written)  # gives reserved space back
        finally:
            os.close(self._file)

    def __enter__(self) -> TarWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        elif self._open:
            self._parts = []
            self._release()


class TarReader:
    """Random access to the members of one shard by sample key and extension.

    Attributes:
        path: of the tar.
        members: where every member lies, as columns.
        torn: None, or what is wrong with the file (everything before it is readable).
        passed_over: members that are not used, by reason; see `tar_walk.Walk`.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._map = mapped(path)
        self._found(walk(self._map))

    def _found(self, found: Walk) -> None:
        self.members: Members = found.members
        self.torn: str | None = found.torn
        self.passed_over: Counter[str] = found.passed_over

    @property
    def keys(self) -> list[str]:
        """Sample keys in file order: folder and base name up to its first dot, as webdataset reads them."""
        return list(self.members.keys)

    def __len__(self) -> int:
        return len(self.members)

    def __contains__(self, key: str) -> bool:
        return self.number(key) is not None

    def number(self, key: str) -> int | None:
        """Place of a sample in file order, or None."""
        return self.members.number.get(key)

    def extensions(self, key: str) -> Iterable[str]:
        """Extensions of the sample's members, lower-case."""
        number = self.number(key)
        if number is None:
            raise KeyError(key)
        return self.places(number).keys()

    def read(self, key: str, *extensions: str) -> bytes | None:
        """Bytes of the first of `extensions` that the sample has, or None."""
        number = self.number(key)
        return None if number is None else self.read_at(number, *extensions)

    def read_at(self, number: int, *extensions: str) -> bytes | None:
        """As `read`, for the sample at a place in file order."""
        places = self.places(number)
        for extension in extensions:
            if extension in places:
                offset, size = places[extension]
                return self._map[offset : offset + size]
        return None

    def places(self, number: int) -> dict[str, tuple[int, int]]:
        """``extension -> (offset, size)`` in bytes of the members of the sample at a place in file order."""
        m = self.members
        here = slice(m.first[number], m.first[number + 1])
        places = zip(m.kind[here].tolist(), m.offset[here].tolist(), m.size[here].tolist(), strict=True)
        return {m.extensions[kind]: (offset, size) for kind, offset, size in places}

    def views(self, number: int) -> dict[str, memoryview]:
        """``extension -> payload`` of the sample at a place in file order, as views of the mapped file: no copy."""
        whole = memoryview(self._map)
        return {extension: whole[at : at + size] for extension, (at, size) in self.places(number).items()}

    def samples(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """``(key, {extension: bytes})`` of every sample, in file order."""
        m = self.members
        slices = map(slice, m.offset.tolist(), (m.offset + m.size).tolist())
        payloads = map(self._map.__getitem__, slices)
        kinds = map(m.extensions.__getitem__, m.kind.tolist())
        named = zip(kinds, payloads, strict=True)
        for key, count in zip(m.keys, np.diff(m.first).tolist(), strict=True):
            yield key, dict(islice(named, count))

    def spans(self, *extensions: str) -> dict[str, tuple[int, int]]:
        """``key -> (offset, size)`` in bytes of the first of `extensions` that each sample has."""
        offset, size = self.members.located(*extensions)
        places = zip(self.members.keys, offset.tolist(), size.tolist(), strict=True)
        return {key: (start, length) for key, start, length in places if start >= 0}

    def view(self) -> np.ndarray:
        """The whole file as read-only uint8, for slicing by `spans`."""
        return np.frombuffer(self._map, np.uint8)

    def require_whole(self) -> TarReader:
        """Return self, or raise `DataError` naming the file and the tear."""
        if self.torn:
            raise DataError(f"{self.path}: {self.torn}")
        return self


def mapped(path: str) -> mmap.mmap | bytes:
    """The file, mapped read-only."""
    with open(storage.local(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
