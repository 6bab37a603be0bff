"""Captions as Arrow columns: clean text, words and characters as Python counts them, without a Python loop.

Arrow and Python agree on what white space is (every code point was compared), so a word is a word everywhere. A file
that somebody else wrote may hold bytes that are no UTF-8; such bytes become U+FFFD here, in the few rows concerned,
instead of failing a shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

Captions = pa.ChunkedArray | pa.Array | Sequence[str | None]


def words(captions: pa.ChunkedArray) -> np.ndarray:
    """``len(caption.split())`` of every caption, ``(n,) float64``; NaN where there is none.

    Both split on the same Unicode white space, but Arrow counts the nothing before and after it, hence the trim.
    """
    import pyarrow.compute as pc  # late: it defines hundreds of functions

    trimmed = pc.utf8_trim_whitespace(text(captions))  # type: ignore[attr-defined]
    count = pc.list_value_length(pc.utf8_split_whitespace(trimmed))  # type: ignore[attr-defined]
    count = pc.if_else(pc.equal(trimmed, ""), pa.scalar(0, count.type), count)  # type: ignore[attr-defined]
    return count.cast(pa.float64()).to_numpy(zero_copy_only=False)


def characters(captions: pa.ChunkedArray) -> np.ndarray:
    """``len(caption)``, in Unicode code points, ``(n,) float64``; NaN where there is none."""
    import pyarrow.compute as pc

    count = pc.utf8_length(text(captions))  # type: ignore[attr-defined]
    return count.cast(pa.float64()).to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class Words:
    """The words of captions, caption after caption, as numbers.

    Attributes:
        vocabulary: the distinct words, in order of first use.
        codes: ``(m,) int32``, number of each word in `vocabulary`.
        rows: ``(m,) int64``, caption of each word, ascending.
    """

    vocabulary: list[str]
    codes: np.ndarray
    rows: np.ndarray


def split_words(captions: pa.ChunkedArray) -> Words:
    """``caption.split()`` of every caption; what is decided about a word can then be decided once per distinct word."""
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim_whitespace(text(captions))  # type: ignore[attr-defined]
    rows = np.flatnonzero(pc.fill_null(pc.not_equal(trimmed, ""), False).to_numpy(zero_copy_only=False))  # type: ignore[attr-defined]
    lists = pc.utf8_split_whitespace(trimmed.take(pa.array(rows)))  # type: ignore[attr-defined]
    counts = pc.list_value_length(lists).to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]
    encoded = pc.list_flatten(lists).dictionary_encode()  # type: ignore[attr-defined]
    return Words(
        encoded.dictionary.to_pylist(),
        encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32, copy=False),
        np.repeat(rows, counts.astype(np.int64)),
    )


def text(captions: Captions) -> pa.Array:
    """Captions as one valid ``large_string`` array.

    Takes Arrow columns and lists of str or None. Bytes that are no UTF-8, and surrogates that stand alone, become
    U+FFFD; a column of nothing but nulls, which has no type of its own, becomes text.
    """
    if isinstance(captions, Sequence):
        try:
            return pa.array(captions, pa.large_string())
        except UnicodeEncodeError:
            return pa.array([c if c is None else _paired(c) for c in captions], pa.large_string())
    column = captions.cast(pa.large_string())
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    try:
        array.validate(full=True)  # Arrow's own constructors check UTF-8, parquet readers do not
    except pa.ArrowInvalid:
        raw = array.cast(pa.large_binary()).to_pylist()
        return pa.array([b if b is None else b.decode("utf-8", "replace") for b in raw], pa.large_string())
    return array


def _paired(caption: str) -> str:
    return caption.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def nan_where_null(values: np.ndarray, captions: pa.Array) -> np.ndarray:
    """`values` as ``(n,) float32``, NaN in the rows that have no caption."""
    result = values.astype(np.float32)
    if captions.null_count:
        result[captions.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return result
