"""`filters.base.Pool` over files and an engine: how a filter that needs the whole pool sees it.

``map`` is an engine call per part. ``shuffle`` partitions through files in the stage's scratch folder: every part
writes one Arrow file of its rows sorted by bucket, every group of buckets is read as slices of those files (memory
mapped, so only the slice is read), reduced, and written back sorted by part. Groups only batch the work: each bucket is
reduced on its own, so their number cannot change a result. The driver holds counts and file names, never rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from ..filters.base import Emitted, Part, Routed
from ..filters.shuffle import align, gather
from ..shards import storage
from .columns import ColumnStore, FilePart
from .decisions import alive
from .stage import Work

T = TypeVar("T")
BYTES_PER_GROUP = 64 << 20  # of what the parts send; small ones would spend their time opening files
MAX_GROUPS = 4096
PARTS_PER_FILE = 64


@dataclass(frozen=True)
class Survivors:
    """The rows of the pool that reach a filter.

    Attributes:
        store: the pool's columns.
        previous: decision folder of the filter before, or None.
    """

    store: ColumnStore
    previous: str | None

    def part(self, index: int) -> tuple[FilePart, np.ndarray]:
        """Part `index` with its alive rows, and their multiplicities."""
        rows, times = alive(self.store.shards[index], self.previous)
        return self.store.part(index, rows), times


class StagePool:
    """The alive rows of all parts, for a `fit` that runs inside a stage.

    Args:
        label: tells the files of several pools of one stage apart.
    """

    def __init__(self, work: Work, survivors: Survivors, seed: int, label: str = "") -> None:
        self._work, self._survivors, self._label = work, survivors, label
        self.seed = seed
        self.parts: Sequence[str] = [s.name for s in survivors.store.shards]
        self._shuffles = 0

    def map(self, function: Callable[..., T], *arguments: Any) -> list[T]:
        calls = [(function, self._survivors, i, arguments) for i in range(len(self.parts))]
        return self._work.gather(_on_part, calls)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        return self._work.gather(function, [arguments])[0]

    def shuffle(
        self,
        emit: Callable[..., Emitted],
        reduce: Callable[..., dict[str, np.ndarray]],
        buckets: int,
        *arguments: Any,
    ) -> FileRouted:
        folder = self._work.artifact.scratch(f"{self._label}shuffle{self._shuffles}")
        self._shuffles += 1
        calls = [(emit, self._survivors, i, arguments, folder, buckets) for i in range(len(self.parts))]
        sizes = self._work.gather(_emit, calls)
        groups = max(1, min(buckets, MAX_GROUPS, -(-sum(sizes) // BYTES_PER_GROUP)))
        bounds = np.linspace(0, buckets, groups + 1).astype(int)
        calls = [(reduce, self.parts, folder, g, int(bounds[g]), int(bounds[g + 1]), arguments) for g in range(groups)]
        self._work.gather(_reduce, calls)
        for name in self.parts:  # as large as the columns that were sent
            Path(storage.local(storage.join(folder, f"{name}.emit"))).unlink(missing_ok=True)
        blocks = -(-len(self.parts) // PARTS_PER_FILE)
        self._work.gather(_collect, [(folder, b, groups, len(self.parts)) for b in range(blocks)])
        for group in range(groups):
            Path(storage.local(storage.join(folder, f"group{group:05d}.routed"))).unlink(missing_ok=True)
        return FileRouted(folder)


def _on_part(function: Callable[..., T], survivors: Survivors, index: int, arguments: tuple[Any, ...]) -> T:
    part, _ = survivors.part(index)
    return function(part, *arguments)


def _write(path: str, columns: dict[str, np.ndarray], offsets: np.ndarray) -> None:
    """Publish arrays of equal length as an uncompressed Arrow file; `offsets` go into its metadata."""
    arrays, shapes = {}, {}
    for name, values in columns.items():
        shapes[name] = [values.dtype.str if values.dtype.names is None else "uid", list(values.shape[1:])]
        raw = np.ascontiguousarray(values)
        width = raw.dtype.itemsize * int(np.prod(raw.shape[1:], dtype=int))
        arrays[name] = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(raw), [None, pa.py_buffer(raw)])
    meta = {"shapes": json.dumps(shapes), "offsets": json.dumps(offsets.tolist())}
    table = pa.table(arrays).replace_schema_metadata(meta)
    with storage.publishing(path) as temporary, pa.ipc.new_file(temporary, table.schema) as writer:
        writer.write_table(table)


def _slice(path: str, start_key: int, stop_key: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arrays of the rows of keys ``start_key..stop_key - 1``, and the rows' keys."""
    from ..shards.uid import RECORD

    with pa.memory_map(storage.local(path)) as source:
        table = pa.ipc.open_file(source).read_all()
        meta = {k.decode(): json.loads(v) for k, v in (table.schema.metadata or {}).items()}
        offsets = np.asarray(meta["offsets"])
        start, stop = int(offsets[start_key]), int(offsets[stop_key])
        columns = {}
        for name, (dtype, shape) in meta["shapes"].items():
            batches = table[name].chunks  # one was written, or none if it has no row; combining would copy the column
            chunk = batches[0] if batches else pa.array([], table[name].type)
            kind = RECORD if dtype == "uid" else np.dtype(dtype)
            width = kind.itemsize * int(np.prod(shape, dtype=int))
            data = chunk.buffers()[1] if len(chunk) else b""
            values = np.frombuffer(data or b"", np.uint8)[: len(chunk) * width] if width else np.empty(0, np.uint8)
            values = values.reshape(len(chunk), width)[start:stop].copy()
            columns[name] = values.view(kind).reshape(stop - start, *shape)
        keys = np.repeat(np.arange(start_key, stop_key), np.diff(offsets[start_key : stop_key + 1]))
    return columns, keys


