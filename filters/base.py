"""The one-method world of filters: columns in, a decision with a reason out.

A filter sees the pool one part (shard) at a time. Most need nothing else and implement only `Filter.decide`.
Those that need the whole pool first (a quantile, clusters, duplicates) also implement `Filter.fit`, which reads the
pool through two exact primitives that run on one process or on a cluster alike:

* ``pool.map(f)``: call ``f(part)`` for every part and return the small results in part order;
* ``pool.shuffle(emit, reduce, buckets)``: send rows to buckets (by hash or by cluster), let `reduce` see every bucket
  whole, and keep what it returns where each part finds its own rows again. Nothing pool-sized sits in one process.

Order never matters: rows reach `reduce` sorted by uid, then by part and row, whatever the number of workers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from ..errors import DataError
from ..registry import Options, Registry
from ..shards.evalsets.source import EvalSource
from ..shards.image_pass import ImageReader

if TYPE_CHECKING:
    from ..pretrain.encoders.encoder import Encoder
    from ..shards.shard import Shard

T = TypeVar("T")


class Part(Protocol):
    """The rows of one part that are still alive, seen through their columns.

    A column is a row-table column (``caption``, ``original_width``...), a score by its name in the config, or an
    embedding as ``"<encoder>.image"`` / ``"<encoder>.text"``.
    """

    name: str
    index: int
    rows: np.ndarray
    """Row numbers in the part, ``(n,) int64``, ascending."""

    def __len__(self) -> int: ...

    def array(self, column: str) -> np.ndarray:
        """Column values of the alive rows: ``(n,)`` numbers or objects, ``(n, d) float32`` for embeddings."""
        ...

    def arrow(self, column: str) -> pa.ChunkedArray:
        """A row-table or score column of the alive rows, as Arrow."""
        ...

    def uids(self) -> np.ndarray:
        """uid records of the alive rows, ``(n,)`` of `shards.uid.RECORD`."""
        ...

    def only(self, rows: np.ndarray) -> Part:
        """The same part with other rows alive."""
        ...


@dataclass
class Emitted:
    """Rows that a part sends to buckets.

    Attributes:
        bucket: ``(m,) int64`` bucket of each row.
        rows: ``(m,) int64`` row numbers in the part.
        uids: ``(m,)`` uid records, for a stable order.
        values: more arrays, first axis ``m``, that `reduce` needs.
    """

    bucket: np.ndarray
    rows: np.ndarray
    uids: np.ndarray
    values: dict[str, np.ndarray] = field(default_factory=dict)


class Routed(Protocol):
    """What the reducers returned, addressed by part."""

    def of(self, part: Part) -> dict[str, np.ndarray]:
        """Arrays aligned with the part's alive rows; rows that no bucket returned hold 0, False or NaN.

        Includes ``found``, ``(n,) bool``: whether a bucket returned the row.
        """
        ...


class Pool(Protocol):
    """The alive rows of all parts."""

    parts: Sequence[str]
    seed: int

    def map(self, function: Callable[..., T], *arguments: Any) -> list[T]:
        """``function(part, *arguments)`` for every part, results in part order. Must be a module-level function."""
        ...

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """``function(*arguments)`` once, away from the driver (for work too heavy for it, such as k-means)."""
        ...

    def shuffle(
        self,
        emit: Callable[..., Emitted],
        reduce: Callable[..., dict[str, np.ndarray]],
        buckets: int,
        *arguments: Any,
    ) -> Routed:
        """Partition rows by bucket, reduce every bucket whole, and route the results back.

        ``emit(part, *arguments) -> Emitted``; ``reduce(bucket, rows, *arguments) -> {name: (m,) array}`` where ``rows``
        is the bucket's `Emitted.values` plus ``uids``, ordered by (uid, part, row); results align with it.
        Empty buckets are not reduced.
        """
        ...


@dataclass
class Decision:
    """What a filter decided for the alive rows of one part.

    Attributes:
        keep: ``(n,) bool``.
        value: ``(n,) float32``, the number it decided by (NaN when there is none).
        reason: why a dropped row was dropped: one code for all, or ``(n,)`` codes.
        times: ``(n,) int32``, how often a kept row is repeated; None = once.
        group: ``(n,) int32``, the cluster that each row belongs to, -1 = none; None when the filter has no clusters.
    """

    keep: np.ndarray
    value: np.ndarray
    reason: str | np.ndarray
    times: np.ndarray | None = None
    group: np.ndarray | None = None


class Reads(Options):
    """What scorers and filters say about what they read, so that it can be made before they run."""

    version: ClassVar[int] = 1
    type: str

    @abstractmethod
    def columns(self) -> list[str]:
        """Columns of the pool that it reads. ``subset.<name>``: how often a row is in that subset, 0 = not at all."""

    def targets(self) -> dict[str, list[str]]:
        """Target sets that it reads, and which embeddings and scores of them."""
        return {}

    def encoders(self) -> list[str]:
        """Encoders of the config that it needs itself (for prompts), beside those whose columns are read."""
        return []

    def architectures(self) -> list[str]:
        """Model architectures that it builds; their identity is part of the fingerprint."""
        return []

    def evalsets(self) -> list[EvalSource]:
        """Evaluation sets that it reads."""
        return []

    def files(self) -> list[str]:
        """Local files that the result depends on; their content is part of the fingerprint."""
        return []


class Columns(Protocol):
    """All rows of a pool, part by part, failed ones included. Picklable: it may go along to a worker."""

    @property
    def shards(self) -> Sequence[Shard]: ...

    def part(self, index: int, rows: np.ndarray | None = None) -> Part:
        """Part `index`, all rows or only some."""
        ...


class Context(Protocol):
    """What a scorer or filter may look at before it judges rows: the whole pool, target sets, encoders."""

    @property
    def seed(self) -> int:
        """Of the run; 0 for scores that do not depend on the whole pool."""
        ...

    @property
    def scratch(self) -> str:
        """Folder for files that outlive a kill, but not the finished stage."""
        ...

    @property
    def pool(self) -> Pool:
        """The usable rows (only for scorers that say `Scorer.whole_pool`); for filters, those that reach them."""
        ...

    @property
    def columns(self) -> Columns:
        """The pool's files. Only for scorers that say `Scorer.whole_pool`."""
        ...

    def target(self, name: str) -> Pool:
        """The usable rows of a target set, with the columns that `Reads.targets` asked for."""
        ...

    def target_columns(self, name: str) -> Columns:
        """The files of a target set."""
        ...

    def encoder(self, name: str) -> LoadEncoder:
        """How a worker loads an encoder of the config (for prompts, through `call`)."""
        ...

    def evalset(self, source: EvalSource) -> EvalSource:
        """Where one of `Reads.evalsets` lies: a built-in one in the folder that it was written to."""
        ...

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """``function(*arguments)`` once, away from the driver."""
        ...

    def map(
        self, function: Callable[..., dict[str, Any]], parts: Mapping[str, tuple[Any, ...]]
    ) -> dict[str, dict[str, Any]]:
        """Long work that must survive a kill: ``function(task, *arguments)`` per named part, each with a receipt.

        The function returns strict JSON; ``task`` has ``out`` (folder for finished files, published atomically),
        ``scratch`` (folder for resumable state) and ``progress(done, total)``.
        """
        ...


