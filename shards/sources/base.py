"""A source is where samples come from; ingesting one of its parts makes one shard.

`Source.parts` lists the work cheaply (from footers and listings, never by reading rows), the same list for the same
inputs. `Source.ingest` turns one of those parts into a shard and is called on any worker, in any order, possibly
twice. Most sources only say what their rows are (`table`) and where images come from (`bodies`; by default the web),
and the rest is the same for all. A source that makes its own data first (the demo) also implements `prepare` and
`online`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...errors import ConfigError
from ...registry import Options, Registry
from ..images.image import ImageOptions
from ..shard import Shard
from ..tables.plain_arrays import text_array
from ..web.fetch import FetchOptions

if TYPE_CHECKING:
    from ..ingest import Bodies, Copies

Progress = Callable[[int, int], None]
SOURCE_COLUMN = "source"
"""Extra column with the name of a sample's source, in pools that have several."""


class IngestOptions(Options):
    """How samples become shards, whatever their source."""

    image: ImageOptions = Field(default_factory=ImageOptions, description="Which images are accepted and how stored.")
    fetch: FetchOptions = Field(default_factory=FetchOptions, description="How images are fetched from the web.")
    samples_per_shard: int = Field(10_000, ge=1, le=1_000_000, description="Input rows per shard, failures included.")
    blur: str | None = Field(
        None,
        description="Column with the boxes to blur in each image (`face_bboxes` in DataComp): lists of "
        "[x0, y0, x1, y1] as fractions of width and height.",
    )


@dataclass(frozen=True)
class Slot:
    """Where one shard goes, and what its making needs beside the source's options.

    Attributes:
        number: the shard's number, from which sample keys are made.
        name: its file stem, usually the number in eight digits.
        out: folder for the finished files.
        scratch: folder for resumable state, kept until the shard is finished; empty = do without.
        label: the source's name, for the column `SOURCE_COLUMN`; None = no such column.
        connect_to: ``host:port -> host:port`` overrides for fetching.
        progress: called with (rows done, rows) now and then.
    """

    number: int
    name: str
    out: str
    scratch: str = ""
    label: str | None = None
    connect_to: Mapping[str, str] = field(default_factory=dict)
    progress: Progress | None = None


@dataclass(frozen=True)
class Ingested:
    """One finished shard and what happened in it.

    Attributes:
        shard: where it lies.
        stats: ``rows``, ``successes``, ``bytes`` (stored image bytes), ``animated`` (images stored of whose several
            pictures only the first was taken) and ``status`` (reason code -> rows; codes add up to ``rows``,
            ``"success"`` among them).
    """

    shard: Shard
    stats: dict[str, Any] = field(default_factory=dict)


class Source(Options):
    """Base of all sources; subclasses are their own options and are registered in `SOURCES`."""

    version: ClassVar[int] = 1
    prepares: ClassVar[bool] = False
    """Whether `prepare` must run first, as a stage of its own."""
    type: str

    def fetches(self) -> bool:
        """Whether its images come from the web, by the ``url`` column of its rows."""
        return False

    def shares(self) -> bool:
        """Whether rows that name one URL may all take the image that was fetched for one of them."""
        return self.fetches()

    def prepare(self, out: str, seed: int) -> None:
        """Make the source's own data in folder `out`: a pure function of the options and `seed`."""

    def preparation(self) -> dict[str, Any]:
        """The options that `prepare` depends on; sources that agree in them share one preparation."""
        return self.model_dump(mode="json")

    @contextmanager
    def online(self, prepared: str | None) -> Iterator[dict[str, str]]:
        """While the block lasts the source can be fetched; yields ``host:port -> host:port`` overrides for fetching."""
        yield {}

    @abstractmethod
    def fingerprint(self) -> str:
        """Identity of the input data (not of the options): changes when files come, go or change.

        Raises:
            ConfigError: an input is missing or unreadable.
        """

    @abstractmethod
    def parts(self, prepared: str | None, samples_per_shard: int) -> list[dict[str, Any]]:
        """JSON descriptions of the shards to make, in order; `prepared` is the folder that `prepare` filled.

        Every part has a ``"key"``: text that tells it from all others (the file's base name and identity, its rows)
        and stays the same when files are added to the source or the whole source is moved.
        """

    def table(self, part: dict[str, Any]) -> pa.Table:
        """A part's rows: ``uid``, ``url``, ``caption`` (text; url and caption may be null) and any extra columns.

        Raises:
            ConfigError: a column is missing, has a reserved name or holds no text.
            DataError: the part's input cannot be read.
        """
        raise NotImplementedError(f"source {self.type!r} has no table of rows")

    def bodies(self, part: dict[str, Any], rows: pa.Table, slot: Slot, options: IngestOptions) -> Bodies | None:
        """Where the images of a part's `rows` come from; None = from the web, by their URLs."""
        return None

    def check(self, slot: Slot) -> None:
        """Called when all images were asked for: raise if what came of it cannot be trusted.

        Raises:
            DataError: what was fetched must not pass for the web's answer.
        """

    def settle(
        self, part: dict[str, Any], slot: Slot, options: IngestOptions, leave: Sequence[int] | np.ndarray
    ) -> None:
        """Get the images of all rows but `leave` into the slot's journal, and go no further."""
        from ..ingest import settle_rows

        rows = labelled(self.table(part), slot)
        settle_rows(rows, slot, options, self.bodies(part, rows, slot, options), leave, lambda: self.check(slot))

    def ingest(
        self, part: dict[str, Any], slot: Slot, options: IngestOptions, copies: Copies | None = None
    ) -> Ingested:
        """Make the shard of one part; `copies` are rows that take another shard's image.

        Raises:
            DataError: the part's input cannot be read, or `check` refused what was fetched.
            StorageError: the output cannot be written.
        """
        from ..ingest import ingest_rows

        rows = labelled(self.table(part), slot)
        bodies = self.bodies(part, rows, slot, options)
        return ingest_rows(rows, slot, options, bodies, copies, lambda: self.check(slot))

    def truth(self, prepared: str | None) -> str | None:
        """Path of a parquet with the known truth per uid, for sources that plant their faults; else None."""
        return None


def labelled(rows: pa.Table, slot: Slot) -> pa.Table:
    """`rows` with the source's name as a column, where the pool has several sources."""
    if slot.label is None:
        return rows
    if SOURCE_COLUMN in rows.column_names:
        raise ConfigError(
            f"source {slot.label!r} has a column {SOURCE_COLUMN!r} of its own, where pools of several sources keep the "
            "source's name; leave it out with `extra:`"
        )
    return rows.append_column(SOURCE_COLUMN, text_array([slot.label] * rows.num_rows))


SOURCES: Registry[Source] = Registry("source")
