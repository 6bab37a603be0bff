"""What arrays an npz file holds, from their headers alone: no array is read, and nothing is unpickled."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import IO, cast

import numpy as np

from ...errors import DataError

_SUFFIX = ".npy"


@dataclass(frozen=True)
class Array:
    """One array of an npz file.

    Attributes:
        name: its key.
        shape: of the array.
        dtype: as NumPy writes it (``<f2``).
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


def arrays(path: str) -> list[Array]:
    """The arrays of an npz file, in file order; those of Python objects are left out.

    Raises:
        DataError: it is no npz file.
    """
    found = []
    try:
        import fsspec

        with fsspec.open(path, "rb") as file, zipfile.ZipFile(cast(IO[bytes], file)) as archive:
            for name in archive.namelist():
                if not name.endswith(_SUFFIX):
                    continue
                with archive.open(name) as member:
                    version = np.lib.format.read_magic(member)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(member)
                if not dtype.hasobject:
                    found.append(Array(name.removesuffix(_SUFFIX), shape, dtype.str))
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as npz: {error}") from error
    return found


def require_rows(path: str, rows: int) -> list[Array]:
    """The arrays of an npz file that must have so many rows.

    Raises:
        DataError: one has not.
    """
    found = arrays(path)
    for array in found:
        if array.shape[:1] != (rows,):
            raise DataError(
                f"{path}: array {array.name!r} has shape {array.shape}; the parquet beside it has {rows} rows"
            )
    return found
