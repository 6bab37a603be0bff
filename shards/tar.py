"""Reading and writing shards as plain USTAR, without the tar library on the hot path.

`TarWriter` writes the bytes that `tar`, webdataset and img2dataset read: fixed owner, mode and mtime, so the same
samples always give the same file. `TarReader` maps a shard into memory, walks its headers once and then gives any
member as a slice: nothing is unpacked, no name from the archive ever becomes a path, and no member is unpickled.
A truncated or foreign file raises `DataError` with the offset; members before the tear stay readable.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

from ..errors import DataError
from . import storage

BLOCK = 512
_ZEROS = bytes(BLOCK)
_MAX_EXTENSION = 1 << 16  # bytes of an extension header that is read
_TAIL = (b"ustar\x0000" + b"bigdata".ljust(32, b"\0") + b"bigdata".ljust(32, b"\0") + b"0000000\x000000000\x00").ljust(
    255, b"\0"
)


def _header(name: str, size: int) -> bytes:
    encoded = name.encode()
    if len(encoded) > 100:
        raise ValueError(f"member name of {len(encoded)} bytes; USTAR holds 100: {name!r}")
    head = b"%s0000444\x000000000\x000000000\x00%011o\x0000000000000\x00" % (encoded.ljust(100, b"\0"), size)
    body = b"0" + bytes(100) + _TAIL
    checksum = sum(head) + sum(body) + 8 * 32
    return b"%s%06o\x00 %s" % (head, checksum, body)


class TarWriter:
    """Append samples to a tar that is being written; `close` (or leaving the block) ends the archive.

    >>> with storage.publishing("00000000.tar") as path, TarWriter(path) as tar:
    ...     tar.write("000000000001", {"jpg": jpeg, "txt": b"a cat"})
    """

    def __init__(self, path: str) -> None:
        self._file: BinaryIO = open(path, "wb", buffering=1 << 20)  # noqa: SIM115

    def write(self, key: str, members: dict[str, bytes]) -> None:
        """Write one sample; its members are adjacent and sorted by extension."""
        write = self._file.write
        for extension in sorted(members):
            data = members[extension]
            write(_header(f"{key}.{extension}", len(data)))
            write(data)
            write(_ZEROS[: -len(data) % BLOCK])

    def close(self) -> None:
        """Write the two closing blocks."""
        if not self._file.closed:
            self._file.write(_ZEROS * 2)
            self._file.close()

    def __enter__(self) -> TarWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._file.close()


class TarReader:
    """Random access to the members of one shard by sample key and extension.

    Attributes:
        keys: sample keys in file order: folder and base name up to its first dot, as webdataset reads them.
        torn: None, or what is wrong at the end of the file (everything before it is readable).
    """

    def __init__(self, path: str) -> None:
        self.path = path
        with open(storage.local(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._map: mmap.mmap | bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        self.torn: str | None = None
        self._members: dict[str, dict[str, tuple[int, int]]] = {}
        self._walk(size)

    @property
    def keys(self) -> list[str]:
        return list(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, key: str) -> bool:
        return key in self._members

    def extensions(self, key: str) -> Iterable[str]:
        """Extensions of the sample's members, lower-case."""
        return self._members[key].keys()

    def read(self, key: str, *extensions: str) -> bytes | None:
        """Bytes of the first of `extensions` that the sample has, or None."""
        members = self._members.get(key, {})
        for extension in extensions:
            if extension in members:
                offset, size = members[extension]
                return bytes(self._map[offset : offset + size])
        return None

    def spans(self, *extensions: str) -> dict[str, tuple[int, int]]:
        """``key -> (offset, size)`` in bytes of the first of `extensions` that each sample has."""
        found = {}
        for key, members in self._members.items():
            for extension in extensions:
                if extension in members:
                    found[key] = members[extension]
                    break
        return found

    def view(self) -> np.ndarray:
        """The whole file as read-only uint8, for slicing by `spans`."""
        return np.frombuffer(self._map, np.uint8)

    def _walk(self, size: int) -> None:
        offset, data = 0, self._map
        long_name: str | None = None  # of the next member, from an extension header before it
        while offset + BLOCK <= size:
            header = data[offset : offset + BLOCK]
            if header[0] == 0:  # end of archive
                if header == _ZEROS:
                    return
                self.torn = f"bad header at byte {offset}"
                return
            length = _size(header)
            if length is None or header[257:262] != b"ustar":
                self.torn = f"bad header at byte {offset}"
                return
            start = offset + BLOCK
            if start + length > size:
                self.torn = f"truncated at byte {offset} ({start + length - size} bytes missing)"
                return
            kind = header[156:157]
            if kind in (b"0", b"\0"):  # regular files; links, folders and others are passed over
                name = long_name or _name(header)
                folder, _, base = name.removeprefix("./").rpartition("/")
                stem, dot, extension = base.partition(".")
                if dot and stem:
                    key = f"{folder}/{stem}" if folder else stem
                    self._members.setdefault(key, {}).setdefault(extension.lower(), (start, length))
            if kind in (b"x", b"L") and length <= _MAX_EXTENSION:
                long_name = _long_name(kind, data[start : start + length])
            elif kind != b"g":
                long_name = None
            offset = start + length + (-length % BLOCK)
        self.torn = f"no end-of-archive mark in {size} bytes"

    def require_whole(self) -> TarReader:
        """Return self, or raise `DataError` naming the file and the tear."""
        if self.torn:
            raise DataError(f"{self.path}: {self.torn}")
        return self


def _size(header: bytes) -> int | None:
    """Member size in bytes, or None when the field is neither octal digits nor GNU's base 256."""
    if header[124] == 0x80:
        return int.from_bytes(header[125:136], "big")
    digits = header[124:136].strip(b" \0")
    try:
        return int(digits, 8) if digits else None
    except ValueError:
        return None


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[345] and header[262] == 0:  # POSIX splits names of more than 100 bytes; GNU uses these bytes otherwise
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    return name.decode("utf-8", "replace")


def _long_name(kind: bytes, data: bytes) -> str | None:
    """The member name in a GNU (`L`) or POSIX (`x`) extension header, or None."""
    if kind == b"L":
        return data.split(b"\0", 1)[0].decode("utf-8", "replace")
    while data:
        length = data.split(b" ", 1)[0]
        if not length.isdigit() or not 0 < int(length[:9]) <= len(data):
            return None
        record, data = data[: int(length)], data[int(length) :]
        name, _, value = record[len(length) + 1 :].partition(b"=")
        if name == b"path":
            return value.rstrip(b"\n").decode("utf-8", "replace")
    return None
