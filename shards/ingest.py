"""Rows -> one shard: get each row's image, process it, and write tar, row table and statistics.

One thread does it all: while an image is decoded, the next ones arrive in the sockets' buffers. Every outcome goes into
the shard's journal at once (`journal`), so a killed shard goes on where it was; when all rows are settled, the samples
are written in input order, and the same answers give the same bytes whatever order they came in. The three files appear
under their final names whole, the statistics last: a shard without them is not finished.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from . import row_table, storage
from .images.image import ImageError, process
from .journal import Journal, Settled
from .row_table import FAILED_TO_DOWNLOAD, FAILED_TO_RESIZE
from .shard import SUCCESS, Shard
from .sources.base import Ingested, IngestOptions, Slot
from .tar import TarReader, TarWriter
from .web.fetch import Fetched, Fetcher

Bodies = Callable[[Sequence[int]], Iterator[Fetched]]
"""``bodies(rows)`` yields one outcome per row number asked for, in any order; ``Fetched.index`` is the row number."""

PASSING = frozenset({"dns", "refused", "timeout", "incomplete_read", "bad_response", "tls", "robots_unreachable"})
"""Failures of the connection: they may be this machine's, or a killed run's own."""

FACTS = ("width", "height", "original_width", "original_height", "exif", "sha256")


@dataclass(frozen=True)
class Copies:
    """Rows whose image another shard of the pool gets, because its URL came up there first.

    Attributes:
        rows: ``(m,) int64`` row numbers here, ascending.
        numbers: ``(m,) int64`` the other shards' numbers.
        origins: ``(m,) int64`` row numbers there.
        shards: finished shards by number.
        journals: paths of the journals of shards that are not finished.
    """

    rows: np.ndarray
    numbers: np.ndarray
    origins: np.ndarray
    shards: Mapping[int, Shard] = field(default_factory=dict)
    journals: Mapping[int, str] = field(default_factory=dict)


def journal_path(scratch: str, number: int) -> str:
    """Where the journal of a shard in the making lies."""
    return storage.join(scratch, f"{number:08d}.journal")


def ingest_rows(
    rows: pa.Table,
    slot: Slot,
    options: IngestOptions,
    bodies: Bodies | None = None,
    copies: Copies | None = None,
    check: Callable[[], None] | None = None,
) -> Ingested:
    """Get the images of `rows` and write the slot's shard.

    Args:
        rows: columns ``uid``, ``url`` and ``caption`` (text; url and caption may be null) and any extra ones.
        bodies: where images come from; by default their URLs are fetched.
        copies: rows that are not fetched but copied.
        check: called when all images were asked for; raises if what came of it cannot be trusted.

    Raises:
        StorageError: the output cannot be written.
    """
    started = time.time()
    with _journal(slot) as journal:
        _settle(journal, rows, slot, options, bodies, () if copies is None else copies.rows, check)
        if copies is not None:
            _copy(journal, copies)
        return _write_shard(journal, rows, slot, options, started)


def settle_rows(
    rows: pa.Table,
    slot: Slot,
    options: IngestOptions,
    bodies: Bodies | None = None,
    leave: Sequence[int] | np.ndarray = (),
    check: Callable[[], None] | None = None,
) -> None:
    """Get the images of all rows but `leave` into the journal in the slot's scratch folder, and go no further."""
    with Journal(journal_path(slot.scratch, slot.number)) as journal:
        _settle(journal, rows, slot, options, bodies, leave, check)


def _settle(
    journal: Journal,
    rows: pa.Table,
    slot: Slot,
    options: IngestOptions,
    bodies: Bodies | None,
    leave: Sequence[int] | np.ndarray,
    check: Callable[[], None] | None,
) -> None:
    """Settle every row that the journal does not know yet, but those to `leave` alone; then seal it."""
    if journal.sealed:
        return
    left = set(np.asarray(leave, np.int64).tolist())
    boxes = _Boxes(rows, options)
    urls: list[str | None] = rows["url"].to_pylist()
    if bodies is None and len(journal):
        _repeat(journal, urls, boxes)
    open_rows = [row for row in range(rows.num_rows) if row not in journal and row not in left]
    if bodies is None:
        bodies = _Web(urls, options, slot.connect_to)
    settling = _Settling(options)
    total = rows.num_rows - len(left)
    for fetched in bodies(open_rows) if open_rows else ():
        journal.append(fetched.index, settling.settle(fetched, boxes.of(fetched.index)))
        if slot.progress is not None:
            slot.progress(len(journal), total)
    if check is not None:
        check()
    journal.seal()


