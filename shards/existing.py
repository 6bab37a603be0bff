"""Tars that exist already -> row tables, without fetching, decoding or rewriting anything.

The tar's headers are walked, the parquet table beside it is joined on ``key`` if there is one, else the samples' own
``.json`` and ``.txt`` members are read; of each image only the header is looked at, and its bytes are hashed if no hash
is recorded. A torn tar gives the samples before the tear, a torn table gives way to the tar alone; both are reported.

Price: an image that is broken inside is found out later, when something decodes it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from . import row_table, storage
from .image import ImageError, read_size
from .row_table import FAILED_TO_DOWNLOAD, FAILED_TO_RESIZE, OUTCOME
from .shard import IMAGE_EXTENSIONS, SUCCESS
from .tar import TarReader
from .uid import canonical, stable_uid

_FILLED = {*OUTCOME, "uid"}


def read_existing(
    tar_path: str, table_path: str | None, progress: Callable[[int, int], None] | None = None
) -> tuple[pa.Table, dict[str, Any]]:
    """Row table of a tar, and its statistics as in `Ingested.stats`, with ``torn`` (a sentence) if anything was.

    Rows are those of the table, then samples that only the tar has. A uid that is nowhere given is made from the tar's
    name and the key; sizes are those in the images' headers.

    Raises:
        DataError: a uid is not hexadecimal.
    """
    tar = TarReader(tar_path)
    torn = [f"{tar_path}: {tar.torn}"] if tar.torn else []
    described: _Described | None = None
    if table_path is not None:
        try:
            described = _from_table(table_path, tar)
        except pa.ArrowInvalid:
            torn.append(f"{table_path}: no readable parquet; the tar alone was used")
    reading = _Reading(tar, described or _from_members(tar))
    total = len(reading.uids)
    for row in range(total):
        reading.settle(row)
        if progress is not None:
            progress(row + 1, total)
    stats = reading.stats()
    if torn:
        stats["torn"] = "; ".join(torn)
    return reading.table(), stats


class _Described:
    """What is written about the samples: keys, and columns of values (None where unknown)."""

    def __init__(self, keys: list[str], columns: dict[str, list[Any]], extra: dict[str, pa.ChunkedArray]) -> None:
        self.keys = keys
        self.columns = columns
        self.extra = extra


class _Reading:
    """The row table of a tar while its images are looked at."""

    def __init__(self, tar: TarReader, described: _Described) -> None:
        n = len(described.keys)
        self.tar = tar
        self.extra = described.extra
        self.outcome: dict[str, list[Any]] = {c: list(described.columns.get(c, [None] * n)) for c in OUTCOME}
        self.outcome["key"] = described.keys
        self.bytes = 0
        self._incomplete = _last_if_incomplete(tar)
        stem = tar.path.rsplit("/", 1)[-1].removesuffix(".tar")
        made = (stable_uid(stem, key) for key in described.keys)
        self.uids = canonical(described.columns.get("uid", [None] * n), made, tar.path)

    def settle(self, row: int) -> None:
        """Fill one row's outcome from its image."""
        key, outcome = self.outcome["key"][row], self.outcome
        body = self.tar.read(key, *IMAGE_EXTENSIONS)
        if body is None or key == self._incomplete:
            if outcome["status"][row] in (None, SUCCESS):
                self._fail(row, FAILED_TO_DOWNLOAD, "torn" if self.tar.torn else "missing_in_tar")
            return
        try:
            width, height = read_size(body)
        except ImageError as error:
            self._fail(row, FAILED_TO_RESIZE, error.code, error.detail)
            return
        outcome["status"][row] = SUCCESS
        outcome["error_message"][row] = None
        outcome["width"][row], outcome["height"][row] = width, height
        if not outcome["original_width"][row] or not outcome["original_height"][row]:
            outcome["original_width"][row], outcome["original_height"][row] = width, height
        if not outcome["sha256"][row]:
            outcome["sha256"][row] = hashlib.sha256(body).hexdigest()
        self.bytes += len(body)

    def table(self) -> pa.Table:
        return row_table.build({"uid": pa.array(self.uids, pa.string()), **self.extra}, self.outcome)

    def stats(self) -> dict[str, Any]:
        counts = Counter(row_table.reason(text) for text in self.outcome["error_message"])
        return {
            "rows": len(self.uids),
            "successes": counts[SUCCESS],
            "bytes": self.bytes,
            "status": dict(sorted(counts.items())),
        }

    def _fail(self, row: int, status: str, code: str, detail: str = "") -> None:
        self.outcome["status"][row] = status
        self.outcome["error_message"][row] = row_table.message(code, detail)
        self.outcome["width"][row] = self.outcome["height"][row] = None


