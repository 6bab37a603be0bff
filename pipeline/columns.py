"""Columns of the pool as files: where each lies, and one part seen through them.

Row tables, scores (``<shard>.parquet``) and embeddings (``<shard>.image.npy``, ``<shard>.text.npy``) are aligned row
for row, so a column of a part is one small read. `FilePart` is what scorers and filters see (`filters.base.Part`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ConfigError
from ..registry import unknown
from ..shards import storage
from ..shards.shard import Shard
from ..shards.uid import column_records
from .artifact import Artifact
from .stages.pool import shards_of

MODALITIES = ("image", "text")
SUBSET = "subset."  # a column: how often a row is in a subset


@dataclass(frozen=True)
class ColumnStore:
    """Where the columns of a pool lie.

    Attributes:
        shards: the pool's shards, in order.
        scores: folder of each score by its config name; a score ``s`` also owns the columns ``s_*`` of its file.
        embeddings: folder of each encoder's embeddings.
        subsets: folder of each subset's fates; its column ``subset.<name>`` holds multiplicities, 0 = not in it.
    """

    shards: tuple[Shard, ...]
    scores: dict[str, str] = field(default_factory=dict)
    embeddings: dict[str, str] = field(default_factory=dict)
    subsets: dict[str, str] = field(default_factory=dict)

    def part(self, index: int, rows: np.ndarray | None = None) -> FilePart:
        """Part `index`, all rows or only some."""
        return FilePart(self, index, rows)

    def modalities(self, encoder: str) -> list[str]:
        """What an encoder embedded: pictures, captions, or both."""
        stem = storage.join(self.embeddings[encoder], self.shards[0].name)
        return [m for m in MODALITIES if storage.exists(f"{stem}.{m}.npy")]

    def score_of(self, column: str) -> str | None:
        """The score whose file holds `column`, if it is a score's."""
        owners = [s for s in self.scores if column == s or column.startswith(f"{s}_")]
        return max(owners, key=len) if owners else None


def require_columns(store: ColumnStore, columns: Sequence[str], where: str) -> None:
    """Raise `ConfigError` for a column that neither the row table nor a score nor an encoder provides."""
    first = store.shards[0]
    known = list(first.column_names())
    for encoder in store.embeddings:
        known += [f"{encoder}.{modality}" for modality in store.modalities(encoder)]
    known += [f"{SUBSET}{name}" for name in store.subsets]
    for folder in store.scores.values():
        known += pq.read_schema(storage.local(storage.join(folder, f"{first.name}.parquet"))).names
    for column in columns:
        if column not in known:
            raise ConfigError(f"{where}: {unknown('column', column, known)}")


def column_store(inputs: Mapping[str, Artifact], prefix: str = "") -> ColumnStore:
    """The columns among a stage's inputs: roles ``pool``, ``score/<name>`` and ``embed/<encoder>`` behind `prefix`."""
    own = {r.removeprefix(prefix): a for r, a in inputs.items() if r.startswith(prefix)}
    return ColumnStore(
        tuple(shards_of(own["pool"])),
        {r.removeprefix("score/"): a.data for r, a in own.items() if r.startswith("score/")},
        {r.removeprefix("embed/"): a.data for r, a in own.items() if r.startswith("embed/")},
        {r.removeprefix("subset/"): a.data for r, a in own.items() if r.startswith("subset/")},
    )


class FilePart:
    """One part of the pool, or some of its rows, read column by column on demand."""

    def __init__(self, store: ColumnStore, index: int, rows: np.ndarray | None = None) -> None:
        self.store, self.index = store, index
        self.shard = store.shards[index]
        self.name = self.shard.name
        self._all = rows is None
        self.rows = np.arange(self.shard.rows(), dtype=np.int64) if rows is None else np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def arrow(self, column: str) -> pa.ChunkedArray:
        if column.startswith(SUBSET) and column.removeprefix(SUBSET) in self.store.subsets:
            path = storage.join(self.store.subsets[column.removeprefix(SUBSET)], f"{self.name}.parquet")
            values = pq.read_table(storage.local(path), columns=["times"])["times"]
            return values if self._all else values.take(pa.array(self.rows))
        score = self.store.score_of(column)
        path = storage.join(self.store.scores[score], f"{self.name}.parquet") if score else self.shard.table
        values = pq.read_table(storage.local(path), columns=[column])[column]
        return values if self._all else values.take(pa.array(self.rows))

    def array(self, column: str) -> np.ndarray:
        encoder, _, modality = column.rpartition(".")
        if modality in MODALITIES and encoder in self.store.embeddings:
            path = storage.join(self.store.embeddings[encoder], f"{self.name}.{modality}.npy")
            stored = np.load(storage.local(path), mmap_mode="r", allow_pickle=False)
            return np.asarray(stored[self.rows] if not self._all else stored, np.float32)
        return self.arrow(column).to_numpy()

    def only(self, rows: np.ndarray) -> FilePart:
        """The same part with other rows alive."""
        return FilePart(self.store, self.index, rows)

    def uids(self) -> np.ndarray:
        return column_records(self.arrow("uid"))
