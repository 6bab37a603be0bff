"""Tars that exist already -> row tables, without fetching or rewriting anything.

The tar's headers are walked, the parquet table beside it is joined on ``key`` if there is one, else the samples' own
``.json`` and ``.txt`` members are read; of each image only the header is looked at, and its bytes are hashed if no hash
is recorded. A torn tar gives the samples before the tear, a torn table gives way to the tar alone; both are reported.
Members are read one at a time and none of more than a fixed size, so memory stays small however large the tar.

Price: an image that is broken inside is found out later, when something decodes it, unless it is decoded now.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from . import row_table, storage
from .images.image import ImageError, decode_rgb, read_size
from .row_table import FAILED_TO_DOWNLOAD, FAILED_TO_RESIZE, OUTCOME
from .shard import IMAGE_EXTENSIONS, SUCCESS
from .tables import text_types
from .tables.parquet_rows import explained
from .tables.text_columns import readable
from .tar import TarReader
from .uid import canonical, stable_uid

MAX_IMAGE = 64 << 20  # bytes; larger ones are `too_large`
_MAX_TEXT = 4 << 20  # bytes of a caption or of JSON; a larger one counts as none
_HEAD = 32 << 10  # bytes in which most images tell their size
_DETAIL = 300  # characters of an error message of others that are kept


def read_existing(
    tar_path: str,
    table_path: str | None,
    progress: Callable[[int, int], None] | None = None,
    *,
    name: str = "",
    stats_path: str | None = None,
    uid: str | None = "uid",
    decode: bool = False,
) -> tuple[pa.Table, dict[str, Any]]:
    """Row table of a tar, and its statistics as in `Ingested.stats`, with ``torn`` (a sentence) if anything was.

    Rows are those of the table, then samples that only the tar has. Failed rows keep their status and message. Sizes
    are those in the images' headers.

    Args:
        name: the tar's name in uids that are made from it and the key; default: its base name.
        stats_path: img2dataset's ``_stats.json``: tells how many samples the tar should have.
        uid: column or JSON key with the uids; text that is no 128-bit id is hashed; None = make them all.
        decode: decode every image, to find those that are broken inside.
    """
    samples = _Samples(tar_path)
    torn = [f"{tar_path}: {samples.torn}"] if samples.torn else []
    described: _Described | None = None
    if table_path is not None:
        try:
            described = _from_table(table_path, samples, uid)
            if described is None:
                torn.append(f"{table_path}: has no column 'key'; the tar alone was used")
        except DataError as error:
            torn.append(f"{error}; the tar alone was used")
    torn += _fewer_than_stated(stats_path, samples)
    reading = _Reading(samples, described or _from_members(samples, uid), name or _stem(tar_path), uid, decode)
    total = len(reading.uids)
    try:
        for row in range(total):
            reading.settle(row)
            if progress is not None:
                progress(row + 1, total)
    finally:
        samples.close()
    stats = reading.stats()
    if torn:
        stats["torn"] = "; ".join(torn)
    return reading.table(), stats


def _stem(path: str) -> str:
    return path.rsplit("/", 1)[-1].removesuffix(".tar")


class _Samples:
    """A tar's members, read by position: its pages are not kept in memory."""

    def __init__(self, path: str) -> None:
        tar = TarReader(path)
        self.path, self.torn, self.keys = path, tar.torn, tar.keys
        self.images = tar.spans(*IMAGE_EXTENSIONS)
        self._json, self._txt = tar.spans("json"), tar.spans("txt")
        self.incomplete = _last_if_incomplete(tar)
        self._file = os.open(storage.local(path), os.O_RDONLY)

    def read(self, span: tuple[int, int], most: int | None = None) -> bytes:
        """The first `most` bytes of a member."""
        offset, size = span
        return os.pread(self._file, size if most is None else min(size, most), offset)

    def caption(self, key: str) -> str | None:
        """The ``.txt`` member."""
        span = self._txt.get(key)
        return self.read(span).decode("utf-8", "replace") if span and span[1] <= _MAX_TEXT else None

    def json(self, key: str) -> dict[str, Any]:
        """The ``.json`` member; broken JSON counts as none."""
        span = self._json.get(key)
        try:
            value = json.loads(self.read(span)) if span and span[1] <= _MAX_TEXT else {}
            json.dumps(value, ensure_ascii=False).encode()  # raises for half a surrogate pair
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def close(self) -> None:
        os.close(self._file)


