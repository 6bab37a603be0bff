"""What is settled of a shard in the making, so that a kill costs only what was in flight.

Every row's outcome is appended, image and all, the moment it is known; in whatever order answers come, images wait for
their turn here and not in memory. Opened again after a kill the journal knows every row that was settled, and none of
them is fetched twice; a record that the kill tore is dropped. When all rows are settled it is sealed, and the shard is
written from it in row order.

Failures that may be the killed run's own fault (no connection, no answer) count only once the journal is sealed: going
on, a run asks those servers again.

Price: every image is written twice, once here and once in the tar (about 20 microseconds), and a worker's unfinished
shard takes its size again on disk.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

_HEAD = struct.Struct("<4sIII4s")  # magic, row, length of the facts, length of the image, check
_MAGIC = b"row\x01"
_SEAL = 0xFFFFFFFF  # row number of the record that closes a journal
_ENDS = 64  # bytes at either end of the image that the check covers


Facts = tuple[int | None, int | None, int | None, int | None, str | None, str | None]
"""Width, height, original width and height, EXIF, SHA-256."""

_UNKNOWN: Facts = (None, None, None, None, None, None)


@dataclass(frozen=True)
class Settled:
    """One row's outcome: values of the row table, and the image if there is one.

    Attributes:
        status: as in the row table.
        message: its error message, or None.
        facts: what is known of the image; None where unknown.
        extension: of the stored image; empty without one.
        data: the stored image's bytes, or empty.
        passing: a failure of the connection, which another try may heal.
        frames: pictures in the original, of which the first is stored.
    """

    status: str
    message: str | None
    facts: Facts = _UNKNOWN
    extension: str = ""
    data: bytes = b""
    passing: bool = False
    frames: int = 1


class Journal:
    """Append and look up rows of one shard; use as a context manager.

    Several processes may append at once (a late worker of a killed run beside its successor): each finds its own
    records again, and what the other one appended is harmless.
    """

    def __init__(self, path: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._at: dict[int, tuple[int, int, int]] = {}  # row -> offset of the facts, their length, the image's length
        self.sealed = False
        self._scan()

    def __contains__(self, row: int) -> bool:
        return row in self._at

    def __len__(self) -> int:
        return len(self._at)

    def append(self, row: int, settled: Settled) -> None:
        """Record a row's outcome; it survives the death of this process from here on."""
        told = [settled.passing, settled.status, settled.message, settled.extension, settled.frames, *settled.facts]
        self._at[row] = self._append(row, json.dumps(told).encode(), settled.data)

    def seal(self) -> None:
        """Declare that all rows are settled, and their failures final."""
        if not self.sealed:
            self._append(_SEAL, b"", b"")
            self.sealed = True

    def _append(self, row: int, facts: bytes, data: bytes) -> tuple[int, int, int]:
        head = _HEAD.pack(_MAGIC, row, len(facts), len(data), _check(facts, data))
        pieces: list[bytes | memoryview] = [head, facts, data]
        left = len(head) + len(facts) + len(data)
        size = left
        while left:
            written = os.writev(self._file, pieces)
            left -= written
            if left:  # a short write: a full disk raises on the next one
                pieces = [memoryview(b"".join(pieces))[written:]]
        end = os.lseek(self._file, 0, os.SEEK_CUR)
        return end - size + _HEAD.size, len(facts), len(data)

    def read(self, row: int) -> Settled:
        """The outcome of a settled row."""
        offset, facts_length, data_length = self._at[row]
        record = os.pread(self._file, facts_length + data_length, offset)
        passing, status, message, extension, frames, *facts = json.loads(record[:facts_length])
        return Settled(status, message, tuple(facts), extension, record[facts_length:], passing, frames)  # type: ignore[arg-type]

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _scan(self) -> None:
        """Find the whole records; cut off a torn end. Of a row's several records the first that is final counts."""
        size = os.fstat(self._file).st_size
        offset = 0
        passing: dict[int, tuple[int, int, int]] = {}
        while offset + _HEAD.size <= size:
            head = os.pread(self._file, _HEAD.size, offset)
            magic, row, facts_length, data_length, check = _HEAD.unpack(head)
            end = offset + _HEAD.size + facts_length + data_length
            if magic != _MAGIC or end > size:
                break
            start = offset + _HEAD.size
            facts = os.pread(self._file, facts_length, start)
            first = os.pread(self._file, min(_ENDS, data_length), start + facts_length)
            last = os.pread(self._file, min(_ENDS, data_length), end - min(_ENDS, data_length))
            if _check_parts(facts, first, last) != check:
                break
            offset = end
            if row == _SEAL:
                self.sealed = True
            elif facts.startswith(b"[true"):
                passing.setdefault(row, (start, facts_length, data_length))
            else:
                self._at.setdefault(row, (start, facts_length, data_length))
        if self.sealed:
            self._at = passing | self._at
        if offset < size:
            os.ftruncate(self._file, offset)
        os.lseek(self._file, 0, os.SEEK_END)


def _check(facts: bytes, data: bytes) -> bytes:
    return _check_parts(facts, data[:_ENDS], data[-_ENDS:] if data else b"")


def _check_parts(facts: bytes, first: bytes, last: bytes) -> bytes:
    return zlib.crc32(last, zlib.crc32(first, zlib.crc32(facts))).to_bytes(4, "little")
