"""Evaluation sets in parquet files, as data hubs serve them: a row is a picture and its label, labels or captions.

Files belong to splits by their names (``test.parquet``, ``data/test-00000-of-00002.parquet``, ``test/0000.parquet``).
Annotations are read when a split is opened, without the pictures' column; pictures in small batches as they are asked
for, so that memory stays at one batch of one row group. Going through a split in order reads each picture once; going
back reads its row group again from the start.
"""

from __future__ import annotations

import functools
import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ...errors import ConfigError, DataError
from ...registry import unknown
from .. import storage
from ..sources.files import listing
from . import texts
from .base import Captions, EvalSet, EvalSplit, Kind, plain_name
from .content import files_digest, set_digest
from .webdataset_split import MAX_IMAGE

_SPLIT = re.compile(r"([A-Za-z][A-Za-z0-9_]*?)(?:[-_.]\d[-_.\w]*)?\.parquet")
_IMAGE = ("image", "img", "picture", "jpg", "png", "webp", "bytes")
_LABEL = ("label", "labels", "fine_label", "cls", "class", "target")
_CAPTIONS = ("captions", "caption", "sentences", "texts", "text")
_AT_ONCE = 16  # pictures


@dataclass(frozen=True)
class Columns:
    """Names of the columns; None = by their usual names."""

    image: str | None = None
    label: str | None = None
    captions: str | None = None


