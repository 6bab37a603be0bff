"""The `urls` source: tables of URLs and captions, fetched from the web."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from ...errors import ConfigError, DataError
from ..tables import url_table
from .base import SOURCES, IngestOptions, Slot, Source
from .columns import GIVEN, RESERVED, carried, require, rows
from .files import File, each, find, identity, keys
from .verified import Verified, hashes

if TYPE_CHECKING:
    from ..ingest import Bodies


@SOURCES.register
class UrlsSource(Source):
    """Image URLs and captions in parquet, csv, tsv, txt, jsonl or json files.

    Every file is cut into shards of its own, so adding files never changes the shards of those that were there.
    """

    version: ClassVar[int] = 2
    type: Literal["urls"] = "urls"
    path: str = Field(description="File, folder or glob pattern; any fsspec URL.")
    url: str = Field(default="url", description="Column with the image URLs.")
    caption: str | None = Field(
        default="text", description="Column with the captions; null = there are none. Files of bare URLs have none."
    )
    uid: str = Field(
        default="uid",
        description="Column with the samples' 128-bit ids in hexadecimal; where it is missing or null, an id is made "
        "from URL and caption.",
    )
    extra: list[str] | None = Field(
        default=None,
        description="Further columns to carry along; null = all. Those whose name the pool's own table has come along "
        "as `given_<name>`.",
    )
    columns: list[str] | None = Field(
        default=None,
        min_length=1,
        description="Names of the columns of csv and tsv files that have no header line: `[text, url]` for CC3M, "
        "`[url, text]` for CC12M.",
    )
    verify: str | None = Field(
        default=None,
        description="Column with the SHA-256 that the fetched bytes must have; others fail with `hash_mismatch`.",
    )

    def fingerprint(self) -> str:
        """Names, sizes and ends of the files, in the order of their paths."""
        return identity(self._files())

    def parts(self, prepared: str | None, samples_per_shard: int) -> list[dict[str, Any]]:
        """Row ranges of the files: ``{"key", "path", "start", "stop"}`` and, for text files, where to read them.

        Raises:
            ConfigError: no such file, or a column is missing or has a reserved name.
            DataError: a file cannot be read, or there are no rows at all.
        """
        parts = []
        files = self._files()
        known = keys(files)
        columns = None if self.columns is None else tuple(self.columns)
        text, typed = self._text(), self.extra != []
        found = each(lambda path: _count(path, known[path], samples_per_shard, columns, text, typed), files)
        for path, counted in zip((file.path for file in files), found, strict=True):
            if counted.rows:
                self._choose(path, counted.names)
            for part in counted.parts(samples_per_shard):
                key = f"{known[path]}:{part['start']}-{part['stop']}"
                parts.append({"key": key, "path": path, **part})
        if not parts:
            raise DataError(f"the pool is empty: no rows in the {len(files)} file(s) of {self.path}")
        return parts

    def table(self, part: dict[str, Any]) -> pa.Table:
        """The rows of a range of a file, with ids where it has none."""
        path = part["path"]
        names = part["names"]
        uid, extra = self._choose(path, names)
        url, caption = (names[0], None) if _is_plain(path) else (self.url, self.caption)
        wanted = [c for c in dict.fromkeys([url, caption, uid, *extra.values()]) if c is not None]
        table = url_table.read(path, part, self._text(), wanted)
        return rows(table, path, url, caption, uid, extra)

    def fetches(self) -> bool:
        return True

    def shares(self) -> bool:
        """Not when hashes are checked: rows that name one URL may expect different ones."""
        return self.verify is None

    def bodies(self, part: dict[str, Any], rows: pa.Table, slot: Slot, options: IngestOptions) -> Bodies | None:
        """From the web; with `verify`, their hashes are checked."""
        if self.verify is None:
            return None
        column = f"{GIVEN}{self.verify}" if self.verify in RESERVED else self.verify
        return Verified(rows["url"].to_pylist(), hashes(rows, column), options.fetch, slot.connect_to)

    def _files(self) -> list[File]:
        return find(self.path, url_table.EXTENSIONS)

    def _text(self) -> tuple[str, ...]:
        """Columns that are text whatever they look like."""
        named = (self.url, self.caption, self.uid, self.verify)
        return tuple(dict.fromkeys(c for c in named if c is not None))

    def _choose(self, path: str, names: list[str] | tuple[str, ...]) -> tuple[str | None, dict[str, str]]:
        """The uid column of a file if it has one, and the columns to carry along.

        Raises:
            ConfigError: a column is missing.
        """
        if _is_plain(path):
            if self.verify is not None or self.extra:
                raise ConfigError(f"source option `{'extra' if self.extra else 'verify'}`: {path} has nothing but URLs")
            return None, {}
        needed = [("url", self.url), ("caption", self.caption), ("verify", self.verify)]
        require(path, names, [*needed, *([("uid", self.uid)] if self.uid != "uid" else [])])
        extra = carried(path, names, self.extra, (self.url, self.caption, self.uid))
        if self.verify is not None and self.verify not in extra.values():
            extra |= carried(path, names, [self.verify], ())
        return (self.uid if self.uid in names else None), extra


def _is_plain(path: str) -> bool:
    """Whether a file holds nothing but URLs, one a line."""
    return path.lower().removesuffix(".gz").endswith(".txt")


@functools.lru_cache(maxsize=4096)
def _count(
    path: str, key: str, per: int, columns: tuple[str, ...] | None, text: tuple[str, ...], typed: bool
) -> url_table.Counted:
    """Counted once per process: `key` tells the file's content."""
    return url_table.count(path, per, columns, text, typed)
