"""Tables of URLs as people have them: parquet, csv, tsv, txt, jsonl and json files, the text ones also gzipped.

Parquet is the one to have: its footer counts the rows, and a shard reads only the row groups it needs. A text file is
read once to count it; that pass notes where every shard's rows begin and what types the columns have over the whole
file, so that a shard reads only its own bytes and equal columns have equal types in all of them. A gzipped file cannot
be entered in the middle: a shard unpacks it up to its rows. `text_records` says what a row is.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any, cast

import pyarrow as pa

from ...errors import ConfigError, DataError
from ..byte_range import read_range
from . import parquet_rows, text_types
from .text_records import Format, cut, fields, json_object, sniff, split

TEXTS = (".csv", ".tsv", ".txt", ".jsonl", ".json")
EXTENSIONS = (".parquet", *TEXTS, *(f"{e}.gz" for e in TEXTS))
_LOOK = 4096  # rows whose types are found at once


@dataclass(frozen=True)
class Counted:
    """What one look at a file tells.

    Attributes:
        rows: bad ones included.
        names: columns, in order.
        form: how the file is read: ``parquet`` or a `Format`.
        kinds: types of the columns of a text file (`text_types`), where they were asked for.
        cuts: byte offsets of every `per`-th row of a text file, and of the end of the last row.
    """

    rows: int
    names: tuple[str, ...]
    form: str = "parquet"
    kinds: Mapping[str, str] = field(default_factory=dict)
    cuts: tuple[int, ...] = ()

    def parts(self, per: int) -> Iterator[dict[str, Any]]:
        """Row ranges of at most `per` rows (the number that `count` got), as `read` takes them."""
        for i, start in enumerate(range(0, self.rows, per)):
            part = {"start": start, "stop": min(start + per, self.rows), "names": list(self.names), "form": self.form}
            if self.form != "parquet":
                part |= {"span": list(self.cuts[i : i + 2]), "kinds": dict(self.kinds)}
            yield part


def count(
    path: str, per: int, columns: Sequence[str] | None = None, text: Sequence[str] = (), typed: bool = True
) -> Counted:
    """Count the rows of a file and find its columns.

    Args:
        per: rows per shard.
        columns: names for the columns of a csv or tsv file that has no header line.
        text: columns that are text, whatever their values look like.
        typed: find the types of the other columns of csv and tsv files, too; not needed when none is carried along.

    Raises:
        ConfigError: `columns` were given for a file that names its own.
        DataError: the file cannot be read as what its extension says.
    """
    kind = _kind(path)
    if columns is not None and kind not in ("csv", "tsv"):
        raise ConfigError(f"source option `columns`: {path} is no csv or tsv file; it names its columns itself")
    if kind == "parquet":
        rows, schema = parquet_rows.count(path)
        return Counted(rows, _distinct(tuple(schema.names), path))
    with _explained(path), _bytes(path) as file:
        form, offset = sniff(file, kind, path)
        file.seek(offset)
        counting = _Counting(path, form, per, None if columns is None else tuple(columns), frozenset(text), typed)
        for block in cut(file, form, path, offset):
            counting.add(block.offset, block.ends.tolist(), block.data)
    return counting.counted()


def read(
    path: str, part: Mapping[str, Any], text: Sequence[str] = (), columns: Sequence[str] | None = None
) -> pa.Table:
    """Rows of a part that `Counted.parts` made; a bad row of a text file is all null.

    Args:
        text: columns that are text; values in them that are no text are null (numbers in JSON become text).
        columns: only these; None = all.

    Raises:
        DataError: the file cannot be read, or has fewer rows than it had.
    """
    if part["form"] == "parquet":
        return parquet_rows.read(path, part["start"], part["stop"], part["names"] if columns is None else columns)
    wanted = [c for c in part["names"] if columns is None or c in columns]
    with _explained(path):
        rows = split(_range(path, *part["span"]), part["form"], path)
    if len(rows) != part["stop"] - part["start"]:
        raise DataError(f"{path}: rows {part['start']} to {part['stop']} are not all there any more; was it replaced?")
    if part["form"] in ("lines", "array"):
        return _json_table(rows, wanted, part["kinds"], frozenset(text))
    parsed = [_whole(fields(row, part["form"]), len(part["names"])) for row in rows]
    columns_of = dict(zip(part["names"], zip(*parsed, strict=True), strict=True)) if parsed else {}
    kinds = part["kinds"]
    return pa.table(
        {
            c: text_types.from_texts(columns_of.get(c, ()), "string" if c in text else kinds.get(c, "string"))
            for c in wanted
        }
    )


class _Counting:
    """The state of one pass over a text file."""

    def __init__(
        self, path: str, form: Format, per: int, columns: tuple[str, ...] | None, text: frozenset[str], typed: bool
    ) -> None:
        self.path, self.form, self.per, self.text, self.typed = path, form, per, text, typed
        self.json = form in ("lines", "array")
        self.names: dict[str, str] = {}  # column -> kind
        self.header = form in ("csv", "tsv") and columns is None  # is still to come
        if form == "txt":
            columns = ("url",)
        if columns is not None:
            self.names = dict.fromkeys(_distinct(columns, path), "null")
        self.rows, self.end, self.cuts = 0, 0, []

    def add(self, offset: int, ends: list[int], data: bytes) -> None:
        """Take in a block of rows."""
        start = 0
        if self.header:
            self._name(data[: ends[0]])
            start = ends.pop(0)
        begins = [start, *ends[:-1]]
        if ends:
            first = -self.rows % self.per
            self.cuts += [offset + begins[i] for i in range(first, len(ends), self.per)]
            self.end = offset + ends[-1]
            self.rows += len(ends)
        if self.json or (self.typed and len(self.names.keys() - self.text) > 0 and self.form != "txt"):
            for i in range(0, len(ends), _LOOK):
                self._look([data[b:e] for b, e in zip(begins[i : i + _LOOK], ends[i : i + _LOOK], strict=True)])

    def counted(self) -> Counted:
        """What was found."""
        kinds = {name: kind for name, kind in self.names.items() if name not in self.text}
        cuts = (*self.cuts, self.end) if self.rows else ()
        return Counted(self.rows, tuple(self.names), self.form, kinds, cuts)

    def _name(self, row: bytes) -> None:
        names = fields(row, self.form)
        if names is None:
            raise DataError(f"{self.path}: its header line is no UTF-8 text, or its quotes are wrong")
        self.names = dict.fromkeys(_distinct(tuple(names), self.path), "null")
        self.header = False

    def _look(self, rows: list[bytes]) -> None:
        """Find the types of some rows' columns."""
        if self.json:
            objects = [json_object(row) for row in rows]
            if objects and objects[0] is None and not self.names:
                raise DataError(f"{self.path}: its first row is no JSON object: {rows[0].strip()[:60]!r}")
            found: dict[str, set[str]] = {}
            for row in objects:
                for name, value in (row or {}).items():
                    found.setdefault(name, set()).add(text_types.of_value(value))
            for name, kinds in found.items():
                self.names[name] = functools.reduce(text_types.unify, kinds, self.names.get(name, "null"))
            return
        parsed = [_whole(fields(row, self.form), len(self.names)) for row in rows]
        for name, values in zip(self.names, zip(*parsed, strict=True), strict=True):
            if name not in self.text and self.names[name] != "string":
                self.names[name] = text_types.unify_text(self.names[name], text_types.of_texts(values))


