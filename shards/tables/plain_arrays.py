"""Python lists -> Arrow arrays of text and integers, without `pyarrow.array`.

`pyarrow.array` imports pandas, where it is installed, only to be able to ask whether a list is a pandas object: a third
of a second of CPU and 60 MB in every worker, for nothing. Here the buffers are put together directly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa


def text_array(values: Sequence[str | None]) -> pa.Array:
    """``string`` array of `values`; ``large_string`` when they have more than 2 GiB.

    Raises:
        UnicodeEncodeError: a value holds lone surrogates.
    """
    data = [b"" if value is None else value.encode() for value in values]
    ends = np.zeros(len(data) + 1, np.int64)
    np.cumsum([len(text) for text in data], out=ends[1:])
    large = ends[-1] >= 1 << 31
    kind, offsets = (pa.large_string(), ends) if large else (pa.string(), ends.astype(np.int32))
    buffers = [_validity(values), pa.py_buffer(offsets), pa.py_buffer(b"".join(data))]
    return pa.Array.from_buffers(kind, len(data), buffers)


def int32_array(values: Sequence[int | None]) -> pa.Array:
    """``int32`` array of `values`.

    Raises:
        OverflowError: a value does not fit.
    """
    data = np.array([0 if value is None else value for value in values], np.int32)
    return pa.Array.from_buffers(pa.int32(), len(data), [_validity(values), pa.py_buffer(data)])


def _validity(values: Sequence[object]) -> pa.Buffer | None:
    """Arrow's bitmap of values that are there; None if all are."""
    if None not in values:
        return None
    return pa.py_buffer(np.packbits([value is not None for value in values], bitorder="little"))
