"""Tables of URLs as people have them: parquet, csv, tsv and jsonl files, the text ones also gzipped.

Parquet is the one to have: its footer counts the rows, and a shard reads only the row groups it needs. Text formats are
counted by reading them once, and a shard in the middle of one is found by reading up to it.
csv and tsv need a header line. In tsv quotes are ordinary characters, as in Conceptual Captions and its kind.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import IO, Any

import fsspec
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from ..errors import DataError
from . import storage

EXTENSIONS = (".parquet", ".csv", ".tsv", ".jsonl", ".csv.gz", ".tsv.gz", ".jsonl.gz")
_BLOCK = 16 << 20  # bytes of csv parsed at once; no row may be longer


def count(path: str) -> tuple[int, list[str]]:
    """Rows and column names of a file; of a jsonl file, the names in its first row.

    Raises:
        DataError: the file cannot be read as what its extension says.
    """
    with _explained(path):
        if _kind(path) == "parquet":
            with _parquet(path) as file:
                return file.metadata.num_rows, list(file.schema_arrow.names)
        if _kind(path) == "jsonl":
            with _bytes(path) as lines:
                rows = (line for line in lines if line.strip())
                first = next(rows, None)
                names = pajson.read_json(io.BytesIO(first)).column_names if first else []
                return (1 if first else 0) + sum(1 for _ in rows), names
        with _csv(path, []) as reader:
            return sum(batch.num_rows for batch in reader), list(reader.schema.names)


def read(path: str, start: int, stop: int, text_columns: list[str]) -> pa.Table:
    """Rows ``[start, stop)`` with all columns; `text_columns` are never parsed as numbers or dates.

    Raises:
        DataError: the file cannot be read, or has fewer rows than it had.
    """
    with _explained(path):
        readers = {"parquet": _read_parquet, "jsonl": _read_jsonl, "csv": _read_csv, "tsv": _read_csv}
        table = readers[_kind(path)](path, start, stop, text_columns)
    if table.num_rows != stop - start:
        raise DataError(f"{path}: rows {start} to {stop} are not all there any more; was the file replaced?")
    return table


def _kind(path: str) -> str:
    return path.lower().removesuffix(".gz").rsplit(".", 1)[-1]


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeDecodeError, EOFError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise DataError(f"{path}: cannot be read as {_kind(path)}: {first}") from error


@contextmanager
def _parquet(path: str) -> Iterator[pq.ParquetFile]:
    if storage.is_local(path):
        with pq.ParquetFile(storage.local(path)) as file:
            yield file
    else:
        with fsspec.open(path, "rb") as remote, pq.ParquetFile(remote, pre_buffer=True) as file:
            yield file


@contextmanager
def _bytes(path: str) -> Iterator[IO[bytes]]:
    with fsspec.open(path, "rb", compression="gzip" if path.lower().endswith(".gz") else None) as file:
        yield file  # type: ignore[misc]


@contextmanager
def _csv(path: str, text_columns: list[str]) -> Iterator[pacsv.CSVStreamingReader]:
    tabs = _kind(path) == "tsv"
    with _bytes(path) as file:
        yield pacsv.open_csv(
            file,
            read_options=pacsv.ReadOptions(block_size=_BLOCK),
            parse_options=pacsv.ParseOptions(
                delimiter="\t" if tabs else ",", quote_char=False if tabs else '"', newlines_in_values=not tabs
            ),
            convert_options=pacsv.ConvertOptions(column_types={name: pa.string() for name in text_columns}),
        )


def _read_parquet(path: str, start: int, stop: int, _text_columns: list[str]) -> pa.Table:
    with _parquet(path) as file:
        groups, first, at = [], 0, 0
        for i in range(file.num_row_groups):
            rows = file.metadata.row_group(i).num_rows
            if at < stop and at + rows > start:
                if not groups:
                    first = at
                groups.append(i)
            at += rows
        return file.read_row_groups(groups).slice(start - first, stop - start)


def _read_csv(path: str, start: int, stop: int, text_columns: list[str]) -> pa.Table:
    batches, at = [], 0
    with _csv(path, text_columns) as reader:
        for batch in reader:
            low, high = max(start - at, 0), min(stop - at, batch.num_rows)
            if low < high:
                batches.append(batch.slice(low, high - low))
            at += batch.num_rows
            if at >= stop:
                break
        return pa.Table.from_batches(batches, reader.schema)


def _read_jsonl(path: str, start: int, stop: int, text_columns: list[str]) -> pa.Table:
    with _bytes(path) as lines:
        wanted = islice((line for line in lines if line.strip()), start, stop)
        block = b"".join(line if line.endswith(b"\n") else line + b"\n" for line in wanted)
    options: Any = pajson.ParseOptions(explicit_schema=pa.schema([(name, pa.string()) for name in text_columns]))
    return pajson.read_json(io.BytesIO(block), pajson.ReadOptions(block_size=max(len(block), 1)), options)