def _repeat(journal: Journal, urls: list[str | None], boxes: _Boxes) -> None:
    """Settle rows whose image another row got before the kill between the two."""
    known: dict[str, int] = {}
    for row, url in enumerate(urls):
        if url is not None and row in journal:
            known.setdefault(url, row)
    for row, url in enumerate(urls):
        same = known.get(url) if url is not None and row not in journal else None
        if same is not None and boxes.of(same) == boxes.of(row):
            journal.append(row, journal.read(same))


def _write_shard(journal: Journal, rows: pa.Table, slot: Slot, options: IngestOptions, started: float) -> Ingested:
    """Write tar, table and statistics of a shard whose rows are all settled."""
    n = rows.num_rows
    extra = {c: rows[c] for c in rows.column_names if c not in ("url", "caption")}
    values = {column: column_values.to_pylist() for column, column_values in extra.items()}
    outcome: dict[str, list[Any]] = {column: [None] * n for column in row_table.OUTCOME}
    outcome["url"], outcome["caption"] = rows["url"].to_pylist(), rows["caption"].to_pylist()
    outcome["key"] = [row_table.sample_key(slot.number, row, options.samples_per_shard) for row in range(n)]
    shard = Shard(slot.name, storage.join(slot.out, f"{slot.name}.tar"), storage.join(slot.out, f"{slot.name}.parquet"))
    size = animated = 0
    with storage.publishing(shard.tar) as temporary, TarWriter(temporary) as tar:
        for row in range(n):
            settled = journal.read(row)
            outcome["status"][row], outcome["error_message"][row] = settled.status, settled.message
            for column, value in zip(FACTS, settled.facts, strict=True):
                outcome[column][row] = value
            if settled.status == SUCCESS:
                fields = {"uid": values["uid"][row]}
                fields.update((column, column_values[row]) for column, column_values in values.items())
                fields.update((column, column_values[row]) for column, column_values in outcome.items())
                caption = outcome["caption"][row] or ""
                members = {"json": row_table.sample_json(fields), "txt": caption.encode()}
                tar.write(outcome["key"][row], {settled.extension: settled.data, **members})
                size += len(settled.data)
                animated += settled.frames > 1
    row_table.write(shard.table, row_table.build(extra, outcome))
    counts = Counter(row_table.reason(text) for text in outcome["error_message"])
    stats = {
        "rows": n,
        "successes": counts[SUCCESS],
        "bytes": size,
        "animated": animated,
        "status": dict(sorted(counts.items())),
    }
    _write_stats(storage.join(slot.out, f"{slot.name}_stats.json"), stats, outcome["status"], started)
    return Ingested(shard, stats)


def _journal(slot: Slot) -> Journal:
    """The shard's journal: in its scratch folder, or one that ends with this call."""
    if slot.scratch:
        return Journal(journal_path(slot.scratch, slot.number))
    with tempfile.NamedTemporaryFile(prefix="curate-", suffix=".journal") as file:
        return Journal(file.name)  # goes on living, without a name, until it is closed


class _Web:
    """Bodies from the web."""

    def __init__(self, urls: list[str | None], options: IngestOptions, connect_to: Mapping[str, str]) -> None:
        self._urls, self._options, self._connect_to = urls, options.fetch, connect_to

    def __call__(self, rows: Sequence[int]) -> Iterator[Fetched]:
        with Fetcher(self._options, self._connect_to) as fetcher:
            for fetched in fetcher.fetch([self._urls[row] for row in rows]):
                yield Fetched(rows[fetched.index], *_rest(fetched))


