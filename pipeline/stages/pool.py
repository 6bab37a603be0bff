"""`prepare`, `ingest` and `pool`: from sources to one list of shards.

`PrepareStage` lets a source that makes its own data (the demo's little web) make it, once. `IngestStage` makes the
shards of one source, one part per shard; its folder grows with the source. `PoolStage` puts the shards of all sources
in one list: the pool of a run, and the trusted data of an encoder alike.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...errors import DataError
from ...shards import row_table, storage
from ...shards.ingest import Copies, ingest_rows, journal_path
from ...shards.shard import IMAGE_EXTENSIONS, METADATA, Shard
from ...shards.sources.base import Ingested, IngestOptions, Slot, Source
from ...shards.url_index import copies_of, find_copies, index_urls, write_index
from ..artifact import Artifact
from ..ledger import Ledger
from ..stage import Stage, Task, Work

WAVE = 1024  # shards whose journals may wait for each other at once
ROWS_PER_GROUP = 4_000_000  # URLs compared at once by one worker
DECIDING = {"max_bytes", "max_redirects", "allow_private", "respect"}
"""Fetch options that decide which images are wanted; the others say how hard to try, and changing one of them must not
throw away what was fetched (`--retry` tries failed rows again)."""


@dataclass(eq=False)
class PrepareStage(Stage):
    """A source makes its own data."""

    kind: ClassVar[str] = "prepare"
    source: Source = None  # type: ignore[assignment]
    seed: int = 0

    def identity(self) -> dict[str, Any]:
        return {
            "source": self.source.preparation(),
            "source_version": self.source.version,
            "inputs": self.source.fingerprint(),
            "seed": self.seed,
        }

    def run(self, work: Work) -> dict[str, Any]:
        work.map(_prepare, {"all": (self.source, self.seed)})
        return {}


def _prepare(task: Task, source: Source, seed: int) -> dict[str, Any]:
    source.prepare(task.out, seed)
    return {}


@dataclass(frozen=True)
class Ingest:
    """What the parts of one source share.

    Attributes:
        folder: the artifact's data folder.
        journals: folder of the journals of shards in the making.
        label: the source's name in a pool of several.
    """

    source: Source
    options: IngestOptions
    folder: str
    journals: str
    label: str | None
    connect_to: Mapping[str, str]

    def slot(self, task: Task, number: int, name: str) -> Slot:
        return Slot(number, name, self.folder, self.journals, self.label, self.connect_to, task.progress)

    def shard(self, name: str) -> Shard:
        """The shard with that file name."""
        return Shard(name, storage.join(self.folder, f"{name}.tar"), storage.join(self.folder, f"{name}.parquet"))

    def index(self, number: int) -> str:
        """Path of the index of a shard's URLs."""
        return storage.join(self.folder, "urls", f"{number:08d}.npy")


