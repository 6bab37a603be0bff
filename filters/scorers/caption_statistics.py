"""`caption_statistics`: what a caption is made of, in numbers to plot and to set thresholds on.

Words and characters are counted as `basic` counts them. The rest is what people look at to find captions that describe
nothing: part numbers and prices (digits), headlines and shouting (uppercase), rows of tags (punctuation, repetition),
pages whose text is an address or a file name. Shares are of all characters, where not said otherwise; a share of
nothing is 0. Every column is float32 and NaN where there is no caption. Some 3 us per caption for all of them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from ..base import SCORERS, Part, Scorer
from ..captions import Words, characters, nan_where_null, split_words, text
from ..code_points import DIGIT, LATIN, LETTER, PUNCTUATION, UPPER, count_kinds

DOMAINS = "com|org|net|info|biz|edu|gov|de|uk|fr|nl|pl|ru|cn|jp|br|au|eu"  # not those that are words: in, it, us
PATTERNS = {
    "url": (
        r"[.:]",
        rf"(?i)https?://[^\s]|\bwww\.[a-z0-9]|(?:^|[^a-z0-9@._-])[a-z0-9-]{{2,63}}(?:\.[a-z0-9-]{{1,63}})*\.(?:{DOMAINS})"
        r"(?:[/:?][^\s]|[^a-z0-9_.@-]|\.?$|\.\s)",
    ),
    "email": (r"@", r"(?i)[a-z0-9._%+-]+@[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}"),
    "filename": (
        r"[0-9.]",
        r"(?i)[a-z0-9_)-]\.(?:jpe?g|png|gif|bmp|tiff?|webp|heic|avif|svg|psd|nef|cr2|arw|dng|pdf|mp4|mov)(?:[^a-z0-9]|$)"
        r"|(?:^|[^a-z])(?:img|dsc|dscf|dscn|pict|pxl|mvi|gopr|dji|imag|screenshot|photo|image|pic)[_-]?[0-9]{3,}",
    ),
}
"""Column -> what every hit has somewhere (looked for first: it is cheap), and the pattern (RE2)."""


@SCORERS.register
class CaptionStatistics(Scorer):
    """Number of words in ``<name>``, and beside it:

    ``_chars`` code points; ``_digits`` share of digits; ``_punctuation`` share of punctuation and symbols;
    ``_uppercase`` share of capitals among letters; ``_nonlatin`` share of letters of other scripts among letters;
    ``_distinct`` distinct words / words (1 without words); ``_run`` the same word in a row, at most;
    ``_url``, ``_email``, ``_filename`` 1 where the caption holds an address of the web, one of mail, or a name such as
    ``IMG_1234`` or ``chair.jpg``, else 0.
    """

    version: ClassVar[int] = 2
    type: Literal["caption_statistics"] = "caption_statistics"

    def columns(self) -> list[str]:
        return ["caption"]

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        columns = statistics(text(part.arrow("caption")))
        return {f"{name}_{column}" if column else name: values for column, values in columns.items()}


def statistics(captions: pa.Array) -> dict[str, np.ndarray]:
    """The columns of `CaptionStatistics` by suffix, ``""`` being the number of words; ``(n,) float32`` each."""
    n = len(captions)
    length = np.nan_to_num(characters(captions))
    kinds = count_kinds(captions)
    words = split_words(captions)
    count = np.bincount(words.rows, minlength=n)
    columns = {
        "": count,
        "chars": length,
        "digits": _share(kinds[DIGIT], length),
        "punctuation": _share(kinds[PUNCTUATION], length),
        "uppercase": _share(kinds[UPPER], kinds[LETTER]),
        "nonlatin": _share(kinds[LETTER] - kinds[LATIN], kinds[LETTER]),
        "distinct": np.where(count == 0, 1, _share(_distinct(words, n), count)),
        "run": _longest_run(words, n),
        **{column: _holds(captions, *patterns) for column, patterns in PATTERNS.items()},
    }
    return {column: nan_where_null(np.asarray(values), captions) for column, values in columns.items()}


def _share(some: np.ndarray, of: np.ndarray) -> np.ndarray:
    return np.divide(some, of, out=np.zeros(len(of)), where=of > 0)


def _distinct(words: Words, n: int) -> np.ndarray:
    """Number of different words in each caption."""
    pairs = np.sort((words.rows << 32) | words.codes)
    return np.bincount(pairs[np.diff(pairs, prepend=-1) != 0] >> 32, minlength=n)


def _longest_run(words: Words, n: int) -> np.ndarray:
    """How often a word of the caption stands in a row, at most; 0 without words."""
    pairs = (words.rows << 32) | words.codes
    starts = np.flatnonzero(np.diff(pairs, prepend=-1) != 0)
    longest = np.zeros(n, np.int64)
    np.maximum.at(longest, words.rows[starts], np.diff(starts, append=len(pairs)))
    return longest


def _holds(captions: pa.Array, sign: str, pattern: str) -> np.ndarray:
    """Whether each caption holds the pattern; only those with a sign of it are searched."""
    import pyarrow.compute as pc

    likely = pc.match_substring_regex(captions, sign).fill_null(False)  # type: ignore[attr-defined]
    found = likely.to_numpy(zero_copy_only=False).copy()
    found[found] = pc.match_substring_regex(captions.filter(likely), pattern).to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]
    return found
