"""Which rows subsets have in common, from their fate tables: part by part, so memory holds one part's membership."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow.parquet as pq

from ...eval.report.data import Overlap
from ...shards import storage
from .source import RunData


def overlap(run: RunData) -> Overlap | None:
    """The overlap of all finished subsets, in the config's order; None of fewer than two."""
    folders = {name: artifact.data for name, artifact in run.named("subset").items()}
    return overlap_of(folders, [shard.name for shard in run.shards]) if len(folders) > 1 else None


def overlap_of(folders: Mapping[str, str], parts: Sequence[str]) -> Overlap:
    """Rows that each two subsets share, repeats counted once.

    Args:
        folders: fate tables of each subset by name.
        parts: names of all parts.
    """
    common = np.zeros((len(folders), len(folders)), np.int64)
    for part in parts:
        kept = np.stack([_kept(folder, part) for folder in folders.values()])
        inside = kept.astype(np.float64)  # sums of ones are exact up to 2**53, and BLAS knows no integers
        common += (inside @ inside.T).astype(np.int64)
    return Overlap(list(folders), common.tolist())


def _kept(folder: str, part: str) -> np.ndarray:
    """Mask ``(n,) bool`` of the part's rows that are in the subset."""
    path = storage.local(storage.join(folder, f"{part}.parquet"))
    return pq.read_table(path, columns=["kept"])["kept"].to_numpy()
