"""Files of keys and the files of vectors that go with them, row for row, as ranges of rows that one call can take in.

A range is JSON: where its keys are, and for each modality where its vectors are and how they are read: ``mapped`` where
they lie, ``unpacked`` from a compressed npz, or from ``lists`` in a parquet column.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import ConfigError, DataError
from ..registry import unknown
from ..shards import storage
from . import vector_files
from .uid_join import ROWS_PER_RANGE, UID


def ranges(table: str, key: str, vectors: dict[str, tuple[str, str | None]]) -> list[dict[str, Any]]:
    """Row ranges of one file of keys and the vectors that go with it."""
    rows, keys, per_range = _key_file(table, key)
    where = {m: _vectors(path, member, rows, table) for m, (path, member) in vectors.items()}
    starts = range(0, rows, ROWS_PER_RANGE) if rows else [0]  # an empty file still tells the vectors' length
    return [
        {
            "name": table,
            "start": start,
            "rows": min(ROWS_PER_RANGE, rows - start),
            "keys": {**keys, **(per_range[i] if per_range else {})},
            "vectors": where,
        }
        for i, start in enumerate(starts)
    ]


def _key_file(path: str, key: str) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    """Rows of a file of keys, how it is read, and what differs by range."""
    if path.lower().endswith(".npy"):
        values = _key_array(path)
        return len(values), {"path": path, "form": "npy"}, []
    from ..shards.tables import url_table

    if not path.lower().endswith(url_table.EXTENSIONS):
        raise ConfigError(f"import of embeddings: {path} is no parquet, csv, tsv, jsonl, txt or npy file")
    if not storage.exists(path):
        raise ConfigError(f"import of embeddings: {path} does not exist")
    counted = url_table.count(path, ROWS_PER_RANGE, text=[key])
    column = counted.names[0] if counted.form == "txt" else key
    if column not in counted.names:
        hint = "; say which is the key, and with `on` which column of the pool it equals" if key == UID else ""
        raise ConfigError(f"import of embeddings: {path}: {unknown('column', key, counted.names)}{hint}")
    parts = [{"part": part} for part in counted.parts(ROWS_PER_RANGE)]
    return counted.rows, {"path": path, "form": "table", "column": column}, parts


def _key_array(path: str) -> np.ndarray:
    """uids in an .npy file, mapped."""
    from ..shards.uid import RECORD

    try:
        values = np.load(storage.local(path), mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except FileNotFoundError as error:
        raise ConfigError(f"import of embeddings: {path} does not exist") from error
    if values.ndim != 1 or (values.dtype != RECORD and values.dtype.kind not in "SU"):
        raise DataError(f"{path} is {values.dtype} of shape {values.shape}; uids are (rows,) of text or ('<u8', '<u8')")
    return values


def keys_of(found: dict[str, Any]) -> pa.Array:
    """The keys of a range, as text."""
    keys, start = found["keys"], found["start"]
    if not found["rows"]:
        return pa.array([], pa.string())
    if keys["form"] == "npy":
        from ..shards.uid import to_text

        values = _key_array(keys["path"])[start : start + found["rows"]]
        texts = (
            to_text(values)
            if values.dtype.names
            else np.char.decode(values, "ascii", "replace").tolist()
            if (values.dtype.kind == "S")
            else values.tolist()
        )
        return pa.array(texts, pa.string())
    from ..shards.tables import url_table

    table = url_table.read(keys["path"], keys["part"], text=[keys["column"]], columns=[keys["column"]])
    return table[keys["column"]].combine_chunks()


def _vectors(path: str, member: str | None, rows: int, table: str) -> dict[str, Any]:
    """Where the vectors of a file of keys are, and how they are read: ``mapped``, ``unpacked`` or ``lists``."""
    if member is not None and not path.endswith(".npz"):
        return {"path": path, "member": member, "form": "lists", "dim": _list_dim(path, member)}
    found = vector_files.header(path, member)
    if found.shape[0] != rows:
        raise DataError(f"{path}: {found.shape[0]} rows of vectors, but {table} has {rows} rows")
    form = "mapped" if found.offset >= 0 else "unpacked"
    return {"path": path, "member": member, "form": form, "dim": int(found.shape[1])}


def copied(place: dict[str, Any], found: dict[str, Any], dim: int) -> np.ndarray:
    """The vectors of a range that cannot be mapped, of length `dim`."""
    path, member, start = place["path"], place["member"], found["start"]
    stop = start + found["rows"]
    if place["form"] == "unpacked":
        return vector_files.unpacked(path, member, start, stop)
    from ..shards.tables import parquet_rows

    column = parquet_rows.read(path, start, stop, [member])[member]
    return vector_files.from_lists(column, dim, f"{path}: column {member!r}, rows from {start}")


def _list_dim(path: str, column: str) -> int | None:
    """Length of the lists of a parquet column: told by its type, or by its first row; None = there are none."""
    from ..shards.tables import parquet_rows

    rows, schema = parquet_rows.count(path)
    if column not in schema.names:
        raise ConfigError(f"import of embeddings: {path}: {unknown('column', column, schema.names)}")
    kind: Any = schema.field(column).type
    vector_files.list_dtype(kind, f"{path}: column {column!r}")
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size)
    for batch in parquet_rows.batches(path, 0, rows, [column]):
        values: Sequence[Any] = batch.column(0).drop_null().slice(0, 1).to_pylist()
        if values:
            return len(values[0])
    return None
