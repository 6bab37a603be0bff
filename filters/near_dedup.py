"""`near_dedup`: of pictures whose perceptual hashes differ in few bits, keep one.

Every pair of the pool within `radius` bits is found (`hamming.py`), out of core: equal hashes are collapsed first, so a
million blank pictures cost what a million others do; then rows meet in buckets of one block of bits after another,
radius + 1 times, or all in one bucket when they are few. What goes:

* ``earlier``: rows are put in order, and a row goes if any row before it, even one that goes itself, is within the
  radius (SemDeDup's rule). Of a chain of pictures each a little unlike the one before, the first always stays.
* ``connected``: of each connected component one row stays, the first in the order. Drops at least as much: a row may go
  that is near to none before it, but is joined to them by one behind it.

The order is `prefer`, largest first (a row without a number comes last), then uid. A row without a hash is a duplicate
of nothing: it is kept and counted. Memory of a worker: about 200 bytes for each row of a bucket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ..errors import DataError
from .base import FILTERS, Decision, Emitted, Filter, Part, Pool, Routed
from .components import Components
from .hamming import bucket_of, near_pairs, plan
from .linked import first_of_component
from .survivor_order import best_first, preference

ROWS_PER_BUCKET = 1_000_000
MAX_BUCKETS = 4096
FAR = 255  # no other within the radius

Groups = Literal["earlier", "connected"]


@dataclass(frozen=True)
class NearDuplicates:
    """What was found.

    Attributes:
        equal: per row ``first``, whether it stands for its hash.
        near: per row ``distance`` to the nearest that counts, `FAR` = none; once for each time that rows met.
        leads: per row ``leads``, whether it is the first of its component; None for ``earlier``.
        rows: with a hash.
        distinct: different hashes.
        without: rows without a hash.
        dropped: rows dropped by distance to the nearest that counts, ``(radius + 1,)``.
        sorts: orders in which the hashes were compared.
    """

    equal: Routed
    near: tuple[Routed, ...]
    leads: Routed | None
    rows: int
    distinct: int
    without: int
    dropped: tuple[int, ...]
    sorts: int


@FILTERS.register
class NearDedup(Filter):
    """Drop near copies of pictures by perceptual hash."""

    catches: ClassVar[tuple[str, ...]] = ("exact_copy", "near_copy")
    type: Literal["near_dedup"] = "near_dedup"
    hash: str = Field(description="Column of 64-bit hashes: the name of a `perceptual_hash` score.")
    radius: int = Field(4, ge=0, le=12, description="Bits of 64 in which hashes of near copies may differ.")
    groups: Groups = Field(
        "earlier",
        description="What goes: rows with an `earlier` one within the radius, or all but the first of each group that "
        "is `connected` by near pairs.",
    )
    prefer: str | None = Field(None, description="Column whose largest value survives; without it, the smallest uid.")

    def columns(self) -> list[str]:
        return [self.hash] if self.prefer is None else [self.hash, self.prefer]

    def fit(self, pool: Pool) -> NearDuplicates:
        counted = pool.map(_present, self.hash)
        rows, without = sum(c[0] for c in counted), sum(c[1] for c in counted)
        if without and not rows:
            raise DataError(f"near_dedup: no row has a value in column {self.hash!r}; was its score computed?")
        buckets = min(MAX_BUCKETS, 1 + rows // ROWS_PER_BUCKET)
        equal = pool.shuffle(_emit_equal, _reduce_equal, buckets, self.hash, self.prefer, buckets)
        distinct = sum(pool.map(_standing, equal))
        chosen = plan(distinct, self.radius)
        if distinct <= ROWS_PER_BUCKET or not chosen.chosen:
            meetings = [(0, 1, chosen.masks())]
        else:
            buckets = min(MAX_BUCKETS, 1 + distinct // ROWS_PER_BUCKET)
            meetings = [(chosen.blocks[lead], buckets, chosen.masks(lead)) for lead in chosen.leads()]
        near: list[Routed] = []
        for block, buckets, keys in meetings:
            meeting = (self.hash, self.prefer, equal, block, buckets, keys, self.radius, self.groups)
            near.append(pool.shuffle(_emit_standing, _reduce_near, buckets, *meeting))
        leads = None
        if self.groups == "connected":
            leads = first_of_component(pool, self.hash, self.prefer, tuple(near))
        sorts = sum(len(keys) for _, _, keys in meetings)
        found = NearDuplicates(equal, tuple(near), leads, rows, distinct, without, (), sorts)
        per_part = [np.zeros(self.radius + 1, np.int64), *pool.map(_dropped, found, self.radius)]
        dropped = tuple(np.sum(per_part, axis=0).tolist())
        return NearDuplicates(equal, tuple(near), leads, rows, distinct, without, dropped, sorts)

    def decide(self, part: Part, state: NearDuplicates) -> Decision:
        keep, distance = _judge(part, state)
        reason = np.where(distance == 0, "same_hash", "near_hash").astype(object)
        return Decision(keep, np.where(distance == FAR, np.nan, distance).astype(np.float32), reason)

    def describe(self, state: NearDuplicates) -> dict[str, Any]:
        return {
            "radius": self.radius,
            "groups": self.groups,
            "compared": state.rows,
            "distinct_hashes": state.distinct,
            "without_hash": state.without,
            "dropped_by_distance": list(state.dropped),
            "orders_compared": state.sorts,
        }


def hashes_of(part: Part, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the alive rows ``(n,) uint64`` and which rows have one ``(n,) bool``.

    Raises:
        DataError: the column does not hold 64-bit integers.
    """
    values = part.arrow(column)
    if pa.types.is_null(values.type):
        return np.zeros(len(part), np.uint64), np.zeros(len(part), bool)
    if values.type not in (pa.uint64(), pa.int64()):
        raise DataError(f"column {column!r} of part {part.name} holds {values.type}, not 64-bit hashes")
    present = np.asarray(values.is_valid().to_numpy(), bool)
    return values.fill_null(0).to_numpy().astype(np.uint64, copy=False), present


