"""Types of columns that come as text or JSON: found over a whole file, so that every part of it has the same.

A kind is the name of an Arrow type: ``null``, ``bool``, ``int64``, ``double``, ``string``, ``list<...>`` of those, or
``json``: values of several types, or objects, kept as JSON text. Numbers that would lose something as numbers (leading
zeros, more than 64 bits) stay text; so do dates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any

import pyarrow as pa

JSON = "json"
_NOTHING = ("", "null", "NULL", "NA", "N/A", "None")  # spellings of no value in columns of numbers
_INTEGER = r"^[-+]?(0|[1-9][0-9]{0,17})$"
_NUMBER = r"^([-+]?((0|[1-9][0-9]{0,14})(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?(nan|NaN|inf|Infinity))$"
_BOOLEAN = r"^([Tt]rue|[Ff]alse|TRUE|FALSE)$"
_SCALARS = {"bool": pa.bool_(), "int64": pa.int64(), "double": pa.float64(), "string": pa.string()}


def unify(a: str, b: str) -> str:
    """The kind that holds the values of both, for JSON.

    >>> unify("int64", "double"), unify("list<int64>", "null"), unify("string", "bool")
    ('double', 'list<int64>', 'json')
    """
    if a == b or b == "null":
        return a
    if a == "null":
        return b
    if {a, b} == {"int64", "double"}:
        return "double"
    if a.startswith("list<") and b.startswith("list<"):
        inner = unify(a[5:-1], b[5:-1])
        return f"list<{inner}>" if inner != JSON else JSON
    return JSON


def unify_text(a: str, b: str) -> str:
    """The kind that holds the values of both, for text."""
    found = unify(a, b)
    return "string" if found == JSON else found


def of_values(values: Iterable[Any]) -> str:
    """The kind of JSON values."""
    return reduce(unify, {of_value(v) for v in values}, "null")


def of_value(value: Any) -> str:
    """The kind of one JSON value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if -(2**63) <= value < 2**63 else JSON
    if isinstance(value, float):
        return "double"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        inner = of_values(value)
        return f"list<{inner}>" if inner != JSON else JSON
    return JSON


def of_texts(values: Sequence[str | None]) -> str:
    """The kind of text values, as in csv."""
    import pyarrow.compute as pc  # late: it defines hundreds of functions

    column = _without_nothing(pa.array(values, pa.string()))
    if column.null_count == len(column):
        return "null"
    for kind, pattern in (("int64", _INTEGER), ("double", _NUMBER), ("bool", _BOOLEAN)):
        matches = pc.match_substring_regex(column, pattern)  # type: ignore[attr-defined]
        if pc.all(matches).as_py():  # type: ignore[attr-defined]
            return kind
    return "string"


def _without_nothing(column: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    nothing = pc.is_in(column, pa.array(_NOTHING))  # type: ignore[attr-defined]
    return pc.if_else(nothing, pa.scalar(None, pa.string()), column)  # type: ignore[attr-defined]


def from_texts(values: Sequence[str | None], kind: str) -> pa.Array:
    """An array of text values whose kind was found with `of_texts` and `unify_text`."""
    column = pa.array(values, pa.string())
    if kind in ("string", "null"):
        return column
    return _without_nothing(column).cast(_SCALARS[kind])


def from_values(values: Sequence[Any], kind: str) -> pa.Array:
    """An array of JSON values whose kind was found with `of_values` and `unify`."""
    if kind == JSON:
        return pa.array([None if v is None else json.dumps(v, ensure_ascii=False) for v in values], pa.string())
    return pa.array([_cast(v, kind) for v in values], _arrow(kind))


def _arrow(kind: str) -> pa.DataType:
    if kind.startswith("list<"):
        return pa.list_(_arrow(kind[5:-1]))
    return _SCALARS.get(kind, pa.string())  # a column of nulls is one of text


def _cast(value: Any, kind: str) -> Any:
    """Whole numbers in a column of doubles become doubles, however large."""
    if value is None or not kind.endswith(("double", ">")):
        return value
    return [_cast(v, kind[5:-1]) for v in value] if isinstance(value, list) else float(value)