class _Described:
    """What is written about the samples: keys, and columns of values (None where unknown)."""

    def __init__(
        self, keys: list[str], columns: dict[str, list[Any]], extra: dict[str, Any], uids: list[str | None]
    ) -> None:
        self.keys = keys
        self.columns = columns
        self.extra = extra
        self.uids = uids


class _Reading:
    """The row table of a tar while its images are looked at."""

    def __init__(self, samples: _Samples, described: _Described, name: str, uid: str | None, decode: bool) -> None:
        n = len(described.keys)
        self.samples, self.decode = samples, decode
        self.extra = described.extra
        self.outcome: dict[str, list[Any]] = {c: list(described.columns.get(c, [None] * n)) for c in OUTCOME}
        self.outcome["key"] = described.keys
        self.bytes = 0
        made = (stable_uid(name, key) for key in described.keys)
        self.uids = canonical((_id(given) for given in described.uids), made, samples.path)

    def settle(self, row: int) -> None:
        """Fill one row's outcome from its image."""
        key, outcome = self.outcome["key"][row], self.outcome
        span = self.samples.images.get(key)
        if span is None or key == self.samples.incomplete:
            if outcome["status"][row] in (None, SUCCESS):
                self._fail(row, FAILED_TO_DOWNLOAD, "torn" if self.samples.torn else "missing_in_tar")
            else:  # an empty message would count as success
                told = " ".join((outcome["error_message"][row] or "").split())[:_DETAIL]
                outcome["error_message"][row] = told or "unknown"
            return
        try:
            width, height = self._look(row, span)
        except ImageError as error:
            self._fail(row, FAILED_TO_RESIZE, error.code, error.detail)
            return
        outcome["status"][row] = SUCCESS
        outcome["error_message"][row] = None
        outcome["width"][row], outcome["height"][row] = width, height
        if not outcome["original_width"][row] or not outcome["original_height"][row]:
            outcome["original_width"][row], outcome["original_height"][row] = width, height
        self.bytes += span[1]

    def table(self) -> pa.Table:
        return row_table.build({"uid": pa.array(self.uids, pa.string()), **self.extra}, self.outcome)

    def stats(self) -> dict[str, Any]:
        counts = Counter(row_table.reason(text) for text in self.outcome["error_message"])
        return {
            "rows": len(self.uids),
            "successes": counts[SUCCESS],
            "bytes": self.bytes,
            "animated": 0,
            "status": dict(sorted(counts.items())),
        }

    def _look(self, row: int, span: tuple[int, int]) -> tuple[int, int]:
        """Width and height of an image; its hash is filled in where there is none."""
        if span[1] > MAX_IMAGE:
            raise ImageError("too_large", f"{span[1]} bytes")
        hashed = bool(self.outcome["sha256"][row])
        body = self.samples.read(span, _HEAD if hashed and not self.decode else None)
        try:
            size = read_size(body)
        except ImageError:
            if len(body) == span[1]:
                raise
            body = self.samples.read(span)  # its header is longer than most
            size = read_size(body)
        if self.decode:
            decode_rgb(body, at_least=1)  # a JPEG is read whole also when it is made small
        if not hashed:
            self.outcome["sha256"][row] = hashlib.sha256(body).hexdigest()
        return size

    def _fail(self, row: int, status: str, code: str, detail: str = "") -> None:
        self.outcome["status"][row] = status
        self.outcome["error_message"][row] = row_table.message(code, detail)
        self.outcome["width"][row] = self.outcome["height"][row] = None


def _id(given: str | None) -> str | None:
    """A uid as it is given; other text, hashed."""
    if not given or (len(given) <= 32 and not given.strip("0123456789abcdefABCDEF")):
        return given
    return stable_uid(given)


