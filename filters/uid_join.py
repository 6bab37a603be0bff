"""Rows of other people's files -> rows of the pool, by uid (or by equal text), each exactly once.

Both sides are cut into buckets by a hash of the key, so nothing the size of the pool or of the files sits in one
process: every range of the files becomes a small file of its keys sorted by bucket; every bucket becomes one sorted
index of distinct keys, each with the place of its first row; then the pool's rows are shuffled to the buckets, look
their key up, and take the place (range, row) back to their part. The values themselves stay where they are until a part
asks for them, and rows that lie together in both are read together.

Every row of the pool whose key is listed gets its place, copies too; what the files repeat counts once, and it is an
error if the repeats differ, unless the first is to win. Whatever does not match is counted on both sides. Price: 24
bytes of disk per external row twice, and one read of their keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from ..errors import ConfigError, DataError
from ..shards import storage
from ..shards.uid import RECORD, lookup, stable_uid, to_records
from .base import Context, Emitted, Part, Routed

UID = "uid"
ROWS_PER_BUCKET = 1_000_000
MAX_BUCKETS = 4096
ROWS_PER_RANGE = 250_000
"""Rows of a file that one call takes in; what such a call holds in memory."""

Duplicates = Literal["error", "first"]
_ENTRY = np.dtype([("f0", "<u8"), ("f1", "<u8"), ("row", "<u4")])
_INDEX = np.dtype([("f0", "<u8"), ("f1", "<u8"), ("row", "<u4"), ("source", "<u4"), ("times", "<u4")])
_HEX = "0123456789abcdefABCDEF"


class External(Protocol):
    """Files with a key column; picklable."""

    def plan(self) -> dict[str, Any]:
        """``{"ranges": [{"rows": n, ...}, ...], ...}`` as JSON: row ranges of all files, in order."""
        ...

    def keys(self, plan: dict[str, Any], source: int, folder: str) -> pa.Array:
        """The key column of range number `source`; may publish files into `folder`."""
        ...

    def equal(self, folder: str, sources: tuple[np.ndarray, np.ndarray], rows: tuple[np.ndarray, np.ndarray]) -> Any:
        """``(m,) bool``: whether rows at two lists of places hold the same values (missing equals missing)."""
        ...

    def place(self, plan: dict[str, Any], source: int, row: int) -> str:
        """A place in words, for messages."""
        ...


@dataclass(frozen=True)
class Joined:
    """Where the rows of the pool find their values.

    Attributes:
        routed: per row of the pool, its place.
        folder: of what was taken in, with ``plan.json``.
        facts: counts, strict JSON: ``rows`` of the files, of which ``malformed`` have no usable key, and ``repeated``
            come after the first of their key; ``distinct`` keys, of which ``conflicting`` have different values;
            ``matched`` and ``unmatched`` rows of the pool; ``not_in_pool``, rows of the files that no row of the pool
            asked for.
    """

    routed: Routed
    folder: str
    facts: dict[str, int]

    def places(self, part: Part) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For the part's rows ``(n,)``: whether there is a place, its range number, and its row in the range."""
        columns = self.routed.of(part)
        if "hit" not in columns:
            return np.zeros(len(part), bool), np.zeros(len(part), np.int64), np.zeros(len(part), np.int64)
        return columns["found"] & columns["hit"], columns["source"], columns["at"]


