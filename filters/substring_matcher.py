"""Which of many entries (500,000 words and phrases) occur in a text, by MetaCLIP's rule: exact, a few us per text.

The rule (arXiv 2309.16671): put spaces around ``, . ; : ? !``, turn tab, newline and return into spaces, pad with one
space each side, and entry e matches iff ``" e "`` is a substring. No lower-casing; brackets, quotes, hyphens and
apostrophes are letters. So "cat," holds *cat*; "Cat", "cat's" and "cat-dog" do not; "new  york" holds *york* only.

Padded text and entries meet at spaces only, so "is a substring" says the same as "the entry's pieces between spaces are
a run of the text's pieces". The pieces become numbers and the entries a tree of numbers, one sorted array of
``parent << 32 | piece`` per depth; all positions of many texts walk down that tree together. Several times faster than
an Aho-Corasick automaton over characters and with a fraction of its memory, because numpy does the walking. The price:
an entry of k pieces costs k steps for the texts that begin like it. Measured by ``benchmarks/text_scores.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import pyarrow as pa

PUNCTUATION = ",.;:?!"
BREAK = "\n"  # between texts; no text and no entry that can match holds one, since the rule turns it into a space
BLOCK = 2_000_000  # characters that are matched together: some 100 MB of passing arrays
ABSENT, END = -1, -2


@dataclass(frozen=True)
class Level:
    """The entries' beginnings of one length.

    Attributes:
        keys: ``(k,) int64`` ascending, ``parent << 32 | piece``; the beginning at place i has the number ``first + i``.
        first: number of the first beginning.
    """

    keys: np.ndarray
    first: int

    def step(self, parents: np.ndarray, pieces: np.ndarray) -> np.ndarray:
        """Numbers of the beginnings that continue `parents` by `pieces`; `ABSENT` where there is none."""
        wanted = (parents << 32) | pieces
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.where(self.keys[place] == wanted, self.first + place, ABSENT)


class SubstringMatcher:
    """Entries, ready to be found in texts.

    Args:
        entries: words and phrases; the number of an entry is its place. Of equal entries the first counts.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self.size = len(entries)
        self._piece: dict[str, int] = {}
        number = self._piece
        flat: list[int] = []
        lengths = np.zeros(len(entries), np.int64)
        for i, entry in enumerate(entries):
            if not any(c in entry for c in "\n\t\r"):  # such an entry is in no text after the rule
                pieces = entry.split(" ")
                lengths[i] = len(pieces)
                flat += [number.setdefault(piece, len(number)) for piece in pieces]
        number[BREAK] = END
        codes, starts = np.array(flat, np.int64), np.cumsum(lengths) - lengths
        nodes = np.zeros(len(entries), np.int64)  # where each entry stands; 0 is the root
        known = 1
        self._levels: list[Level] = []
        for depth in range(int(lengths.max(initial=0))):
            here = np.flatnonzero(lengths > depth)
            keys, place = np.unique((nodes[here] << 32) | codes[starts[here] + depth], return_inverse=True)
            nodes[here] = known + place
            self._levels.append(Level(keys, known))
            known += len(keys)
        whole = np.flatnonzero(lengths > 0)
        self.entry_of = np.full(known, ABSENT, np.int32)
        self.entry_of[nodes[whole][::-1]] = whole[::-1]  # the first of equal entries is written last
        self.continues = np.zeros(known, bool)
        for level in self._levels:
            self.continues[level.keys >> 32] = True

    def match(self, texts: Sequence[str | None]) -> pa.ListArray:
        """Entries in each text, once each, ascending: ``list<int32>``, null for None."""
        rows, entries = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for start, stop in _blocks(texts):
            row, entry = self._pairs(texts[start:stop])
            rows.append(row + start)
            entries.append(entry)
        missing = np.fromiter((t is None for t in texts), bool, len(texts))
        counts = np.bincount(np.concatenate(rows), minlength=len(texts))
        offsets = np.zeros(len(texts) + 1, np.int32)
        np.cumsum(counts, out=offsets[1:])
        values = pa.array(np.concatenate(entries).astype(np.int32))
        return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(missing) if missing.any() else None)

    def _pairs(self, texts: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray]:
        """Texts and the entries in them, ``(m,) int64`` each, distinct, ordered by text and entry."""
        pieces = spaced(texts).split(" ")
        codes = np.fromiter(map(self._piece.get, pieces, repeat(ABSENT)), np.int64, len(pieces))
        text = np.cumsum(codes == END)
        at = np.flatnonzero(codes >= 0)
        node = np.zeros(len(at), np.int64)
        found = [np.empty(0, np.int64)]
        for depth, level in enumerate(self._levels):
            node = level.step(node, codes[at + depth])
            alive = node != ABSENT
            at, node = at[alive], node[alive]
            entry = self.entry_of[node]
            hit = entry != ABSENT
            found.append((text[at[hit]] << 32) | entry[hit])
            further = self.continues[node]
            further[further] = codes[at[further] + depth + 1] >= 0
            at, node = at[further], node[further]
        pairs = np.sort(np.concatenate(found))  # and not np.unique, which hashes integers at twenty times the price
        pairs = pairs[np.diff(pairs, prepend=-1) != 0]
        return pairs >> 32, pairs & 0xFFFFFFFF


def spaced(texts: Sequence[str | None]) -> str:
    """All texts by the spacing rule, each followed by a piece that is `BREAK`."""
    joined = BREAK.join((t or "").replace("\n", " ") for t in texts)
    for white in "\t\r":
        joined = joined.replace(white, " ")
    for sign in (*PUNCTUATION, BREAK):
        joined = joined.replace(sign, f" {sign} ")
    return f"{joined} {BREAK}"


def match(entries: Sequence[str], texts: Sequence[str | None]) -> pa.ListArray:
    """Numbers of the entries that occur in each text by MetaCLIP's rule; see `SubstringMatcher.match`."""
    return SubstringMatcher(entries).match(texts)


def _blocks(texts: Sequence[str | None]) -> Iterator[tuple[int, int]]:
    """Ranges of texts of about `BLOCK` characters, at least one text each."""
    start, size = 0, 0
    for i, one in enumerate(texts):
        size += len(one or "")
        if size >= BLOCK:
            yield start, i + 1
            start, size = i + 1, 0
    if start < len(texts):
        yield start, len(texts)
