"""Text in Arrow columns that may be no text: parquet does not look inside its strings, so a reader must."""

from __future__ import annotations

import pyarrow as pa

from ...errors import DataError


def is_textual(kind: pa.DataType) -> bool:
    """Whether a column of this type holds text, or bytes that may be text."""
    textual = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(test(kind) for test in textual) or str(kind) in ("string_view", "binary_view")


def decoded(values: pa.ChunkedArray) -> tuple[pa.Array, set[int]]:
    """A textual column as strings, and the rows that are no UTF-8 (null in it)."""
    try:
        text = values.cast(pa.string()).combine_chunks()
        text.validate(full=True)
        return text, set()
    except pa.ArrowInvalid:
        found: list[str | None] = []
        bad = set()
        for row, data in enumerate(values.cast(pa.large_binary()).to_pylist()):
            try:
                found.append(None if data is None else data.decode())
            except UnicodeDecodeError:
                found.append(None)
                bad.add(row)
        return pa.array(found, pa.string()), bad


def readable(values: pa.ChunkedArray, where: str) -> pa.ChunkedArray | pa.Array:
    """A column whose text can be read: what is no UTF-8 becomes null.

    Raises:
        DataError: such text lies inside lists, structs or dictionaries.
    """
    try:
        values.validate(full=True)
        return values
    except pa.ArrowInvalid as error:
        if is_textual(values.type):
            return decoded(values)[0]
        raise DataError(f"{where} cannot be read: {str(error).splitlines()[0]}") from error