def _present(part: Part, column: str) -> tuple[int, int]:
    _, present = hashes_of(part, column)
    return int(present.sum()), int((~present).sum())


def _emit(part: Part, at: np.ndarray, bucket: np.ndarray, hashes: np.ndarray, prefer: str | None) -> Emitted:
    values = {"hash": hashes[at]} | {name: array[at] for name, array in preference(part, prefer).items()}
    return Emitted(bucket, part.rows[at], part.uids()[at], values)


def _emit_equal(part: Part, column: str, prefer: str | None, buckets: int) -> Emitted:
    hashes, present = hashes_of(part, column)
    at = np.flatnonzero(present)
    return _emit(part, at, bucket_of(hashes[at], buckets), hashes, prefer)


def _reduce_equal(bucket: int, rows: dict[str, np.ndarray], *_: Any) -> dict[str, np.ndarray]:
    order = best_first(rows, rows["hash"])
    order = order[np.argsort(rows["hash"][order], kind="stable")]
    ordered = rows["hash"][order]
    first = np.ones(len(order), bool)
    first[order[1:]] = ordered[1:] != ordered[:-1]
    return {"first": first}


def _standing(part: Part, equal: Routed) -> int:
    """Rows that stand for their hash."""
    columns = equal.of(part)
    return int(columns["first"].sum()) if columns["found"].any() else 0


def _emit_standing(
    part: Part, column: str, prefer: str | None, equal: Routed, block: int, buckets: int, *_: Any
) -> Emitted:
    hashes, _present = hashes_of(part, column)
    columns = equal.of(part)
    at = np.flatnonzero(columns["first"] if columns["found"].any() else columns["found"])
    return _emit(part, at, bucket_of(hashes[at] & np.uint64(block), buckets), hashes, prefer)


def _reduce_near(
    bucket: int,
    rows: dict[str, np.ndarray],
    column: str,
    prefer: str | None,
    equal: Routed,
    block: int,
    buckets: int,
    keys: list[int],
    radius: int,
    groups: Groups,
) -> dict[str, np.ndarray]:
    order = best_first(rows, rows["hash"])
    hashes = rows["hash"][order]
    distance = np.full(len(order), FAR, np.uint8)  # by place in the order
    components = Components(len(order)) if groups == "connected" else None
    for earlier, later, differ in near_pairs(hashes, radius, keys):
        np.minimum.at(distance, later, differ)
        if components is not None:
            np.minimum.at(distance, earlier, differ)
            components.join(earlier, later)
    back = np.argsort(order)
    found: dict[str, np.ndarray] = {"distance": distance[back]}
    if components is not None:
        found["label"] = hashes[components.labels()][back]
    return found


def _judge(part: Part, state: NearDuplicates) -> tuple[np.ndarray, np.ndarray]:
    """Which rows stay, and their distance to the nearest that counts, `FAR` = none."""
    keep, distance = np.ones(len(part), bool), np.full(len(part), FAR, np.uint8)
    columns = state.equal.of(part)
    if not columns["found"].any():
        return keep, distance
    for routed in state.near:
        near = routed.of(part)
        if near["found"].any():
            distance[near["found"]] = np.minimum(distance, near["distance"])[near["found"]]
    if state.leads is None:
        keep = distance == FAR
    else:
        leads = state.leads.of(part)
        if leads["found"].any():
            keep = ~leads["found"] | leads["leads"]
    copies = columns["found"] & ~columns["first"]
    keep[copies], distance[copies] = False, 0
    return keep, distance


def _dropped(part: Part, state: NearDuplicates, radius: int) -> np.ndarray:
    keep, distance = _judge(part, state)
    return np.bincount(distance[~keep], minlength=radius + 1)
