"""Whose copy a dropped sample was: the kept row that stands for it, for the few samples that a gallery shows.

Filters that drop copies do not write down of what, so it is looked for again, in one pass over the kept rows: the same
bytes or text for `exact_dedup`, the fewest different bits for `near_dedup`, the most similar embedding of the cluster
for `semantic_dedup`. Of equal ones the smallest uid is taken. Where none is close enough (the row that decided was
dropped itself), there is no pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...filters.base import Filter
from ..columns import FilePart
from ..decisions import read_decision
from .examples import Example
from .source import Link, RunData

SAME = {"image": ("sha256",), "caption": ("caption",), "pair": ("sha256", "caption")}
"""Columns that two copies agree in, by rule of `exact_dedup`."""
ROUNDING = 1e-6  # by which a similarity that is computed again may differ


@dataclass
class Nearest:
    """The best candidate so far for each of ``n`` samples, smaller distance first, then uid."""

    distance: np.ndarray
    uid: list[str]
    at: list[Example | None]

    @classmethod
    def of(cls, n: int, limit: float) -> Nearest:
        """Nothing found yet; what is further than `limit` never is."""
        return cls(np.full(n, np.nextafter(limit, np.inf)), ["~"] * n, [None] * n)

    def offer(self, i: int, distances: np.ndarray, part: FilePart, values: np.ndarray) -> None:
        """Candidates: all rows of a part, with their distance from sample `i`."""
        if not len(distances) or not (least := distances.min()) <= self.distance[i]:
            return
        ties = np.flatnonzero(distances == least)
        uids = part.arrow("uid").take(pa.array(ties)).to_pylist()
        best = min(range(len(ties)), key=uids.__getitem__)
        if (least, uids[best]) < (self.distance[i], self.uid[i]):
            at = int(ties[best])
            self.distance[i], self.uid[i] = least, uids[best]
            self.at[i] = Example(part.index, int(part.rows[at]), float(values[at]), "")


def originals(run: RunData, link: Link, dropped: Sequence[Example]) -> list[Example | None]:
    """The kept row that each of the `dropped` ones is a copy of, where it can be found."""
    chosen: Filter = link.filter
    if not dropped or chosen.type not in ("exact_dedup", "near_dedup", "semantic_dedup"):
        return [None] * len(dropped)
    if chosen.type == "exact_dedup":
        return _equal(run, link, dropped)
    if chosen.type == "near_dedup":
        return _near_hash(run, link, dropped, chosen.hash, chosen.radius)  # type: ignore[attr-defined]
    column = chosen.columns()[0]
    return _near_embedding(run, link, dropped, column, 1.0 - float(chosen.limit()) + ROUNDING)  # type: ignore[attr-defined]


def _kept(run: RunData, link: Link) -> Iterator[tuple[FilePart, np.ndarray, np.ndarray]]:
    """The kept rows of every part, with their values and clusters."""
    for index, shard in enumerate(run.shards):
        table = read_decision(link.artifact.data, shard.name).filter(pc.field("keep"))
        rows = table["row"].to_numpy().astype(np.int64)
        group = table["group"].to_numpy() if "group" in table.column_names else np.full(len(rows), -1)
        yield run.store.part(index, rows), table["value"].to_numpy(), group


def _own(run: RunData, example: Example) -> FilePart:
    return run.store.part(example.part, np.array([example.row], np.int64))


def _equal(run: RunData, link: Link, dropped: Sequence[Example]) -> list[Example | None]:
    """By the rule that the reason names: ``duplicate_image``..."""
    known = run.shards[0].column_names()
    columns = [list(SAME.get(e.reason.removeprefix("duplicate_"), ())) for e in dropped]
    columns = [names if set(names) <= set(known) else [] for names in columns]
    keys = [tuple(_own(run, e).arrow(c)[0].as_py() for c in names) for e, names in zip(dropped, columns, strict=True)]
    found = Nearest.of(len(dropped), 0.0)
    for part, values, _ in _kept(run, link):
        read = {name: part.arrow(name) for name in {c for names in columns for c in names}}
        for i, (key, names) in enumerate(zip(keys, columns, strict=True)):
            if names and None not in key:
                same = np.ones(len(part), bool)
                for name, value in zip(names, key, strict=True):
                    same &= np.asarray(pc.fill_null(pc.equal(read[name], value), False))  # type: ignore[attr-defined]
                found.offer(i, np.where(same, 0.0, np.inf), part, values)
    return found.at


def _near_hash(run: RunData, link: Link, dropped: Sequence[Example], column: str, radius: int) -> list[Example | None]:
    hashes = [_own(run, e).arrow(column)[0].as_py() for e in dropped]
    found = Nearest.of(len(dropped), radius)
    for part, values, _ in _kept(run, link):
        there = part.arrow(column)
        valid = there.is_valid().to_numpy()
        bits = there.fill_null(0).to_numpy().astype(np.uint64)
        for i, value in enumerate(hashes):
            if value is not None:
                mine = np.array(value).astype(np.uint64)
                found.offer(i, np.where(valid, np.bitwise_count(bits ^ mine), np.inf), part, values)
    return found.at


def _near_embedding(
    run: RunData, link: Link, dropped: Sequence[Example], column: str, limit: float
) -> list[Example | None]:
    """The most similar kept row of the same cluster, among those more similar than the threshold."""
    vectors = [_unit(_own(run, e).array(column))[0] for e in dropped]
    found = Nearest.of(len(dropped), limit)
    for part, values, groups in _kept(run, link):
        for group in {e.group for e in dropped}:
            mine = np.flatnonzero(groups == group)
            if not len(mine):
                continue
            inside = run.store.part(part.index, part.rows[mine])
            rows = _unit(inside.array(column))
            for i, example in enumerate(dropped):
                if example.group == group:
                    gap = 1.0 - rows @ vectors[i]
                    found.offer(i, np.where(np.isfinite(gap), gap, np.inf), inside, values[mine])
    return found.at


def _unit(rows: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)
