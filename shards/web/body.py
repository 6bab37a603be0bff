"""Bodies on their way: kept in memory as long as there is room for all of them, else in temporary files.

Hundreds of bodies arrive at once and each may be as long as ``max_bytes``, so the sum must be bounded, whatever servers
send and however slow the caller is. Stopping some transfers until others are done would make one server's outcome
depend on another's behaviour; a file does not. The usual pool never touches the disk: 64 images of 100 KB are 6 MB.

Price: at worst ``concurrency x max_bytes`` of disk in the folder for temporary files (``TMPDIR``).
"""

from __future__ import annotations

import tempfile
from typing import IO

from ...errors import CurateError

_FILE_BUFFER = 65_536  # a server may send one byte at a time


class Room:
    """Memory for bodies: `limit` bytes, of which `used` are taken."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class Body:
    """One body, still in its content coding; `size` bytes so far."""

    __slots__ = ("_buffer", "_file", "_room", "size")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._buffer: bytes | bytearray = b""  # a list of chunks would cost 40 bytes for each byte sent alone
        self._file: IO[bytes] | None = None
        self.size = 0

    def add(self, data: bytes) -> None:
        """Append `data`.

        Raises:
            CurateError: there is no room for temporary files.
        """
        self.size += len(data)
        if self._file is None:
            if self._buffer:
                if isinstance(self._buffer, bytes):
                    self._buffer = bytearray(self._buffer)
                self._buffer += data
            else:
                self._buffer = data
            self._room.used += len(data)
            if self._room.used > self._room.limit:
                self._spill()
        else:
            self._write(data)

    def take(self) -> bytes:
        """All bytes; the body is empty afterwards."""
        if self._file is None:
            data = bytes(self._buffer)
        else:
            self._file.seek(0)
            data = self._file.read()
        self.drop()
        return data

    def drop(self) -> None:
        """Forget the bytes."""
        self._room.used -= len(self._buffer)
        self._buffer = b""
        self.size = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _spill(self) -> None:
        try:
            self._file = tempfile.TemporaryFile(prefix="curate-body-", buffering=_FILE_BUFFER)  # noqa: SIM115
        except OSError as error:
            raise _no_room(error) from error
        self._write(self._buffer)
        self._room.used -= len(self._buffer)
        self._buffer = b""

    def _write(self, data: bytes | bytearray) -> None:
        assert self._file is not None
        try:
            self._file.write(data)
        except OSError as error:
            raise _no_room(error) from error


def _no_room(error: OSError) -> CurateError:
    return CurateError(
        f"large images are being fetched and {tempfile.gettempdir()} cannot hold them ({error.strerror}): "
        "set TMPDIR to a folder with room, or raise fetch.max_bytes_in_flight"
    )
