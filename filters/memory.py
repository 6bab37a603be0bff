"""The pool on one machine, in memory: `base.Pool` for library use and tests, without files, config or engine.

    pool = MemoryPool.of([table], [{"clip.image": embeddings}], seed=0)
    pool = pool.score("clip_score", ClipSimilarity(encoder="clip"))
    outcome = run_filters(pool, [TopFraction(by="clip_score", keep=0.3)])
    outcome.subset()                              # uid records, DataComp's subset file

Decisions are the same as the pipeline's: both hand rows to filters in the order that `shuffle.py` defines. The price is
that everything is in memory at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from ..errors import DataError
from ..registry import unknown
from ..shards.evalsets.source import EvalSource
from ..shards.uid import RECORD, argsort, column_records
from .base import Decision, Emitted, Filter, LoadEncoder, Part, Scorer
from .shuffle import align, gather, split

T = TypeVar("T")


class MemoryPart:
    """Alive rows of one part: an Arrow table with a ``uid`` column, and embeddings aligned with it."""

    def __init__(
        self,
        name: str,
        index: int,
        table: pa.Table,
        embeddings: Mapping[str, np.ndarray] | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        self.name, self.index = name, index
        self.table, self.embeddings = table, dict(embeddings or {})
        self.rows = np.arange(len(table), dtype=np.int64) if rows is None else np.asarray(rows, np.int64)
        for column, values in self.embeddings.items():
            if len(values) != len(table):
                raise DataError(f"part {name}: {column!r} has {len(values)} rows, the table has {len(table)}")

    def __len__(self) -> int:
        return len(self.rows)

    def array(self, column: str) -> np.ndarray:
        if column in self.embeddings:
            return np.asarray(self.embeddings[column][self.rows], np.float32)
        return self.arrow(column).to_numpy()

    def arrow(self, column: str) -> pa.ChunkedArray:
        if column not in self.table.column_names:
            raise DataError(
                f"part {self.name}: {unknown('column', column, [*self.table.column_names, *self.embeddings])}"
            )
        return self.table[column].take(pa.array(self.rows))

    def uids(self) -> np.ndarray:
        return column_records(self.arrow("uid"))

    def only(self, rows: np.ndarray) -> MemoryPart:
        """The same part with other rows alive."""
        return MemoryPart(self.name, self.index, self.table, self.embeddings, rows)


@dataclass(frozen=True)
class MemoryRouted:
    """What the reducers of one shuffle returned, per part."""

    results: dict[int, list[dict[str, np.ndarray]]] = field(default_factory=dict)

    def of(self, part: Part) -> dict[str, np.ndarray]:
        return align(part.rows, self.results.get(part.index, []))


class MemoryPool:
    """The alive rows of all parts, in this process."""

    def __init__(self, parts: Sequence[MemoryPart], seed: int = 0) -> None:
        self.members = list(parts)
        self.parts: Sequence[str] = [part.name for part in parts]
        self.seed = seed

    @classmethod
    def of(
        cls,
        tables: Sequence[pa.Table],
        embeddings: Sequence[Mapping[str, np.ndarray]] | None = None,
        seed: int = 0,
    ) -> MemoryPool:
        """A pool of one part per table.

        Args:
            tables: row tables with a ``uid`` column.
            embeddings: per table, ``"<encoder>.image"`` or ``"<encoder>.text"`` -> ``(n, d)`` floats, NaN rows where
                there is none.
        """
        embeddings = embeddings if embeddings is not None else [{} for _ in tables]
        columns = zip(tables, embeddings, strict=True)
        return cls([MemoryPart(f"{i:08d}", i, table, more) for i, (table, more) in enumerate(columns)], seed)

    def __len__(self) -> int:
        return sum(map(len, self.members))

    def map(self, function: Callable[..., T], *arguments: Any) -> list[T]:
        return [function(part, *arguments) for part in self.members]

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        return function(*arguments)

    def shuffle(
        self,
        emit: Callable[..., Emitted],
        reduce: Callable[..., dict[str, np.ndarray]],
        buckets: int,
        *arguments: Any,
    ) -> MemoryRouted:
        waiting: dict[int, list[tuple[int, Emitted]]] = {}
        for part in self.members:
            for bucket, emitted in split(emit(part, *arguments), buckets).items():
                waiting.setdefault(bucket, []).append((part.index, emitted))
        results: dict[int, list[dict[str, np.ndarray]]] = {}
        for bucket in sorted(waiting):
            rows, part_of, row_of = gather(waiting.pop(bucket))
            reduced = reduce(bucket, rows, *arguments)
            for index in np.unique(part_of):
                mine = part_of == index
                routed = {"row": row_of[mine]} | {name: values[mine] for name, values in reduced.items()}
                results.setdefault(int(index), []).append(routed)
        return MemoryRouted(results)

    def score(self, name: str, scorer: Scorer, context: MemoryContext | None = None) -> MemoryPool:
        """The pool with a scorer's columns added to every row of every part.

        Args:
            context: target sets and encoders, if the scorer asks for any.
        """
        context = MemoryContext() if context is None else context
        state = scorer.fit(context.of(self))
        scored = []
        for part in self.members:
            table = part.table
            for column, values in scorer.score(part.only(np.arange(len(table))), name, state).items():
                table = table.append_column(column, values if isinstance(values, pa.Array) else pa.array(values))
            scored.append(MemoryPart(part.name, part.index, table, part.embeddings, part.rows))
        return MemoryPool(scored, self.seed)


@dataclass(frozen=True)
class MemoryColumns:
    """`base.Columns` of a pool in memory. It has no shards: scorers that need pictures need files."""

    members: tuple[MemoryPart, ...]
    shards: Sequence[Any] = ()

    def part(self, index: int, rows: np.ndarray | None = None) -> MemoryPart:
        part = self.members[index]
        return part.only(np.arange(len(part.table)) if rows is None else rows)


@dataclass(frozen=True)
class MemoryTask:
    """What a long call knows about itself (`Context.map`), in a folder of its own."""

    out: str
    scratch: str

    def progress(self, done: int, total: int) -> None:
        """Nobody looks."""


@dataclass(frozen=True)
class MemoryContext:
    """`base.Context` on one machine, in memory.

    Attributes:
        targets: target sets by name.
        encoders: objects with `load`, by name.
        folder: where long work keeps its files; needed only by scorers that train.
        shards: of the pool, one per part; needed only by scorers that look at pictures while they train.
    """

    targets: Mapping[str, MemoryPool] = field(default_factory=dict)
    encoders: Mapping[str, LoadEncoder] = field(default_factory=dict)
    evalsets: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None
    shards: Sequence[Any] = ()
    own: MemoryPool | None = None

    def of(self, pool: MemoryPool) -> MemoryContext:
        """The same context around a pool."""
        return replace(self, own=pool)

    @property
    def seed(self) -> int:
        return self.pool.seed

    @property
    def scratch(self) -> str:
        if self.folder is None:
            raise DataError("this score keeps files; give the context a folder for them")
        return f"{self.folder}/scratch"

    @property
    def pool(self) -> MemoryPool:
        if self.own is None:
            raise DataError("this context has no pool")
        return self.own

    @property
    def columns(self) -> MemoryColumns:
        return MemoryColumns(tuple(self.pool.members), self.shards)

    def target(self, name: str) -> MemoryPool:
        if name not in self.targets:
            raise DataError(unknown("target set", name, self.targets))
        return self.targets[name]

    def target_columns(self, name: str) -> MemoryColumns:
        return MemoryColumns(tuple(self.target(name).members))

    def encoder(self, name: str) -> LoadEncoder:
        if name not in self.encoders:
            raise DataError(unknown("encoder", name, self.encoders))
        return self.encoders[name]

    def evalset(self, source: EvalSource) -> EvalSource:
        return source.at(self.evalsets.get(source.path, source.path))

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        return function(*arguments)

    def map(
        self, function: Callable[..., dict[str, Any]], parts: Mapping[str, tuple[Any, ...]]
    ) -> dict[str, dict[str, Any]]:
        task = [MemoryTask(f"{self.folder}/data", f"{self.scratch}/{name}") for name in parts]
        return {name: function(t, *arguments) for t, (name, arguments) in zip(task, parts.items(), strict=True)}


@dataclass(frozen=True)
class Step:
    """One filter's line in the funnel.

    Attributes:
        label: its place, from 1, and its type.
        entered: rows that reached it.
        kept: rows that it kept.
        samples: the same with repeats.
        reasons: rows dropped, by reason code.
        facts: what the filter says of itself (`Filter.describe`).
    """

    label: str
    entered: int
    kept: int
    samples: int
    reasons: dict[str, int]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What an ordered list of filters did to a pool.

    Attributes:
        fates: one table per part, row for row: ``uid``, ``kept``, ``times`` (0 = dropped), ``dropped_by`` (label),
            ``reason``, ``value`` (of the last filter that the row reached).
        steps: the funnel.
    """

    fates: list[pa.Table]
    steps: list[Step]

    def subset(self) -> np.ndarray:
        """Kept uid records in order, repeated as often as the samples are."""
        records = [np.empty(0, RECORD)]
        for table in self.fates:
            records.append(np.repeat(column_records(table["uid"]), table["times"].to_numpy()))
        merged = np.concatenate(records)
        return merged[argsort(merged)]


