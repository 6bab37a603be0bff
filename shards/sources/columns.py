"""A table's columns -> the rows that are ingested: ``uid``, ``url``, ``caption`` and what else is carried along."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat

import pyarrow as pa

from ...errors import ConfigError
from ...registry import nearest
from .. import row_table
from ..tables.plain_arrays import text_array
from ..tables.text_columns import decoded, is_textual, readable
from ..uid import canonical, stable_uid

GIVEN = "given_"
"""Prefix of carried columns whose own name is one that ingest fills: ``sha256`` comes along as ``given_sha256``."""

RESERVED = {*row_table.OUTCOME, "uid"}
_ALSO = {  # how well-known pools call their columns
    "url": ("URL", "image_url", "Image URL"),
    "caption": ("TEXT", "caption", "Caption", "alt_text"),
    "image": ("jpg", "png", "webp", "image_bytes", "bytes"),
}


def require(path: str, names: Sequence[str], needed: Iterable[tuple[str, str | None]]) -> None:
    """Raise `ConfigError` for the first (option, column) whose column is not among a file's `names`."""
    for option, column in needed:
        if column is None or column in names:
            continue
        folded = {name.lower(): name for name in names}
        others = (name for name in _ALSO.get(option, ()) if name in names)
        guess = folded.get(column.lower()) or nearest(column, names) or next(others, None)
        hint = f"did you mean {guess!r}?" if guess else f"it has: {', '.join(names)}"
        raise ConfigError(f"source option `{option}`: {path} has no column {column!r}; {hint}")


def carried(path: str, names: Sequence[str], extra: Sequence[str] | None, used: Iterable[str | None]) -> dict[str, str]:
    """The columns to carry along, ``{name in the pool: name in the file}``; `extra` None = all that are not `used`.

    Raises:
        ConfigError: a column is missing, or two would have one name.
    """
    require(path, names, (("extra", column) for column in extra or ()))
    taken = set(used)
    found: dict[str, str] = {}
    for column in names if extra is None else dict.fromkeys(extra):
        if column in taken:
            continue
        name = f"{GIVEN}{column}" if column in RESERVED else column
        if name in found:
            raise ConfigError(
                f"source option `extra`: {path} has two columns for {name!r}; list under `extra` the one wanted"
            )
        found[name] = column
    return found


def rows(
    table: pa.Table,
    path: str,
    url: str | None,
    caption: str | None,
    uid: str | None,
    extra: Mapping[str, str],
    places: Iterable[tuple[str, ...]] | None = None,
) -> pa.Table:
    """The rows to ingest from columns of `table`; None = null in every row.

    A row without a uid gets one from its URL and caption, and from what `places` says about it.

    A row whose URL or caption is no UTF-8 has neither: it fails like one without a URL, and is not altered.

    Raises:
        ConfigError: a column holds no text.
        DataError: a uid is no 128-bit id, or an extra column holds text that cannot be read.
    """
    urls, bad = texts(table, url, path)
    captions, worse = texts(table, caption, path)
    if bad or worse:
        import pyarrow.compute as pc  # late: it defines hundreds of functions

        broken = pa.array([row in bad or row in worse for row in range(len(table))])
        null = pa.scalar(None, pa.string())
        urls, captions = (pc.if_else(broken, null, column) for column in (urls, captions))  # type: ignore[attr-defined]
    found = zip(urls.to_pylist(), captions.to_pylist(), places or repeat((), len(table)), strict=True)
    made = (stable_uid(*place, link or "", text or "") for link, text, place in found)
    uids = canonical(texts(table, uid, path)[0].to_pylist(), made, path)
    return pa.table(
        {"uid": text_array(uids), "url": urls, "caption": captions}
        | {name: readable(table[column], f"{path}: column {column!r}") for name, column in extra.items()}
    )


def texts(table: pa.Table, column: str | None, path: str) -> tuple[pa.Array, set[int]]:
    """A column as text, and the rows whose text is no UTF-8 (null in it).

    Raises:
        ConfigError: it holds something that is no text.
    """
    if column is None:
        return pa.nulls(len(table), pa.string()), set()
    values = table[column]
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if pa.types.is_dictionary(values.type):
        values = values.cast(kind)
    if is_textual(kind):
        return decoded(values)
    if not (pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise ConfigError(f"{path}: column {column!r} holds {kind}, which is no text")
    return values.cast(pa.string()).combine_chunks(), set()
