"""What the columns of group metadata are called: by the set's own file, by a well-known set's name, or by number.

The samples of WILDS' and the fairness sets hold bare numbers; what their columns are is fixed by DataComp. A set brings
its own names in ``groups.json`` (``{"fields": [...], "names": {field: [group names]}}``) or, fields alone, one a line
in ``metadata_fields.txt``.
"""

from __future__ import annotations

import numpy as np

from ...errors import DataError
from .. import storage
from . import texts
from .base import Groups, plain_name

KNOWN: dict[str, tuple[str, ...]] = {
    "geode": ("region", "country"),
    "dollar_street": ("income_ds", "income_meta", "region"),
    "fmow": ("region", "year", "y"),
    "iwildcam": ("location", "sequence", "year", "month", "day", "hour", "minute", "second", "y"),
    "camelyon17": ("hospital", "slide", "y"),
    "fairface": ("age", "gender", "race", "race_binary"),
    "utkface": ("age", "gender", "race", "race_binary"),
}
"""Columns of the sets as DataComp has them, by the end of the set's name."""


def read_fields(folder: str) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]] | None:
    """Names of the fields and of their groups that the set brings; None if it brings none.

    Raises:
        DataError: the file is of another form.
    """
    path = storage.join(folder, texts.GROUPS)
    value = texts.read_json(path)
    if value is None:
        fields = texts.read_lines(storage.join(folder, texts.FIELDS))
        _require_distinct(fields, storage.join(folder, texts.FIELDS))
        return (fields, {}) if fields else None
    fields = value.get("fields") if isinstance(value, dict) else None
    names = value.get("names", {}) if isinstance(value, dict) else None
    if not _texts(fields) or not fields or not isinstance(names, dict) or not all(map(_texts, names.values())):
        raise DataError(f'{path} must be {{"fields": [names], "names": {{field: [names of its groups]}}}}')
    _require_distinct(fields, path)
    if strangers := sorted(set(names) - set(fields)):
        raise DataError(f"{path}: there are names for {strangers[0]!r}, which is none of its fields")
    return tuple(fields), {field: tuple(some) for field, some in names.items()}


def groups_of(folder: str, values: np.ndarray, where: str) -> Groups:
    """Groups of a split.

    Args:
        values: ``(n, fields) int64``.

    Raises:
        DataError: the set's file names another number of fields, or a group has a number that has no name.
    """
    own, width = read_fields(folder), values.shape[1]
    if own is None:
        known = KNOWN.get(plain_name(folder).rsplit("-", 1)[-1], ())
        fields = known[:width] + tuple(f"field{number}" for number in range(len(known), width))
        return Groups(fields, values, {})
    fields, names = own
    if len(fields) != width and len(values):
        raise DataError(f"{where}: samples have {width} metadata values, and the set names {len(fields)} fields")
    for column, field in enumerate(fields):
        count = len(names.get(field, ()))
        if count and len(values) and not (values[:, column].min() >= 0 and values[:, column].max() < count):
            row = int(np.argmax((values[:, column] < 0) | (values[:, column] >= count)))
            raise DataError(f"{where}: sample {row} has {field} {values[row, column]}, and {count} groups have names")
    return Groups(fields, values, names)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) and one.strip() for one in value)


def _require_distinct(fields: object, path: str) -> None:
    assert isinstance(fields, (list, tuple))
    if len(set(fields)) < len(fields):
        raise DataError(f"{path} names a field twice")