class LoadEncoder(Protocol):
    """A picklable recipe for an encoder; `load` is cached in each worker."""

    def load(self) -> Encoder: ...


class Filter(Reads):
    """Base of all filters. Subclasses are registered in `FILTERS` and are their own options.

    Attributes:
        version: bump when the same options would give other decisions; part of the fingerprint.
        catches: kinds of fault that it is meant to catch; where the truth is known, the report judges it by them
            (``wrong_caption``, ``boilerplate``, ``foreign``, ``short``, ``tiny``, ``strip``, ``exact_copy``,
            ``near_copy``).
    """

    catches: ClassVar[tuple[str, ...]] = ()

    def fit(self, pool: Pool) -> Any:
        """Look at the whole pool first; returns a small picklable state for `decide`."""
        return None

    def fit_in(self, context: Context) -> Any:
        """`fit`, for filters that look at more than the rows that reach them (`Context.pool`): target sets, prompts."""
        return self.fit(context.pool)

    @abstractmethod
    def decide(self, part: Part, state: Any) -> Decision:
        """Decide for the alive rows of one part; ``state`` is what `fit` returned."""

    def describe(self, state: Any) -> dict[str, Any]:
        """Facts for the report as strict JSON: thresholds (``{"threshold": t, "column": name}``), cluster sizes..."""
        return {}


class Scorer(Reads):
    """Base of all scorers: a map from the columns of one part to new columns. Registered in `SCORERS`.

    Attributes:
        version: bump when the same options would give other values; part of the fingerprint.
        whole_pool: `fit` looks at the pool, so the score changes when the pool grows; others are kept per shard.
    """

    whole_pool: ClassVar[bool] = False

    def fit(self, context: Context) -> Any:
        """Look at targets, prompts or the whole pool first; returns a picklable state for `score`."""
        return None

    @abstractmethod
    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        """New columns of the part, row-aligned. `name`: the scorer's in the config, and the main column's."""

    def describe(self, state: Any = None) -> dict[str, Any]:
        """Facts for the record as strict JSON: which model file made the column, learned weights..."""
        return {}


class PixelScorer(Scorer):
    """Base of scorers that look at pictures. They share one read and one decode with each other and the encoders."""

    @abstractmethod
    def reader(self, name: str, state: Any = None) -> PixelReader:
        """Something that looks at the pictures of some shards, on a worker; loads its model here."""

    def columns(self) -> list[str]:
        return []

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        raise DataError(f"the scorer {self.type!r} looks at pictures; it needs shards, not columns")


class PixelReader(ImageReader, Protocol):
    """An `ImageReader` whose result are columns."""

    def result(self, index: int) -> dict[str, np.ndarray | pa.Array]:
        """Row-aligned columns of shard `index`, null or NaN where there is no picture; after `finish`."""
        ...


FILTERS: Registry[Filter] = Registry("filter")
SCORERS: Registry[Scorer] = Registry("scorer")


def numbers(part: Part, column: str, dtype: type[np.floating] = np.float32) -> np.ndarray:
    """A numeric column of the alive rows, ``(n,)`` of `dtype`; null becomes NaN.

    Raises:
        DataError: the column does not hold numbers.
    """
    values = part.arrow(column)
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
        raise DataError(f"column {column!r} of part {part.name} holds {kind}, not numbers")
    target = pa.float64() if dtype is np.float64 else pa.float32()
    return values.cast(target, safe=False).to_numpy()


def json_number(value: float | np.floating) -> float | None:
    """A number as strict JSON allows it: NaN and the infinities become None."""
    return float(value) if np.isfinite(value) else None


def finite(values: np.ndarray, column: str) -> np.ndarray:
    """Mask of the rows that have a number; raises `DataError` when no row has one."""
    mask = np.isfinite(values)
    if len(values) and not mask.any():
        raise DataError(f"column {column!r} has no value in {len(values)} rows; was its encoder or score computed?")
    return mask
