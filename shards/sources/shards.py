"""The `shards` source: tars that exist already, used where they lie.

img2dataset, DataComp and CC12M folders, or any WebDataset tars: nothing is fetched or rewritten; see `existing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from .. import row_table, storage
from ..shard import Shard
from .base import SOURCES, Ingested, IngestOptions, Slot, Source, labelled
from .files import find, identity, keys

if TYPE_CHECKING:
    from ..ingest import Copies


@SOURCES.register
class ShardsSource(Source):
    """Existing tar shards of images and captions, read in place."""

    version: ClassVar[int] = 1
    type: Literal["shards"] = "shards"
    path: str = Field(description="Folder of tars, glob pattern, or one tar; any fsspec URL.")

    def fingerprint(self) -> str:
        """Names, sizes and ends of the tars and of the tables beside them (`storage.identity`)."""
        pairs = [(part["tar"], part["table"]) for part in self.parts(None, 1)]
        return identity(path for pair in pairs for path in pair if path is not None)

    def parts(self, prepared: str | None, samples_per_shard: int) -> list[dict[str, Any]]:
        """One part per tar, ``{"key", "tar", "table"}``; they keep the size they have.

        Raises:
            ConfigError: nothing is at `path`, or no tar.
        """
        parts = []
        tars = find(self.path, (".tar",))
        known = keys(tars)
        for tar in tars:
            table = tar.removesuffix(".tar") + ".parquet"
            there = storage.exists(table)
            key = f"{tar}:{known[tar]}" + (f":{storage.identity(table)}" if there else "")
            parts.append({"key": key, "tar": tar, "table": table if there else None})
        return parts

    def ingest(
        self, part: dict[str, Any], slot: Slot, options: IngestOptions, copies: Copies | None = None
    ) -> Ingested:
        """Write the row table of one tar. What was torn is told in ``stats["torn"]``."""
        from ..existing import read_existing

        table, stats = read_existing(part["tar"], part["table"], slot.progress)
        shard = Shard(slot.name, part["tar"], storage.join(slot.out, f"{slot.name}.parquet"))
        row_table.write(shard.table, labelled(table, slot))
        return Ingested(shard, stats)
