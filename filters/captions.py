"""Counting in captions without a Python loop: words and characters as Python counts them, over Arrow strings."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def words(captions: pa.ChunkedArray) -> np.ndarray:
    """``len(caption.split())`` of every caption, ``(n,) float64``; NaN where there is none.

    Both split on the same Unicode white space, but Arrow counts the nothing before and after it, hence the trim.
    """
    import pyarrow.compute as pc  # late: it defines hundreds of functions

    trimmed = pc.utf8_trim_whitespace(_text(captions))  # type: ignore[attr-defined]
    count = pc.list_value_length(pc.utf8_split_whitespace(trimmed))  # type: ignore[attr-defined]
    count = pc.if_else(pc.equal(trimmed, ""), pa.scalar(0, count.type), count)  # type: ignore[attr-defined]
    return count.cast(pa.float64()).to_numpy()


def characters(captions: pa.ChunkedArray) -> np.ndarray:
    """``len(caption)``, in Unicode code points, ``(n,) float64``; NaN where there is none."""
    import pyarrow.compute as pc

    return pc.utf8_length(_text(captions)).cast(pa.float64()).to_numpy()  # type: ignore[attr-defined]


def _text(captions: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of nothing but nulls has no type of its own."""
    return captions.cast(pa.string()) if pa.types.is_null(captions.type) else captions
