"""The ``npy`` members of evaluation samples: small vectors, read without pickle and without trusting their headers.

A header may claim any shape; what is read is bounded by the bytes that are there. Headers repeat from sample to sample,
so each different one is parsed once.
"""

from __future__ import annotations

import ast
import functools
import math
from collections.abc import Sequence

import numpy as np

from ...errors import DataError

MAX_BYTES = 1 << 20  # of one vector; ImageNet-21k's multi-hot float64 is 175 KB
_PREFIX = 12  # magic, version and the longest length field
_MAX_HEADER = 10_000


@functools.lru_cache(maxsize=64)
def _header(text: bytes) -> tuple[np.dtype, int]:
    """Type and length of the vector that a header announces."""
    told = ast.literal_eval(text.decode("latin-1").strip())  # numpy's own reader also tries to mend broken headers
    if not isinstance(told, dict) or not isinstance(told.get("descr"), str) or "O" in told["descr"]:
        raise ValueError("it holds Python objects, which are not loaded")
    dtype, shape = np.dtype(told["descr"]), told.get("shape")
    if not isinstance(shape, tuple) or not all(isinstance(side, int) and side >= 0 for side in shape):
        raise ValueError("its header names no shape")
    count = math.prod(shape)
    if len(shape) > 1 and max(shape) != count:
        raise ValueError(f"it has the shape {shape}, not that of a vector")
    return dtype, count


def read_vector(data: bytes, where: str) -> np.ndarray:
    """Whole numbers of one ``npy`` member as ``(m,) int64``.

    Raises:
        DataError: it is no npy file, holds Python objects, other things than whole numbers, or another amount of data
            than it claims.
    """
    if len(data) > MAX_BYTES:
        raise DataError(
            f"{where}: its npy member has {len(data):,} bytes; a vector of labels has fewer than {MAX_BYTES:,}"
        )
    try:
        if not data.startswith(b"\x93NUMPY"):
            raise ValueError("it does not start as npy files do")
        size = int.from_bytes(data[8:10], "little") if data[6:7] == b"\x01" else int.from_bytes(data[8:12], "little")
        start = size + (10 if data[6:7] == b"\x01" else _PREFIX)
        if size > _MAX_HEADER or start > len(data):
            raise ValueError("its header is cut off")
        dtype, count = _header(data[start - size : start])
        if dtype.kind not in "biuf":
            raise ValueError(f"it holds {dtype}, not numbers")
        if count * dtype.itemsize != len(data) - start:
            raise ValueError(f"it claims {count} values of {dtype} and has {len(data) - start} bytes")
        values = np.frombuffer(data, dtype, count, start)
    except (ValueError, TypeError, SyntaxError, EOFError, RecursionError, MemoryError) as error:
        raise DataError(f"{where}: its npy member cannot be used: {error}") from error
    if dtype.kind == "f" and not (np.isfinite(values).all() and (values == np.trunc(values)).all()):
        raise DataError(f"{where}: its npy member holds numbers that are not whole")
    if values.size and (values.max() >= 1 << 62 or values.min() < -(1 << 62)):
        raise DataError(f"{where}: its npy member holds numbers beyond 62 bits")
    return values.astype(np.int64)


def stacked(vectors: Sequence[np.ndarray], wheres: Sequence[str], width: int | None = None) -> np.ndarray:
    """``(n, m) int64`` of n vectors.

    Args:
        wheres: what messages call each.
        width: m; None = as the first.

    Raises:
        DataError: one has another length.
    """
    width = len(vectors[0]) if width is None and vectors else width or 0
    for vector, where in zip(vectors, wheres, strict=True):
        if len(vector) != width:
            raise DataError(f"{where}: its npy member has {len(vector)} values, not {width}")
    return np.stack(vectors) if vectors else np.zeros((0, width), np.int64)
