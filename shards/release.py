"""The rest of a release folder: metadata, subset, datasheet, provenance and checksums, each a plain file.

A release is a folder of tars (`reshard`) that people copy, mount and cite without us. ``SHA256SUMS`` covers every other
file and is written last, so its presence says that the release is whole; ``sha256sum -c SHA256SUMS`` or `verify` proves
it. Nothing here adds a date, a path of the machine or a host name: the same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError
from . import storage, uid
from .storage import url_to_fs

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def write_metadata(out: str, shard: str, table: pa.Table) -> str:
    """Publish the row table of release shard `shard` as ``metadata/{shard}.parquet``; returns its path.

    The table has one row per sample in the order of the tar. Schema metadata (which may name the writer's tools)
    is dropped, so that the bytes depend on the columns alone.
    """
    path = storage.join(out, "metadata", f"{shard}.parquet")
    with storage.publishing(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd", store_schema=False)
    return path


def write_release_subset(out: str, name: str, records: Any) -> str:
    """Publish the subset's uid records as DataComp's ``{name}.npy``; returns its path."""
    path = storage.join(out, f"{name}.npy")
    uid.write_subset(path, records)
    return path


def write_provenance(out: str, facts: Mapping[str, Any]) -> None:
    """Publish ``provenance.json``: config, fingerprints, versions; whatever makes the release repeatable."""
    storage.write_json(storage.join(out, "provenance.json"), facts)


@dataclass(frozen=True)
class FunnelStep:
    """One filter of the subset: its name, what it left, and what it dropped by reason code."""

    name: str
    kept: int
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Datasheet:
    """The facts of a release's README; texts are written as given, plain text or Markdown by the caller.

    Attributes:
        name: of the release.
        summary: one paragraph: what it is and what it is for.
        samples: samples in the tars, repeats counted.
        unique: different uids.
        shards: tars.
        bytes: size of the tars together.
        sources: where the pool came from, one line each.
        pool: rows of the pool before anything was dropped.
        funnel: the filters in order.
        columns: column of ``metadata/*.parquet`` -> what it means.
        licence: under which terms the metadata and the images are; SPDX name or a sentence.
        opt_out: how opt-outs were honoured and how to have a sample removed.
        limits: known gaps and what the data should not be used for.
        personal: what is known about people in the data.
        citation: how to cite, may be empty.
        facts: more rows for the table of facts.
    """

    name: str
    summary: str
    samples: int
    unique: int
    shards: int
    bytes: int
    sources: Sequence[str]
    pool: int
    funnel: Sequence[FunnelStep]
    columns: Mapping[str, str]
    licence: str
    opt_out: str
    limits: str
    personal: str = "Not examined."
    citation: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


def _cell(value: object) -> str:
    """`value` as the text of one table cell: no line break or bar ends it, and no HTML or link is live."""
    text = " ".join(str(value).split())
    return re.sub(r"([\\|`*_\[\]<>&])", r"\\\1", text)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], numbers: int = 0) -> str:
    """A Markdown table whose last `numbers` columns are numbers."""
    rule = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    lines = [head, rule, *[[f"{v:,}" if isinstance(v, int) else _cell(v) for v in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


def datasheet(sheet: Datasheet) -> str:
    """The README as Markdown, in the order of "Datasheets for Datasets" (arXiv 1803.09010)."""
    facts = [
        ("samples", f"{sheet.samples:,}"),
        ("different samples", f"{sheet.unique:,}"),
        ("shards", f"{sheet.shards:,}"),
        ("size", _megabytes(sheet.bytes)),
        ("pool before filtering", f"{sheet.pool:,} rows"),
        *sheet.facts.items(),
    ]
    funnel: list[tuple[object, ...]] = [("pool", "", sheet.pool, 0)]
    before = sheet.pool
    for step in sheet.funnel:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in step.dropped.items())
        funnel.append((step.name, reasons, step.kept, before - step.kept))
        before = step.kept
    last = f"{max(sheet.shards - 1, 0):08d}"
    sections = [
        (None, sheet.summary),
        ("Facts", _table(["", ""], facts)),
        ("Composition", "From:\n\n" + "\n".join(f"- {_cell(source)}" for source in sheet.sources)),
        ("Filtering", _table(["step", "dropped because", "kept", "dropped"], funnel, numbers=2)),
        (
            "Files",
            f"`{{00000000..{last}}}.tar` are WebDataset shards: `{{uid}}-{{j}}.jpg`, `.txt` (caption) and `.json`;\n"
            "j counts the repeats of a sample. `sizes.json` gives the samples per shard, `metadata/` has one row per\n"
            "sample in the order of the shard, the `.npy` file holds the uids in DataComp's format.\n"
            f"`sha256sum -c {SUMS}` checks them all.\n\n"
            + _table(["column of metadata", "meaning"], list(sheet.columns.items())),
        ),
        ("Licence", sheet.licence),
        ("Opting out", sheet.opt_out),
        ("People", sheet.personal),
        ("Limits", sheet.limits),
        ("Citation", sheet.citation),
    ]
    text = f"# {_cell(sheet.name)}\n"
    for title, body in sections:
        if body:
            text += f"\n## {title}\n\n{body}\n" if title else f"\n{body}\n"
    return text


def write_datasheet(out: str, sheet: Datasheet) -> None:
    """Publish `sheet` as ``README.md``."""
    storage.write_bytes(storage.join(out, "README.md"), datasheet(sheet).encode())


def _files(folder: str) -> list[str]:
    """Sorted paths, relative to `folder`, of its finished files, the checksums left out."""
    fs, root = url_to_fs(folder)
    fs.invalidate_cache()  # other workers have written since it was listed last
    found = (str(path).removeprefix(root.rstrip("/")).lstrip("/") for path in fs.find(root))
    return sorted(p for p in found if p != SUMS and not any(n.startswith(storage.TEMPORARY) for n in p.split("/")))


def sha256(path: str) -> str:
    """SHA-256 of a file's content, as hex."""
    with open(storage.local(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(
    folder: str, known: Mapping[str, str] | None = None, progress: Callable[[int, int], None] | None = None
) -> dict[str, str]:
    """Write ``SHA256SUMS`` over every file of `folder`; returns path -> SHA-256.

    Args:
        folder: the release.
        known: digests that were made when files were written, by path relative to `folder`; these are not read again.
        progress: called with files done and all files.

    Raises:
        DataError: the folder is empty, or a file's name cannot be listed in ``SHA256SUMS``.
    """
    files, sums = _files(folder), {}
    if not files:
        raise DataError(f"nothing to seal: {folder} holds no file")
    for done, name in enumerate(files, 1):
        if "\n" in name or "\\" in name:
            raise DataError(f"{folder}: the file name {name!r} cannot be listed in {SUMS}; rename it")
        sums[name] = (known or {}).get(name) or sha256(storage.join(folder, name))
        if progress:
            progress(done, len(files))
    storage.write_bytes(storage.join(folder, SUMS), "".join(f"{d}  {n}\n" for n, d in sums.items()).encode())
    return sums


def verify(folder: str, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Problems of a release, sorted by file; empty when every file is there, unchanged, and nothing was added.

    Raises:
        DataError: there is no ``SHA256SUMS``, or it is not one.
    """
    path = storage.join(folder, SUMS)
    if not storage.exists(path):
        raise DataError(f"{folder} is no finished release: it has no {SUMS}")
    listed: dict[str, str] = {}
    for number, line in enumerate(storage.read_bytes(path).decode().splitlines(), 1):
        match = _LINE.fullmatch(line)
        if not match:
            raise DataError(f"{path}: line {number} is not a checksum: {line[:80]!r}")
        listed[match[2]] = match[1]
    present = set(_files(folder))
    problems = [f"extra: {name}" for name in present - listed.keys()]
    for done, (name, digest) in enumerate(listed.items(), 1):
        if name not in present:
            problems.append(f"missing: {name}")
        elif sha256(storage.join(folder, name)) != digest:
            problems.append(f"changed: {name}")
        if progress:
            progress(done, len(listed))
    return sorted(problems, key=lambda problem: problem.partition(": ")[2])
