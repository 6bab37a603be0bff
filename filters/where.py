"""`where`: keep the samples for which an SQL condition is true: ``clip_score > 0.3 AND language = 'en'``.

DuckDB evaluates the condition over the columns that it names, and only those are read, part by part. A column is what
a filter may read anywhere: of the row table, a score, or ``subset.<name>`` (how often the row is in that subset); names
with other signs go in double quotes. NULL is not true: such rows are dropped as `null`. A NaN is NULL here, because a
score that is NaN is no value everywhere else; SQL alone would call it larger than every number. float32 columns are
compared with a literal as float32, which is `threshold`'s rule.

A condition is a function of the row alone: subqueries, aggregates, windows and whatever depends on the time, on chance
or on settings are refused when the config is checked, and the connection reaches no file and loads no extension.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ..errors import ConfigError, DataError
from ..registry import unknown
from .base import FILTERS, Decision, Filter, Part

TABLE = "pool"
SUBSET = "subset"
_CLASSES = {"CONJUNCTION", "COMPARISON", "COLUMN_REF", "CONSTANT", "FUNCTION", "OPERATOR", "CAST", "TYPE", "CASE"}
_CLASSES |= {"BETWEEN"}
_REFUSED = {
    "SUBQUERY": "a subquery looks at other rows; use a filter of its own",
    "WINDOW": "a window looks at other rows; use `top_k` or `top_fraction` with `per`",
    "PARAMETER": "a parameter has no value here; write the value",
    "STAR": "`*` is no column; name the columns",
    "LAMBDA": "a lambda has no place here; use a filter of the type `python`",
    "COLLATE": "a collation has no place here; compare lower(...)",
}
_MACROS = ("nullif", "if", "fmod", "fdiv", "split_part", "array_to_string", "days_in_month", "date_add")
_SETTINGS = {"version", "current_localtime", "current_localtimestamp", "write_log", "parse_duckdb_log_message"}


@FILTERS.register
class Where(Filter):
    """Keep samples by an SQL condition over columns."""

    type: Literal["where"] = "where"
    sql: str = Field(
        pattern=r"\S", description="Condition in DuckDB's SQL, true for rows to keep: `score > 0.3 AND width > 200`."
    )

    def columns(self) -> list[str]:
        """Columns that the condition names.

        Raises:
            ConfigError: it is no condition over the columns of a row.
        """
        return list(columns_of(self.sql))

    def decide(self, part: Part, state: Any) -> Decision:
        keep, missing = evaluate(self.sql, part)
        reason = np.where(missing, "null", "condition").astype(object)
        return Decision(keep, np.full(len(part), np.nan, np.float32), reason)

    def describe(self, state: Any) -> dict[str, Any]:
        import duckdb

        return {"sql": self.sql, "duckdb": duckdb.__version__}


def evaluate(sql: str, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of a part the condition is true for, ``(n,) bool``, and for which it is NULL.

    Raises:
        DataError: the condition does not fit the columns' types, or fails on a value.
    """
    import duckdb

    columns = {name: _without_nan(part.arrow(name)) for name in columns_of(sql)}
    if len({name.lower() for name in columns}) < len(columns):
        raise DataError(f"where: {sql!r} names columns that differ in case only, which SQL takes for one; rename one")
    connection = _connection()
    nested = {k.partition(".")[2]: v for k, v in columns.items() if k.startswith(f"{SUBSET}.")}
    if nested:  # `subset.curated` without quotes is a field of `subset`, `"subset.curated"` a column
        columns[SUBSET] = pa.StructArray.from_arrays(list(nested.values()), list(nested))
    columns = columns or {"": pa.nulls(len(part))}  # a condition without columns still has rows
    connection.register(TABLE, pa.table(columns))
    try:
        found = connection.sql(f"SELECT ({sql}\n) AS keep FROM {TABLE}").to_arrow_table()["keep"]
    except duckdb.Error as error:
        raise DataError(f"where: {sql!r} on part {part.name}: {_sentence(error)}") from error
    finally:
        connection.unregister(TABLE)
    if not (pa.types.is_boolean(found.type) or pa.types.is_null(found.type)):
        raise DataError(f"where: {sql!r} is {found.type}, not true or false; compare it with something")
    keep = found.cast(pa.bool_()).fill_null(False).to_numpy()
    if len(keep) != len(part):
        raise DataError(f"where: {sql!r} gives {len(keep)} answers for {len(part)} rows of part {part.name}")
    return keep, found.is_null().to_numpy()