def _last_if_incomplete(tar: TarReader) -> str | None:
    """The last key of a torn tar, if it has fewer members than the first sample: the tear went through it."""
    if not tar.torn or not len(tar):
        return None
    first, last = tar.keys[0], tar.keys[-1]
    return last if len(list(tar.extensions(last))) < len(list(tar.extensions(first))) else None


def _from_table(path: str, tar: TarReader) -> _Described | None:
    """The table beside a tar; samples that only the tar has come after its rows. None when it has no keys."""
    table = pq.read_table(storage.local(path))
    if "key" not in table.column_names:
        return None
    keys = [str(key) for key in table["key"].to_pylist()]
    known = set(keys)
    more = [key for key in tar.keys if key not in known]
    columns = {c: [*table[c].to_pylist(), *[None] * len(more)] for c in table.column_names if c in _FILLED}
    extra = {c: _longer(table[c], len(more)) for c in table.column_names if c not in _FILLED}
    if "caption" not in columns:
        columns["caption"] = _captions(tar, keys + more)
    return _Described(keys + more, _plain(columns), extra)


def _longer(column: pa.ChunkedArray, by: int) -> pa.ChunkedArray:
    return pa.chunked_array([*column.chunks, pa.nulls(by, column.type)], column.type) if by else column


def _from_members(tar: TarReader) -> _Described:
    """What the ``.json`` and ``.txt`` members say; broken JSON counts as none."""
    keys = [key for key in tar.keys if tar.read(key, *IMAGE_EXTENSIONS) is not None]
    found = [_json(tar.read(key, "json")) for key in keys]
    names = list(dict.fromkeys(name for fields in found for name in fields))
    columns = {c: [fields.get(c) for fields in found] for c in names if c in _FILLED}
    columns["caption"] = _captions(tar, keys, columns.get("caption"))
    extra = {c: _column([fields.get(c) for fields in found]) for c in names if c not in _FILLED}
    return _Described(keys, _plain(columns), extra)


def _captions(tar: TarReader, keys: Iterable[str], otherwise: list[Any] | None = None) -> list[Any]:
    texts = [tar.read(key, "txt") for key in keys]
    backup = otherwise or [None] * len(texts)
    return [b if t is None else t.decode("utf-8", "replace") for t, b in zip(texts, backup, strict=True)]


def _json(data: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _plain(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Values of the type that their column has, or None."""
    kept = {}
    for name, values in columns.items():
        number = name in OUTCOME and pa.types.is_integer(OUTCOME[name])
        if number:
            kept[name] = [int(v) if isinstance(v, int | float) and 0 <= v < 2**31 else None for v in values]
        else:
            kept[name] = [v if v is None or isinstance(v, str) else json.dumps(v, default=str) for v in values]
    return kept


def _column(values: list[Any]) -> pa.ChunkedArray:
    """An extra column of whatever type its values have; as JSON text when they have several."""
    try:
        return pa.chunked_array([pa.array(values)])
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.chunked_array([pa.array([None if v is None else json.dumps(v) for v in values], pa.string())])
