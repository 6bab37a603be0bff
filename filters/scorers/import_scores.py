"""`import`: scores that exist already, in parquet, csv or JSON files keyed by uid.

Each file is read once: its wanted columns go, uncompressed and in their order, into files that can be mapped, its keys
into the join (`uid_join.py`); a part then takes its rows from there. Types stay what they are. Price: the imported
columns lie on disk once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from ...errors import ConfigError, DataError
from ...registry import unknown
from ...shards import storage
from ..base import SCORERS, Context, Part, Scorer
from ..uid_join import ROWS_PER_RANGE, UID, Duplicates, Joined, join, plan_in


@SCORERS.register
class ImportScores(Scorer):
    """Columns of other files, joined to the pool by uid; rows that they do not list hold null."""

    whole_pool: ClassVar[bool] = True
    type: Literal["import"] = "import"
    path: str = Field(
        description="Parquet, csv, tsv, jsonl or json file(s) with the scores: a file, a folder or a glob pattern."
    )
    key: str = Field(default=UID, description="Column of the files with the uid; shorter uids are padded with zeros.")
    on: str = Field(
        default=UID,
        description="Column of the pool that the key must equal: `uid`, or one with text, such as `url` or `key`.",
    )
    column: str | None = Field(default=None, description="Column of the files that becomes this score.")
    columns_: dict[str, str] | list[str] = Field(
        default_factory=list,
        alias="columns",
        description="More columns, as `<score>_<name>`: a list of names, or `{name: column of the files}`. Without "
        "`column`, the first of them is the score itself.",
    )
    duplicates: Duplicates = Field(
        default="error",
        description="A uid that the files repeat with different values: an `error`, or take the `first` in the order "
        "of file names and rows.",
    )

    @model_validator(mode="after")
    def _some(self) -> ImportScores:
        if self.column is None and not self.columns_:
            raise ValueError("say which `column` to import")
        return self

    def wanted(self, name: str) -> dict[str, str]:
        """``{column of the pool: column of the files}``, the main one first."""
        more = self.columns_ if isinstance(self.columns_, dict) else {c: c for c in self.columns_}
        found = {} if self.column is None else {name: self.column}
        for suffix, column in more.items():
            found[f"{name}_{suffix}" if found else name] = column
        return found

    def columns(self) -> list[str]:
        return [self.on]

    def files(self) -> list[str]:
        return found_files(self.path, "scorer import")

    def fit(self, context: Context) -> Joined:
        wanted = tuple(dict.fromkeys(self.wanted("score").values()))
        external = ScoreFiles(self.path, self.key, wanted)
        return join(context, external, self.on, self.duplicates, f"scorer import of {self.path}")

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        hit, sources, rows = state.places(part)
        taken = take(state.folder, sources[hit], rows[hit])
        place = np.cumsum(hit) - 1
        indices = pa.array(place, mask=~hit)
        return {new: _whole(taken[column].take(indices)) for new, column in self.wanted(name).items()}

    def describe(self, state: Any = None) -> dict[str, Any]:
        return {} if state is None else dict(state.facts)


def found_files(path: str, where: str, extensions: Sequence[str] | None = None) -> list[str]:
    """Sorted files at a path, folder or glob pattern that end in one of `extensions` (default: all tables).

    Raises:
        ConfigError: there are none.
    """
    from ...shards.sources.files import find
    from ...shards.tables.url_table import EXTENSIONS

    try:
        found = find(path, tuple(e for e in EXTENSIONS if ".txt" not in e) if extensions is None else tuple(extensions))
    except ConfigError as error:
        raise ConfigError(str(error).replace("source path", f"{where}: path", 1)) from error
    return [file.path for file in found]


@dataclass(frozen=True)
class ScoreFiles:
    """Tables of scores as `uid_join.External`.

    Attributes:
        path: file, folder or glob pattern.
        key: their column with the keys.
        wanted: their columns with the values.
    """

    path: str
    key: str
    wanted: tuple[str, ...]

    def plan(self) -> dict[str, Any]:
        """Row ranges as `shards.tables.url_table` reads them; and the types of the columns over all files.

        Raises:
            ConfigError: a column is missing, or holds something that is no score. DataError: a file cannot be read.
        """
        from ...shards.tables import url_table

        ranges, schemas = [], []
        for path in found_files(self.path, "scorer import"):
            counted = url_table.count(path, ROWS_PER_RANGE, text=[self.key])
            for column in (self.key, *self.wanted):
                if column not in counted.names:
                    raise ConfigError(f"scorer import: {path}: {unknown('column', column, counted.names)}")
            schemas.append((path, _schema(path, counted, self.wanted)))
            for part in counted.parts(ROWS_PER_RANGE):
                ranges.append({"path": path, "rows": part["stop"] - part["start"], "part": part})
        unified = reduce(_unified, schemas)[1]
        identities = {path: storage.identity(path) for path, _ in schemas}
        return {"ranges": ranges, "types": {f.name: str(f.type) for f in unified}, "files": identities}

    def keys(self, plan: dict[str, Any], source: int, folder: str) -> pa.Array:
        from ...shards.tables import url_table

        found = plan["ranges"][source]
        columns = list(dict.fromkeys([self.key, *self.wanted]))
        table = url_table.read(found["path"], found["part"], text=[self.key], columns=columns)
        values = {}
        for name, kind in plan["types"].items():
            try:
                values[name] = table[name].cast(pa.type_for_alias(kind)).combine_chunks()
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                reason = str(error).split("\n")[0]
                raise DataError(f"{found['path']}: column {name!r} cannot be read as {kind}: {reason}") from error
        held = pa.table(values)
        path = storage.join(folder, f"values-{source:06d}.arrow")
        with storage.publishing(path) as temporary, pa.ipc.new_file(temporary, held.schema) as writer:
            writer.write_table(held)
        return table[self.key].combine_chunks()

    def equal(
        self, folder: str, sources: tuple[np.ndarray, np.ndarray], rows: tuple[np.ndarray, np.ndarray]
    ) -> np.ndarray:
        first, other = (take(folder, s, r) for s, r in zip(sources, rows, strict=True))
        same = np.ones(len(first), bool)
        for name in first.column_names:
            same &= _same(first[name], other[name])
        return same

    def place(self, plan: dict[str, Any], source: int, row: int) -> str:
        found = plan["ranges"][source]
        return f"row {found['part']['start'] + row} of {found['path']}"


def take(folder: str, sources: np.ndarray, rows: np.ndarray) -> pa.Table:
    """Rows of the taken-in files at ``(m,)`` places, in that order."""
    types: Mapping[str, str] = plan_in(folder)["types"]
    order = np.argsort(sources, kind="stable")
    tables = [pa.schema([(name, pa.type_for_alias(kind)) for name, kind in types.items()]).empty_table()]
    for source in np.unique(sources).tolist():
        wanted = order[sources[order] == source]
        with pa.memory_map(storage.local(storage.join(folder, f"values-{source:06d}.arrow"))) as file:
            tables.append(pa.ipc.open_file(file).read_all().take(pa.array(rows[wanted])))
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return pa.concat_tables(tables).take(pa.array(back))


def _schema(path: str, counted: Any, wanted: Sequence[str]) -> pa.Schema:
    """Types of the wanted columns of one file, dictionaries unpacked."""
    from ...shards.tables import parquet_rows, text_types

    if counted.form == "parquet":
        schema = parquet_rows.count(path)[1]
        kinds = {name: schema.field(name).type for name in wanted}
    elif counted.form in ("lines", "array"):
        kinds = {name: text_types.from_values((), counted.kinds.get(name, "string")).type for name in wanted}
    else:
        kinds = {name: text_types.from_texts((), counted.kinds.get(name, "string")).type for name in wanted}
    for name, kind in kinds.items():
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        tests = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_string)
        if not any(test(kind) for test in (*tests, pa.types.is_large_string, pa.types.is_null)):
            raise ConfigError(f"scorer import: {path}: column {name!r} holds {kind}; numbers, text and bools can be")
        kinds[name] = kind
    return pa.schema(list(kinds.items()))


def _unified(a: tuple[str, pa.Schema], b: tuple[str, pa.Schema]) -> tuple[str, pa.Schema]:
    """The types that hold the values of both files."""
    try:
        return a[0], pa.unify_schemas([a[1], b[1]], promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise DataError(f"scorer import: {a[0]} and {b[0]} have columns of different types: {error}") from error


def _same(a: pa.ChunkedArray, b: pa.ChunkedArray) -> np.ndarray:
    """Where two columns agree; missing equals missing, NaN equals NaN."""
    import pyarrow.compute as pc

    if pa.types.is_null(a.type):
        return np.ones(len(a), bool)
    same = np.asarray(pc.fill_null(pc.equal(a, b), False))  # type: ignore[attr-defined]
    same = same | (np.asarray(a.is_null()) & np.asarray(b.is_null()))
    if pa.types.is_floating(a.type):
        both = pc.and_(pc.is_nan(a), pc.is_nan(b))  # type: ignore[attr-defined]
        same = same | np.asarray(pc.fill_null(both, False))  # type: ignore[attr-defined]
    return same


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """As one array."""
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined
