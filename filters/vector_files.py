"""Rows of embedding files that others wrote: mapped where they lie, never unpickled, only the rows that are wanted.

An ``.npy`` is mapped. So is an array of an ``.npz`` that is stored plainly, as ``np.savez`` does it: its bytes are a
stretch of the zip. An array that is compressed has to be copied out once, range by range, and so has a parquet column.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa

from ..errors import ConfigError, DataError
from ..shards import storage

_LOCAL_HEADER = 30  # bytes of a zip member's header before its name
_STEP = 16 << 20  # bytes that are unpacked and thrown away at a time


@dataclass(frozen=True)
class Header:
    """An array's header.

    Attributes:
        offset: of its data in the file; -1 = it is compressed.
    """

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    offset: int


def header(path: str, member: str | None = None) -> Header:
    """The header of an .npy file, or of an array of an .npz file.

    Raises:
        DataError: it cannot be read, or is no 2-D array of floats.
    """
    where = path if member is None else f"{path}: array {member!r}"
    try:
        if member is None:
            with open(storage.local(path), "rb") as file:
                found = Header(*_header(file), file.tell())
        else:
            found = _member_header(path, member)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{where} cannot be read: {error}") from error
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist") from error
    if found.dtype.hasobject:
        raise DataError(f"{where} holds Python objects, which are never loaded; save it as an array of floats")
    if len(found.shape) != 2 or found.dtype.kind != "f":
        raise DataError(f"{where} is {found.dtype} of shape {found.shape}; embeddings are floats of shape (rows, d)")
    return found


def mapped(path: str, member: str | None = None) -> np.ndarray:
    """``(n, d)`` floats, mapped read-only; of an .npz only if they are not compressed."""
    found = header(path, member)
    if found.offset < 0:
        raise DataError(f"{path}: array {member!r} is compressed and cannot be mapped")
    order = "F" if found.fortran else "C"
    if 0 in found.shape:
        return np.empty(found.shape, found.dtype)
    try:
        return np.memmap(storage.local(path), found.dtype, "r", found.offset, found.shape, order)
    except ValueError as error:  # the file ends before the array does
        raise DataError(f"{path} is cut off: {error}") from error


def unpacked(path: str, member: str, start: int, stop: int) -> np.ndarray:
    """Rows of a compressed array of an .npz file.

    Raises:
        DataError: it cannot be read, or is cut off.
    """
    try:
        with zipfile.ZipFile(storage.local(path)) as archive, archive.open(f"{member}.npy") as file:
            shape, fortran, dtype = _header(cast(IO[bytes], file))
            if fortran:
                raise DataError(f"{path}: array {member!r} is compressed in column order; save it in row order")
            width = shape[1] * dtype.itemsize
            left = start * width
            while left and (read := len(file.read(min(left, _STEP)))):
                left -= read
            data = file.read((stop - start) * width)
    except (ValueError, EOFError, zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: array {member!r} cannot be read: {error}") from error
    if len(data) != (stop - start) * width:
        raise DataError(f"{path}: array {member!r} is cut off")
    return np.frombuffer(data, dtype).reshape(stop - start, shape[1])


def from_lists(column: pa.ChunkedArray | pa.Array, dim: int, where: str) -> np.ndarray:
    """A list column as ``(n, dim)`` floats; null rows, and nulls in rows, are NaN.

    Raises:
        DataError: a row has another length, or the lists hold no floats.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    dtype = list_dtype(array.type, where)
    there = ~np.asarray(array.is_null())
    full = array.filter(pa.array(there))
    if not pa.types.is_fixed_size_list(array.type):
        ends = np.asarray(full.offsets)
        wrong = np.flatnonzero(np.diff(ends) != dim)
        if len(wrong):
            raise DataError(f"{where}: row {np.flatnonzero(there)[wrong[0]]} has another length than {dim}")
    out = np.full((len(array), dim), np.nan, dtype)
    out[there] = full.flatten().to_numpy(zero_copy_only=False).astype(dtype, copy=False).reshape(-1, dim)
    return out


def list_dtype(kind: pa.DataType, where: str) -> np.dtype:
    """The numpy type of a list column's floats.

    Raises:
        DataError: it is no such column.
    """
    lists = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
    if not any(test(kind) for test in lists) or not pa.types.is_floating(cast(Any, kind).value_type):
        raise DataError(f"{where} holds {kind}; embeddings are lists of floats")
    return np.dtype(cast(Any, kind).value_type.to_pandas_dtype())


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _member_header(path: str, member: str) -> Header:
    with zipfile.ZipFile(storage.local(path)) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if member not in names:
            raise DataError(f"{path}: has no array {member!r}; it has {', '.join(names)}")
        info = archive.getinfo(f"{member}.npy")
        with archive.open(info) as file:
            shape, fortran, dtype = _header(cast(IO[bytes], file))
            skip = file.tell()
    if info.compress_type != zipfile.ZIP_STORED:
        return Header(shape, fortran, dtype, -1)
    with open(storage.local(path), "rb") as raw:  # the local header's extra field can differ from the directory's
        raw.seek(info.header_offset + 26)
        name, extra = (int.from_bytes(raw.read(2), "little") for _ in range(2))
    return Header(shape, fortran, dtype, info.header_offset + _LOCAL_HEADER + name + extra + skip)
