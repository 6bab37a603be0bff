"""A range of a file's bytes, in one request wherever it lies."""

from __future__ import annotations

from . import storage
from .storage import url_to_fs


def read_range(path: str, start: int, stop: int) -> bytes:
    """Bytes ``[start, stop)`` of a file; fewer where it ends before."""
    if start >= stop:
        return b""
    if storage.is_local(path):
        with open(storage.local(path), "rb") as file:
            file.seek(start)
            return file.read(stop - start)
    fs, remote = url_to_fs(path)
    return bytes(fs.cat_file(remote, start=start, end=stop))
