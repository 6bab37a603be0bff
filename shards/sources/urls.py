"""The `urls` source: tables of URLs and captions, fetched from the web."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from ...errors import ConfigError, DataError
from ...registry import nearest
from .. import row_table, url_table
from ..uid import canonical, stable_uid
from .base import SOURCES, Source
from .files import find, identity, keys


@SOURCES.register
class UrlsSource(Source):
    """Image URLs and captions in parquet, csv, tsv or jsonl files.

    Every file is cut into shards of its own, so adding files never changes the shards of those that were there.
    """

    version: ClassVar[int] = 1
    fetches: ClassVar[bool] = True
    type: Literal["urls"] = "urls"
    path: str = Field(description="File, folder or glob pattern; any fsspec URL.")
    url: str = Field(default="url", description="Column with the image URLs.")
    caption: str | None = Field(default="text", description="Column with the captions; null = there are none.")
    uid: str = Field(
        default="uid",
        description="Column with the samples' 128-bit ids in hexadecimal; where it is missing or null, an id is made "
        "from URL and caption.",
    )
    extra: list[str] | None = Field(default=None, description="Further columns to carry along; null = all.")

    def fingerprint(self) -> str:
        """Names, sizes and ends of the files (`storage.identity`), in the order of their paths."""
        return identity(self._files())

    def parts(self, prepared: str | None, samples_per_shard: int) -> list[dict[str, Any]]:
        """Row ranges of the files: ``{"key", "path", "start", "stop"}``.

        Raises:
            ConfigError: no such file, or a column is missing or has a reserved name.
            DataError: a file cannot be read, or there are no rows at all.
        """
        parts = []
        files = self._files()
        known = keys(files)
        for path in files:
            rows, names = url_table.count(path)
            if rows:
                self._check_columns(path, names)
            for start in range(0, rows, samples_per_shard):
                stop = min(start + samples_per_shard, rows)
                parts.append({"key": f"{known[path]}:{start}-{stop}", "path": path, "start": start, "stop": stop})
        if not parts:
            raise DataError(f"the pool is empty: no rows in the {len(files)} file(s) of {self.path}")
        return parts

    def rows(self, part: dict[str, Any]) -> pa.Table:
        """The rows of a range of a file, with ids where it has none."""
        path = part["path"]
        text = [c for c in (self.url, self.caption, self.uid) if c is not None]
        table = url_table.read(path, part["start"], part["stop"], text)
        extra = self._check_columns(path, table.column_names)
        urls = self._text(table, self.url, path)
        captions = self._text(table, self.caption, path) if self.caption else pa.nulls(len(table), pa.string())
        given = self._text(table, self.uid, path) if self.uid in table.column_names else pa.nulls(len(table))
        pairs = zip(urls.to_pylist(), captions.to_pylist(), strict=True)
        made = (stable_uid(url or "", caption or "") for url, caption in pairs)
        uids = canonical(given.to_pylist(), made, path)
        return pa.table({"uid": uids, "url": urls, "caption": captions, **{c: table[c] for c in extra}})

    def _files(self) -> list[str]:
        return find(self.path, url_table.EXTENSIONS)

    def _check_columns(self, path: str, names: list[str]) -> list[str]:
        """The extra columns of a file; raises `ConfigError` when a column is missing or reserved."""
        needed = {"url": self.url, "caption": self.caption}
        for option, column in [*needed.items(), *(("extra", column) for column in self.extra or [])]:
            if column is not None and column not in names:
                guess = nearest(column, names)
                hint = f"did you mean {guess!r}?" if guess else f"it has: {', '.join(names)}"
                raise ConfigError(f"pool.source.{option}: {path} has no column {column!r}; {hint}")
        if self.uid != "uid" and self.uid not in names:
            raise ConfigError(f"pool.source.uid: {path} has no column {self.uid!r}; it has: {', '.join(names)}")
        used = {self.url, self.caption, self.uid}
        extra = [c for c in (names if self.extra is None else self.extra) if c not in used]
        reserved = [c for c in extra if c in row_table.OUTCOME or c == "uid"]
        if reserved:
            raise ConfigError(
                f"pool.source.extra: {path} has columns that ingest fills itself: {', '.join(reserved)}; "
                "list under `extra` the columns to carry along, without these"
            )
        return extra

    def _text(self, table: pa.Table, column: str, path: str) -> pa.Array:
        try:
            values = pc.cast(table[column], pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            kind = table[column].type
            raise ConfigError(f"{path}: column {column!r} holds {kind}, which is no text") from error
        return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
