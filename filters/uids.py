"""`uids`: keep exactly what a subset file lists (DataComp's ``.npy`` of uids), or drop it.

Any subset that someone published, or that another tool made, so becomes a step of a config: the file is sorted, is
mapped and never read as a whole, and all uids of a part are searched in it side by side. A uid that the file repeats is
repeated; where several rows of the pool share it they take turns, so that it is written as often as the file says.
What the file lists and the pool lacks is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ..shards import storage
from ..shards.uid import distinct, lookup, map_subset
from .base import FILTERS, Decision, Emitted, Filter, Part, Pool, Routed

ROWS_PER_BUCKET = 2_000_000
MAX_BUCKETS = 4096


@dataclass(frozen=True)
class Listed:
    """How the pool and the file meet.

    Attributes:
        routed: per row that is listed: ``times``, how often it is kept; ``first``, whether it is its uid's first row.
        distinct: different uids in the file.
        records: records in the file, repeats counted.
        found: different uids of the file that the pool has.
        samples: records of the file that the pool serves, repeats counted.
    """

    routed: Routed
    distinct: int
    records: int
    found: int
    samples: int


@FILTERS.register
class Uids(Filter):
    """Keep, or drop, the samples that a subset file lists."""

    type: Literal["uids"] = "uids"
    path: str = Field(description="Subset file: .npy of sorted uids, or DataComp's headerless form; any fsspec URL.")
    mode: Literal["keep", "drop"] = Field("keep", description="Keep what is listed, as often as it is; or drop it.")
    content: str = Field(
        "", description="Identity of the file's content, part of the fingerprint. Filled in by itself: leave it out."
    )

    @model_validator(mode="before")
    @classmethod
    def _identified(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("path"), str) and not values.get("content"):
            try:
                return {**values, "content": storage.identity(values["path"])}
            except FileNotFoundError:
                raise ValueError(f"{values['path']!r} does not exist; give a subset file") from None
        return values

    def columns(self) -> list[str]:
        return ["uid"]

    def fit(self, pool: Pool) -> Listed:
        different, records = pool.call(_size, self.path)
        buckets = min(MAX_BUCKETS, 1 + records // ROWS_PER_BUCKET)
        routed = pool.shuffle(_emit, _reduce, buckets, self.path, buckets)
        found, samples = np.sum([(0, 0), *pool.map(_count, routed)], axis=0).tolist()
        return Listed(routed, different, records, found, samples)

    def decide(self, part: Part, state: Listed) -> Decision:
        columns = state.routed.of(part)
        found = columns["found"]
        times = np.where(found, columns["times"], 0) if found.any() else np.zeros(len(part), np.int64)
        value = times.astype(np.float32)
        if self.mode == "drop":
            return Decision(~found, found.astype(np.float32), "listed")
        reason = np.where(found, "listed_for_another_row", "not_listed").astype(object)
        return Decision(times > 0, value, reason, np.maximum(times, 1).astype(np.int32))

    def describe(self, state: Listed) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "listed": state.distinct,
            "listed_samples": state.records,
            "found": state.found,
            "missing": state.distinct - state.found,
        }


def _size(path: str) -> tuple[int, int]:
    """Different uids in the file, and records; raises `DataError` when it is not sorted."""
    subset = map_subset(path)
    return distinct(subset, path), len(subset)


def _emit(part: Part, path: str, buckets: int) -> Emitted:
    """The rows that are listed, to a bucket by uid."""
    uids = part.uids()
    _, times = lookup(map_subset(path), uids)
    at = np.flatnonzero(times)
    bucket = ((uids["f0"][at] ^ uids["f1"][at]) % np.uint64(buckets)).astype(np.int64)
    return Emitted(bucket, part.rows[at], uids[at], {"times": times[at]})


def _reduce(bucket: int, rows: dict[str, np.ndarray], *_: Any) -> dict[str, np.ndarray]:
    """Deal the copies of each uid out to the rows that have it; rows come sorted by uid."""
    uids, times = rows["uids"], rows["times"]
    first = np.append(True, uids[1:] != uids[:-1])[: len(uids)]
    starts = np.flatnonzero(first)
    owners = np.diff(np.append(starts, len(uids)))
    turn = np.arange(len(uids)) - np.repeat(starts, owners)
    sharing = np.repeat(owners, owners)
    return {"times": times // sharing + (turn < times % sharing), "first": first}


def _count(part: Part, routed: Routed) -> tuple[int, int]:
    """Different uids that are found (each counted at its first row), and samples."""
    columns = routed.of(part)
    found = columns["found"]
    return (int(columns["first"][found].sum()), int(columns["times"][found].sum())) if found.any() else (0, 0)
