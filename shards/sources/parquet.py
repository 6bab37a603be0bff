"""The `parquet` source: parquet files that hold the images themselves, as Hugging Face and img2dataset write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from ...errors import ConfigError, DataError
from ..tables import parquet_rows
from ..tables.text_columns import is_textual
from ..web.fetch import Fetched
from .base import SOURCES, IngestOptions, Slot, Source
from .columns import carried, require, rows
from .files import File, each, find, identity, keys

if TYPE_CHECKING:
    from ..ingest import Bodies

_BATCH = 64  # images held at a time


@SOURCES.register
class ParquetSource(Source):
    """Parquet files with image bytes and captions.

    Every file is cut into shards of its own, so adding files never changes the shards of those that were there.
    """

    version: ClassVar[int] = 1
    type: Literal["parquet"] = "parquet"
    path: str = Field(description="File, folder or glob pattern; any fsspec URL.")
    image: str = Field(
        default="image",
        description="Column with the encoded images: binary, or Hugging Face's struct of `bytes` and `path`.",
    )
    caption: str | None = Field(default="text", description="Column with the captions; null = there are none.")
    url: str | None = Field(
        default=None, description="Column with the images' URLs; they are kept, nothing is fetched."
    )
    uid: str = Field(
        default="uid",
        description="Column with the samples' 128-bit ids in hexadecimal; where it is missing or null, an id is made "
        "from file name, row, URL and caption.",
    )
    extra: list[str] | None = Field(
        default=None,
        description="Further columns to carry along; null = all. Those whose name the pool's own table has come along "
        "as `given_<name>`.",
    )

    def fingerprint(self) -> str:
        """Names, sizes and ends of the files, in the order of their paths."""
        return identity(self._files())

    def parts(self, prepared: str | None, samples_per_shard: int) -> list[dict[str, Any]]:
        """Row ranges of the files: ``{"key", "path", "start", "stop"}``.

        Raises:
            ConfigError: no such file, or a column is missing or holds something else.
            DataError: a file cannot be read, or there are no rows at all.
        """
        parts = []
        files = self._files()
        known = keys(files)
        counted = each(parquet_rows.count, files)
        for path, (total, schema) in zip((file.path for file in files), counted, strict=True):
            self._image_column(path, schema)
            self._choose(path, schema.names)
            for start in range(0, total, samples_per_shard):
                stop = min(start + samples_per_shard, total)
                parts.append({"key": f"{known[path]}:{start}-{stop}", "path": path, "start": start, "stop": stop})
        if not parts:
            raise DataError(f"the pool is empty: no rows in the {len(files)} file(s) of {self.path}")
        return parts

    def table(self, part: dict[str, Any]) -> pa.Table:
        """The rows of a range of a file, without their images."""
        path, start, stop = part["path"], part["start"], part["stop"]
        uid, extra = self._choose(path, parquet_rows.count(path)[1].names)
        wanted = [c for c in dict.fromkeys([self.url, self.caption, uid, *extra.values()]) if c is not None]
        table = parquet_rows.read(path, start, stop, wanted) if wanted else pa.table({"": pa.nulls(stop - start)})
        place = path.rsplit("/", 1)[-1]
        return rows(table, path, self.url, self.caption, uid, extra, [(place, str(row)) for row in range(start, stop)])

    def bodies(self, part: dict[str, Any], rows: pa.Table, slot: Slot, options: IngestOptions) -> Bodies | None:
        """The images in the file, a few at a time."""
        return _Column(part, self._image_column(part["path"], parquet_rows.count(part["path"])[1]), options)

    def _files(self) -> list[File]:
        return find(self.path, (".parquet",))

    def _choose(self, path: str, names: list[str]) -> tuple[str | None, dict[str, str]]:
        """The uid column of a file if it has one, and the columns to carry along."""
        require(path, names, [("caption", self.caption), ("url", self.url)])
        require(path, names, [("uid", self.uid)] if self.uid != "uid" else [])
        extra = carried(path, names, self.extra, (self.image, self.url, self.caption, self.uid))
        return (self.uid if self.uid in names else None), extra

    def _image_column(self, path: str, schema: pa.Schema) -> str:
        """The column of the bytes: the image column, or the field ``bytes`` in it."""
        require(path, schema.names, [("image", self.image)])
        kind = schema.field(self.image).type
        if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
            if is_textual(kind) and not pa.types.is_string(kind):
                return f"{self.image}.bytes"
        if not is_textual(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
            raise ConfigError(
                f"source option `image`: {path}: column {self.image!r} holds {schema.field(self.image).type}, no "
                "encoded images (binary, or a struct with `bytes`)"
            )
        return self.image


class _Column:
    """Bodies from a column of a parquet file."""

    def __init__(self, part: dict[str, Any], column: str, options: IngestOptions) -> None:
        self._part, self._column, self._most = part, column, options.fetch.max_bytes

    def __call__(self, rows: Sequence[int]) -> Iterator[Fetched]:
        wanted = set(rows)
        first, last = self._part["start"] + min(rows), self._part["start"] + max(rows) + 1
        row = min(rows)
        for batch in parquet_rows.batches(self._part["path"], first, last, [self._column], _BATCH):
            values = batch.column(0)
            if pa.types.is_struct(values.type):
                values = values.field("bytes") if values.null_count == 0 else _flat(values)
            for value in values:
                if row in wanted:
                    yield self._body(row, value)
                row += 1

    def _body(self, row: int, value: Any) -> Fetched:
        buffer = value.as_buffer() if value.is_valid else None
        if buffer is None or not len(buffer):
            return Fetched(row, "", None, "empty", "no image in the file", "", 0)
        if len(buffer) > self._most:
            return Fetched(row, "", None, "too_large", f"{len(buffer)} bytes", "", 0)
        return Fetched(row, "", buffer.to_pybytes(), None, "", "", 0)


def _flat(values: Any) -> Any:
    """The field ``bytes`` of a struct column, null where the struct is."""
    return values.flatten()[values.type.get_field_index("bytes")]
