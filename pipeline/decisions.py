"""Decisions as files: what one filter decided for the rows of one part.

``<shard>.parquet`` holds one row per sample that reached the filter: ``row`` (int32), ``keep``, ``value`` (float32),
``reason`` (dictionary; null when kept), ``times`` (int32: the multiplicity so far, 0 when dropped) and, for filters
with clusters, ``group`` (int32). A chain of these files, one per filter, is the whole history of a subset.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..filters.base import Decision, Part
from ..shards import storage
from ..shards.shard import Shard, usable


def write_decision(folder: str, part: Part, decision: Decision, times: np.ndarray) -> dict[str, Any]:
    """Publish a part's decision; `times` are the rows' multiplicities before it. Returns counts for the receipt."""
    keep = np.asarray(decision.keep, bool)
    after = np.where(keep, times if decision.times is None else times * decision.times, 0).astype(np.int32)
    if isinstance(decision.reason, str):
        reasons = np.full(len(part), decision.reason, object)
    else:
        reasons = decision.reason.astype(object)
    reason = pa.array(reasons, pa.string(), mask=keep).dictionary_encode()
    table = pa.table(
        {
            "row": pa.array(part.rows.astype(np.int32)),
            "keep": pa.array(keep),
            "value": pa.array(np.asarray(decision.value, np.float32)),
            "reason": reason,
            "times": pa.array(after),
        }
    )
    if decision.group is not None:
        table = table.append_column("group", pa.array(np.asarray(decision.group, np.int32)))
    with storage.publishing(storage.join(folder, f"{part.name}.parquet")) as path:
        pq.write_table(table, path)
    names, counts = np.unique(reasons[~keep].astype(str), return_counts=True)
    return {
        "entered": len(part),
        "kept": int(keep.sum()),
        "samples": int(after.sum()),
        "reasons": {str(n): int(c) for n, c in zip(names, counts, strict=True)},
    }


def read_decision(folder: str, name: str) -> pa.Table:
    """The decision table of one part, its reasons as plain strings."""
    table = pq.read_table(storage.local(storage.join(folder, f"{name}.parquet")))
    place = table.schema.get_field_index("reason")
    return table.set_column(place, "reason", table["reason"].cast(pa.string()))


def alive(shard: Shard, previous: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a part that reach the next filter, and their multiplicities.

    Args:
        previous: decision folder of the filter before, or None: then every fetched sample is alive, once.

    Returns:
        ``(rows (n,) int64, times (n,) int32)``
    """
    if previous is None:
        rows = np.flatnonzero(usable(shard.read_table(["status"])))
        return rows.astype(np.int64), np.ones(len(rows), np.int32)
    table = read_decision(previous, shard.name)
    keep = table["keep"].to_numpy()
    return table["row"].to_numpy()[keep].astype(np.int64), table["times"].to_numpy()[keep]