class ParquetSplit(EvalSplit):
    """One split of a set in parquet files."""

    def __init__(self, folder: str, name: str, files: Sequence[str], image: str) -> None:
        self.name, self.where, self._image = name, f"{folder}: split {name!r}", image
        self._files = [_open(path) for path in files]
        starts = [0]
        self._groups: list[tuple[int, int]] = []  # file, row group
        for number, file in enumerate(self._files):
            for group in range(file.metadata.num_row_groups):
                self._groups.append((number, group))
                starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
        self._starts = np.asarray(starts)
        self.keys = [f"s{row:07d}" for row in range(starts[-1])]
        self._lock = threading.Lock()
        self._rows: Iterator[pa.RecordBatch] = iter(())
        self._at, self._next, self._batch = -1, 0, None  # row group; first row after the batch; the batch

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of all files."""
        return pa.chunked_array([chunk for file in self._files for chunk in file.read([name])[name].chunks])

    def image(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(index)
        with self._lock:
            group = int(np.searchsorted(self._starts, index, "right")) - 1
            start = self._next - (len(self._batch) if self._batch is not None else 0)
            if group != self._at or index < start:
                file, number = self._groups[group]
                self._rows = self._files[file].iter_batches(_AT_ONCE, row_groups=[number], columns=[self._image])
                self._at, self._next, self._batch = group, int(self._starts[group]), None
            while index >= self._next:
                self._batch = next(self._rows)
                self._next += len(self._batch)
            assert self._batch is not None
            value = self._batch.column(0)[index - self._next + len(self._batch)].as_py()
        if isinstance(value, dict):
            value = value.get("bytes")
        if not isinstance(value, bytes) or len(value) > MAX_IMAGE:
            told = "no bytes of a picture" if not isinstance(value, bytes) else f"more than {MAX_IMAGE:,} bytes"
            raise DataError(f"{self.where}: row {index} has {told} in {self._image!r}")
        return value


@dataclass(frozen=True)
class ParquetSet(EvalSet):
    """A set in parquet files.

    Attributes:
        files: split name -> its files in order.
        columns: which column is which.
    """

    files: Mapping[str, Sequence[str]] = field(default_factory=dict, hash=False, repr=False)
    columns: Columns = field(default_factory=Columns)
    _digests: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def split_names(self) -> list[str]:
        return sorted(self.files)

    def _files_of(self, name: str) -> Sequence[str]:
        if name not in self.files:
            there = ", ".join(self.split_names())
            raise DataError(f"{self.folder}: the evaluation set has no split {name!r}; it has {there}")
        return self.files[name]

    def split(self, name: str) -> EvalSplit:
        image, label, captions = self.columns.image, self.columns.label, self.columns.captions
        assert image is not None
        found = ParquetSplit(self.folder, name, self._files_of(name), image)
        if self.kind == "retrieval":
            assert captions is not None
            found.captions = _captions(found.column(captions).to_pylist(), found.where)
            return found
        assert label is not None
        values = found.column(label)
        if self.kind == "classification":
            found.classes = _labels(values, self.classnames, found.where)
        else:
            right = np.zeros((len(found), len(self.classnames)), bool)
            if values.null_count:
                raise DataError(f"{found.where}: {values.null_count} rows have no labels")
            lists = values.combine_chunks()
            owner = np.repeat(np.arange(len(found)), np.asarray(pc.call_function("list_value_length", [lists])))
            right[owner, _labels(pa.chunked_array([lists.flatten()]), self.classnames, found.where, "label")] = True
            found.right = right
        return found

    def split_digest(self, name: str) -> str:
        if name not in self._digests:
            self._digests[name] = files_digest((path.rsplit("/", 1)[-1], path) for path in self._files_of(name))
        return self._digests[name]

    @functools.cached_property
    def digest(self) -> str:
        about = {
            "kind": self.kind,
            "language": self.language,
            "classnames": self.classnames,
            "templates": self.templates,
            "class_prompts": self.class_prompts,
            "columns": [self.columns.image, self.columns.label, self.columns.captions],
        }
        return set_digest(about, [(name, self.split_digest(name)) for name in self.split_names()])


def _open(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(storage.local(path))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is no whole parquet file: {error}") from error


def _labels(values: pa.ChunkedArray, names: Sequence[str], where: str, each: str = "row") -> np.ndarray:
    """Class numbers of a column of numbers or names."""
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        number = {name: place for place, name in enumerate(names)}
        if len(number) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"{where}: labels are names, and two classes are called {twice!r}; use numbers as labels")
        told = values.to_pylist()
        if lost := [row for row, value in enumerate(told) if value not in number]:
            raise DataError(f"{where}: {each} {lost[0]}: {told[lost[0]]!r} is none of the {len(names)} classes")
        return np.asarray([number[value] for value in told], np.int64)
    if not pa.types.is_integer(values.type):
        raise DataError(f"{where}: labels must be integers or class names, not {values.type}")
    if values.null_count:
        raise DataError(f"{where}: {values.null_count} labels are missing")
    labels = values.cast(pa.int64()).to_numpy() if len(values) else np.zeros(0, np.int64)
    outside = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(outside):
        raise DataError(f"{where}: {each} {outside[0]}: {labels[outside[0]]} is outside {len(names)} classes")
    return labels


def _captions(values: Sequence[Any], where: str) -> Captions:
    flat: list[str] = []
    owner: list[int] = []
    for row, value in enumerate(values):
        mine = [value] if isinstance(value, str) else value
        if not mine or not all(isinstance(text, str) and text.strip() for text in mine):
            raise DataError(f"{where}: row {row} has no captions, or a blank one")
        flat += mine
        owner += [row] * len(mine)
    return Captions(tuple(flat), np.asarray(owner, np.int64))


def files_by_split(folder: str) -> dict[str, list[str]]:
    """Parquet files of a folder (or the one file), by the split that their names tell.

    Raises:
        DataError: nothing is there.
    """
    try:
        found = [f.path for f in listing(folder, recursive=True) if f.name.endswith(".parquet")]
    except ConfigError as error:
        raise DataError(f"no evaluation set at {folder}: the folder is missing or empty") from error
    splits: dict[str, list[str]] = {}
    for path in found:
        *parents, name = path.split("/")
        match = _SPLIT.fullmatch(name)
        split = match[1] if match else parents[-1] if name[0].isdigit() else name.removesuffix(".parquet")
        splits.setdefault(split, []).append(path)
    return splits


def _column(schema: pa.Schema, given: str | None, usual: Sequence[str], what: str, where: str) -> str | None:
    if given is None:
        return next((name for name in usual if name in schema.names), None)
    if given not in schema.names:
        raise DataError(f"{where}: {unknown(f'{what} column', given, schema.names)}")
    return given


def _told_names(schema: pa.Schema, column: str) -> tuple[str, ...]:
    """Class names that the hub's metadata gives for a column."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        feature = features[column]
        names = (feature[0] if isinstance(feature, list) else feature.get("feature", feature))["names"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return ()  # other metadata than class names
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def open_parquet(
    folder: str,
    name: str | None = None,
    classnames: tuple[str, ...] | None = None,
    templates: tuple[str, ...] | None = None,
    language: str = "en",
    columns: Columns = Columns(),
) -> ParquetSet:
    """Open the parquet files in `folder`; see `webdataset.open_webdataset` for the other arguments.

    A set with a column of labels is a classification set (of lists of labels, a multilabel set) unless a column of
    captions is asked for; one with captions alone is a retrieval set.

    Raises:
        DataError: no parquet file, no column of that name, class numbers without names.
    """
    folder = folder.rstrip("/")
    files = files_by_split(folder)
    if not files:
        raise DataError(f"no evaluation set at {folder}: there is no parquet file in it")
    first = next(iter(files.values()))[0]
    schema = _open(first).schema_arrow
    image = _column(schema, columns.image, _IMAGE, "image", first)
    label = _column(schema, columns.label, _LABEL, "label", first)
    captions = _column(schema, columns.captions, _CAPTIONS, "captions", first)
    if image is None:
        raise DataError(f"{first} has no column of pictures called {' or '.join(_IMAGE)}; give `image`")
    if label is None and captions is None:
        raise DataError(f"{first} has neither labels nor captions; give `label` or `captions`")
    if templates is None:
        templates = texts.read_templates(storage.join(folder, texts.TEMPLATES))
    title = name or plain_name(folder.removesuffix(".parquet"))
    if label is None or (columns.captions is not None and columns.label is None):
        return ParquetSet(
            title, folder, (), templates, "retrieval", language, None, files, Columns(image, None, captions)
        )
    kind: Kind = "multilabel" if pa.types.is_list(schema.field(label).type) else "classification"
    names = texts.read_lines(storage.join(folder, texts.CLASSNAMES)) if classnames is None else classnames
    names = names or _told_names(schema, label) or _distinct(files, label, kind)
    if not names:
        raise DataError(f"{first}: the classes in {label!r} are numbers without names; give `classnames`")
    prompts = texts.read_class_prompts(folder, names)
    return ParquetSet(title, folder, names, templates, kind, language, prompts, files, Columns(image, label, None))


def _distinct(files: Mapping[str, Sequence[str]], label: str, kind: Kind) -> tuple[str, ...]:
    """Sorted class names of a column of names, over all splits; empty for a column of numbers."""
    found: set[str] = set()
    for path in (path for some in files.values() for path in some):
        values = _open(path).read([label])[label]
        if kind == "multilabel":
            values = values.combine_chunks().flatten()
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            return ()
        found |= {value for value in values.to_pylist() if value is not None}
    return tuple(sorted(found, key=lambda value: value.encode()))
