"""Class numbers of a data set's samples, any number per sample.

Kept in a compressed sparse row layout: 8 bytes per distinct sample and 4 per label. Which classes there are is given
(`label_space.find_classes` finds, cleans and orders them for a whole pool), or found: all that the selected samples
have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...errors import ConfigError
from .label_space import Column, class_order, label_list, number_labels


@dataclass(frozen=True)
class LabelColumn:
    """Where labels are.

    Attributes:
        column: of the row tables: text, integers, bools, or lists of them.
        classes: names in the order of their numbers; other labels are left out and counted. None = all that are found.
    """

    column: str
    classes: Sequence[str] | None = None


class LabelValues:
    """Labels of some rows of one shard.

    Attributes:
        counts: ``(n,) int64``, labels per row.
        text: all of them, row by row.
        outside: labels that were left out because they are not among the classes.
    """

    def __init__(self, column: Column, where: str, classes: Sequence[str] | None = None) -> None:
        """
        Raises:
            ConfigError: the column holds something else.
        """
        row, text = label_list(column, where)
        self.outside = 0
        if classes is not None:
            known = pc.is_in(text, pa.array(classes, pa.large_string()))  # type: ignore[attr-defined]
            self.outside = len(text) - int(pc.sum(known).as_py() or 0)  # type: ignore[attr-defined]
            row, text = row[np.asarray(known)], text.filter(known)
        self.counts = np.bincount(row, minlength=len(column)).astype(np.int64)
        self.text: pa.Array = text


class Labels:
    """Class numbers of the distinct samples of a dataset.

    Attributes:
        classes: their names.
        outside: labels that are not among the given classes.
    """

    def __init__(self, parts: Sequence[LabelValues], classes: Sequence[str] | None) -> None:
        """
        Raises:
            ConfigError: two classes have the same name.
        """
        text = pa.chunked_array([part.text for part in parts], pa.large_string())
        self.classes = sorted(pc.unique(text).to_pylist(), key=class_order) if classes is None else list(classes)  # type: ignore[attr-defined]
        if len(set(self.classes)) < len(self.classes):
            raise ConfigError("two of the classes have the same name")
        self.outside = sum(part.outside for part in parts)
        counts = np.concatenate([part.counts for part in parts]) if parts else np.empty(0, np.int64)
        row, ids, _ = number_labels(np.repeat(np.arange(len(counts)), counts), text, self.classes)
        self._ids = ids.astype(np.int32)
        self._first = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(counts)))]).astype(np.int64)

    @property
    def counts(self) -> np.ndarray:
        """Labels per sample, ``(n,) int64``."""
        return np.diff(self._first)

    def of(self, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels of distinct samples ``sources (b,)``: rows ``(k,)`` ascending in 0..b-1 and ids ``(k,)``, int64."""
        counts = self._first[sources + 1] - self._first[sources]
        rows = np.repeat(np.arange(len(sources)), counts)
        within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        return rows, self._ids[np.repeat(self._first[sources], counts) + within].astype(np.int64)

    def digest_bytes(self) -> bytes:
        """Everything that the labels are, for an identity."""
        return "\0".join(self.classes).encode() + self._first.tobytes() + self._ids.tobytes()
