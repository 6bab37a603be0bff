"""WordNet's database files (wndb(5WN)): where they are, their lines, and the index from words to synsets.

A database is a folder of ``index.<pos>``, ``data.<pos>`` and ``<pos>.exc`` for noun, verb, adj and adv; Debian's
``wordnet-base`` puts WordNet 3.0, whose offsets the ImageNet ids are, in `FOLDER`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import ConfigError, DataError

FOLDER = "/usr/share/wordnet"


def wordnet_file(folder: str, name: str) -> str:
    """Path of a database's file.

    Raises:
        ConfigError: it is not there.
    """
    path = Path(folder, name)
    if not path.is_file():
        raise ConfigError(
            f"no WordNet database: {path} is not there; install Debian's wordnet-base or set `wordnet` to the folder "
            "with index.noun"
        )
    return str(path)


def wordnet_lines(path: str) -> Iterator[str]:
    """Lines of a database file without its licence, whose lines begin with a blank."""
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            if not line.startswith(" ") and not line.isspace():
                yield line


def read_index(folder: str, kind: str) -> dict[str, str]:
    """Lemma of one part of speech -> offsets of its synsets, as the file has them: parted by blanks, commonest first.

    Args:
        kind: noun, verb, adj or adv.

    Raises:
        ConfigError: the file is not there. DataError: a line is not WordNet's.
    """
    index = {}
    path = wordnet_file(folder, f"index.{kind}")
    for line in wordnet_lines(path):
        # lemma pos synset_cnt p_cnt [ptr_symbol...] sense_cnt tagsense_cnt offset [offset...]
        try:
            lemma, _, count, pointers, rest = line.split(" ", 4)
            index[lemma] = rest.split(" ", int(pointers) + 2)[-1].strip()
            whole = index[lemma].count(" ") + 1 == int(count)
        except ValueError:
            whole = False
        if not whole:
            raise DataError(f"{path}: not a line of a WordNet index: {line[:80]!r}")
    return index
