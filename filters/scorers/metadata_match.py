"""`metadata_match`: which of up to 500,000 concepts a caption names, by MetaCLIP's substring rule.

The rule and how it is made fast are in `substring_matcher`: some 6 us per caption of ten words, where the plain loop
over entries takes 65,000. The columns are what balancing needs (MetaCLIP, arXiv 2309.16671): captions without any entry
are dropped, and the more captions an entry has in the pool, the fewer of them stay. Building the matcher takes about a
second per worker; it is kept by the content of the list, so a list that was edited is never served from memory.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...errors import ConfigError, DataError
from ..base import SCORERS, Context, Part, Scorer
from ..captions import nan_where_null, text
from ..substring_matcher import SubstringMatcher
from ..wordnet import FOLDER, data_files, synset_names

WORDNET = "wordnet"


@SCORERS.register
class MetadataMatch(Scorer):
    """Number of entries in the caption; ``<name>_entries``, their numbers. NaN and null where there is no caption."""

    type: Literal["metadata_match"] = "metadata_match"
    entries: str = Field(
        WORDNET,
        description="File of entries: one a line, or a JSON list (.json); wordnet = the names of WordNet's synsets.",
    )
    wordnet: str = Field(FOLDER, description="Folder of the WordNet 3.0 database, for `entries: wordnet`.")

    def columns(self) -> list[str]:
        return ["caption"]

    def files(self) -> list[str]:
        if self.entries != WORDNET:
            return [str(_entries_path(self.entries))]
        return data_files(self.wordnet)

    def fit(self, context: Context | None = None) -> str:
        """Content hash of the entries, so that workers need not read them for every part."""
        return _digest(self.files())

    def score(self, part: Part, name: str, state: str | None = None) -> dict[str, np.ndarray | pa.Array]:
        import pyarrow.compute as pc

        captions = text(part.arrow("caption"))
        matcher = _matcher(self.entries, self.wordnet, state or self.fit())
        found = matcher.match(captions.to_pylist())
        counts = pc.list_value_length(found).fill_null(0).to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]
        return {name: nan_where_null(counts, captions), f"{name}_entries": found}

    def describe(self, state: Any = None) -> dict[str, Any]:
        entries = self.read()
        source = WORDNET if self.entries == WORDNET else Path(self.entries).name
        return {
            "entries": source,
            "count": len(entries),
            "repeated": len(entries) - len(set(entries)),
            "blake2b": state or self.fit(),
        }

    def read(self) -> list[str]:
        """The entries; the numbers in ``<name>_entries`` are places in this list."""
        return synset_names(self.wordnet) if self.entries == WORDNET else read_entries(Path(self.files()[0]))


def read_entries(path: Path) -> list[str]:
    """Entries of a file: a JSON list of strings (``.json``), else one a line, blank lines skipped.

    Nothing is trimmed or lower-cased: the rule does neither. Numbers are places in the returned list.

    Raises:
        DataError: it is not such a file, or there is no entry in it.
    """
    try:
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            entries = json.loads(content)
            if not isinstance(entries, list) or not all(isinstance(e, str) for e in entries):
                raise DataError(f"{path}: not a JSON list of strings")
        else:
            entries = [line for line in content.split("\n") if line.strip()]
    except ValueError as error:
        raise DataError(f"{path}: entries must be UTF-8 lines or a JSON list ({error})") from error
    if not entries:
        raise DataError(f"{path} holds no entry")
    return entries


def _entries_path(entries: str) -> Path:
    if not Path(entries).is_file():
        raise ConfigError(f"scorer metadata_match: no file of entries {entries!r}")
    return Path(entries)


def _digest(paths: list[str]) -> str:
    content = hashlib.blake2b(digest_size=16)
    for path in paths:
        content.update(Path(path).read_bytes())
    return content.hexdigest()


@lru_cache(maxsize=2)
def _matcher(entries: str, folder: str, digest: str) -> SubstringMatcher:
    """One per process and content."""
    source = MetadataMatch(entries=entries, wordnet=folder)
    if _digest(source.files()) != digest:
        raise DataError(
            f"the entries of metadata_match ({entries}) were changed while the score was computed; run again"
        )
    return SubstringMatcher(source.read())
