"""Images from the web whose hashes are checked against those that their rows tell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from ...errors import ConfigError
from ..web.fetch import Fetched, Fetcher, FetchOptions


class Verified:
    """Bodies from the web that must have the SHA-256 that their row tells; ``hash_mismatch`` where they have not.

    A row without a hash is taken as it comes.
    """

    def __init__(
        self,
        urls: Sequence[str | None],
        hashes: Sequence[str | None],
        fetch: FetchOptions,
        connect_to: Mapping[str, str],
    ) -> None:
        self._urls, self._hashes, self._fetch, self._connect_to = urls, hashes, fetch, connect_to

    def __call__(self, rows: Sequence[int]) -> Iterator[Fetched]:
        last: tuple[bytes | None, str] = (None, "")
        with Fetcher(self._fetch, self._connect_to) as fetcher:
            for found in fetcher.fetch([self._urls[row] for row in rows]):
                row, body = rows[found.index], found.body
                expected = self._hashes[row]
                if body is not None and expected:
                    if last[0] is not body:
                        last = (body, hashlib.sha256(body).hexdigest())
                    if last[1] != expected.strip().lower():
                        detail = f"sha256 {last[1]}"
                        yield replace(found, index=row, body=None, error="hash_mismatch", detail=detail)
                        continue
                yield replace(found, index=row)


def hashes(rows: pa.Table, column: str) -> list[str | None]:
    """The column of expected hashes.

    Raises:
        ConfigError: it holds no text.
    """
    kind = rows[column].type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
        raise ConfigError(f"source option `verify`: column {column!r} holds {kind}, not hexadecimal text")
    return rows[column].to_pylist()