def run_filters(pool: MemoryPool, filters: Sequence[Filter], context: MemoryContext | None = None) -> Outcome:
    """Apply filters in order; each sees what the ones before it kept.

    Args:
        context: target sets and encoders, if a filter asks for any.

    Raises:
        DataError: a filter cannot decide (a missing column, no values, infeasible quotas).
    """
    context = MemoryContext() if context is None else context
    alive = pool.members
    fates = [_Fate(part) for part in pool.members]
    steps = []
    for place, chosen in enumerate(filters, 1):
        label = f"{place}-{chosen.type}"
        state = chosen.fit_in(context.of(MemoryPool(alive, pool.seed)))
        entered, kept, samples, reasons, survivors = 0, 0, 0, {}, []
        for part, fate in zip(alive, fates, strict=True):
            decision = chosen.decide(part, state)
            keep = np.asarray(decision.keep, bool)
            for code, count in fate.apply(part.rows, decision, label).items():
                reasons[code] = reasons.get(code, 0) + count
            survivors.append(part.only(part.rows[keep]))
            entered, kept = entered + len(part), kept + int(keep.sum())
            samples += int(fate.times[part.rows].sum())
        alive = survivors
        steps.append(Step(label, entered, kept, samples, dict(sorted(reasons.items())), chosen.describe(state)))
    return Outcome([fate.table() for fate in fates], steps)


