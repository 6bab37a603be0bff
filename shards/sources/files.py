"""The files that a source's `path` names: found, or explained."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ...errors import ConfigError
from .. import storage


def find(path: str, extensions: tuple[str, ...]) -> list[str]:
    """Sorted files at `path` (file, folder or glob pattern; any fsspec URL) that end in one of `extensions`.

    Raises:
        ConfigError: nothing is there, nothing of that kind, or its storage cannot be reached.
    """
    try:
        found = storage.expand(path)
        there = any(storage.exists(name) for name in found[:1])
    except (OSError, ValueError, ImportError) as error:  # refused; unknown scheme; its package is not installed
        raise ConfigError(f"pool.source.path: cannot look at {path}: {error}") from error
    if not there:
        raise ConfigError(f"pool.source.path: nothing is there: {path}")
    files = [name for name in found if name.lower().endswith(extensions)]
    if not files:
        raise ConfigError(f"pool.source.path: no {', '.join(e for e in extensions if e[-3:] != '.gz')} file at {path}")
    return files


def identity(paths: Iterable[str]) -> str:
    """Identity of the files' base names and contents in this order (`storage.identity`), wherever they lie."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(f"{path.rsplit('/', 1)[-1]}\0{storage.identity(path)}\0".encode())
    return digest.hexdigest()


def keys(paths: Iterable[str]) -> dict[str, str]:
    """For each file its base name and identity: what it is, wherever it lies; equal files are numbered."""
    found: dict[str, str] = {}
    seen: dict[str, int] = {}
    for path in paths:
        key = f"{path.rsplit('/', 1)[-1]}:{storage.identity(path)}"
        seen[key] = seen.get(key, 0) + 1
        found[path] = key if seen[key] == 1 else f"{key}#{seen[key]}"
    return found