def join(context: Context, external: External, on: str, duplicates: Duplicates, where: str) -> Joined:
    """Find the place of every usable row of the pool.

    Args:
        on: column of the pool whose value is the key: ``uid``, or text that must be equal.
        duplicates: what to do about keys that occur several times with different values.
        where: the scorer or encoder, for messages.

    Raises:
        DataError: no row of the files has a usable key, or keys repeat with different values.
    """
    planned = context.map(_plan, {"import-plan": (external, context.scratch)})["import-plan"]
    ranges = int(planned["ranges"])
    folder = storage.join(context.scratch, str(planned["name"]))
    pool_rows = sum(context.pool.map(len))
    buckets = min(MAX_BUCKETS, 1 + max(int(planned["rows"]), pool_rows) // ROWS_PER_BUCKET)

    calls = {f"import-keys-{i:06d}": (external, folder, i, on, buckets, where) for i in range(ranges)}
    taken = context.map(_take_in, calls)
    rows, malformed = (sum(int(t[k]) for t in taken.values()) for k in ("rows", "malformed"))
    if rows and malformed == rows:
        raise DataError(f"{where}: none of the {rows} rows has a usable key; is `key` the right column?")

    calls = {f"import-index-{b:04d}": (external, folder, b, ranges) for b in range(buckets)}
    indexed = list(context.map(_index, calls).values())
    distinct, repeated, conflicting = (sum(int(i[k]) for i in indexed) for k in ("distinct", "repeated", "conflicting"))
    if conflicting and duplicates == "error":
        example = next(i["example"] for i in indexed if i["example"])
        raise DataError(
            f"{where}: {conflicting} keys occur several times with different values, such as {example}; "
            "clean the files, or say `duplicates: first` to take the first of each"
        )

    routed = context.pool.shuffle(_emit, _reduce, buckets, on, buckets, folder)
    counts = np.sum([(0, 0, 0), *context.pool.map(_count, routed)], axis=0).tolist()
    facts = {
        "rows": rows,
        "malformed": malformed,
        "distinct": distinct,
        "repeated": repeated,
        "conflicting": conflicting,
        "matched": counts[1],
        "unmatched": counts[0] - counts[1],
        "not_in_pool": rows - malformed - counts[2],
    }
    return Joined(routed, folder, facts)


@lru_cache(maxsize=4)
def plan_in(folder: str) -> dict[str, Any]:
    """The plan that lies in a folder; its name tells its content."""
    return storage.read_json(storage.join(folder, "plan.json"))  # type: ignore[no-any-return]


def records(values: pa.Array, on: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Keys -> 128-bit records, ``(n,)`` of `RECORD`, and a mask of those that are usable.

    uids are 1-32 hexadecimal characters, shorter ones lost leading zeros; other text stands for itself, hashed.

    Raises:
        ConfigError: the column holds no text.
    """
    from ..shards.sources.columns import texts

    if on == UID and pa.types.is_integer(values.type):
        raise ConfigError(f"{where}: the key column holds {values.type}; uids are text of 32 hexadecimal characters")
    found = texts(pa.table({"key": values}), "key", where)[0].to_pylist()
    if on != UID:
        usable = np.array([bool(text) for text in found], bool)
        return to_records(stable_uid(text or "") for text in found), usable
    try:
        return to_records(text or "" for text in found), np.ones(len(found), bool)
    except DataError:
        good = [bool(text) and len(text) <= 32 and not text.strip(_HEX) for text in found]
        return to_records(text if ok else "0" for text, ok in zip(found, good, strict=True)), np.array(good, bool)


def bucket_of(keys: np.ndarray, buckets: int) -> np.ndarray:
    """``(n,) int64`` bucket of each record; even also for uids that someone numbered."""
    mixed = keys["f0"] * np.uint64(0x9E3779B97F4A7C15) ^ keys["f1"] * np.uint64(0xC2B2AE3D27D4EB4F)
    return ((mixed ^ mixed >> np.uint64(32)) % np.uint64(buckets)).astype(np.int64)


def publish_array(path: str, values: np.ndarray) -> None:
    """Publish an array as .npy."""
    with storage.publishing(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array(file, values, allow_pickle=False)


def _plan(task: Any, external: External, scratch: str) -> dict[str, Any]:
    """Plan once; the folder of all that follows is named by the plan's content."""
    plan = external.plan()
    text = json.dumps(plan, sort_keys=True, allow_nan=False)
    name = f"import-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}"
    storage.write_json(storage.join(scratch, name, "plan.json"), plan, indent=None)
    rows = sum(int(r["rows"]) for r in plan["ranges"])
    return {"name": name, "ranges": len(plan["ranges"]), "rows": rows}


def _take_in(
    task: Any, external: External, folder: str, source: int, on: str, buckets: int, where: str
) -> dict[str, Any]:
    """One range of the files: its usable keys, sorted by bucket."""
    keys, usable = records(external.keys(plan_in(folder), source, folder), on, where)
    rows = np.flatnonzero(usable)
    bucket = bucket_of(keys[rows], buckets)
    order = np.argsort(bucket, kind="stable")
    entries = np.empty(len(rows), _ENTRY)
    entries["row"] = rows[order]
    entries["f0"], entries["f1"] = keys["f0"][rows[order]], keys["f1"][rows[order]]
    publish_array(_offsets(folder, source), np.searchsorted(bucket[order], np.arange(buckets + 1)))
    publish_array(_keys(folder, source), entries)
    return {"rows": len(keys), "malformed": int((~usable).sum())}


def _offsets(folder: str, source: int) -> str:
    return storage.join(folder, f"keys-{source:06d}.offsets.npy")


def _keys(folder: str, source: int) -> str:
    return storage.join(folder, f"keys-{source:06d}.npy")


def _mapped(path: str) -> np.ndarray:
    return np.load(storage.local(path), mmap_mode="r", allow_pickle=False)


def _index(task: Any, external: External, folder: str, bucket: int, ranges: int) -> dict[str, Any]:
    """All keys of one bucket, each once: where its first row lies, and how many rows it has."""
    slices = []
    for source in range(ranges):
        start, stop = _mapped(_offsets(folder, source))[bucket : bucket + 2].tolist()
        entries = np.zeros(stop - start, _INDEX)
        if len(entries):  # an empty array cannot be mapped
            found = _mapped(_keys(folder, source))[start:stop]
            for field in ("f0", "f1", "row"):
                entries[field] = found[field]
            entries["source"] = source
            slices.append(entries)
    entries = np.concatenate(slices) if slices else np.zeros(0, _INDEX)
    entries = entries[np.lexsort((entries["row"], entries["source"], entries["f1"], entries["f0"]))]
    new = np.ones(len(entries), bool)
    new[1:] = (entries["f0"][1:] != entries["f0"][:-1]) | (entries["f1"][1:] != entries["f1"][:-1])
    group = np.cumsum(new) - 1
    index = entries[new]
    index["times"] = np.bincount(group, minlength=len(index))
    publish_array(_index_file(folder, bucket), index)

    again = np.flatnonzero(~new)
    differ = np.zeros(0, np.int64)
    if len(again):
        first, other = index[group[again]], entries[again]
        sources = (first["source"].astype(np.int64), other["source"].astype(np.int64))
        rows = (first["row"].astype(np.int64), other["row"].astype(np.int64))
        differ = np.flatnonzero(~np.asarray(external.equal(folder, sources, rows), bool))
    example = ""
    if len(differ):
        plan, at = plan_in(folder), differ[0]
        places = [external.place(plan, int(e["source"][at]), int(e["row"][at])) for e in (first, other)]
        example = f"that of {places[0]} and {places[1]}"
    conflicting = len(np.unique(group[again][differ]))
    return {"distinct": len(index), "repeated": len(again), "conflicting": conflicting, "example": example}


def _index_file(folder: str, bucket: int) -> str:
    return storage.join(folder, f"index-{bucket:04d}.npy")


def _emit(part: Part, on: str, buckets: int, folder: str) -> Emitted:
    """The rows that have a key, to a bucket by key; the key stands in for the uid."""
    if on == UID:
        keys, usable = part.uids(), np.ones(len(part), bool)
    else:
        values = part.arrow(on)
        keys, usable = records(values.combine_chunks(), on, f"column {on!r} of part {part.name}")
    at = np.flatnonzero(usable)
    return Emitted(bucket_of(keys[at], buckets), part.rows[at], keys[at].astype(RECORD))


def _reduce(bucket: int, rows: dict[str, np.ndarray], on: str, buckets: int, folder: str) -> dict[str, np.ndarray]:
    """Look the keys of one bucket up; rows come sorted by key."""
    keys = rows["uids"]
    index = np.load(storage.local(_index_file(folder, bucket)), allow_pickle=False)
    at, count = lookup(index, keys)
    hit = count > 0
    entry = index[np.where(hit, at, 0)] if len(index) else np.zeros(len(keys), _INDEX)
    first = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
    return {
        "hit": hit,
        "source": entry["source"].astype(np.int64),
        "at": entry["row"].astype(np.int64),
        "served": np.where(hit & first, entry["times"], 0).astype(np.int64),
    }


def _count(part: Part, routed: Routed) -> tuple[int, int, int]:
    """Rows, rows with a place, and rows of the files that those are (each key counted at its first row)."""
    columns: Mapping[str, np.ndarray] = routed.of(part)
    if "hit" not in columns:
        return len(part), 0, 0
    return len(part), int((columns["found"] & columns["hit"]).sum()), int(columns["served"].sum())
