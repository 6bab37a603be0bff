"""Kinds of characters in captions, counted by table: every code point has its bits in one array of 1.1 million bytes.

Python's ``unicodedata`` says what is a digit or a letter, so the counts are those of a loop over `str`. The table takes
0.3 s once per process; counting then costs about 1 us per caption for all kinds together. A Python with a newer Unicode
knows more letters: counts of captions in newly encoded scripts can differ between Python versions.
"""

from __future__ import annotations

import sys
import unicodedata
from functools import lru_cache

import numpy as np
import pyarrow as pa

DIGIT, PUNCTUATION, UPPER, LETTER, LATIN = (1 << bit for bit in range(5))
KINDS = (DIGIT, PUNCTUATION, UPPER, LETTER, LATIN)


def kind(character: str) -> int:
    """Bits of one character.

    `DIGIT`: category Nd. `PUNCTUATION`: categories P* and S*. `UPPER`: Lu and Lt. `LETTER`: L*. `LATIN`: a letter of
    the Latin script, by its Unicode name; with full-width forms, and modifier letters, of which one is an apostrophe.
    """
    category = unicodedata.category(character)
    if category[0] == "L":
        name = unicodedata.name(character, "")
        latin = name.startswith(("LATIN ", "FULLWIDTH LATIN ", "MODIFIER LETTER ")) or character in "ªº"
        return LETTER | (UPPER if category in ("Lu", "Lt") else 0) | (LATIN if latin else 0)
    return DIGIT if category == "Nd" else PUNCTUATION if category[0] in "PS" else 0


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    """Bits of every code point, ``(0x110000,) uint8``."""
    return np.fromiter((kind(chr(point)) for point in range(sys.maxunicode + 1)), np.uint8, sys.maxunicode + 1)


def count_kinds(captions: pa.Array) -> dict[int, np.ndarray]:
    """Characters of each of `KINDS` in each caption, ``(n,) int64`` by kind; 0 where there is no caption."""
    texts = captions.to_pylist()
    points = np.frombuffer("".join(t for t in texts if t).encode("utf-32-le"), np.uint32)
    ends = np.cumsum(np.fromiter((len(t) if t else 0 for t in texts), np.int64, len(texts)))
    bits = _table()[points]
    counts = {}
    for one in KINDS:
        running = np.zeros(len(points) + 1, np.int64)
        np.cumsum((bits & one) != 0, out=running[1:])
        counts[one] = np.diff(running[ends], prepend=0)
    return counts
