"""`prepare` and `pool`: from a source to shards.

`PrepareStage` lets a source that makes its own data (the demo's little web) make it, once. `PoolStage` ingests any
source, one part per shard: the pool of a run, and the trusted data of an encoder alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ...errors import DataError
from ...shards import storage
from ...shards.shard import Shard
from ...shards.sources.base import IngestOptions, Source
from ..artifact import Artifact
from ..stage import Stage, Task, Work


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


@dataclass(eq=False)
class PoolStage(Stage):
    """Ingest a source into shards.

    Inputs: ``prepare`` when the source prepares itself.
    Summary: ``shards`` (name, tar, table; relative paths lie in the artifact), ``rows``, ``successes``, ``bytes``,
    ``status`` (reason code -> rows).
    """

    kind: ClassVar[str] = "pool"
    source: Source = None  # type: ignore[assignment]
    options: IngestOptions = None  # type: ignore[assignment]

    def identity(self) -> dict[str, Any]:
        return {
            "source": self.source.model_dump(mode="json"),
            "source_version": self.source.version,
            "inputs": self.source.fingerprint(),
            "options": self.options.model_dump(mode="json"),
        }

    def _prepared(self, inputs: Any) -> str | None:
        return inputs["prepare"].data if "prepare" in inputs else None

    def expected_parts(self, done: Any) -> int | None:
        if self.source.prepares and "prepare" not in done:
            return None
        return len(self.source.parts(self._prepared(done), self.options.samples_per_shard))

    def run(self, work: Work) -> dict[str, Any]:
        prepared = self._prepared(work.inputs)
        parts = self.source.parts(prepared, self.options.samples_per_shard)
        with self.source.online(prepared) as connect_to:
            results = work.map(
                _ingest,
                {f"{i:08d}": (self.source, part, self.options, connect_to) for i, part in enumerate(parts)},
            )
        status: dict[str, int] = {}
        for result in results.values():
            for code, count in result["stats"]["status"].items():
                status[code] = status.get(code, 0) + count
        totals = {k: sum(r["stats"][k] for r in results.values()) for k in ("rows", "successes", "bytes")}
        if totals["successes"] == 0:
            causes = ", ".join(f"{code} {n}" for code, n in sorted(status.items(), key=lambda s: -s[1])[:5])
            raise DataError(f"the pool has no good sample: {totals['rows']} rows, all failed ({causes or 'no rows'})")
        return {"shards": [r["shard"] for r in results.values()], "status": dict(sorted(status.items())), **totals}


def _ingest(
    task: Task, source: Source, part: dict[str, Any], options: IngestOptions, connect_to: dict[str, str]
) -> dict[str, Any]:
    done = source.ingest(part, task.part, task.out, options, connect_to, task.progress)
    shard = {
        "name": done.shard.name,
        "tar": _relative(done.shard.tar, task.out),
        "table": _relative(done.shard.table, task.out),
    }
    return {"shard": shard, "stats": done.stats}


def _relative(path: str, folder: str) -> str:
    return path.removeprefix(folder.rstrip("/") + "/")


def shards_of(pool: Artifact) -> list[Shard]:
    """Shards of a finished pool, in order, with paths that can be opened."""
    shards = []
    for entry in pool.summary["shards"]:
        paths = {
            k: entry[k] if entry[k].startswith("/") or "://" in entry[k] else storage.join(pool.data, entry[k])
            for k in ("tar", "table")
        }
        shards.append(Shard(entry["name"], **paths))
    return shards
