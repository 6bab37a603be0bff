"""`release`: the artifact that consumers get, one folder per released subset.

Shards, metadata and embeddings are written per output shard, independently of each other; the datasheet, the provenance
and the checksums come last. Nothing in the folder depends on the machine, the date or the number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...shards import storage
from ...shards.release import (
    Datasheet,
    FunnelStep,
    seal,
    write_datasheet,
    write_metadata,
    write_provenance,
    write_release_subset,
)
from ...shards.reshard import ReshardPlan, finish_shards, plan_shards, write_shard
from ...shards.shard import METADATA, SUCCESS
from ...shards.uid import read_subset
from ..columns import ColumnStore, column_store
from ..stage import Stage, Task, Work
from .filtering import FETCH, read_fates
from .pool import shards_of

DESCRIBED = {
    "uid": "id of the sample, 32 hexadecimal characters",
    "repeat": "the how-manieth writing of the sample, from 0",
    "source": "name of the source it came from",
    "url": "where the image was fetched from",
    "caption": "the caption, byte for byte",
    "width": "width of the stored image, pixels",
    "height": "height of the stored image, pixels",
    "original_width": "width of the image as fetched, pixels",
    "original_height": "height of the image as fetched, pixels",
    "sha256": "SHA-256 of the image as fetched",
}
TEXTS = {
    "summary": "Image-text pairs, filtered and deduplicated by curate.",
    "licence": "Not stated by the publisher; each image keeps the rights of its owner.",
    "opt_out": "Images whose server asked not to be used (X-Robots-Tag) are not in it. Ask the publisher for removal.",
    "limits": "Not examined beyond the filters listed above.",
    "personal": "Not examined.",
    "citation": "",
}
EMBEDDING_FOLDER = {"image": "img_emb", "text": "text_emb"}  # clip-retrieval's names


@dataclass(eq=False)
class ReleaseStage(Stage):
    """Publish a subset.

    Inputs: ``pool``, ``subset``, ``filter/*`` (its chain, for the funnel), all ``score/*``, the released ``embed/*``.
    Summary: ``samples``, ``unique``, ``shards``, ``bytes``.
    """

    kind: ClassVar[str] = "release"
    title: str = ""
    samples_per_shard: int = 10_000
    datasheet: dict[str, str] = field(default_factory=dict)
    seed: int = 0

    def identity(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "samples_per_shard": self.samples_per_shard,
            "datasheet": self.datasheet,
            "seed": self.seed,
        }

    def run(self, work: Work) -> dict[str, Any]:
        shards = shards_of(work.inputs["pool"])
        subset = work.inputs["subset"]
        names = [s.name for s in shards]
        counts = [int(np.sum(read_fates(subset.data, n)["times"].to_numpy())) for n in names]
        plan = plan_shards(counts, self.samples_per_shard, seed=self.seed)
        store = column_store(work.inputs)
        written = work.map(
            _write, {plan.name(k): (plan, k, store, partial(kept_rows, subset.data, names)) for k in range(len(plan))}
        )
        uids = read_subset(storage.join(subset.data, "subset.npy"))
        facts = {
            "samples": plan.total,
            "unique": len(np.unique(uids)),
            "shards": len(plan),
            "bytes": sum(w["bytes"] for w in written.values()),
        }
        work.gather(_finish, [(work.out, plan, subset.data, self._sheet(work, facts), self._provenance(work))])
        return facts

    def _sheet(self, work: Work, facts: dict[str, int]) -> Datasheet:
        pool = work.inputs["pool"].summary
        failed = {code: n for code, n in pool["status"].items() if code not in (SUCCESS, METADATA)}
        funnel = [FunnelStep(FETCH, pool["usable"], failed)]
        labels = work.inputs["subset"].receipt["identity"]["labels"]
        chain = [a for r, a in sorted(work.inputs.items()) if r.startswith("filter/")]
        funnel += [
            FunnelStep(label, a.summary["kept"], a.summary["reasons"]) for label, a in zip(labels, chain, strict=True)
        ]
        scores = {
            r.removeprefix("score/"): "a score; see provenance.json" for r in work.inputs if r.startswith("score/")
        }
        texts = TEXTS | {k: v for k, v in self.datasheet.items() if k in TEXTS}
        more = {k: v for k, v in self.datasheet.items() if k not in TEXTS}
        return Datasheet(
            name=self.title,
            sources=[_source_line(name, facts) for name, facts in pool["sources"].items()],
            pool=pool["rows"],
            funnel=funnel,
            columns=DESCRIBED | scores,
            facts=more,
            samples=facts["samples"],
            unique=facts["unique"],
            shards=facts["shards"],
            bytes=facts["bytes"],
            summary=texts["summary"],
            licence=texts["licence"],
            opt_out=texts["opt_out"],
            limits=texts["limits"],
            personal=texts["personal"],
            citation=texts["citation"],
        )

    def _provenance(self, work: Work) -> dict[str, Any]:
        """Everything that decided the release's bytes, and with which library versions its inputs were made."""
        return {
            "title": self.title,
            "fingerprint": self.fingerprint,
            "seed": self.seed,
            "inputs": {
                role: {
                    k: a.receipt[k]
                    for k in ("stage", "kind", "version", "fingerprint", "identity", "inputs", "versions")
                }
                for role, a in work.inputs.items()
            },
        }


def _source_line(name: str, facts: dict[str, Any]) -> str:
    """One source in a line, with the options that were given."""
    options = {k: v for k, v in facts["identity"]["source"].items() if v is not None}
    return f"{name}: {facts['rows']:,} rows; " + ", ".join(f"{k} {v}" for k, v in options.items())


def kept_rows(folder: str, names: list[str], index: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of shard `index` that a subset keeps, and how often each."""
    times = read_fates(folder, names[index])["times"].to_numpy()
    rows = np.flatnonzero(times)
    return rows, times[rows]


def _write(task: Task, plan: ReshardPlan, k: int, store: ColumnStore, kept: Any) -> dict[str, Any]:
    origin = write_shard(plan, k, store.shards, kept, task.out)
    write_metadata(task.out, plan.name(k), _metadata(origin, store))
    digits = len(str(max(len(plan) - 1, 1)))
    for encoder in store.embeddings:
        for modality in store.modalities(encoder):
            values = _gather(origin, lambda i, m=modality, e=encoder: store.part(i).array(f"{e}.{m}"))
            folder = EMBEDDING_FOLDER[modality]
            name = storage.join(task.out, "embeddings", encoder, folder, f"{folder}_{k:0{digits}d}.npy")
            with storage.publishing(name) as path, open(path, "wb") as file:
                np.save(file, values.astype(np.float16))
    return {"samples": len(origin), "bytes": storage.size(storage.join(task.out, f"{plan.name(k)}.tar"))}


def _metadata(origin: pa.Table, store: ColumnStore) -> pa.Table:
    """The release's row table: what is known of every sample, in the order of the shard."""
    columns: dict[str, Any] = {"uid": origin["uid"], "repeat": origin["repeat"]}
    first = store.shards[0].column_names()
    for name in DESCRIBED:
        if name not in columns and name in first:
            columns[name] = _take(origin, lambda i, n=name: store.part(i).arrow(n))
    for score in store.scores:
        folder = store.scores[score]
        path = storage.join(folder, f"{store.shards[0].name}.parquet")
        for name in pq.read_schema(storage.local(path)).names:
            columns[name] = _take(origin, lambda i, n=name: store.part(i).arrow(n))
    return pa.table(columns)


def _take(origin: pa.Table, column: Any) -> pa.ChunkedArray:
    """Values of a pool column for the rows of `origin`, in its order."""
    shard, row = origin["shard"].to_numpy(), origin["row"].to_numpy()
    pieces, order = [], []
    for i in np.unique(shard):
        at = np.flatnonzero(shard == i)
        pieces.append(column(int(i)).take(pa.array(row[at])))
        order.append(at)
    chunks = [c for p in pieces for c in p.chunks]
    return pa.chunked_array(chunks).take(pa.array(np.argsort(np.concatenate(order))))


def _gather(origin: pa.Table, column: Any) -> np.ndarray:
    """As `_take`, for arrays."""
    shard, row = origin["shard"].to_numpy(), origin["row"].to_numpy()
    result: np.ndarray | None = None
    for i in np.unique(shard):
        at = np.flatnonzero(shard == i)
        values = column(int(i))
        if result is None:
            result = np.empty((len(shard), values.shape[1]), values.dtype)
        result[at] = values[row[at]]
    assert result is not None
    return result


def _finish(out: str, plan: ReshardPlan, subset: str, sheet: Datasheet, provenance: dict[str, Any]) -> None:
    records = storage.join(subset, "subset.npy")
    finish_shards(plan, out, records)
    write_release_subset(out, "subset", read_subset(records))
    write_datasheet(out, sheet)
    write_provenance(out, provenance)
    seal(out)
