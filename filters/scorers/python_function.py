"""`python`: a column by a function of your own, named in the config: ``table -> column``.

    # my_scores.py, in the folder that `curate run` is started in
    def shouting(table, at_least=3):
        captions = table["caption"].to_pylist()
        return np.array([sum(w.isupper() for w in (c or "").split()) >= at_least for c in captions])

    scores: {loud: {type: python, function: "my_scores:shouting", columns: [caption], options: {at_least: 2}}}

The function gets a `pyarrow.Table` with the columns it asked for, one part at a time, every row of it, also rows that
were not fetched; embeddings are fixed-size lists of float32, NaN where there is none (`vectors` makes a matrix of
them). It returns a numpy or arrow array with a value for each row, or a dictionary of such arrays.

The file's content is part of the fingerprint: an edit computes the column again. What else the function depends on
(modules that it imports, weights) is not seen unless it is listed under `depends`. A module that is a single file
travels to the workers as text, so they need not share a disk; a module of a package must be installed there, or be
below the folder that the run is started in.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from ...errors import ConfigError, DataError
from ...registry import unknown
from ..base import SCORERS, Context, Part, Scorer

_DTYPES = {
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
}
_ANSWERS = "a numpy or arrow array of numbers, bools or text, one value a row, or a dictionary of such arrays"


@dataclass(frozen=True)
class Source:
    """Where the function comes from; picklable.

    Attributes:
        function: as in the config.
        file: of the module.
        text: of the module, if it stands alone.
        module: to import, if it is part of a package.
        folder: that imports are also looked for in.
        sha256: of the file.
    """

    function: str
    file: str
    text: str | None
    module: str
    folder: str
    sha256: str


@SCORERS.register
class PythonFunction(Scorer):
    """What a Python function makes of the columns; a dictionary's first entry is the score, others `<score>_<key>`."""

    version: ClassVar[int] = 1
    type: Literal["python"] = "python"
    function: str = Field(
        pattern=r"^[^:]+:[A-Za-z_]\w*$",
        description="`module:function`, imported as Python does, the folder that the run is started in first; or "
        "`path/to/file.py:function`.",
    )
    columns_: list[str] = Field(
        alias="columns",
        min_length=1,
        description="Columns that it gets: of the row table (`caption`, ...), scores, embeddings (`clip.image`).",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the function.")
    dtype: Literal["bool", "int32", "int64", "float32", "float64", "string"] | None = Field(
        default=None,
        description="Type of the score; default: the array's own. A function that returns a list needs it.",
    )
    depends: list[str] = Field(
        default_factory=list, description="More files that the result depends on: modules, weights, word lists."
    )

    def columns(self) -> list[str]:
        return list(self.columns_)

    def files(self) -> list[str]:
        missing = [path for path in self.depends if not os.path.exists(path)]
        if missing:
            raise ConfigError(f"scorer python: `depends`: {missing[0]} does not exist")
        return [_file_of(self.function)[0], *self.depends]

    def fit(self, context: Context) -> Source:
        """Read the module, and see that a worker can load the function.

        Raises:
            ConfigError: there is no such module or function, or it cannot be imported.
        """
        source = read_source(self.function)
        context.call(_check, source)
        return source

    def score(self, part: Part, name: str, state: Any = None) -> dict[str, np.ndarray | pa.Array]:
        source = read_source(self.function) if state is None else state
        function = load(source)
        table = pa.table({column: _column(part, column) for column in self.columns_})
        where = f"function {self.function!r} on part {part.name} ({len(part)} rows)"
        try:
            answer = function(table, **self.options)
        except Exception as error:
            raise DataError(f"{where} failed{_line(error, source.file)}: {type(error).__name__}: {error}") from error
        found = answer if isinstance(answer, dict) else {"": answer}
        if not found:
            raise DataError(f"{where} returned an empty dictionary; it must return {_ANSWERS}")
        columns: dict[str, np.ndarray | pa.Array] = {}
        for key, values in found.items():
            new = f"{name}_{key}" if columns else name
            which = f"{where}, {key!r}" if key != "" else where
            columns[new] = _checked(values, len(part), which, None if columns else self.dtype)
        return columns

    def describe(self, state: Any = None) -> dict[str, Any]:
        facts = {"function": self.function}
        return facts if state is None else {**facts, "sha256": state.sha256}


def vectors(table: pa.Table, column: str) -> np.ndarray:
    """An embedding column of the table as ``(n, d) float32``, NaN rows where there is none; for use in functions."""
    lists = table[column].combine_chunks()
    return lists.values.to_numpy().reshape(len(lists), lists.type.list_size)


def read_source(function: str) -> Source:
    """Find the module of a function and read it; nothing of it is run.

    Raises:
        ConfigError: there is no such module.
    """
    file, module, folder = _file_of(function)
    content = Path(file).read_bytes()
    alone = module == "" or ("." not in module and not file.endswith("__init__.py"))
    text = None
    if alone and file.endswith(".py"):
        text = importlib.util.decode_source(content)
    return Source(function, file, text, module, folder, hashlib.sha256(content).hexdigest())


@lru_cache(maxsize=16)
def load(source: Source) -> Callable[..., Any]:
    """The function; its module is run once per process.

    Raises:
        ConfigError: the module cannot be imported, or has no such function.
    """
    name = source.function.rpartition(":")[2]
    if source.folder not in sys.path:
        sys.path.append(source.folder)  # modules beside it; last, so that they replace nothing
    try:
        module = _run(source) if source.text is not None else importlib.import_module(source.module)
    except Exception as error:
        line = _line(error, source.file)
        raise ConfigError(
            f"scorer python: {source.file} cannot be imported{line}: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, name):
        known = [k for k, v in vars(module).items() if callable(v) and not k.startswith("_")]
        raise ConfigError(f"scorer python: {source.file}: {unknown('function', name, known)}")
    found = getattr(module, name)
    if not callable(found):
        raise ConfigError(f"scorer python: {source.file}: {name!r} is no function")
    return found  # type: ignore[no-any-return]


def _check(source: Source) -> None:
    load(source)


def _run(source: Source) -> ModuleType:
    """Run a module's text under a name of its own, so that two versions of a file never meet."""
    name = f"curate_scorer_{source.sha256[:16]}"
    module = ModuleType(name)
    module.__file__ = source.file
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        exec(compile(source.text or "", source.file, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _file_of(function: str) -> tuple[str, str, str]:
    """File of a function's module, the module's name ("" if a file is named), and the folder to import from."""
    where = function.rpartition(":")[0]
    if where.endswith(".py"):
        if not os.path.isfile(where):
            raise ConfigError(f"scorer python: {where} does not exist")
        file = os.path.abspath(where)
        return file, "", os.path.dirname(file)
    if not re.fullmatch(r"\w+(\.\w+)*", where):
        raise ConfigError(f"scorer python: {where!r} is neither a module nor a .py file")
    here = os.getcwd()
    folders: list[str] | None = [here]
    spec = None
    importlib.invalidate_caches()  # the file may have been written a moment ago
    names = where.split(".")
    for i in range(len(names)):
        spec = PathFinder.find_spec(".".join(names[: i + 1]), folders) if folders else None
        folders = list(spec.submodule_search_locations or []) if spec else None
    if spec is None or spec.origin is None:
        try:
            spec = importlib.util.find_spec(where)
        except (ImportError, ValueError):
            spec = None
    if spec is None or spec.origin is None or not os.path.isfile(spec.origin):
        raise ConfigError(f"scorer python: there is no module {where!r} in {here}, nor is one installed")
    return os.path.abspath(spec.origin), where, here


def _column(part: Part, column: str) -> pa.Array | pa.ChunkedArray:
    """A column as the function gets it."""
    if column.rpartition(".")[2] in ("image", "text"):
        values = part.array(column)
        if values.ndim == 2:
            flat = pa.array(np.ascontiguousarray(values, np.float32).reshape(-1))
            if values.shape[1] == 0:
                raise DataError(f"column {column!r} of part {part.name} holds vectors of length 0")
            return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    return part.arrow(column)


def _checked(values: Any, rows: int, where: str, dtype: str | None) -> pa.Array:
    """What a function returned, as an arrow array of the right length and type.

    Raises:
        DataError: it is anything else.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
        values = pa.concat_arrays(values.chunks) if isinstance(values, pa.ChunkedArray) else values
    loose = isinstance(values, list | tuple) or (isinstance(values, np.ndarray) and values.dtype == object)
    if loose and dtype is None:
        raise DataError(f"{where} returned a list or an array of objects; return an array of one type, or say `dtype`")
    if not (loose or isinstance(values, np.ndarray | pa.Array)):
        raise DataError(f"{where} returned {type(values).__name__}; it must return {_ANSWERS}")
    shape = values.shape if isinstance(values, np.ndarray) else (len(values),)
    if shape != (rows,):
        raise DataError(f"{where} returned {'x'.join(map(str, shape))} values; it must return {_ANSWERS}")
    try:
        array: Any = values if isinstance(values, pa.Array) else pa.array(values, from_pandas=False)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        array = array if dtype is None else array.cast(_DTYPES[dtype])
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = str(error).split("\n")[0]
        raise DataError(f"{where} returned values that are no {dtype or 'column'}: {reason}") from error
    kind = array.type
    tests = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_string)
    if not any(test(kind) for test in (*tests, pa.types.is_large_string, pa.types.is_null)):
        raise DataError(f"{where} returned {kind}; it must return {_ANSWERS}")
    return array


def _line(error: BaseException, file: str) -> str:
    """Where in the file an error came from, in words."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f" (line {error.lineno})"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({os.path.basename(file)} line {lines[-1]})" if lines else ""