def _emit(
    emit: Callable[..., Emitted],
    survivors: Survivors,
    index: int,
    arguments: tuple[Any, ...],
    folder: str,
    buckets: int,
) -> int:
    """Write what a part sends; returns its size in bytes."""
    part, _ = survivors.part(index)
    emitted = emit(part, *arguments)
    order = np.argsort(emitted.bucket, kind="stable")
    columns = {"rows": emitted.rows, "uids": emitted.uids}
    columns |= {f"value.{k}": v for k, v in emitted.values.items()}
    offsets = np.searchsorted(emitted.bucket[order], np.arange(buckets + 1))
    _write(storage.join(folder, f"{part.name}.emit"), {k: v[order] for k, v in columns.items()}, offsets)
    return sum(values.nbytes for values in columns.values())


def _reduce(
    reduce: Callable[..., dict[str, np.ndarray]],
    parts: list[str],
    folder: str,
    group: int,
    start: int,
    stop: int,
    arguments: tuple[Any, ...],
) -> None:
    slices: list[list[tuple[int, Emitted]]] = [[] for _ in range(stop - start)]
    for index, name in enumerate(parts):
        columns, keys = _slice(storage.join(folder, f"{name}.emit"), start, stop)
        opens = np.flatnonzero(np.diff(keys, prepend=-1))  # rows lie in the order of their buckets
        for first, last in zip(opens, np.append(opens[1:], len(keys)), strict=False):  # no rows: nothing opens
            mine = slice(int(first), int(last))
            values = {k.removeprefix("value."): v[mine] for k, v in columns.items() if k.startswith("value.")}
            found = Emitted(keys[mine], columns["rows"][mine], columns["uids"][mine], values)
            slices[keys[first] - start].append((index, found))
    results: list[dict[str, np.ndarray]] = []
    for bucket in range(start, stop):
        emitted, slices[bucket - start] = slices[bucket - start], []  # let go of each bucket when it is reduced
        if emitted:
            rows, part_of, row_of = gather(emitted)
            results.append({**reduce(bucket, rows, *arguments), "part": part_of, "row": row_of})
    if results:
        merged = {k: np.concatenate([r[k] for r in results]) for k in results[0]}
    else:
        merged = {"part": np.empty(0, np.int64), "row": np.empty(0, np.int64)}
    order = np.lexsort((merged["row"], merged["part"]))
    merged = {k: v[order] for k, v in merged.items()}
    offsets = np.searchsorted(merged.pop("part"), np.arange(len(parts) + 1))
    _write(storage.join(folder, f"group{group:05d}.routed"), merged, offsets)


def _collect(folder: str, block: int, groups: int, parts: int) -> None:
    """What the groups returned for some neighbouring parts, in one file: a part then opens one, not one per group."""
    start, stop = block * PARTS_PER_FILE, min(parts, (block + 1) * PARTS_PER_FILE)
    found = [_slice(storage.join(folder, f"group{g:05d}.routed"), start, stop) for g in range(groups)]
    found = [(columns, keys) for columns, keys in found if len(keys)] or found[:1]
    keys = np.concatenate([keys for _, keys in found])
    merged = {name: np.concatenate([columns[name] for columns, _ in found]) for name in found[0][0]}
    order = np.lexsort((merged["row"], keys))
    offsets = np.searchsorted(keys[order], np.arange(start, stop + 1))
    _write(storage.join(folder, f"parts{block:05d}.routed"), {k: v[order] for k, v in merged.items()}, offsets)


@dataclass(frozen=True)
class FileRouted(Routed):
    """Reducers' results in files, addressed by part."""

    folder: str

    def of(self, part: Part) -> dict[str, np.ndarray]:
        block, at = divmod(part.index, PARTS_PER_FILE)
        columns, _ = _slice(storage.join(self.folder, f"parts{block:05d}.routed"), at, at + 1)
        return align(part.rows, [columns])
