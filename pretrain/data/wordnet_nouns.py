"""WordNet's nouns as far as a class hierarchy needs them: ids of names, and what each synset is a kind of.

Two files of the database are read: ``data.noun`` for the hypernyms of every synset (pointers ``@`` and, for
individuals, ``@i``; the first one counts), ``index.noun`` for names, of which the first sense, the commonest, is meant.
Reading takes half a second.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...errors import ConfigError, DataError
from ...shards.wordnet_files import read_index, wordnet_file, wordnet_lines

_WNID = re.compile(r"n\d{8}")


def hypernyms(folder: str) -> dict[str, str | None]:
    """Id (``n02084071``) of every noun synset -> id of its first hypernym; None for "entity", which has none.

    Raises:
        ConfigError: no such database. DataError: a line is not WordNet's.
    """
    path = wordnet_file(folder, "data.noun")
    found: dict[str, str | None] = {}
    for line in wordnet_lines(path):
        # offset lex_filenum ss_type w_cnt (hexadecimal), word lex_id..., p_cnt, then symbol offset pos source/target...
        fields = line.partition("|")[0].split()
        try:
            first = 4 + 2 * int(fields[3], 16) + 1
            found[f"n{fields[0]}"] = None
            for at in range(first, first + 4 * int(fields[first - 1]), 4):
                if fields[at] in ("@", "@i"):
                    found[f"n{fields[0]}"] = f"n{fields[at + 1]}"
                    break
        except (ValueError, IndexError) as error:
            raise DataError(f"{path}: not a line of WordNet data: {line[:80]!r}") from error
    return found


def noun_ids(names: Sequence[str], folder: str) -> list[str]:
    """Ids of classes that are named by id or by noun; blanks and case do not matter.

    Raises:
        ConfigError: no such database, or names that it does not have, or two names of one synset.
    """
    wanted = [name.strip().lower().replace(" ", "_") for name in names]
    by_id = [_WNID.fullmatch(noun) is not None for noun in wanted]
    index = {} if all(by_id) else read_index(folder, "noun")
    ids = [noun if is_id else _first_sense(index, noun) for noun, is_id in zip(wanted, by_id, strict=True)]
    lost = [name for name, found in zip(names, ids, strict=True) if not found]
    if lost:
        some = ", ".join(repr(name) for name in lost[:5])
        raise ConfigError(
            f"{len(lost)} of {len(names)} classes are no nouns of the WordNet in {folder}, such as {some}; "
            "give `hierarchy` a file with lines `child parent`"
        )
    seen: dict[str, str] = {}
    for name, found in zip(names, ids, strict=True):
        if found in seen:
            raise ConfigError(f"the classes {seen[found]!r} and {name!r} are the same in WordNet, {found}; merge them")
        seen[found] = name
    return ids


def _first_sense(index: dict[str, str], noun: str) -> str:
    offsets = index.get(noun, "")
    return offsets and f"n{offsets.partition(' ')[0]}"