@dataclass(eq=False)
class IngestStage(Stage):
    """Make the shards of one source. Grows: files that come later make further shards and move none.

    Inputs: ``prepare`` when the source prepares itself.
    Summary: ``shards`` (name, part, tar, table; paths in the artifact are relative to its data folder), ``rows``,
    ``successes``, ``bytes``, ``status`` (reason code -> rows), ``copied`` (rows whose image came from another shard),
    ``animated`` (images stored by their first picture only), ``torn`` (sentences about damaged input).
    """

    kind: ClassVar[str] = "ingest"
    source: Source = None  # type: ignore[assignment]
    options: IngestOptions = None  # type: ignore[assignment]
    label: str | None = None
    root: str = ""  # folder of all artifacts, where the ledger is looked up

    def standing(self) -> dict[str, Any]:
        return {
            "source": self.source.model_dump(mode="json"),
            "source_version": self.source.version,
            "options": self.options.model_dump(mode="json", exclude={"fetch"}),
            "fetch": self.options.fetch.model_dump(mode="json", include=DECIDING),
            "label": self.label,
        }

    @property
    def grows(self) -> bool:
        return True

    def identity(self) -> dict[str, Any]:
        return {
            **self.standing(),
            "inputs": self.source.fingerprint(),
            "retries": self.ledger().retries,
        }

    def ledger(self) -> Ledger:
        """The numbers of the source's shards so far."""
        return Ledger.load(storage.join(self.root, self.folder))

    def _prepared(self, inputs: Any) -> str | None:
        return inputs["prepare"].data if "prepare" in inputs else None

    def expected_parts(self, done: Any) -> int | None:
        if self.source.prepares and "prepare" not in done:
            return None
        return len(self.source.parts(self._prepared(done), self.options.samples_per_shard))

    def run(self, work: Work) -> dict[str, Any]:
        prepared = self._prepared(work.inputs)
        parts = self.source.parts(prepared, self.options.samples_per_shard)
        ledger = self.ledger()
        numbered = dict(sorted(zip(ledger.assign(p["key"] for p in parts), parts, strict=True)))
        with self.source.online(prepared) as connect_to:
            journals = storage.join(work.artifact.path, "journals")
            common = Ingest(self.source, self.options, work.out, journals, self.label, connect_to)
            results = _make_shards(work, common, numbered)
            results = _retry_shards(work, common, ledger, numbered, results)
        stats = [r["stats"] for r in results.values()]
        status: dict[str, int] = {}
        for one in stats:
            for code, count in one["status"].items():
                status[code] = status.get(code, 0) + count
        return {
            "shards": [
                {**r["shard"], "name": self._shard_name(r["part"]), "part": r["part"], "rows": r["stats"]["rows"]}
                for r in results.values()
            ],
            "status": dict(sorted(status.items())),
            **{k: sum(s[k] for s in stats) for k in ("rows", "successes", "bytes")},
            "copied": sum(r.get("copied", 0) for r in results.values()),
            "animated": sum(s.get("animated", 0) for s in stats),
            "torn": [s[kind] for s in stats for kind in ("torn", "gap") if kind in s],
        }

    def _shard_name(self, part: str) -> str:
        """A name for the shard that no other shard in the workdir has: what is computed from it is named by it."""
        return "-".join(filter(None, (self.label, part, self.store[:8])))


