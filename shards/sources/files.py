"""The files that a source's `path` names: found by one listing per folder, and what each of them is.

A listing tells names and sizes, so nobody asks file by file whether something is there. What a file *is* (`keys`,
`identity`) is its base name, its size and its ends, wherever it lies: reading those takes a few requests per file,
many at once.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from ...errors import ConfigError
from .. import storage
from ..byte_range import read_range
from ..storage import url_to_fs

T = TypeVar("T")
_THREADS = 16  # files that are looked at at once


@dataclass(frozen=True)
class File:
    """A file in a listing.

    Attributes:
        path: absolute path, or URL.
        size: bytes.
        stamp: an object store's own identity of its content (ETag), or empty.
    """

    path: str
    size: int
    stamp: str = ""

    @property
    def name(self) -> str:
        """Base name."""
        return self.path.rsplit("/", 1)[-1]


def find(path: str, extensions: tuple[str, ...], recursive: bool = False, hint: str = "") -> list[File]:
    """Sorted files at `path` (file, folder or glob pattern; any fsspec URL) that end in one of `extensions`.

    Names that start with a dot are passed over; so are folders inside a folder, unless `recursive`.

    Raises:
        ConfigError: nothing is there, nothing of that kind, or its storage cannot be reached.
    """
    files = [file for file in listing(path, recursive) if file.name.lower().endswith(extensions)]
    if not files:
        kinds = ", ".join(e for e in extensions if e[-3:] != ".gz")
        raise ConfigError(f"source path: no {kinds} file at {path}" + (f"; {hint}" if hint else ""))
    return files


def listing(path: str, recursive: bool = False) -> list[File]:
    """Sorted files at `path`, whatever their kind; see `find`.

    Raises:
        ConfigError: nothing is there, or its storage cannot be reached.
    """
    try:
        found = sorted(set(_local(path, recursive) if storage.is_local(path) else _remote(path, recursive)), key=_path)
    except FileNotFoundError as error:
        raise ConfigError(f"source path: nothing is there: {path}") from error
    except (OSError, ValueError, ImportError) as error:  # refused; unknown scheme; its package is not installed
        raise ConfigError(f"source path: cannot look at {path}: {error}") from error
    return found


def base(path: str) -> str:
    """The folder, with its slash, that the paths `listing` gives for `path` are below."""
    if storage.is_local(path):
        plain = os.path.abspath(storage.local(path))
        folder = os.path.isdir(plain)
        magic = glob.has_magic(plain) and not os.path.exists(plain)
    else:
        fs, root = url_to_fs(path)
        plain = str(fs.unstrip_protocol(root))
        magic = glob.has_magic(root) and not fs.exists(root)
        folder = not magic and fs.isdir(root)
    if folder:
        return plain.rstrip("/") + "/"
    fixed = re.split(r"[*?\[]", plain, maxsplit=1)[0] if magic else plain
    return fixed[: fixed.rfind("/") + 1]


def identity(files: Iterable[File]) -> str:
    """Identity of the files' base names and contents in this order, wherever they lie."""
    digest = hashlib.blake2b(digest_size=16)
    found = list(files)
    for file, ends in zip(found, contents(found), strict=True):
        digest.update(f"{file.name}\0{ends}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def keys(files: Iterable[File]) -> dict[str, str]:
    """For each file's path its base name and content: what it is, wherever it lies; equal files are numbered."""
    found: dict[str, str] = {}
    seen: dict[str, int] = {}
    listed = list(files)
    for file, ends in zip(listed, contents(listed), strict=True):
        key = f"{file.name}:{ends}"
        seen[key] = seen.get(key, 0) + 1
        found[file.path] = key if seen[key] == 1 else f"{key}#{seen[key]}"
    return found


def contents(files: Sequence[File], ends: int = storage.IDENTITY_BYTES, strict: bool = True) -> list[str]:
    """For each file a hash of its size and its first and last `ends` bytes; with the default, `storage.identity`.

    Raises:
        ConfigError: a file is gone or cannot be read, and `strict`; otherwise its hash is empty text.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(functools.partial(_content, ends=ends, strict=strict), files))


def each(function: Callable[[str], T], files: Sequence[File]) -> list[T]:
    """`function` of every file's path, in order, many at once: most of the time is waiting for storage."""
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(function, [file.path for file in files]))


def _path(file: File) -> str:
    return file.path


def _content(file: File, ends: int, strict: bool) -> str:
    try:
        return _remembered(file, ends) if file.stamp else _read_content(file, ends)
    except OSError as error:
        if not strict:
            return ""
        raise ConfigError(f"source path: cannot read {file.path}: {error.strerror or error}") from error


@functools.lru_cache(maxsize=1 << 17)
def _remembered(file: File, ends: int) -> str:
    """Of a stamped object: its ends are read once per process."""
    return _read_content(file, ends)


def _read_content(file: File, ends: int) -> str:
    digest = hashlib.blake2b(f"\0{file.size}\0".encode(), digest_size=16)
    for start, stop in _ends(file.size, ends):
        digest.update(read_range(file.path, start, stop))
    return digest.hexdigest()


def _ends(size: int, ends: int) -> Iterator[tuple[int, int]]:
    yield 0, min(size, ends)
    if size > ends:
        yield max(ends, size - ends), size


def _local(path: str, recursive: bool) -> Iterator[File]:
    plain = os.path.abspath(storage.local(path))
    if os.path.exists(plain):
        found = [plain]
    else:
        found = glob.glob(plain, recursive=True) if glob.has_magic(plain) else []
        if not found:
            raise FileNotFoundError(plain)
    for name in found:
        if os.path.isdir(name):
            yield from _walk(name.rstrip("/") or "/", recursive)
        elif os.path.isfile(name):
            yield File(name, os.path.getsize(name))


def _walk(folder: str, recursive: bool) -> Iterator[File]:
    """Files in a folder; links to folders are not followed, so there are no loops."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                yield File(storage.join(folder, entry.name), entry.stat().st_size)
            elif recursive and entry.is_dir(follow_symlinks=False):
                yield from _walk(storage.join(folder, entry.name), recursive)


def _remote(path: str, recursive: bool) -> Iterator[File]:
    fs, root = url_to_fs(path)
    infos: Iterable[dict[str, Any]]
    if glob.has_magic(root) and not fs.exists(root):
        infos = fs.glob(root, detail=True).values()
        if not infos:
            raise FileNotFoundError(path)
    else:
        infos = [fs.info(root)]
    for info in infos:
        if info.get("type") != "directory":
            yield _file(fs, info)
            continue
        below = fs.find(info["name"], detail=True).values() if recursive else fs.ls(info["name"], detail=True)
        skip = len(info["name"].rstrip("/"))
        for entry in below:
            inside = entry["name"][skip:].split("/")
            if entry.get("type") != "directory" and not any(part.startswith(".") for part in inside):
                yield _file(fs, entry)


def _file(fs: Any, info: dict[str, Any]) -> File:
    return File(str(fs.unstrip_protocol(info["name"])), int(info.get("size") or 0), str(info.get("ETag") or ""))
