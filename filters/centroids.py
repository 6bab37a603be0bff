"""Centroids as a thing of their own: trained here or given as a file, flat or in two levels, and kept as a file.

A file of centroids is what other tools read and write: a ``.npy`` of ``(k, d) float32``. Whoever trains writes
``centroids.npy`` beside the decisions, so that another pool, another filter or another machine can use the same
partition; the facts for the report name its digest. DataComp's image clusters are such a file too (raw centroids,
``metric: l2``), as is any other partition that was published.

Two levels: the centroids themselves are clustered into sqrt(k) groups; a row looks for its group first, then for its
centroid among that group's. ``2 n d (sqrt(k) + sqrt(k))`` flop instead of ``2 n d k``, some hundredfold less at
k = 50,000, and *another partition*: rows near a border may get a centroid that is not their nearest.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import DataError
from ..shards import storage
from .base import Context

Metric = Literal["cosine", "l2"]
FILE = "centroids.npy"


@dataclass(frozen=True)
class Groups:
    """The upper of two levels.

    Attributes:
        heads: ``(g, d) float32`` centroids of the centroids; unit rows for cosine.
        of: ``(k,) int64`` group of every centroid; no group is empty.
    """

    heads: np.ndarray
    of: np.ndarray


@dataclass(frozen=True)
class Centroids:
    """Trained centroids.

    Attributes:
        vectors: ``(k, d) float32``, unit rows (raw for ``metric`` l2); k = 0 for an empty pool.
        sample: rows that they were trained on; 0 when they came from a file.
        made_by: library and version, or the file's name.
        metric: cosine = spherical k-means; l2 = plain, rows not normalised.
        groups: the upper level of a two-level assignment; None = every row is compared with all centroids.
    """

    vectors: np.ndarray
    sample: int
    made_by: str
    metric: Metric = "cosine"
    groups: Groups | None = None

    def __len__(self) -> int:
        return len(self.vectors)

    def facts(self) -> dict[str, Any]:
        """Strict JSON for the report; also names the file once `kept` has written it."""
        facts: dict[str, Any] = {
            "digest": digest(self.vectors),
            "count": len(self),
            "dimensions": int(self.vectors.shape[1]),
            "metric": self.metric,
            "assignment": "flat" if self.groups is None else f"two levels of {len(self.groups.heads)} groups",
            "file": None,
        }
        return facts


def digest(vectors: np.ndarray) -> str:
    """32 hexadecimal characters over shape and values."""
    raw = np.ascontiguousarray(vectors, "<f4")
    return hashlib.blake2b(f"{raw.shape}\0".encode() + raw.tobytes(), digest_size=16).hexdigest()


def write_centroids(path: str, vectors: np.ndarray) -> None:
    """Publish ``(k, d)`` centroids as a ``.npy`` of float32."""
    with storage.publishing(path) as temporary, open(temporary, "wb") as file:
        np.lib.format.write_array(file, np.ascontiguousarray(vectors, "<f4"), version=(1, 0), allow_pickle=False)


def read_centroids(path: str) -> np.ndarray:
    """``(k, d) float32`` of a ``.npy`` file.

    Raises:
        DataError: it is no such file, or a centroid is not finite.
    """
    try:
        array = np.load(storage.local(path), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise DataError(f"{path} is no .npy file of centroids ({error})") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f" or not len(array):
        raise DataError(f"{path}: centroids are a .npy of (k, d) floats, k at least 1")
    if not np.isfinite(array).all():
        raise DataError(f"{path}: a centroid holds NaN or infinity; train again")
    return np.ascontiguousarray(array, np.float32)


def kept(context: Context, centroids: Centroids) -> dict[str, Any]:
    """Write the centroids beside the stage's results, if it has a folder; the facts that name the file."""
    facts = centroids.facts()
    try:
        context.scratch  # noqa: B018 - says whether files may be kept here
    except DataError:  # in memory, without a folder
        return facts
    if not len(centroids):
        return facts
    written = context.map(_keep, {"centroids": (centroids.vectors,)})["centroids"]
    if written["digest"] != facts["digest"]:  # an attempt that was cut short, on another machine
        raise DataError(
            "training gave other centroids than an earlier, unfinished attempt (another faiss, or a GPU there); "
            "remove this stage's folder and run again, or say device: cpu"
        )
    return facts | written


def _keep(task: Any, vectors: np.ndarray) -> dict[str, Any]:
    write_centroids(storage.join(task.out, FILE), vectors)
    return {"file": FILE, "digest": digest(vectors)}


def named(path: str) -> str:
    """How facts call a file: without the folders of one machine."""
    return f"file {Path(path).name}"
