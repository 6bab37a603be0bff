"""A subset file against a folder of shards: which samples stay, how often, and which uids the pool lacks.

One pass per shard (`match_shard`) leaves a small table of the samples that stay; `settle` then looks over all of them
once: the shards are anyone's (img2dataset, DataComp, ours, any WebDataset whose samples have a uid in their parquet or
json), numbers may be missing, tables and statistics may be missing, tars may be torn. All of it is told, nothing is
silent, and every sample that can be read is used.

A uid is written as often as the subset says, also where several rows of the pool share it: they take turns.
Price of `settle`: one byte of memory per uid of the subset.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ConfigError, DataError
from . import storage
from .reshard import Kept
from .shard import SUCCESS, Shard
from .tar import TarReader
from .tar_index import TarIndex, index_path
from .uid import RECORD, lookup, map_subset, to_records, to_text


@dataclass(frozen=True)
class FoundShard:
    """A tar of the pool.

    Attributes:
        name: unique in the pool: its path below the folder, without ``.tar``, slashes as ``__``.
        tar: path.
        table: path of the parquet beside it, or None.
        size: bytes of the tar.
    """

    name: str
    tar: str
    table: str | None
    size: int


@dataclass(frozen=True)
class FoundPool:
    """The tars in a folder, and what seems to be missing.

    Attributes:
        shards: in order of their paths.
        gaps: numbers that are missing between the numbered tars, as ``3`` or ``7-9``.
        no_stats: names of shards without ``_stats.json`` though others have one: their writer may not have finished.
    """

    shards: list[FoundShard]
    gaps: list[str]
    no_stats: list[str]


def find_pool(folder: str) -> FoundPool:
    """List a folder of shards, and the folders in it; any fsspec URL.

    Raises:
        ConfigError: there is no tar.
    """
    from .sources.files import listing

    files = {file.path: file.size for file in listing(folder, recursive=True)}
    tars = [path for path in files if path.endswith(".tar")]
    if not tars:
        raise ConfigError(f"no .tar file in {folder}; give the folder of the shards")
    root = tars[0] if len(tars) == 1 and tars[0] == folder else _parent(tars)
    shards, no_stats = [], []
    for tar in tars:
        stem = tar.removesuffix(".tar")
        table = f"{stem}.parquet"
        name = stem[len(root) :].strip("/").replace("/", "__") or stem.rsplit("/", 1)[-1]
        shards.append(FoundShard(name, tar, table if table in files else None, files[tar]))
        if f"{stem}_stats.json" not in files:
            no_stats.append(name)
    numbers = {(s.tar.rpartition("/")[0], int(t)) for s in shards if (t := _stem(s.tar)).isdigit() and t.isascii()}
    gaps = []
    for place in sorted({place for place, _ in numbers}):
        gaps += _gaps(sorted(n for p, n in numbers if p == place))
    return FoundPool(shards, gaps, no_stats if len(no_stats) < len(shards) else [])


def _parent(paths: Sequence[str]) -> str:
    folders = [path.split("/")[:-1] for path in paths]
    shared = 0
    while all(len(f) > shared and f[shared] == folders[0][shared] for f in folders):
        shared += 1
    return "/".join(folders[0][:shared])


def _stem(path: str) -> str:
    return path.rsplit("/", 1)[-1].removesuffix(".tar")


def _gaps(numbers: list[int]) -> list[str]:
    gaps = []
    for low, high in pairwise(numbers):
        if high - low == 2:
            gaps.append(str(low + 1))
        elif high - low > 2:
            gaps.append(f"{low + 1}-{high - 1}")
    return gaps


def match_shard(shard: FoundShard, subset: str, folder: str, index: bool) -> dict[str, Any]:
    """Write which samples of one shard a subset keeps, as ``<name>.parquet`` and ``<name>.json`` into `folder`.

    The table has one row per kept sample in the order of the tar: ``uid``, ``key``, ``status``, ``place`` (of its uid
    in the subset), ``times``. With `index`, the tar's index is left there too.

    Returns:
        What the json holds: ``samples`` (in the tar), ``matched``, ``without_uid``, ``torn`` (a sentence, or null).

    Raises:
        DataError: a uid is not hexadecimal, or the subset file is none.
    """
    tar = TarReader(shard.tar)
    keys = tar.members.keys
    if tar.torn and len(keys) > 1 and len(tar.places(len(keys) - 1)) < len(tar.places(0)):
        keys = keys[:-1]  # the tear went through it
    torn = [f"{shard.tar}: {tar.torn}"] if tar.torn else []
    uids: list[str | None] | None = None
    if shard.table is not None:
        try:
            uids = _uids_from_table(shard.table, keys)
        except pa.ArrowInvalid:
            torn.append(f"{shard.table}: no readable parquet; the tar alone was used")
    if uids is None:
        uids = [_uid_in_json(tar.read_at(number, "json")) for number in range(len(keys))]
    known = [i for i, uid in enumerate(uids) if uid]
    try:
        records = to_records([uids[i] or "" for i in known])
    except DataError as error:
        raise DataError(f"{shard.tar}: {error}") from error
    place, times = lookup(map_subset(subset), records)
    kept = np.flatnonzero(times)
    table = pa.table(
        {
            "uid": pa.array(to_text(records[kept]), pa.string()),
            "key": pa.array([keys[known[i]] for i in kept.tolist()], pa.string()),
            "status": pa.array([SUCCESS] * len(kept), pa.string()),
            "place": pa.array(place[kept]),
            "times": pa.array(times[kept]),
        }
    )
    path = storage.join(folder, f"{shard.name}.parquet")
    with storage.publishing(path) as temporary:
        pq.write_table(table, temporary)
    if index:
        TarIndex.build(tar, path).save(_index(folder, shard.name))
    facts = {
        "samples": len(keys),
        "matched": len(kept),
        "without_uid": len(keys) - len(known),
        "torn": "; ".join(torn) or None,
    }
    storage.write_json(storage.join(folder, f"{shard.name}.json"), facts)  # last: the match is done
    return facts


def _uids_from_table(path: str, keys: list[str]) -> list[str | None] | None:
    """uid of each key, or None when the table does not tell keys and uids."""
    local = storage.local(path)
    if not {"key", "uid"} <= set(pq.read_schema(local).names):
        return None
    table = pq.read_table(local, columns=["key", "uid"])
    uids = dict(zip(table["key"].to_pylist(), table["uid"].cast(pa.string()).to_pylist(), strict=True))
    return [uids.get(key) for key in keys]


def _uid_in_json(data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        return None
    uid = fields.get("uid") if isinstance(fields, dict) else None
    return uid if isinstance(uid, str) else None


def _index(folder: str, name: str) -> str:
    return index_path(storage.join(folder, name))


@dataclass
class Settled:
    """The whole match.

    Attributes:
        shards: input shards for `reshard.write_shard`, whose row tables are the tables of the match.
        counts: samples that each gives, repeats counted.
        missing: distinct uids of the subset that the pool lacks, sorted records.
        repeated: samples written beyond the first of each uid.
        samples: in all tars of the pool.
        without_uid: those of them that could not be matched.
        torn: sentences.
    """

    shards: list[Shard]
    counts: list[int]
    missing: np.ndarray
    repeated: int
    samples: int
    without_uid: int
    torn: list[str] = field(default_factory=list)


def settle(found: Sequence[FoundShard], subset: str, folder: str, index: bool) -> Settled:
    """Look over the matches of all shards, in pool order; leaves ``<name>.times.npy`` where rows share a uid."""
    wanted = map_subset(subset)
    seen = np.zeros(len(wanted), bool)
    shared: set[int] = set()  # places in the subset of uids that several rows have
    counts, facts = [], []
    for shard in found:
        place, times = _matched(folder, shard.name)
        counts.append(int(times.sum()))
        facts.append(storage.read_json(storage.join(folder, f"{shard.name}.json")))
        here, often = np.unique(place, return_counts=True)
        shared.update(here[(often > 1) | seen[here]].tolist())
        seen[here] = True
    if shared:
        counts = _take_turns(found, folder, shared, counts)
    missing = _missing(wanted, seen)
    shards = [
        Shard(s.name, s.tar, storage.join(folder, f"{s.name}.parquet"), _index(folder, s.name) if index else None)
        for s in found
    ]
    return Settled(
        shards,
        counts,
        missing,
        sum(counts) - int(seen.sum()),
        sum(f["samples"] for f in facts),
        sum(f["without_uid"] for f in facts),
        [f["torn"] for f in facts if f["torn"]],
    )


def _matched(folder: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    table = pq.read_table(storage.local(storage.join(folder, f"{name}.parquet")), columns=["place", "times"])
    return table["place"].to_numpy(), table["times"].to_numpy()


def _take_turns(found: Sequence[FoundShard], folder: str, shared: set[int], counts: list[int]) -> list[int]:
    """Deal the copies of a uid out to the rows that share it, in pool order; returns the new counts."""
    places = np.array(sorted(shared), np.int64)
    owners: Counter[int] = Counter()
    for shard in found:
        place, _ = _matched(folder, shard.name)
        owners.update(place[np.isin(place, places)].tolist())
    turn: Counter[int] = Counter()
    given: Counter[int] = Counter()
    settled = []
    for shard, count in zip(found, counts, strict=True):
        place, times = _matched(folder, shard.name)
        rows = np.flatnonzero(np.isin(place, places))
        if len(rows):
            times, first = times.copy(), np.zeros(len(times), np.int64)
            for row in rows.tolist():
                uid = int(place[row])
                share, rest = divmod(int(times[row]), owners[uid])
                times[row] = share + (turn[uid] < rest)
                first[row] = given[uid]
                turn[uid] += 1
                given[uid] += int(times[row])
            with storage.publishing(storage.join(folder, f"{shard.name}.times.npy")) as path, open(path, "wb") as file:
                np.save(file, np.stack([times, first]))
            count = int(times.sum())
        settled.append(count)
    return settled


def _missing(wanted: np.ndarray, seen: np.ndarray, block: int = 1 << 22) -> np.ndarray:
    """Distinct records that were not seen; `seen` is marked at the first of equal ones."""
    found = [np.empty(0, RECORD)]
    for start in range(0, len(wanted), block):
        part = np.asarray(wanted[max(0, start - 1) : start + block])
        new = np.append(True, part[1:] != part[:-1])[min(start, 1) :]
        found.append(part[min(start, 1) :][new & ~seen[start : start + block]])
    return np.concatenate(found)


def kept_by_match(folder: str, names: Sequence[str]) -> Kept:
    """What `write_shard` asks for, from the files of `match_shard` and `settle`; travels between processes."""
    return partial(_kept, folder, list(names))


def _kept(folder: str, names: list[str], shard: int) -> tuple[np.ndarray, ...]:
    path = storage.join(folder, f"{names[shard]}.times.npy")
    if storage.exists(path):
        times, first = np.load(storage.local(path))
    else:
        _, times = _matched(folder, names[shard])
        first = np.zeros(len(times), np.int64)
    rows = np.flatnonzero(times)
    return rows, times[rows], first[rows]
