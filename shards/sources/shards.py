"""The `shards` source: tars that exist already, used where they lie.

img2dataset, DataComp and CC12M folders, or any WebDataset tars: nothing is fetched or rewritten; see `existing`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from .. import row_table, storage
from ..shard import Shard
from .base import SOURCES, Ingested, IngestOptions, Progress, Source
from .files import find, identity


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
        """One part per tar, ``{"tar", "table"}``; they keep the size they have.

        Raises:
            ConfigError: nothing is at `path`, or no tar.
        """
        parts = []
        for tar in find(self.path, (".tar",)):
            table = tar.removesuffix(".tar") + ".parquet"
            parts.append({"tar": tar, "table": table if storage.exists(table) else None})
        return parts

    def ingest(
        self,
        part: dict[str, Any],
        name: str,
        out: str,
        options: IngestOptions,
        connect_to: dict[str, str],
        progress: Progress | None = None,
    ) -> Ingested:
        """Write the row table of one tar. What was torn is told in ``stats["torn"]``."""
        from ..existing import read_existing

        table, stats = read_existing(part["tar"], part["table"], progress)
        shard = Shard(name, part["tar"], storage.join(out, f"{name}.parquet"))
        row_table.write(shard.table, table)
        return Ingested(shard, stats)
