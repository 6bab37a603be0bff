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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from ..errors import DataError
from ..registry import Options, Registry

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


class Filter(Options):
    """Base of all filters. Subclasses are registered in `FILTERS` and are their own options.

    Attributes:
        version: bump when the same options would give other decisions; part of the fingerprint.
        catches: kinds of fault that it is meant to catch; where the truth is known, the report judges it by them
            (``wrong_caption``, ``boilerplate``, ``foreign``, ``short``, ``tiny``, ``strip``, ``exact_copy``,
            ``near_copy``).
    """

    version: ClassVar[int] = 1
    catches: ClassVar[tuple[str, ...]] = ()
    type: str

    @abstractmethod
    def columns(self) -> list[str]:
        """Columns that `fit` and `decide` read."""

    def fit(self, pool: Pool) -> Any:
        """Look at the whole pool first; returns a small picklable state for `decide`."""
        return None

    @abstractmethod
    def decide(self, part: Part, state: Any) -> Decision:
        """Decide for the alive rows of one part; ``state`` is what `fit` returned."""

    def describe(self, state: Any) -> dict[str, Any]:
        """Facts for the report as strict JSON: thresholds (``{"threshold": t, "column": name}``), cluster sizes..."""
        return {}


class Scorer(Options):
    """Base of all scorers: a map from the columns of one part to new columns. Registered in `SCORERS`."""

    version: ClassVar[int] = 1
    type: str

    @abstractmethod
    def columns(self) -> list[str]:
        """Columns that `score` reads."""

    @abstractmethod
    def score(self, part: Part, name: str) -> dict[str, np.ndarray | pa.Array]:
        """New columns of the part, row-aligned. `name`: the scorer's in the config, and the main column's."""

    def describe(self) -> dict[str, Any]:
        """Facts for the record as strict JSON: which model file made the column..."""
        return {}


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
