"""`filter`: one filter of one subset, applied to what the filter before it kept.

Every filter is a stage of its own, so subsets that begin alike share their first filters' work, and changing the last
filter re-runs only that one. `SubsetStage` then writes the outcome: one row per sample of the pool with its fate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import DataError
from ...filters.base import Filter
from ...shards import storage
from ...shards.shard import usable
from ...shards.uid import RECORD, column_records, write_subset
from ..columns import column_store, require_columns
from ..context import EncoderAt, StageContext
from ..decisions import read_decision, write_decision
from ..filter_pool import Survivors
from ..stage import Stage, Task, Work
from .pool import shards_of

FETCH = "fetch"  # the name under which failed downloads appear in funnels


@dataclass(eq=False)
class FilterStage(Stage):
    """One filter over the survivors of the filter before.

    Inputs: ``pool`` and what it reads, by the roles of `ScoreStage` and ``subset/*``; ``previous`` unless it is the
    first, and ``like`` (a `SubsetStage`) when it takes another subset's size.
    Summary: ``entered``, ``kept``, ``samples`` (with repeats), ``reasons``, ``facts`` (the filter's own `describe`).
    """

    kind: ClassVar[str] = "filter"
    filter: Filter = None  # type: ignore[assignment]
    seed: int = 0
    encoders: dict[str, EncoderAt] = field(default_factory=dict)
    files: str = ""  # identity of local files that the result depends on

    def identity(self) -> dict[str, Any]:
        return {
            "filter": self.filter.model_dump(mode="json"),
            "filter_version": self.filter.version,
            "seed": self.seed,
        } | ({"files": self.files} if self.files else {})

    def expected_parts(self, done: Any) -> int | None:
        return len(done["pool"].summary["shards"]) if "pool" in done else None

    def run(self, work: Work) -> dict[str, Any]:
        chosen = self.filter
        if "like" in work.inputs:
            like = work.inputs["like"].summary
            chosen = chosen.with_count(like["kept"], like["samples"])  # type: ignore[attr-defined]
        previous = work.inputs["previous"].data if "previous" in work.inputs else None
        survivors = Survivors(column_store(work.inputs), previous)
        require_columns(survivors.store, chosen.columns(), "this filter")
        state = chosen.fit_in(StageContext(work, chosen, self.encoders, self.seed, previous))
        counts = work.map(
            _decide, {s.name: (chosen, survivors, i, state) for i, s in enumerate(survivors.store.shards)}
        )
        reasons: dict[str, int] = {}
        for count in counts.values():
            for code, n in count["reasons"].items():
                reasons[code] = reasons.get(code, 0) + n
        totals = {k: sum(c[k] for c in counts.values()) for k in ("entered", "kept", "samples")}
        if totals["kept"] == 0:
            why = ", ".join(f"{code} {n}" for code, n in sorted(reasons.items(), key=lambda r: -r[1]))
            raise DataError(
                f"{self.name} keeps nothing of the {totals['entered']} samples that reach it ({why or 'none came'}); "
                "loosen it"
            )
        return {**totals, "reasons": dict(sorted(reasons.items())), "facts": chosen.describe(state)}


def _decide(task: Task, chosen: Filter, survivors: Survivors, index: int, state: Any) -> dict[str, Any]:
    part, times = survivors.part(index)
    return write_decision(task.out, part, chosen.decide(part, state), times)


@dataclass(eq=False)
class SubsetStage(Stage):
    """The outcome of a subset's filters, as data.

    Inputs: ``pool``, and ``filter/00``, ``filter/01``... in order.
    Files: ``<shard>.parquet``, one row per row of the pool: ``uid``, ``kept``, ``times``, ``dropped_by`` (label of the
    filter, or ``fetch``), ``reason``, ``value``; and ``subset.npy``, DataComp's subset file.
    Summary: ``pool``, ``kept`` (distinct rows), ``samples`` (with repeats).
    """

    kind: ClassVar[str] = "subset"
    labels: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        return {"labels": list(self.labels)}

    def expected_parts(self, done: Any) -> int | None:
        return len(done["pool"].summary["shards"]) if "pool" in done else None

    def run(self, work: Work) -> dict[str, Any]:
        shards = shards_of(work.inputs["pool"])
        folders = [a.data for r, a in sorted(work.inputs.items()) if r.startswith("filter/")]
        results = work.map(_fates, {s.name: (s, folders, self.labels) for s in shards})
        work.gather(_collect_uids, [(work.out, [s.name for s in shards])])
        return {k: sum(r[k] for r in results.values()) for k in ("pool", "kept", "samples")}


def _fates(task: Task, shard: Any, folders: list[str], labels: tuple[str, ...]) -> dict[str, Any]:
    table = shard.read_table(["uid", "status", "error_message"])
    n = len(table)
    good = usable(table)
    times = good.astype(np.int32)
    value = np.full(n, np.nan, np.float32)
    dropped_by = np.full(n, FETCH, object)
    reason = np.array([str(m).split(":", 1)[0] for m in table["error_message"].to_pylist()], object)
    dropped_by[good] = reason[good] = None
    for folder, label in zip(folders, labels, strict=True):
        decision = read_decision(folder, shard.name)
        rows = decision["row"].to_numpy()
        times[rows] = decision["times"].to_numpy()
        value[rows] = decision["value"].to_numpy()
        dropped = rows[~decision["keep"].to_numpy()]
        dropped_by[dropped] = label
        reason[rows] = decision["reason"].to_numpy()
    kept = times > 0
    fates = pa.table(
        {
            "uid": table["uid"],
            "kept": pa.array(kept),
            "times": pa.array(times),
            "dropped_by": pa.array(dropped_by, pa.string()),
            "reason": pa.array(reason, pa.string()),
            "value": pa.array(value),
        }
    )
    with storage.publishing(storage.join(task.out, f"{shard.name}.parquet")) as path:
        pq.write_table(fates, path)
    return {"pool": n, "kept": int(kept.sum()), "samples": int(times.sum())}


def read_fates(folder: str, name: str) -> pa.Table:
    """The fate table of one shard in a finished subset's folder."""
    return pq.read_table(storage.local(storage.join(folder, f"{name}.parquet")))


def _collect_uids(folder: str, names: list[str]) -> None:
    """Write ``subset.npy``. Holds the subset's records (16 bytes a sample) in one worker."""
    records = [np.empty(0, RECORD)]
    for name in names:
        fates = pq.read_table(storage.local(storage.join(folder, f"{name}.parquet")), columns=["uid", "times"])
        times = fates["times"].to_numpy()
        kept = np.flatnonzero(times)
        records.append(np.repeat(column_records(fates["uid"].take(pa.array(kept))), times[kept]))
    write_subset(storage.join(folder, "subset.npy"), np.concatenate(records))
