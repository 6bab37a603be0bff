"""Ranges of rows of parquet files, read in batches: no file and no row group is held whole.

The footer tells how many rows and which columns there are; a range reads only the row groups that it lies in, and of
them only the columns asked for. A range in the middle of a large row group decodes that group up to it: groups of a
few thousand rows are the ones to have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import DataError
from .. import storage

_BUFFER = 1 << 20  # bytes of a column chunk that are read at once


@contextmanager
def explained(path: str) -> Iterator[None]:
    """Turn what a broken parquet file raises into `DataError`."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as parquet: {_first_line(error)}") from error
    except OSError as error:
        if error.errno is not None:  # the operating system's own refusals say what they are
            raise
        raise DataError(f"{path}: cannot be read as parquet: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


@contextmanager
def opened(path: str) -> Iterator[pq.ParquetFile]:
    """The file, open; an object store is read by ranges."""
    if storage.is_local(path):
        with pq.ParquetFile(storage.local(path), buffer_size=_BUFFER) as file:
            yield file
    else:
        import fsspec

        with fsspec.open(path, "rb") as remote, pq.ParquetFile(remote, buffer_size=_BUFFER) as file:
            yield file


def count(path: str) -> tuple[int, pa.Schema]:
    """Rows and schema, from the footer.

    Raises:
        DataError: it is no parquet file.
    """
    with explained(path), opened(path) as file:
        return int(file.metadata.num_rows), file.schema_arrow


def batches(
    path: str, start: int, stop: int, columns: Sequence[str], batch_rows: int = 10_000
) -> Iterator[pa.RecordBatch]:
    """Rows ``[start, stop)`` of some columns, in order, at most `batch_rows` at a time.

    Raises:
        DataError: the file cannot be read, or has fewer rows than that.
    """
    left = stop - start
    with explained(path), opened(path) as file:
        groups, skip, at = [], 0, 0
        for i in range(file.num_row_groups):
            rows = file.metadata.row_group(i).num_rows
            if at < stop and at + rows > start:
                if not groups:
                    skip = start - at
                groups.append(i)
            at += rows
        found = file.iter_batches(batch_rows, row_groups=groups, columns=list(columns)) if groups else iter(())
        for batch in found:
            low, skip = min(skip, batch.num_rows), max(skip - batch.num_rows, 0)
            part = batch.slice(low, left)
            left -= part.num_rows
            if part.num_rows:
                yield part
            if not left:
                break
    if left:
        raise DataError(f"{path}: rows {start} to {stop} are not all there any more; was the file replaced?")


def read(path: str, start: int, stop: int, columns: Sequence[str]) -> pa.Table:
    """Rows ``[start, stop)`` of some columns as one table."""
    found = list(batches(path, start, stop, columns))
    if found:
        return pa.Table.from_batches(found)
    schema = count(path)[1]
    return pa.schema([schema.field(column) for column in columns]).empty_table()
