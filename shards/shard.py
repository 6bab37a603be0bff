"""A shard: one tar of samples and one parquet row table, row for row what was attempted.

The row table holds every row of the input, the failures included, in input order; the tar holds only the
successes. Columns (img2dataset's names): ``uid``, extra columns ..., ``caption``, ``url``, ``key``, ``status``,
``error_message``, ``width``, ``height``, ``original_width``, ``original_height``, ``exif``, ``sha256``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from . import storage
from .tar import TarReader

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "avif", "gif", "bmp", "tif", "tiff", "jp2")
SUCCESS = "success"
METADATA = "metadata"
"""Status of a row that is known by its metadata alone: neither fetched nor failed."""


@dataclass(frozen=True)
class Shard:
    """Where one shard lies.

    Attributes:
        name: its name in every artifact, usually eight digits; also the name of its part.
        tar: path of the tar with the images.
        table: path of the parquet row table.
        index: path of the tar's index, made when it is first needed; None = the tar is walked whenever it is opened.
    """

    name: str
    tar: str
    table: str
    index: str | None = None

    def read_table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Row table, optionally only some columns, in row order."""
        return pq.read_table(storage.local(self.table), columns=list(columns) if columns is not None else None)

    def column_names(self) -> list[str]:
        """Names of the row table's columns."""
        return list(pq.read_schema(storage.local(self.table)).names)

    def rows(self) -> int:
        """Rows of the row table, from its footer."""
        return int(pq.read_metadata(storage.local(self.table)).num_rows)

    def open(self) -> TarReader:
        """The tar, mapped."""
        if self.index is None:
            return TarReader(self.tar)
        from .tar_index import open_indexed

        return open_indexed(self.tar, self.index, self.table)


def usable(table: pa.Table) -> np.ndarray:
    """Mask ``(n,) bool`` of rows that filters decide about: fetched ones, and those known by their metadata alone."""
    status = table["status"].to_numpy(zero_copy_only=False)
    return np.asarray((status == SUCCESS) | (status == METADATA))


def succeeded(table: pa.Table) -> np.ndarray:
    """Mask ``(n,) bool`` of rows whose image is in the tar."""
    return np.asarray(table["status"].to_numpy(zero_copy_only=False) == SUCCESS)
