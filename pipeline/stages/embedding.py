"""`embed`: embeddings of the whole pool, by a model that looks at it, or taken over from files that exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...errors import DataError
from ...filters.embedding_imports import EmbeddingImport
from ...shards import storage
from ..artifact import Artifact
from ..columns import ColumnStore, column_store, require_columns
from ..context import EncoderAt, StageContext
from ..stage import Stage, Task, Work
from .images import EmbedLook, add_up, look_at_images, write_embeddings


@dataclass(eq=False)
class EmbedStage(Stage):
    """Embeddings of every image and caption of the pool by one encoder.

    Inputs: ``pool``; ``encoder`` when it was trained in this run.
    Files: ``<shard>.image.npy`` and ``<shard>.text.npy``, ``(rows, d)``, NaN where there is none, and
    ``<shard>.status.parquet``, which says why.
    """

    kind: ClassVar[str] = "embed"
    version: ClassVar[int] = 2
    encoder: EncoderAt = None  # type: ignore[assignment]
    model_identity: str = ""
    weights: str = ""  # identity of the local checkpoint
    mask_text: bool = False
    store_as: str = "float16"

    @property
    def grows(self) -> bool:
        return True

    def identity(self) -> dict[str, Any]:
        return {
            "model": self.model_identity,
            "weights": self.weights,
            "precision": self.encoder.precision,
            "mask_text": self.mask_text,
            "store": self.store_as,
        }

    def expected_parts(self, done: Any) -> int | None:
        return len(done["pool"].summary["shards"]) if "pool" in done else None

    def look_along(self, inputs: Mapping[str, Artifact]) -> EmbedLook:
        """What the image pass does for it."""
        at = self.encoder
        if "encoder" in inputs:
            at = EncoderAt(storage.join(inputs["encoder"].data, "model"), None, at.device, at.precision)
        return EmbedLook(at, self.mask_text, self.store_as)

    def run(self, work: Work) -> dict[str, Any]:
        return add_up(look_at_images(work, self.look_along(work.inputs)))


@dataclass(eq=False)
class ImportStage(Stage):
    """Embeddings that exist, joined to the pool by uid.

    Inputs: ``pool`` and what the join reads. Files: as of `EmbedStage`.
    """

    kind: ClassVar[str] = "embed"
    source: EmbeddingImport = None  # type: ignore[assignment]
    files: str = ""  # identity of the local files

    def identity(self) -> dict[str, Any]:
        return {
            "import": self.source.model_dump(mode="json"),
            "import_version": self.source.version,
            "files": self.files,
        }

    def expected_parts(self, done: Any) -> int | None:
        return len(done["pool"].summary["shards"]) if "pool" in done else None

    def run(self, work: Work) -> dict[str, Any]:
        store = column_store(work.inputs)
        require_columns(store, self.source.columns(), "this import")
        state = self.source.fit(StageContext(work, self.source, {}, 0))
        parts = {s.name: (self.source, store, i, state) for i, s in enumerate(store.shards)}
        results = work.map(_import, parts)
        return {**add_up(results), "facts": self.source.describe(state)}


def _import(task: Task, source: EmbeddingImport, store: ColumnStore, index: int, state: Any) -> dict[str, Any]:
    part = store.part(index)
    arrays, counts = source.read(part, state)
    for modality, values in arrays.items():
        if len(values) != len(part):
            raise DataError(f"{source.type}: {len(values)} {modality} embeddings for {len(part)} rows of {part.name}")
    write_embeddings(task.out, part.name, arrays)
    found = {f"{modality}s": int(np.isfinite(values).all(1).sum()) for modality, values in arrays.items()}
    return {"rows": len(part), **found, **{name: count for name, count in counts.items() if name not in arrays}}