@lru_cache(maxsize=256)
def columns_of(sql: str) -> tuple[str, ...]:
    """Columns that a condition names, in order of first use.

    Raises:
        ConfigError: it is no condition, or asks for more than the columns of a row.
    """
    tree = _parsed(sql)
    found: dict[str, None] = {}
    for node in _nodes(tree):
        kind = node["class"]
        if kind not in _CLASSES:
            raise ConfigError(f"where: {sql!r}: {_REFUSED.get(kind, f'{kind.lower()} has no place here')}")
        if kind == "FUNCTION":
            _require_function(node["function_name"], sql)
        if kind == "COLUMN_REF":
            found[_column(node["column_names"], sql)] = None
    return tuple(found)


def _column(names: list[str], sql: str) -> str:
    """The column that a reference stands for."""
    dotted = ".".join(names)
    encoder, _, modality = dotted.rpartition(".")
    if encoder and modality in ("image", "text") and not dotted.startswith(f"{SUBSET}."):
        raise ConfigError(f"where: {sql!r}: {dotted!r} is an embedding, which SQL cannot weigh; make a score of it")
    if names[0] == SUBSET and len(names) == 2:
        return dotted
    return names[0]  # of `box.width`, a field of a struct, the column is `box`


def _parsed(sql: str) -> Any:
    """DuckDB's syntax tree of a condition; whatever else can be smuggled in changes the statement around it."""
    statement = _statement(sql, f"SELECT 1 FROM {TABLE} WHERE ({sql}\n)")
    bare = _statement("true", f"SELECT 1 FROM {TABLE} WHERE (true\n)")
    tree = statement.pop("where_clause", None)
    bare.pop("where_clause")
    if statement != bare or tree is None:
        raise ConfigError(f"where: {sql!r} is more than a condition; leave out what is not part of the WHERE clause")
    return tree


def _statement(sql: str, text: str) -> dict[str, Any]:
    answers = _connection().execute("SELECT json_serialize_sql(?)", [text]).fetchall()
    parsed = json.loads(answers[0][0])
    if parsed["error"]:
        raise ConfigError(f"where: {sql!r} is no SQL condition: {parsed['error_message']}")
    if len(parsed["statements"]) != 1:
        raise ConfigError(f"where: {sql!r} is more than a condition; leave out what is not part of the WHERE clause")
    return parsed["statements"][0]["node"]


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every expression of a syntax tree, parents first."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _require_function(name: str, sql: str) -> None:
    """Refuse functions that are not a function of their arguments."""
    kinds = _functions()
    if name in kinds["scalar"] or name in _MACROS or name.startswith(("list_", "array_")):
        return
    if name in kinds["aggregate"]:
        raise ConfigError(f"where: {sql!r}: {name}() looks at other rows; use `top_k`, `top_fraction` or `random`")
    if name in kinds["refused"]:
        raise ConfigError(f"where: {sql!r}: {name}() depends on more than the row, so results could not be repeated")
    raise ConfigError(f"where: {sql!r}: {unknown('function', name, kinds['scalar'])}")


@lru_cache(maxsize=1)
def _functions() -> dict[str, frozenset[str]]:
    """DuckDB's functions by what they depend on."""
    query = "SELECT DISTINCT lower(function_name), function_type, stability FROM duckdb_functions()"
    rows = _connection().execute(query).fetchall()
    pure = {n for n, kind, stability in rows if kind == "scalar" and stability == "CONSISTENT"}
    moody = {n for n, kind, stability in rows if kind == "scalar" and stability != "CONSISTENT"}
    pure -= moody | _SETTINGS
    aggregates = {n for n, kind, _ in rows if kind == "aggregate"} | {"count_star"}
    return {
        "scalar": frozenset(pure),
        "aggregate": frozenset(aggregates - pure),
        "refused": frozenset({n for n, _, _ in rows} - pure - aggregates),
    }


@lru_cache(maxsize=1)
def _connection() -> Any:
    """One per process: in memory, one thread, no files, no extensions, no settings."""
    import duckdb

    connection = duckdb.connect(
        ":memory:",
        config={
            "enable_external_access": "false",
            "autoload_known_extensions": "false",
            "autoinstall_known_extensions": "false",
            "python_enable_replacements": "false",
            "threads": "1",
        },
    )
    connection.execute("SET lock_configuration = true")
    return connection


def _without_nan(column: pa.ChunkedArray) -> pa.Array:
    """A column with null for NaN, in one piece."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if not pa.types.is_floating(array.type):
        return array
    values = array.to_numpy(zero_copy_only=False)
    return pa.array(values, array.type, mask=np.isnan(values))


def _sentence(error: Exception) -> str:
    """The first line of what DuckDB says."""
    return str(error).strip().split("\n", 1)[0]
