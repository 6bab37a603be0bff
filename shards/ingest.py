"""Rows with URLs -> one shard: fetch, process, and write tar, row table and statistics.

One thread does it all: while an image is decoded, the next ones arrive in the sockets' buffers. Samples are written in
input order as soon as all rows before them are done, so the same answers give the same bytes whatever order they came
in, and memory holds only encoded images that wait for a slower row before them. The three files appear under their
final names whole, the statistics last: a shard without them is not finished.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from . import row_table, storage
from .fetch import Fetched, Fetcher
from .image import Image, ImageError, ImageOptions, process
from .row_table import FAILED_TO_DOWNLOAD, FAILED_TO_RESIZE
from .shard import SUCCESS, Shard
from .sources.base import Ingested, IngestOptions, Progress
from .tar import TarWriter


def ingest_rows(
    rows: pa.Table,
    index: int,
    name: str,
    out: str,
    options: IngestOptions,
    connect_to: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Ingested:
    """Fetch the images of `rows` and write shard `name` into folder `out`.

    Args:
        rows: columns ``uid``, ``url`` and ``caption`` (text; url and caption may be null) and any extra ones.
        index: the shard's number, from which sample keys are made.
        connect_to: ``host:port -> host:port`` overrides for fetching.
        progress: called with (rows done, rows) after every row.

    Raises:
        StorageError: the output cannot be written.
    """
    started = time.time()
    filling = _Filling(rows, index, options)
    shard = Shard(name, storage.join(out, f"{name}.tar"), storage.join(out, f"{name}.parquet"))
    with (
        storage.publishing(shard.tar) as temporary,
        TarWriter(temporary) as tar,
        Fetcher(options.fetch, connect_to) as fetcher,
    ):
        for done, fetched in enumerate(fetcher.fetch(filling.urls), 1):
            filling.settle(fetched)
            filling.write_ready(tar)
            if progress is not None:
                progress(done, rows.num_rows)
    row_table.write(shard.table, filling.table())
    stats = filling.stats()
    _write_stats(storage.join(out, f"{name}_stats.json"), stats, filling.outcome["status"], started)
    return Ingested(shard, stats)


class _Filling:
    """The rows of a shard while their outcomes come in, in any order."""

    def __init__(self, rows: pa.Table, index: int, options: IngestOptions) -> None:
        n = rows.num_rows
        self.options: ImageOptions = options.image
        self.extra = {c: rows[c] for c in rows.column_names if c not in ("url", "caption")}
        self.urls: list[str | None] = rows["url"].to_pylist()
        self.outcome: dict[str, list[Any]] = {column: [None] * n for column in row_table.OUTCOME}
        self.outcome["url"] = self.urls
        self.outcome["caption"] = rows["caption"].to_pylist()
        self.outcome["key"] = [row_table.sample_key(index, row, options.samples_per_shard) for row in range(n)]
        self._values = {column: values.to_pylist() for column, values in self.extra.items()}
        self._images: dict[int, bytes] = {}  # done, but a row before is not
        self._next = 0
        self._last: tuple[bytes, Image | ImageError, str] | None = None
        self.bytes = 0

    def settle(self, fetched: Fetched) -> None:
        """Turn what was fetched into the row's outcome."""
        row = fetched.index
        if fetched.body is None:
            self._fail(row, FAILED_TO_DOWNLOAD, fetched.error or "", fetched.detail)
            return
        image, sha256 = self._process(fetched.body)
        if isinstance(image, ImageError):
            self._fail(row, FAILED_TO_RESIZE, image.code, image.detail)
            return
        self.outcome["status"][row] = SUCCESS
        self.outcome["sha256"][row] = sha256
        for column in ("width", "height", "original_width", "original_height", "exif"):
            self.outcome[column][row] = getattr(image, column)
        self._images[row] = image.data
        self.bytes += len(image.data)

    def write_ready(self, tar: TarWriter) -> None:
        """Write the samples that no unfinished row stands before."""
        status = self.outcome["status"]
        while self._next < len(status) and status[self._next] is not None:
            row = self._next
            data = self._images.pop(row, None)
            if data is not None:
                caption = self.outcome["caption"][row] or ""
                members = {self.options.encode: data, "json": self._json(row), "txt": caption.encode()}
                tar.write(self.outcome["key"][row], members)
            self._next += 1

    def table(self) -> pa.Table:
        return row_table.build(self.extra, self.outcome)

    def stats(self) -> dict[str, Any]:
        counts = Counter(row_table.reason(text) for text in self.outcome["error_message"])
        return {
            "rows": len(self.urls),
            "successes": counts[SUCCESS],
            "bytes": self.bytes,
            "status": dict(sorted(counts.items())),
        }

    def _process(self, body: bytes) -> tuple[Image | ImageError, str]:
        """The stored image and the hash of the original; a URL's second occurrence brings the same object again."""
        if self._last is None or self._last[0] is not body:
            image: Image | ImageError
            try:
                image = process(body, self.options)
            except ImageError as error:
                image = error
            self._last = (body, image, hashlib.sha256(body).hexdigest())
        return self._last[1], self._last[2]

    def _fail(self, row: int, status: str, code: str, detail: str) -> None:
        self.outcome["status"][row] = status
        self.outcome["error_message"][row] = row_table.message(code, detail)

    def _json(self, row: int) -> bytes:
        values = {"uid": self._values["uid"][row]}
        values.update((column, column_values[row]) for column, column_values in self._values.items())
        values.update((column, column_values[row]) for column, column_values in self.outcome.items())
        return row_table.sample_json(values)


def _write_stats(path: str, stats: Mapping[str, Any], status: list[str], started: float) -> None:
    """img2dataset's ``_stats.json``; its times are the only bytes of a shard that differ between equal runs."""
    ended = time.time()
    storage.write_json(
        path,
        {
            "count": stats["rows"],
            "successes": stats["successes"],
            "failed_to_download": status.count(FAILED_TO_DOWNLOAD),
            "failed_to_resize": status.count(FAILED_TO_RESIZE),
            "duration": ended - started,
            "start_time": started,
            "end_time": ended,
            "status_dict": stats["status"],
        },
        indent=4,
    )