def _whole(row: list[str] | None, width: int) -> Sequence[str | None]:
    """The row if it has as many fields as there are columns; else nulls."""
    return row if row is not None and len(row) == width else (None,) * width


def _json_table(rows: list[bytes], names: Sequence[str], kinds: Mapping[str, str], text: frozenset[str]) -> pa.Table:
    objects = [json_object(row) or {} for row in rows]
    columns = {}
    for name in names:
        values = [row.get(name) for row in objects]
        if name in text:
            columns[name] = pa.array([_text(v) for v in values], pa.string())
        else:
            columns[name] = text_types.from_values(values, kinds[name])
    return pa.table(columns)


def _text(value: Any) -> str | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def _distinct(names: tuple[str, ...], path: str) -> tuple[str, ...]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: has several columns named {twice[0]!r}")
    return names


def _kind(path: str) -> Any:
    kind = path.lower().removesuffix(".gz").rsplit(".", 1)[-1]
    return "json" if kind == "jsonl" else kind


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be unpacked: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise DataError(f"{path}: cannot be unpacked: {error}") from error  # gzip.BadGzipFile


@contextmanager
def _bytes(path: str) -> Iterator[IO[bytes]]:
    import fsspec  # late: it brings asyncio along

    with fsspec.open(path, "rb", compression="gzip" if path.lower().endswith(".gz") else None) as file:
        yield cast(IO[bytes], file)


def _range(path: str, start: int, stop: int) -> bytes:
    if not path.lower().endswith(".gz"):
        return read_range(path, start, stop)
    with _bytes(path) as file:
        file.seek(start)
        return file.read(stop - start)
