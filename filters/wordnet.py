"""WordNet: from a word as it stands in a caption to synsets, by the steps that nltk 3.8.1 takes (morphy(7WN)).

A word's synsets are, after lower-casing: noun, verb, adjective and adverb in this order; within one, its base forms in
order; within a form, the index file's order, which is by frequency. Base forms of a word in one part of speech:

* if the exception list has the word: the word itself and then its listed forms, as far as the index has them, and
  nothing else;
* otherwise the word and what the detachment rules make of it, in the rules' order, as far as the index has them; if it
  has none, the rules are applied to what they made, again and again.

DataComp pins nltk 3.8.1, and no lookup of 66,000 words, bent and whole, differed from it. Since 3.9 nltk lists the
word's other forms and stops after one round of rules; one such word in thirty comes out otherwise there.

A satellite adjective is in the index as an adjective. A blank is not turned into an underscore: "hot dog" is in no
index, "hot_dog" is. Looking up is a few dictionary accesses; a database takes 0.4 s and 40 MB to load.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from ..errors import DataError
from ..shards.wordnet_files import FOLDER, read_index, wordnet_file, wordnet_lines

FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
"""Parts of speech, in the order in which a word's synsets come."""
DETACHMENT = {
    "n": (
        ("s", ""),
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    "v": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "r": (),
}
"""Suffix and what takes its place; "ves" is nltk's addition to WordNet's own list."""


@dataclass(frozen=True)
class Pos:
    """One part of speech: the offsets of each lemma, as the index file has them, and the exception list."""

    index: dict[str, str]
    exceptions: dict[str, list[str]]


class WordNet:
    """The index and exception files of a database, in memory.

    Args:
        folder: where they lie.

    Raises:
        ConfigError: a file is not there.
        DataError: a line of an index file is not WordNet's.
    """

    def __init__(self, folder: str = FOLDER) -> None:
        self.folder = folder
        index_files(folder)  # all of them are there, or it says which is not
        self.pos = {pos: _load(folder, kind) for pos, kind in FILES.items()}

    def base_forms(self, word: str, pos: str) -> list[str]:
        """The lemmas of one part of speech that a lower-case word is a form of, in order."""
        index, rules = self.pos[pos].index, DETACHMENT[pos]
        listed = self.pos[pos].exceptions.get(word)
        if listed is not None:
            return _known([word, *listed], index)
        forms = [word]
        found = _known([word, *_detach(forms, rules)], index)
        while not found and (forms := _detach(forms, rules)):
            found = _known(forms, index)
        return found

    def synsets(self, word: str) -> Iterator[tuple[str, int]]:
        """Part of speech and offset of a word's synsets, the first one first; the cheapest way to that is ``next``."""
        word = word.lower()
        for pos, files in self.pos.items():
            for form in self.base_forms(word, pos):
                for offset in files.index[form].split():
                    yield pos, int(offset)


def synset_names(folder: str = FOLDER) -> list[str]:
    """The name of every synset once: its first word in lower case, blanks for underscores, ascending (86,571 in 3.0).

    Raises:
        ConfigError: a data file is not there.
        DataError: a line of one is not WordNet's.
    """
    names = set()
    for path in data_files(folder):
        for line in wordnet_lines(path):
            # offset lex_filenum ss_type w_cnt word ...; "(a)", "(p)", "(ip)" say where an adjective may stand
            fields = line.split(" ", 5)
            if len(fields) < 6:
                raise DataError(f"{path}: not a line of WordNet data: {line[:80]!r}")
            names.add(fields[4].partition("(")[0].replace("_", " ").lower())
    return sorted(names)


def index_files(folder: str) -> list[str]:
    """The files that decide about synsets.

    Raises:
        ConfigError: one is not there.
    """
    names = [name for kind in FILES.values() for name in (f"index.{kind}", f"{kind}.exc")]
    return [wordnet_file(folder, name) for name in names]


def data_files(folder: str) -> list[str]:
    """The files that hold the synsets.

    Raises:
        ConfigError: one is not there.
    """
    return [wordnet_file(folder, f"data.{kind}") for kind in FILES.values()]


@lru_cache(maxsize=2)
def wordnet(folder: str) -> WordNet:
    """A database, loaded once per process."""
    return WordNet(folder)


def _load(folder: str, kind: str) -> Pos:
    exceptions = {}
    for line in wordnet_lines(wordnet_file(folder, f"{kind}.exc")):
        word, *forms = line.split()
        exceptions[word] = forms
    return Pos(read_index(folder, kind), exceptions)


def _detach(forms: list[str], rules: tuple[tuple[str, str], ...]) -> list[str]:
    return [form[: -len(old)] + new for form in forms for old, new in rules if form.endswith(old)]


def _known(forms: list[str], index: dict[str, str]) -> list[str]:
    """The forms that the index has, each once, in order."""
    return [form for form in dict.fromkeys(forms) if form in index]
