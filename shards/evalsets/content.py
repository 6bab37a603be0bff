"""Hashing sets whose files are many: one digest over names and contents, every file read once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from .. import storage


def content(path: str) -> bytes:
    """BLAKE2b-128 of a file, by way of the local cache for one in an object store."""
    with open(storage.local(path), "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


def files_digest(files: Iterable[tuple[str, str]]) -> str:
    """Digest of ``(name, path)`` in the order given, 32 hexadecimal characters."""
    digest = hashlib.blake2b(digest_size=16)
    for name, path in files:
        digest.update(f"{name}\0".encode("utf-8", "surrogateescape") + content(path))
    return digest.hexdigest()


def set_digest(texts: dict[str, Any], splits: Sequence[tuple[str, str]]) -> str:
    """Digest of a set by its texts (a JSON object) and its splits' names and digests."""
    value = json.dumps([texts, splits], ensure_ascii=True, sort_keys=True)
    return hashlib.blake2b(value.encode(), digest_size=16).hexdigest()
