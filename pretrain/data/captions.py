"""The captions of one shard's samples: one column or several, of which each sight of a sample draws one.

Captions stay in Arrow columns as they were read: 8 bytes and the text per caption, no Python objects. With several
columns a caption is drawn by their weights among those that the row has; a column may also hold lists of captions, of
which each is as likely as the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import ConfigError, DataError

DRAWS = 2  # random numbers per choice: which column, which of its list


def caption_weights(captions: str | Mapping[str, float] | None) -> dict[str, float]:
    """Caption columns and their weights.

    Raises:
        ConfigError: a weight is not a positive number.
    """
    if captions is None:
        return {}
    weights = {captions: 1.0} if isinstance(captions, str) else dict(captions)
    for column, weight in weights.items():
        if not 0 < weight < float("inf"):
            raise ConfigError(f"the weight {weight} of the caption column {column!r} is not a positive number")
    return weights


class Captions:
    """Captions of a shard's rows.

    Attributes:
        there: ``(n,) bool``, rows with at least one.
    """

    def __init__(self, columns: Sequence[pa.Array], weights: Sequence[float]) -> None:
        """
        Args:
            columns: of equal length ``n``: large_string, or large_list of it.
            weights: one per column.
        """
        self._columns, self._weights = list(columns), list(weights)
        self._has = [_filled(column) for column in columns]
        self.there = np.logical_or.reduce(self._has)

    @classmethod
    def read(cls, table: pa.Table, weights: Mapping[str, float], where: str) -> Captions:
        """Of a table that has at least one of the columns.

        Raises:
            DataError: it has none of them. ConfigError: a column holds something else than text.
        """
        columns = {name: weight for name, weight in weights.items() if name in table.column_names}
        if not columns:
            wanted = " or ".join(repr(name) for name in weights)
            raise DataError(f"{where} has no column {wanted}; there is nothing to train on")
        return cls([_plain(table[name], name, where) for name in columns], list(columns.values()))

    def take(self, rows: np.ndarray) -> Captions:
        """Those of some rows, copied."""
        return Captions([column.take(pa.array(rows)) for column in self._columns], self._weights)

    @property
    def fixed(self) -> bool:
        """Whether no row has a choice, so that no random number is needed."""
        return len(self._columns) == 1 and not pa.types.is_large_list(self._columns[0].type)

    def choose(self, row: int, draws: Sequence[float]) -> str | None:
        """The caption of a row for two numbers in [0, 1), or None if it has none."""
        if not self.there[row]:
            return None
        if self.fixed:
            return self._columns[0][row].as_py()
        columns = [i for i, has in enumerate(self._has) if has[row]]
        left = draws[0] * sum(self._weights[i] for i in columns)
        chosen = columns[-1]
        for i in columns:
            if left < self._weights[i]:
                chosen = i
                break
            left -= self._weights[i]
        value = self._columns[chosen][row].as_py()
        if isinstance(value, str):
            return value
        texts = [text for text in value if text is not None]
        return texts[int(draws[1] * len(texts))]


def _plain(column: pa.ChunkedArray, name: str, where: str) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type):
            return _joined(column.cast(pa.large_list(pa.large_string())))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return _joined(column.cast(pa.large_string()))
    raise ConfigError(f"column {name!r} of {where} holds {kind}; captions are text or lists of text")


def _joined(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    return joined if isinstance(joined, pa.Array) else pa.concat_arrays(joined.chunks)


def _filled(column: pa.Array) -> np.ndarray:
    """Mask of rows with text."""
    there = np.asarray(column.is_valid())
    if pa.types.is_large_list(column.type):
        parents = np.asarray(pc.list_parent_indices(column))  # type: ignore[attr-defined]
        texts = np.asarray(pc.list_flatten(column).is_valid())  # type: ignore[attr-defined]
        there = there & (np.bincount(parents[texts], minlength=len(column)) > 0)
    return there
