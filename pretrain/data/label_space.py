"""The classes of a supervised training: found in a column, cleaned, numbered, and kept beside the model.

A label is text, an integer or a bool, or a list of them (hashtags). Classes are numbered in order, integers by value
and everything else by code point, so their numbers do not depend on shards or on what was met first. ImageNet-21K-P's
cleaning (Ridnik et al., NeurIPS 2021) is two functions: classes with too few samples are left out (`min_samples`; its
release keeps those with more than 500, which is 501 here), and the first 50 samples of each class are held out for
validation (`first_of_each`). What is left out is told by name and number; a sample whose labels are all left out has
none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ...errors import ConfigError, DataError
from ...shards import storage

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
Column: TypeAlias = "pa.ChunkedArray | pa.Array"


def _arrow() -> tuple[Any, Any]:
    """pyarrow and its functions, when labels are read: naming a folder's classes must not take the time."""
    import pyarrow as pa
    import pyarrow.compute

    return pa, pyarrow.compute


class LabelList(NamedTuple):
    """Labels of samples as pairs: ``row (k,) int64``, ascending, and ``text``, ``k`` strings."""

    row: np.ndarray
    text: pa.Array


def label_list(values: Column, where: str) -> LabelList:
    """Every label of a column with the row that has it; nulls, and blank text, are no labels.

    Args:
        values: text, integers, bools, or lists of them; dictionary-encoded or not.
        where: names the column in messages.

    Raises:
        ConfigError: the column holds something else.
    """
    pa, pc = _arrow()
    array = pa.concat_arrays(values.chunks) if isinstance(values, pa.ChunkedArray) and values.num_chunks else values
    if isinstance(array, pa.ChunkedArray):
        array = pa.array([], array.type)
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        row = pc.list_parent_indices(array).to_numpy(zero_copy_only=False).astype(np.int64)
        array = pc.list_flatten(array)
    else:
        row = np.arange(len(array))
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    kind = array.type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean, pa.types.is_null)
    if not any(test(kind) for test in tests):
        raise ConfigError(f"{where} holds {values.type}; labels are text, integers or bools, or lists of them")
    text = array.cast(pa.large_string())
    if not pa.types.is_integer(kind):
        text = pc.utf8_trim_whitespace(text)
    there = np.asarray(pc.fill_null(pc.greater(pc.utf8_length(text), 0), False))
    return LabelList(row[there], text.filter(pa.array(there)))


def label_of_each(values: Column, where: str) -> list[str | None]:
    """The labels of a column with one label at the most per sample; None = none.

    Args:
        values, where: as for `label_list`, but without lists.

    Raises:
        ConfigError: the column holds something else.
    """
    pa, _ = _arrow()
    kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        raise ConfigError(f"{where} holds {kind}; one label per sample is needed: text, integers or bools")
    row, text = label_list(values, where)
    found: list[str | None] = [None] * len(values)
    for i, label in zip(row.tolist(), text.to_pylist(), strict=True):
        found[i] = label
    return found


class Encoded(NamedTuple):
    """Labels of samples by class number.

    Attributes:
        row: ``(k,) int64``, ascending: which sample.
        id: ``(k,) int64``, ascending within a sample, each at most once: which class.
        unknown: labels that are no class of the space (left out or never seen).
    """

    row: np.ndarray
    id: np.ndarray
    unknown: int


