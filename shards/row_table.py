"""The row table of a shard: img2dataset's columns, types and order, and what its keys and messages look like.

One row per *input* row, failures included, in input order: ``uid``, extra columns..., ``caption``, ``url``, ``key``,
``status``, ``error_message``, ``width``, ``height``, ``original_width``, ``original_height``, ``exif``, ``sha256``.
``error_message`` is a stable reason code, or ``code: detail``; `reason` gives the code back.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from . import storage
from .shard import SUCCESS
from .tables.plain_arrays import int32_array, text_array

FAILED_TO_DOWNLOAD = "failed_to_download"
FAILED_TO_RESIZE = "failed_to_resize"

OUTCOME = {
    "caption": pa.string(),
    "url": pa.string(),
    "key": pa.string(),
    "status": pa.string(),
    "error_message": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "original_width": pa.int32(),
    "original_height": pa.int32(),
    "exif": pa.string(),
    "sha256": pa.string(),
}
"""Columns that ingest fills, in order, with their types; extra columns may not have these names."""

_DETAIL = 200  # characters of an error's detail that are kept


def sample_key(shard: int, row: int, per_shard: int, shard_digits: int = 8) -> str:
    """Key of a sample: shard number, then row number in as many digits as `per_shard` rows need.

    >>> sample_key(1, 3, 10_000)
    '000000010003'
    """
    digits = len(str(per_shard - 1)) if per_shard > 1 else 0
    return str(shard * 10**digits + row).zfill(digits + shard_digits)


def message(code: str, detail: str = "") -> str:
    """Code and detail as one printable line of bounded length."""
    line = "".join(c if c.isprintable() else " " for c in detail[: 4 * _DETAIL])
    line = " ".join(line.split())[:_DETAIL]
    return f"{code}: {line}" if line else code


def reason(error_message: str | None) -> str:
    """The code in an ``error_message``; ``success`` for null."""
    return error_message.split(":", 1)[0] if error_message else SUCCESS


def build(extra: Mapping[str, pa.Array | pa.ChunkedArray], outcome: Mapping[str, Sequence[Any]]) -> pa.Table:
    """The row table from the extra columns (``uid`` among them) and one list per column of `OUTCOME`."""
    columns: dict[str, Any] = {"uid": extra["uid"]}
    columns.update((name, column) for name, column in extra.items() if name != "uid")
    make = {pa.string(): text_array, pa.int32(): int32_array}
    columns.update((name, make[kind](outcome[name])) for name, kind in OUTCOME.items())
    return pa.table(columns)


def write(path: str, table: pa.Table) -> None:
    """Publish a row table; the same table always gives the same bytes."""
    with storage.publishing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="snappy", row_group_size=10_000)


def sample_json(row: Mapping[str, Any]) -> bytes:
    """One row as strict JSON, indented by 4 as img2dataset does; several times faster than `json.dumps` with indent.

    NaN and infinities become null, times ISO 8601, bytes base64, and anything else that JSON lacks its text.
    """
    lines = (f"    {json.dumps(name)}: {_value(value)}" for name, value in row.items())
    return ("{\n" + ",\n".join(lines) + "\n}").encode()


def _value(value: Any) -> str:
    if value is None or isinstance(value, str | int):
        return json.dumps(value)
    if isinstance(value, list | dict):
        return json.dumps(_plain(value), indent=4, default=_foreign, allow_nan=False).replace("\n", "\n    ")
    return json.dumps(_plain(value), default=_foreign, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return value


def _foreign(value: Any) -> str:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value)
