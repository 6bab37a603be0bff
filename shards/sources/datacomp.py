"""The `datacomp` source: DataComp's metadata, with its images or without them.

A pool's folder holds parquet files and, with the same stem, npz files of embeddings, row for row (`docs/formats.md`).
Without images nothing is fetched: every row is a row of the pool with the status ``metadata``, so that subsets can be
drawn by what the metadata tells.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from ...errors import ConfigError, DataError
from .. import row_table, storage
from ..shard import METADATA, Shard
from ..tables import parquet_rows
from ..tables.npz_arrays import require_rows
from ..tar import TarWriter
from .base import SOURCES, Ingested, IngestOptions, Slot, Source, labelled
from .columns import GIVEN, carried, require, rows
from .files import File, each, identity, keys, listing
from .verified import Verified, hashes

if TYPE_CHECKING:
    from ..ingest import Bodies, Copies

_FACTS = ("sha256", "original_width", "original_height")  # of the original image; told by the metadata


@SOURCES.register
class DatacompSource(Source):
    """A DataComp pool: metadata parquet files, npz files of embeddings beside them, and the images if wanted.

    Every file is cut into shards of its own, so adding files never changes the shards of those that were there.
    """

    version: ClassVar[int] = 1
    type: Literal["datacomp"] = "datacomp"
    path: str = Field(description="Folder with the metadata, or with xlarge's `part_*` folders; any fsspec URL.")
    images: bool = Field(
        default=True, description="Fetch the images; without them a pool of metadata is made, in seconds."
    )
    verify: bool = Field(
        default=False,
        description="Refuse images whose SHA-256 is not the metadata's (`hash_mismatch`): the web has changed since.",
    )
    extra: list[str] | None = Field(
        default=None, description="Further columns to carry along (`clip_l14_similarity_score`, ...); null = all."
    )

    def fingerprint(self) -> str:
        """Names, sizes and ends of the metadata files, in the order of their paths."""
        return identity(file for file, _ in self._found())

    def parts(self, prepared: str | None, samples_per_shard: int) -> list[dict[str, Any]]:
        """Row ranges of the files: ``{"key", "path", "start", "stop", "rows", "npz"}``; rows of the whole file.

        Raises:
            ConfigError: no such folder, no metadata in it, or a column is missing.
            DataError: a file cannot be read, or there are no rows at all.
        """
        parts = []
        found = self._found()
        known = keys(file for file, _ in found)
        counted = each(parquet_rows.count, [file for file, _ in found])
        for (file, npz), (total, schema) in zip(found, counted, strict=True):
            path = file.path
            self._choose(path, schema.names)
            for start in range(0, total, samples_per_shard):
                stop = min(start + samples_per_shard, total)
                part = {"key": f"{known[path]}:{start}-{stop}", "path": path, "start": start, "stop": stop}
                parts.append({**part, "rows": total, "npz": npz})
        if not parts:
            raise DataError(f"the pool is empty: no rows in the {len(found)} file(s) of {self.path}")
        return parts

    def table(self, part: dict[str, Any]) -> pa.Table:
        """The rows of a range of a file; what the metadata says about the originals comes as ``given_*``.

        Raises:
            DataError: the file cannot be read, or the npz beside it has not as many rows.
        """
        path = part["path"]
        if part["npz"] is not None and part["start"] == 0:
            require_rows(part["npz"], part["rows"])
        extra = self._choose(path, parquet_rows.count(path)[1].names)
        wanted = list(dict.fromkeys(["uid", "url", "text", *extra.values()]))
        return rows(parquet_rows.read(path, part["start"], part["stop"], wanted), path, "url", "text", "uid", extra)

    def embeddings(self, part: dict[str, Any]) -> dict[str, Any] | None:
        """Where a part's embeddings lie: ``{"path", "names", "start", "stop"}``, rows of the npz; None = nowhere.

        Raises:
            DataError: the npz is broken or has not as many rows as the metadata.
        """
        if part["npz"] is None:
            return None
        names = [array.name for array in require_rows(part["npz"], part["rows"])]
        return {"path": part["npz"], "names": names, "start": part["start"], "stop": part["stop"]}

    def fetches(self) -> bool:
        return self.images

    def shares(self) -> bool:
        """Not when hashes are checked: rows that name one URL may expect different ones."""
        return self.images and not self.verify

    def bodies(self, part: dict[str, Any], rows: pa.Table, slot: Slot, options: IngestOptions) -> Bodies | None:
        """From the web; with `verify`, their hashes are checked."""
        if not self.verify:
            return None
        return Verified(rows["url"].to_pylist(), hashes(rows, f"{GIVEN}sha256"), options.fetch, slot.connect_to)

    def ingest(
        self, part: dict[str, Any], slot: Slot, options: IngestOptions, copies: Copies | None = None
    ) -> Ingested:
        """As in `Source`; without images, a shard with the metadata and an empty tar."""
        if self.images:
            return super().ingest(part, slot, options, copies)
        table = labelled(self.table(part), slot)
        n = len(table)
        outcome: dict[str, Any] = {column: [None] * n for column in row_table.OUTCOME}
        for fact in ("url", "caption", *_FACTS):
            column = fact if fact in ("url", "caption") else f"{GIVEN}{fact}"
            if column in table.column_names:
                outcome[fact] = table[column].cast(row_table.OUTCOME[fact])
                table = table.drop_columns([column])
        outcome["key"] = [row_table.sample_key(slot.number, row, options.samples_per_shard) for row in range(n)]
        outcome["status"] = [METADATA] * n
        shard = Shard(
            slot.name, storage.join(slot.out, f"{slot.name}.tar"), storage.join(slot.out, f"{slot.name}.parquet")
        )
        with storage.publishing(shard.tar) as temporary, TarWriter(temporary):
            pass
        columns: dict[str, Any] = {column: table[column] for column in table.column_names}
        columns.update((column, _column(values, row_table.OUTCOME[column])) for column, values in outcome.items())
        row_table.write(shard.table, pa.table(columns))
        if slot.progress is not None:
            slot.progress(n, n)
        return Ingested(shard, {"rows": n, "successes": 0, "bytes": 0, "animated": 0, "status": {METADATA: n}})

    def _found(self) -> list[tuple[File, str | None]]:
        """Metadata files, each with the path of the npz beside it."""
        found = listing(self.path)
        if not any(_is_metadata(file) for file in found):
            with suppress(ConfigError):  # no such folders either
                found = listing(storage.join(self.path, "part_*"))
        paths = {file.path for file in found}
        pairs = [(file, _npz(file)) for file in found if _is_metadata(file)]
        if not pairs:
            raise ConfigError(f"source path: no .parquet file at {self.path}")
        return [(file, npz if npz in paths else None) for file, npz in pairs]

    def _choose(self, path: str, names: list[str]) -> dict[str, str]:
        """The columns to carry along."""
        needed = ["uid", "url", "text", *(["sha256"] if self.verify else [])]
        require(path, names, [("path", column) for column in needed])
        extra = carried(path, names, self.extra, ("uid", "url", "text"))
        facts = [fact for fact in _FACTS if fact in names and (not self.images or (self.verify and fact == "sha256"))]
        return extra | carried(path, names, facts, ())


def _is_metadata(file: File) -> bool:
    return ".parquet" in file.name


def _npz(file: File) -> str:
    folder, slash, name = file.path.rpartition("/")
    return f"{folder}{slash}{name.split('.parquet', 1)[0]}.npz"


def _column(values: Any, kind: pa.DataType) -> Any:
    return pa.array(values, kind) if isinstance(values, list) else values