def number_labels(row: np.ndarray, text: Column, classes: Sequence[str]) -> Encoded:
    """Class numbers of the labels of a `LabelList`, by the place of their names in `classes`."""
    pa, pc = _arrow()
    found = pc.index_in(text, value_set=pa.array(classes, pa.large_string()))
    ids = np.asarray(pc.fill_null(found, -1)).astype(np.int64)
    known = ids >= 0
    size = max(1, len(classes))
    pairs = np.unique(row[known] * size + ids[known])  # sorted, each pair once
    return Encoded(pairs // size, pairs % size, int((~known).sum()))


@dataclass(frozen=True)
class LabelSpace:
    """Classes in the order of a head's outputs.

    Attributes:
        names: of the classes.
        counts: samples of each when the space was made; empty if it was given by hand.
        dropped: classes that were left out, with their number of samples.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.names:
            raise DataError("a label space needs at least one class")
        if len(set(self.names)) != len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ConfigError(f"the class {twice!r} is named twice")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def identity(self) -> str:
        """32 hexadecimal characters over the names in their order."""
        return hashlib.blake2b("\0".join(self.names).encode(), digest_size=16).hexdigest()

    def encode(self, values: Column, where: str) -> Encoded:
        """Class numbers of a column's labels.

        Args:
            values: as for `label_list`; rows are counted from its start.

        Raises:
            ConfigError: the column holds no labels.
        """
        return number_labels(*label_list(values, where), self.names)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, for `from_json`."""
        return {
            "format": FORMAT,
            "names": list(self.names),
            "counts": list(self.counts),
            "dropped": dict(self.dropped),
        }

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> LabelSpace:
        """What `to_json` gave.

        Raises:
            DataError: it is something else.
        """
        try:
            return LabelSpace(
                tuple(str(name) for name in value["names"]),
                tuple(int(count) for count in value.get("counts", ())),
                {str(name): int(count) for name, count in value.get("dropped", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"not a list of classes: {error}") from error


def find_classes(
    columns: Iterable[Column], where: str, min_samples: int = 1, classes: Sequence[str] | None = None
) -> LabelSpace:
    """The classes of a pool's label column.

    Args:
        columns: one per shard; any order gives the same space.
        where: names the column in messages.
        min_samples: classes with fewer samples are left out.
        classes: the classes to use, in this order; others are left out. Default: all that are found.

    Raises:
        ConfigError: the column holds no labels, or a class is named twice.
        DataError: no class is left.
    """
    _, pc = _arrow()
    counts: dict[str, int] = {}
    for column in columns:
        row, text = label_list(column, where)
        number = pc.dictionary_encode(text)
        names = number.dictionary.to_pylist()
        pairs = np.unique(row * max(1, len(names)) + np.asarray(number.indices))  # a sample counts once per class
        for name, count in zip(names, np.bincount(pairs % max(1, len(names)), minlength=len(names)), strict=True):
            counts[name] = counts.get(name, 0) + int(count)
    wanted = sorted(counts, key=class_order) if classes is None else list(classes)
    kept = [name for name in wanted if counts.get(name, 0) >= (min_samples if classes is None else 0)]
    if not kept:
        raise DataError(
            f"{where} has {len(counts)} classes, none of them with {min_samples} samples; lower `min_samples`, or name "
            "another column"
        )
    lost = {name: counts[name] for name in sorted(counts.keys() - set(kept), key=class_order)}
    return LabelSpace(tuple(kept), tuple(counts.get(name, 0) for name in kept), lost)


def class_order(name: str) -> tuple[int, int, str]:
    """Sort key of class names: integers by value, then everything else by code point."""
    digits = name.removeprefix("-")
    return (0, int(name), name) if digits.isascii() and digits.isdigit() else (1, 0, name)


def read_classes(path: str) -> list[str]:
    """Class names of a text file, one a line, in the file's order.

    Raises:
        ConfigError: the file is not there. DataError: it names no class.
    """
    if not storage.exists(path):
        raise ConfigError(f"the list of classes {path} does not exist")
    names = [line.strip() for line in storage.read_bytes(path).decode().splitlines() if line.strip()]
    if not names:
        raise DataError(f"{path} names no class")
    return names


def first_of_each(encoded: Encoded, samples: int, per_class: int) -> np.ndarray:
    """The first samples of each class: what ImageNet-21K-P holds out for validation (with 50).

    Args:
        samples: in all.
        per_class: how many of each class; a sample with several labels is taken if it is among the first of any.

    Returns:
        ``(samples,) bool``.
    """
    by_class = np.argsort(encoded.id, kind="stable")
    ids = encoded.id[by_class]
    begins = np.searchsorted(ids, ids)  # where the class of each entry begins
    early = np.arange(len(ids)) - begins < per_class
    taken = np.zeros(samples, bool)
    taken[encoded.row[by_class[early]]] = True
    return taken
