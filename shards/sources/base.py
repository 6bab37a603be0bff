"""A source is where samples come from; ingesting one of its parts makes one shard.

`Source.parts` lists the work cheaply (from footers and listings, never by reading rows), the same list for the same
inputs. `Source.ingest` turns one of those parts into a shard and is called on any worker, in any order, possibly
twice. A source that makes its own data first (the demo) also implements `prepare` and `online`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import Field

from ...registry import Options, Registry
from ..fetch import FetchOptions
from ..image import ImageOptions
from ..shard import Shard

Progress = Callable[[int, int], None]


class IngestOptions(Options):
    """How samples become shards, whatever their source."""

    image: ImageOptions = Field(default_factory=ImageOptions, description="Which images are accepted and how stored.")
    fetch: FetchOptions = Field(default_factory=FetchOptions, description="How images are fetched from the web.")
    samples_per_shard: int = Field(10_000, ge=1, le=1_000_000, description="Input rows per shard, failures included.")


@dataclass(frozen=True)
class Ingested:
    """One finished shard and what happened in it.

    Attributes:
        shard: where it lies.
        stats: ``rows``, ``successes``, ``bytes`` (stored image bytes) and ``status`` (reason code -> rows; codes add
            up to ``rows``, ``"success"`` among them).
    """

    shard: Shard
    stats: dict[str, Any] = field(default_factory=dict)


class Source(Options):
    """Base of all sources; subclasses are their own options and are registered in `SOURCES`."""

    version: ClassVar[int] = 1
    prepares: ClassVar[bool] = False
    """Whether `prepare` must run first, as a stage of its own."""
    type: str

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
        """JSON descriptions of the shards to make, in order; `prepared` is the folder that `prepare` filled."""

    @abstractmethod
    def ingest(
        self,
        part: dict[str, Any],
        name: str,
        out: str,
        options: IngestOptions,
        connect_to: dict[str, str],
        progress: Progress | None = None,
    ) -> Ingested:
        """Make shard `name` (eight digits) in folder `out` from one part."""

    def truth(self, prepared: str | None) -> str | None:
        """Path of a parquet with the known truth per uid, for sources that plant their faults; else None."""
        return None


SOURCES: Registry[Source] = Registry("source")
