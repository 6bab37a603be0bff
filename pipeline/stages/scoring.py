"""`embed` and `score`: columns over the whole pool, computed once and shared by all subsets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...filters.base import Scorer
from ...shards import storage
from ...shards.shard import Shard
from ..columns import ColumnStore, require_columns
from ..stage import Stage, Task, Work
from .filtering import column_store
from .pool import shards_of

EMBED_BATCH = 256


@dataclass(frozen=True)
class EncoderAt:
    """Where an encoder is loaded from: the artifact of a training, or a model name with a local checkpoint."""

    model: str
    pretrained: str | None

    def load(self) -> Any:
        return _load(self)


@lru_cache(maxsize=2)
def _load(at: EncoderAt) -> Any:
    """One model load per worker and encoder, however many parts the worker gets."""
    from ...pretrain.encoder import Encoder

    return Encoder.load(at.model, pretrained=at.pretrained)


@dataclass(eq=False)
class EmbedStage(Stage):
    """Embeddings of every image and caption of the pool by one encoder.

    Inputs: ``pool``; ``encoder`` when it was trained in this run.
    Files: ``<shard>.image.npy`` and ``<shard>.text.npy``, ``(rows, d) float16``, NaN where there is none.
    """

    kind: ClassVar[str] = "embed"
    grows: ClassVar[bool] = True
    model: str = ""
    pretrained: str | None = None
    weights: str = ""  # identity of the local checkpoint

    def identity(self) -> dict[str, Any]:
        return {"model": self.model, "weights": self.weights}

    def expected_parts(self, done: Any) -> int | None:
        return len(done["pool"].summary["shards"]) if "pool" in done else None

    def run(self, work: Work) -> dict[str, Any]:
        if "encoder" in work.inputs:
            encoder = EncoderAt(storage.join(work.inputs["encoder"].data, "model"), None)
        else:
            encoder = EncoderAt(self.model, self.pretrained)
        results = work.map(_embed, {s.name: (encoder, s) for s in shards_of(work.inputs["pool"])})
        return {k: sum(r[k] for r in results.values()) for k in next(iter(results.values()))}


def _embed(task: Task, encoder: EncoderAt, shard: Shard) -> dict[str, Any]:
    from ...pretrain.embed import embed_shard

    image, text, counts = embed_shard(encoder.load(), shard, EMBED_BATCH, task.progress)
    for modality, values in (("image", image), ("text", text)):
        name = storage.join(task.out, f"{shard.name}.{modality}.npy")
        with storage.publishing(name) as path, open(path, "wb") as file:
            np.save(file, values)
    return dict(counts)


@dataclass(eq=False)
class ScoreStage(Stage):
    """One score over the whole pool.

    Inputs: ``pool`` and the ``embed/*`` and ``score/*`` that it reads.
    Files: ``<shard>.parquet`` with the score's columns, row-aligned.
    """

    kind: ClassVar[str] = "score"
    grows: ClassVar[bool] = True
    scorer: Scorer = None  # type: ignore[assignment]
    column: str = ""

    def identity(self) -> dict[str, Any]:
        return {
            "scorer": self.scorer.model_dump(mode="json"),
            "scorer_version": self.scorer.version,
            "column": self.column,
        }

    def expected_parts(self, done: Any) -> int | None:
        return len(done["pool"].summary["shards"]) if "pool" in done else None

    def run(self, work: Work) -> dict[str, Any]:
        store = column_store(work.inputs)
        require_columns(store, self.scorer.columns(), "this score")
        results = work.map(_score, {s.name: (self.scorer, self.column, store, i) for i, s in enumerate(store.shards)})
        return {"rows": sum(r["rows"] for r in results.values()), "facts": self.scorer.describe()}


def _score(task: Task, scorer: Scorer, column: str, store: ColumnStore, index: int) -> dict[str, Any]:
    part = store.part(index)
    table = pa.table(scorer.score(part, column))
    with storage.publishing(storage.join(task.out, f"{part.name}.parquet")) as path:
        pq.write_table(table, path)
    return {"rows": len(table)}