def _last_if_incomplete(tar: TarReader) -> str | None:
    """The last key of a torn tar, if it has fewer members than the first sample: the tear went through it."""
    if not tar.torn or not len(tar):
        return None
    first, last = tar.keys[0], tar.keys[-1]
    return last if len(list(tar.extensions(last))) < len(list(tar.extensions(first))) else None


def _fewer_than_stated(path: str | None, samples: _Samples) -> list[str]:
    if path is None:
        return []
    try:
        stated = storage.read_json(path)["successes"]
        missing = int(stated) - len(samples.images)
    except (ValueError, KeyError, TypeError):
        return [f"{path}: cannot be read"]
    return [f"{samples.path}: {missing} of its {stated} samples are missing"] if missing > 0 else []


def _from_table(path: str, samples: _Samples, uid: str | None) -> _Described | None:
    """The table beside a tar; samples that only the tar has come after its rows. None when it has no keys."""
    with explained(path):
        table = pq.read_table(storage.local(path))
    if "key" not in table.column_names:
        return None
    table = pa.table({c: readable(table[c], f"{path}: column {c!r}") for c in table.column_names})
    keys = _matched(table["key"].to_pylist(), samples.keys)
    known = set(keys)
    more = [key for key in samples.keys if key not in known]
    columns = {c: [*table[c].to_pylist(), *[None] * len(more)] for c in table.column_names if c in OUTCOME}
    uids = [*table[uid].to_pylist(), *[None] * len(more)] if uid in table.column_names else [None] * len(keys + more)
    extra = {_extra(c): _longer(table[c], len(more)) for c in table.column_names if c not in OUTCOME and c != uid}
    if "caption" not in columns:
        columns["caption"] = [samples.caption(key) for key in keys + more]
    return _Described(keys + more, _plain(columns), extra, _texts(uids))


def _matched(keys: Sequence[Any], members: Sequence[str]) -> list[str]:
    """A table's keys as the tar spells them: with the zeros that numbers lost, and with the folder in the tar."""
    known = set(members)
    bases: dict[str, str] = {}
    for member in members:
        base = member.rsplit("/", 1)[-1]
        bases[base] = member if base not in bases else ""  # of two folders: no match
    digits = max(map(len, bases), default=0)
    found = []
    for key in keys:
        text = "" if key is None else str(key)
        padded = text.zfill(digits) if text.isdigit() else text
        found.append(text if text in known else bases.get(text) or bases.get(padded) or text)
    return found


def _extra(name: str) -> str:
    return "given_uid" if name == "uid" else name


def _longer(column: pa.ChunkedArray, by: int) -> pa.ChunkedArray:
    return pa.chunked_array([*column.chunks, pa.nulls(by, column.type)], column.type) if by else column


def _from_members(samples: _Samples, uid: str | None) -> _Described:
    """What the ``.json`` and ``.txt`` members say."""
    keys = [key for key in samples.keys if key in samples.images]
    found = [samples.json(key) for key in keys]
    names = list(dict.fromkeys(name for fields in found for name in fields))
    columns = {c: [fields.get(c) for fields in found] for c in names if c in OUTCOME}
    columns["caption"] = _captions(samples, keys, columns.get("caption"))
    extra = {}
    for name in (c for c in names if c not in OUTCOME and c != uid):
        values = [fields.get(name) for fields in found]
        extra[_extra(name)] = text_types.from_values(values, text_types.of_values(values))
    uids = [fields.get(uid) for fields in found] if uid is not None else [None] * len(keys)
    return _Described(keys, _plain(columns), extra, _texts(uids))


def _captions(samples: _Samples, keys: Iterable[str], otherwise: list[Any] | None) -> list[Any]:
    texts = [samples.caption(key) for key in keys]
    return [b if t is None else t for t, b in zip(texts, otherwise or [None] * len(texts), strict=True)]


def _plain(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Values of the type that their column has, or None."""
    kept = {}
    for name, values in columns.items():
        if pa.types.is_integer(OUTCOME[name]):
            kept[name] = [int(v) if isinstance(v, int | float) and 0 <= v < 2**31 else None for v in values]
        else:
            kept[name] = _texts(values)
    return kept


def _texts(values: Iterable[Any]) -> list[str | None]:
    return [v if v is None or isinstance(v, str) else json.dumps(v, default=str) for v in values]