def _make_shards(work: Work, common: Ingest, numbered: Mapping[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """All shards as they are first made, by number.

    An image that several shards name is fetched by the one with the lowest number. The others wait with their other
    rows in a journal until that one is there; in waves, so that few journals wait.
    """
    names = {number: f"{number:08d}" for number in numbered}
    finished = work.artifact.finished_parts()
    todo = [number for number, name in names.items() if name not in finished]
    copies, files = _copies(work, common, numbered, todo) if todo else (set(), [])
    results: dict[int, dict[str, Any]] = {}
    numbers = list(numbered)
    for start in range(0, len(numbers), WAVE):
        wave = numbers[start : start + WAVE]
        calls = {names[n]: (common, n, numbered[n], []) for n in wave if n not in copies}
        waiting = {f"{names[n]}.settled": (common, n, numbered[n], files) for n in wave if n in copies}
        done = work.map(_ingest, {**calls, **waiting})
        if waiting:
            done |= work.map(_ingest, {names[n]: (common, n, numbered[n], files) for n in wave if n in copies})
        results |= {n: done[names[n]] for n in wave}
        for n in wave if todo else ():
            _forget_journal(common, n)
    return results


def _copies(
    work: Work, common: Ingest, numbered: Mapping[int, dict[str, Any]], todo: list[int]
) -> tuple[set[int], list[str]]:
    """Which of the shards `todo` copy images of others, and the files that say which."""
    if not common.source.shares() or len(numbered) < 2:
        return set(), []
    indexed = work.map(_index, {f"{n:08d}.urls": (common, n, part) for n, part in numbered.items()})
    indexes = {n: common.index(n) for n in numbered}
    groups = max(1, -(-sum(r["urls"] for r in indexed.values()) // ROWS_PER_GROUP))
    folder = work.artifact.scratch("copies")
    files = [storage.join(folder, f"{group:05d}.npy") for group in range(groups)]
    found = work.gather(_find, [(indexes, todo, group, groups, files[group]) for group in range(groups)])
    return {number for numbers in found for number in numbers}, files


def _index(task: Task, common: Ingest, number: int, part: dict[str, Any]) -> dict[str, Any]:
    rows = common.source.table(part)
    blur = common.options.blur
    boxes = rows[blur].to_pylist() if blur and blur in rows.column_names else None
    index = index_urls(rows["url"].to_pylist(), boxes)
    write_index(common.index(number), index)
    return {"urls": len(index)}


def _find(indexes: Mapping[int, str], todo: list[int], group: int, groups: int, path: str) -> list[int]:
    copies = find_copies(indexes, todo, group, groups)
    write_index(path, copies)
    return np.unique(copies["number"]).tolist()


def _ingest(task: Task, common: Ingest, number: int, part: dict[str, Any], files: list[str]) -> dict[str, Any]:
    """One shard; or, for the part ``<number>.settled``, only its own images, into the journal."""
    name = f"{number:08d}"
    slot = common.slot(task, number, name)
    copies = copies_of(files, number) if files else None
    if task.part != name:
        assert copies is not None
        common.source.settle(part, slot, common.options, copies["row"])
        return {}
    given = None
    if copies is not None:
        owners = np.unique(copies["owner"]).tolist()
        shards = {n: common.shard(f"{n:08d}") for n in owners if _is_finished(common, f"{n:08d}")}
        journals = {n: journal_path(common.journals, n) for n in owners if n not in shards}
        given = Copies(copies["row"], copies["owner"], copies["origin"], shards, journals)
    done = _finished(common, name) or common.source.ingest(part, slot, common.options, given)
    if copies is None:  # nobody waits for it
        _forget_journal(common, number)
    return {**_told(name, done, common.folder), "copied": len(copies) if copies is not None else 0}


def _retry_shards(
    work: Work,
    common: Ingest,
    ledger: Ledger,
    numbered: Mapping[int, dict[str, Any]],
    results: dict[int, dict[str, Any]],
) -> dict[int, dict[str, Any]]:
    """Make those shards again that were to be retried, retry after retry; returns the last of each."""
    every = ledger.all_rounds()
    rounds = {number: every.get(number, []) for number in results}
    for turn in range(max(map(len, rounds.values()), default=0)):
        again = {number: codes[turn] for number, codes in rounds.items() if len(codes) > turn}
        names = {number: f"{number:08d}.r{turn + 1}" for number in again}
        done = work.map(
            _retry, {names[n]: (common, n, numbered[n], results[n]["part"], codes) for n, codes in again.items()}
        )
        results = results | {n: {**done[names[n]], "copied": results[n]["copied"]} for n in again}
    return results


def _retry(
    task: Task, common: Ingest, number: int, part: dict[str, Any], before: str, codes: list[str]
) -> dict[str, Any]:
    """A shard once more: rows that failed with `codes` are fetched again, all others are taken over as they were."""
    old = common.shard(before)
    table = old.read_table()
    made = [c for c in row_table.OUTCOME if c not in ("url", "caption")]
    failed = [row_table.reason(text) in codes for text in table["error_message"].to_pylist()]
    kept = np.flatnonzero(~np.array(failed, bool))
    copies = Copies(kept, np.full(len(kept), number), kept, {number: old})
    slot = common.slot(task, number, task.part)
    rows = table.drop_columns(made)
    bodies = common.source.bodies(part, rows, slot, common.options)
    done = _finished(common, task.part) or ingest_rows(
        rows, slot, common.options, bodies, copies, lambda: common.source.check(slot)
    )
    _forget_journal(common, number)
    return _told(task.part, done, common.folder)


def _is_finished(common: Ingest, name: str) -> bool:
    """Whether all files of a shard are there (its statistics come last)."""
    return storage.exists(storage.join(common.folder, f"{name}_stats.json"))


def _finished(common: Ingest, name: str) -> Ingested | None:
    """The shard, if a killed worker finished it and only the receipt is missing."""
    if not common.source.fetches() or not _is_finished(common, name):
        return None
    stats = storage.read_json(storage.join(common.folder, f"{name}_stats.json"))
    shard = common.shard(name)
    size = sum(length for _, length in shard.open().spans(*IMAGE_EXTENSIONS).values())
    told = {"rows": stats["count"], "successes": stats["successes"], "bytes": size, "status": stats["status_dict"]}
    return Ingested(shard, {**told, "animated": stats.get("animated", 0)})


def _forget_journal(common: Ingest, number: int) -> None:
    Path(journal_path(common.journals, number)).unlink(missing_ok=True)


def _told(part: str, done: Ingested, folder: str) -> dict[str, Any]:
    paths = {k: getattr(done.shard, k).removeprefix(folder.rstrip("/") + "/") for k in ("tar", "table")}
    return {"part": part, "shard": paths, "stats": done.stats}


@dataclass(eq=False)
class PoolStage(Stage):
    """The shards of all sources, in one list: source after source, and by number within a source.

    Inputs: ``ingest/<name>``.
    Summary: ``shards`` (name, part, source, tar, table; relative paths start at the folder of all artifacts), the
    totals of `IngestStage`, and ``sources``: the same per source, with its ``identity``.
    """

    kind: ClassVar[str] = "pool"

    def identity(self) -> dict[str, Any]:
        return {}

    def run(self, work: Work) -> dict[str, Any]:
        pools = {role.removeprefix("ingest/"): a for role, a in work.inputs.items()}
        status: dict[str, int] = {}
        shards = []
        for name, artifact in pools.items():
            folder = storage.join(os.path.basename(artifact.path), "data")
            for entry in artifact.summary["shards"]:
                paths = {k: _below(folder, entry[k]) for k in ("tar", "table")}
                shards.append({**entry, **paths, "source": name})
            for code, count in artifact.summary["status"].items():
                status[code] = status.get(code, 0) + count
        numbers = ("rows", "successes", "bytes", "copied", "animated")
        totals = {k: sum(a.summary[k] for a in pools.values()) for k in numbers}
        usable = totals["successes"] + status.get(METADATA, 0)
        if usable == 0:
            causes = ", ".join(f"{code} {n}" for code, n in sorted(status.items(), key=lambda s: -s[1])[:5])
            raise DataError(f"the pool has no good sample: {totals['rows']} rows, all failed ({causes or 'no rows'})")
        return {
            "shards": shards,
            "sources": {
                name: {**{k: a.summary[k] for k in numbers}, "identity": a.receipt["identity"]}
                for name, a in pools.items()
            },
            "status": dict(sorted(status.items())),
            "usable": usable,
            **totals,
            "torn": [text for a in pools.values() for text in a.summary["torn"]],
        }


def _below(folder: str, path: str) -> str:
    return path if path.startswith("/") or "://" in path else storage.join(folder, path)


UNKNOWN_ROWS = 10_000  # of a shard whose receipt is older than the habit of telling


def rows_of(pool: Artifact) -> dict[str, int]:
    """Rows of each shard of a finished pool, by name."""
    return {entry["name"]: entry.get("rows", UNKNOWN_ROWS) for entry in pool.summary["shards"]}


def shards_of(pool: Artifact) -> list[Shard]:
    """Shards of a finished pool, in order, with paths that can be opened."""
    root = os.path.dirname(pool.path)
    return [Shard(e["name"], _below(root, e["tar"]), _below(root, e["table"])) for e in pool.summary["shards"]]
