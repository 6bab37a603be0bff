"""Reading files of a folder tree that others filled: only what lies in it, and none that is too large.

A link may point anywhere, so the file it leads to must lie in the tree, too; otherwise a folder that somebody sends
could carry any file of this machine into the data.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from .. import storage
from ..byte_range import read_range
from ..storage import url_to_fs
from ..web.fetch import Fetched


class Unreadable(Exception):
    """A file that cannot be had; the message says why, and is the same on every run."""


class TooLarge(Exception):
    """A file with more bytes than allowed; the message tells how many."""


def read_inside(folder: str, name: str, most: int) -> bytes:
    """The file `name` below `folder`.

    Raises:
        Unreadable: it is not there, not readable, no file, or lies outside.
        TooLarge: it has more than `most` bytes.
    """
    path = folder + name
    try:
        if storage.is_local(path):
            root = os.path.realpath(folder)
            path = os.path.realpath(path)
            if not path.startswith(root.rstrip("/") + "/"):
                raise Unreadable("lies outside the folder")
            if not os.path.isfile(path):
                raise Unreadable("not there")
            size = os.path.getsize(path)
        else:
            fs, remote = url_to_fs(path)
            size = int(fs.size(remote) or 0)
        if size > most:
            raise TooLarge(f"{size} bytes")
        return read_range(path, 0, size)
    except FileNotFoundError as error:
        raise Unreadable("not there") from error
    except OSError as error:
        raise Unreadable(error.strerror or "refused") from error


class FolderBodies:
    """Bodies from files, row by row: `names` below `folder`; None = known to be absent."""

    def __init__(self, folder: str, names: Sequence[str | None], most: int) -> None:
        self._folder, self._names, self._most = folder, names, most

    def __call__(self, rows: Sequence[int]) -> Iterator[Fetched]:
        for row in rows:
            name = self._names[row]
            body, error, detail = None, None, ""
            try:
                if name is None:
                    raise Unreadable("not there")
                body = read_inside(self._folder, name, self._most)
                error = None if body else "empty"
            except Unreadable as reason:
                error, detail = "unreadable", str(reason)
            except TooLarge as reason:
                error, detail = "too_large", str(reason)
            yield Fetched(row, name or "", body or None, error, detail, "", 0)