class _Fate:
    """The fate of every row of one part, filled in filter by filter."""

    def __init__(self, part: MemoryPart) -> None:
        n = len(part.table)
        self.uids = part.table["uid"]
        self.times = np.zeros(n, np.int32)
        self.times[part.rows] = 1
        self.dropped_by = np.full(n, None, object)
        self.reason = np.full(n, None, object)
        self.value = np.full(n, np.nan, np.float32)

    def apply(self, rows: np.ndarray, decision: Decision, label: str) -> dict[str, int]:
        """Record a decision for `rows`; returns the dropped rows by reason."""
        keep = np.asarray(decision.keep, bool)
        if keep.shape != rows.shape or np.shape(decision.value) != rows.shape:
            raise DataError(f"filter {label} decided for {keep.shape} rows of {rows.shape}")
        times = self.times[rows] if decision.times is None else self.times[rows] * decision.times
        self.times[rows] = np.where(keep, times, 0)
        self.value[rows] = decision.value
        codes = np.broadcast_to(np.asarray(decision.reason, object), rows.shape)[~keep]
        self.dropped_by[rows[~keep]] = label
        self.reason[rows[~keep]] = codes
        names, counts = np.unique(codes.astype(str), return_counts=True)
        return {str(name): int(count) for name, count in zip(names, counts, strict=True)}

    def table(self) -> pa.Table:
        return pa.table(
            {
                "uid": self.uids,
                "kept": pa.array(self.times > 0),
                "times": pa.array(self.times),
                "dropped_by": pa.array(self.dropped_by, pa.string()),
                "reason": pa.array(self.reason, pa.string()),
                "value": pa.array(self.value),
            }
        )
