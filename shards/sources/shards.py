"""The `shards` source: tars that exist already, used where they lie.

img2dataset, DataComp and CC12M folders, or any WebDataset tars: nothing is fetched or rewritten; see `existing`.
"""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, Literal

from pydantic import Field

from ...errors import ConfigError
from .. import row_table, storage
from ..shard import Shard
from .base import SOURCES, Ingested, IngestOptions, Progress, Source


@SOURCES.register
class ShardsSource(Source):
    """Existing tar shards of images and captions, read in place."""

    version: ClassVar[int] = 1
    type: Literal["shards"] = "shards"
    path: str = Field(description="Folder of tars, glob pattern, or one tar; any fsspec URL.")

    def fingerprint(self) -> str:
        """Names, sizes and ends of the tars and of the tables beside them (`storage.identity`)."""
        digest = hashlib.blake2b(digest_size=16)
        for part in self.parts(None, 1):
            for path in (part["tar"], part["table"]):
                if path is not None:
                    digest.update(f"{path.rsplit('/', 1)[-1]}\0{storage.identity(path)}\0".encode())
        return digest.hexdigest()

    def parts(self, prepared: str | None, samples_per_shard: int) -> list[dict[str, Any]]:
        """One part per tar, ``{"tar", "table"}``; they keep the size they have.

        Raises:
            ConfigError: nothing is at `path`, or no tar.
        """
        found = storage.expand(self.path)
        if not any(storage.exists(path) for path in found[:1]):
            raise ConfigError(f"pool.source.path: nothing is there: {self.path}")
        tars = [path for path in found if path.endswith(".tar")]
        if not tars:
            raise ConfigError(f"pool.source.path: no .tar file at {self.path}")
        tables = {table for tar in tars if storage.exists(table := tar.removesuffix(".tar") + ".parquet")}
        return [
            {"tar": tar, "table": table if (table := tar.removesuffix(".tar") + ".parquet") in tables else None}
            for tar in tars
        ]

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