def _rest(fetched: Fetched) -> tuple[Any, ...]:
    return fetched.url, fetched.body, fetched.error, fetched.detail, fetched.final_url, fetched.requests


class _Boxes:
    """The boxes to blur in every row's image."""

    def __init__(self, rows: pa.Table, options: IngestOptions) -> None:
        column = options.blur
        self._values = rows[column].to_pylist() if column and column in rows.column_names else None

    def of(self, row: int) -> list[Any] | None:
        return self._values[row] if self._values is not None else None


class _Settling:
    """Turns what was fetched into outcomes."""

    def __init__(self, options: IngestOptions) -> None:
        self._options = options.image
        self._last: tuple[bytes, Any, Settled] | None = None

    def settle(self, fetched: Fetched, boxes: list[Any] | None) -> Settled:
        """A URL's second occurrence in a shard brings the same object again, and is not decoded twice."""
        body = fetched.body
        if body is None:
            code = fetched.error or ""
            return Settled(FAILED_TO_DOWNLOAD, row_table.message(code, fetched.detail), passing=code in PASSING)
        if self._last is None or self._last[0] is not body or self._last[1] != boxes:
            self._last = (body, boxes, self._process(body, boxes))
        return self._last[2]

    def _process(self, body: bytes, boxes: list[Any] | None) -> Settled:
        try:
            image = process(body, self._options, boxes)
        except ImageError as error:
            return Settled(FAILED_TO_RESIZE, row_table.message(error.code, error.detail))
        facts = (image.width, image.height, image.original_width, image.original_height, image.exif)
        sha256 = hashlib.sha256(body).hexdigest()
        return Settled(SUCCESS, None, (*facts, sha256), image.extension, image.data, frames=image.frames)


def _copy(journal: Journal, copies: Copies) -> None:
    """Settle rows with the outcomes that their URLs had in other shards, one of those shards after the other."""
    for number in np.unique(copies.numbers).tolist():
        here = copies.numbers == number
        pairs = zip(copies.rows[here].tolist(), copies.origins[here].tolist(), strict=True)
        wanted = [(row, origin) for row, origin in pairs if row not in journal]
        if not wanted:
            continue
        with _origin(copies, number) as read:
            for row, origin in wanted:
                journal.append(row, read(origin))


class _origin:
    """Reads outcomes of another shard: from its files if it is finished, else from its journal."""

    def __init__(self, copies: Copies, number: int) -> None:
        self._shard = copies.shards.get(number)
        self._journal = None if self._shard else Journal(copies.journals[number])
        if self._shard is not None:
            self._tar: TarReader = self._shard.open()
            table = self._shard.read_table(["key", "status", "error_message", *FACTS])
            self._columns = {name: table[name].to_pylist() for name in table.column_names}

    def __enter__(self) -> Callable[[int], Settled]:
        return self._journal.read if self._journal is not None else self._from_files

    def __exit__(self, *_: object) -> None:
        if self._journal is not None:
            self._journal.close()

    def _from_files(self, row: int) -> Settled:
        values = {name: column[row] for name, column in self._columns.items()}
        facts = tuple(values[name] for name in FACTS)
        extension, data = "", b""
        if values["status"] == SUCCESS:
            extension = next(e for e in self._tar.extensions(values["key"]) if e not in ("json", "txt"))
            data = self._tar.read(values["key"], extension) or b""
        return Settled(values["status"], values["error_message"], facts, extension, data)  # type: ignore[arg-type]


def _write_stats(path: str, stats: Mapping[str, Any], status: list[str], started: float) -> None:
    """img2dataset's ``_stats.json``; its times are the only bytes of a shard that differ between equal runs."""
    ended = time.time()
    storage.write_json(
        path,
        {
            "count": stats["rows"],
            "successes": stats["successes"],
            "animated": stats["animated"],
            "failed_to_download": status.count(FAILED_TO_DOWNLOAD),
            "failed_to_resize": status.count(FAILED_TO_RESIZE),
            "duration": ended - started,
            "start_time": started,
            "end_time": ended,
            "status_dict": stats["status"],
        },
        indent=4,
    )
