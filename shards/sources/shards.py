"""The `shards` source: tars that exist already, used where they lie.

img2dataset, DataComp and CC12M folders, or any WebDataset tars: nothing is fetched or rewritten; see `existing`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ...errors import ConfigError
from .. import row_table, storage
from ..shard import Shard
from .base import SOURCES, Ingested, IngestOptions, Slot, Source, labelled
from .files import File, base, contents, identity, listing

if TYPE_CHECKING:
    from ..ingest import Copies

_HINT = "for img2dataset's `parquet` output use {type: parquet, image: jpg}, for its `files` output {type: folder}"


@SOURCES.register
class ShardsSource(Source):
    """Existing tar shards of images and captions, read in place."""

    version: ClassVar[int] = 2
    type: Literal["shards"] = "shards"
    path: str = Field(description="Folder of tars (folders in it included), glob pattern, or one tar; any fsspec URL.")
    uid: str | None = Field(
        default="uid",
        description="Column or json key with the samples' 128-bit ids in hexadecimal; other text is hashed. Where "
        "there is none (null = nowhere), an id is made from the tar's name below `path` and the sample's key.",
    )
    decode: bool = Field(
        default=False,
        description="Decode every image now, so that broken ones are known before anything uses them; about 2 ms each.",
    )

    def fingerprint(self) -> str:
        """Names, sizes and ends of the tars and of the tables beside them."""
        return identity(file for tar, table, _ in self._found() for file in (tar, table) if file is not None)

    def parts(self, prepared: str | None, samples_per_shard: int) -> list[dict[str, Any]]:
        """One part per tar; they keep the size they have.

        ``{"key", "tar", "table", "name", "stats", "gap"}``: paths of the tar and of the parquet beside it, the tar's
        path below the source's without its ending, path of its ``_stats.json``, and a sentence if shards are missing
        before it in a numbered run; null where there is none.

        Raises:
            ConfigError: nothing is at `path`, or no tar.
        """
        found = self._found()
        files = [file for tar, table, _ in found for file in (tar, table) if file is not None]
        known = dict(zip(files, contents(files), strict=True))
        root = base(self.path)
        gaps = _gaps([tar.path for tar, _, _ in found])
        parts = []
        for tar, table, stats in found:
            name = tar.path.removeprefix(root).removesuffix(".tar")
            key = f"{tar.path}:{name}:{known[tar]}" + (f":{known[table]}" if table else "")
            part = {"tar": tar.path, "table": table and table.path, "name": name}
            parts.append({"key": key, **part, "stats": stats and stats.path, "gap": gaps.get(tar.path)})
        return parts

    def ingest(
        self, part: dict[str, Any], slot: Slot, options: IngestOptions, copies: Copies | None = None
    ) -> Ingested:
        """Write the row table of one tar. What was torn is told in ``stats["torn"]``, missing shards in ``"gap"``."""
        from ..existing import read_existing

        table, stats = read_existing(
            part["tar"],
            part["table"],
            slot.progress,
            name=part["name"],
            stats_path=part["stats"],
            uid=self.uid,
            decode=self.decode,
        )
        if part["gap"]:
            stats["gap"] = part["gap"]
        shard = Shard(slot.name, part["tar"], storage.join(slot.out, f"{slot.name}.parquet"))
        row_table.write(shard.table, labelled(table, slot))
        return Ingested(shard, stats)

    def _found(self) -> list[tuple[File, File | None, File | None]]:
        """Tars in order of their paths, each with the table and the statistics beside it."""
        found = {file.path: file for file in listing(self.path, recursive=True)}
        tars = [file for path, file in found.items() if path.endswith(".tar")]
        if not tars:
            raise ConfigError(f"source path: no .tar file at {self.path}; {_HINT}")
        if len(found) == len(tars):  # a pattern of tars, or one tar: what lies beside them was not listed
            for folder in sorted({tar.path.rpartition("/")[0] for tar in tars}):
                found |= {file.path: file for file in listing(folder or ".")}
        stems = [tar.path.removesuffix(".tar") for tar in tars]
        return [
            (tar, found.get(f"{stem}.parquet"), found.get(f"{stem}_stats.json"))
            for tar, stem in zip(tars, stems, strict=True)
        ]


def _gaps(paths: list[str]) -> dict[str, str]:
    """For each tar of a numbered run that others are missing before, a sentence that says so."""
    found: dict[str, str] = {}
    runs: dict[tuple[str, int], int] = {}  # (text before the number, digits) -> the number expected next
    for path in paths:
        numbered = re.fullmatch(r"(.*?)(\d+)\.tar", path)
        if numbered is None:
            continue
        run, number = (numbered[1], len(numbered[2])), int(numbered[2])
        first = runs.get(run, number)
        if number > first:
            name = numbered[1].rsplit("/", 1)[-1]
            missing = [f"{name}{n:0{run[1]}d}.tar" for n in dict.fromkeys((first, number - 1))]
            found[path] = f"{number - first} missing before {path.rsplit('/', 1)[-1]}: {' to '.join(missing)}"
        runs[run] = number + 1
    return found
