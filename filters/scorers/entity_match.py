"""`entity_match`: does a caption name a thing that ImageNet-21k has a class for? DataComp's text-based rule.

A caption matches iff for some word of ``caption.split()`` the first of its WordNet synsets has an offset among the
entities' (DataComp, arXiv 2304.14108, appendix; formats as in its baselines). Words are looked up as they stand: "dogs"
is found by WordNet's morphology, "dog," is not. DataComp compares offsets alone, so that a verb whose synset happens to
lie at a noun's offset matches; `exact_reference` keeps that. DataComp also asks for English, which is `language`'s
business. Each distinct word is decided once per worker, in a hash table instead of DataComp's list: 1.3 us per caption
of ten words where nltk takes 200, and 3,200 with the list (``benchmarks/text_scores.py``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...errors import ConfigError, DataError
from ..base import SCORERS, Part, Scorer
from ..captions import Captions, nan_where_null, split_words, text
from ..wordnet import FOLDER, WordNet, index_files, wordnet

ENTITIES = "imagenet22k_synsets.txt"  # 21,841 ids, which DataComp counts, too
REMEMBERED = 1_000_000  # distinct words whose decision is kept: some 150 MB
WNID = re.compile(r"[nvars]\d{8}")


@SCORERS.register
class EntityMatch(Scorer):
    """1 where a word of the caption is an entity, else 0; ``<name>_wnid`` of the first, ``<name>_words``: how many.

    NaN and null where there is no caption.
    """

    type: Literal["entity_match"] = "entity_match"
    wordnet: str = Field(FOLDER, description="Folder of the WordNet 3.0 database (index.noun, noun.exc, ...).")
    entities: str | None = Field(
        None, description="File of WordNet ids, one a line (n02084071); null = ImageNet-21k's, which timm ships."
    )
    exact_reference: bool = Field(
        True, description="Compare offsets alone, as DataComp does; false = part of speech and offset."
    )

    def columns(self) -> list[str]:
        return ["caption"]

    def files(self) -> list[str]:
        return [*index_files(self.wordnet), str(entities_path(self.entities))]

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        matcher = _matcher(self.wordnet, str(entities_path(self.entities)), self.exact_reference)
        captions = text(part.arrow("caption"))
        first, count = matcher.match(captions)
        return {
            name: nan_where_null(count > 0, captions),
            f"{name}_wnid": pa.array(matcher.wnids, pa.string()).take(pa.array(first, mask=first < 0)),
            f"{name}_words": nan_where_null(count, captions),
        }

    def describe(self, state: Any = None) -> dict[str, Any]:
        path = entities_path(self.entities)
        return {"entities": path.name, "count": len(read_wnids(path)), "wordnet": self.wordnet}


class EntityMatcher:
    """Finds words that are entities, and remembers what it found.

    Args:
        database: where words are looked up.
        wnids: entities, such as ``n02084071``.
        exact_reference: compare offsets alone, as DataComp does.
    """

    def __init__(self, database: WordNet, wnids: Sequence[str], exact_reference: bool = True) -> None:
        self.wnids = list(wnids)
        self._database, self._exact = database, exact_reference
        # a satellite adjective ("s") is an adjective in WordNet's index
        self._entity = {self._key(w[0].replace("s", "a"), int(w[1:])): i for i, w in reversed(list(enumerate(wnids)))}
        self._known: dict[str, int] = {}

    def _key(self, pos: str, offset: int) -> tuple[str, int]:
        return ("" if self._exact else pos, offset)

    def entity(self, word: str) -> int:
        """Place in `wnids` of the entity that a word means, -1 = none."""
        found = self._known.get(word)
        if found is None:
            synset = next(self._database.synsets(word), None)
            found = -1 if synset is None else self._entity.get(self._key(*synset), -1)
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[word] = found
        return found

    def match(self, captions: Captions) -> tuple[np.ndarray, np.ndarray]:
        """Entity of the first word that is one (place in `wnids`, -1 = none), and number of words that are.

        Returns:
            two arrays, ``(n,) int64``.
        """
        captions = text(captions)
        words = split_words(captions)
        entity = np.fromiter(map(self.entity, words.vocabulary), np.int64, len(words.vocabulary))[words.codes]
        hit = entity >= 0
        rows, entity = words.rows[hit], entity[hit]
        first = np.full(len(captions), -1, np.int64)
        first[rows[::-1]] = entity[::-1]  # the first of a row is written last
        return first, np.bincount(rows, minlength=len(captions)).astype(np.int64)


def entities_path(entities: str | None = None) -> Path:
    """Where the list of entities lies.

    Raises:
        ConfigError: it is not there.
    """
    if entities is not None:
        if not Path(entities).is_file():
            raise ConfigError(f"scorer entity_match: no file of entities {entities!r}")
        return Path(entities)
    found = find_spec("timm")
    path = Path(found.origin).parent / "data" / "_info" / ENTITIES if found and found.origin else None
    if path is None or not path.is_file():
        raise ConfigError(f"scorer entity_match: {ENTITIES} is not there; install timm, whose wheel ships it")
    return path


def read_wnids(path: Path) -> list[str]:
    """WordNet ids of a file, one a line; blank lines do not count, nor what follows an id after white space.

    Raises:
        DataError: a line has no id, or no line has.
    """
    lines = [line.split(maxsplit=1)[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for line in lines:
        if not WNID.fullmatch(line):
            raise DataError(f"{path}: {line[:40]!r} is no WordNet id; one looks like n02084071")
    if not lines:
        raise DataError(f"{path} holds no WordNet id")
    return lines


@lru_cache(maxsize=4)
def _matcher(folder: str, entities: str, exact_reference: bool) -> EntityMatcher:
    """One per process: loading takes half a second, and remembered words serve all parts."""
    return EntityMatcher(wordnet(folder), read_wnids(Path(entities)), exact_reference)
