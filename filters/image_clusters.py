"""DataComp's image clusters: files of centroids and target clusters, and the clusters that a target set falls in.

An image belongs to the centroid with the largest inner product in float32, the first of equal ones; centroids are used
as they are, not made unit vectors (DataComp, arXiv 2304.14108). `nearest.largest_product` finds it, the same one
whatever rows stand beside it. 100,000 centroids of 768 dimensions take 0.15 GFLOP a row.
"""

from __future__ import annotations

import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import ConfigError, DataError
from ..shards import storage
from .base import Part, Pool
from .nearest import Device, largest_product

CONVERT = (
    "convert it once, with the torch that wrote it and only if you trust it: "
    "python -c \"import torch, numpy; numpy.save('OUT.npy', numpy.asarray(torch.load('FILE', weights_only=False)))\""
)


def has_direction(rows: np.ndarray) -> np.ndarray:
    """``(n,) bool``: rows that are an embedding: finite, and not all zeros."""
    with np.errstate(invalid="ignore"):
        return np.logical_and(np.isfinite(rows).all(axis=1), (rows != 0).any(axis=1))


def read_centroids(path: str) -> np.ndarray:
    """Centroids of a ``.npy``, or of the only array of an ``.npz`` or its array ``centroids``: ``(k, d) float32``.

    Raises:
        ConfigError: the file is pickled, as DataComp's is, or no such array.
        DataError: a centroid is not finite.
    """
    return _centroids(path, storage.identity(path))


@lru_cache(maxsize=2)
def _centroids(path: str, content: str) -> np.ndarray:
    """One copy per worker; `content` tells a file from what had its name before."""
    array = read_array(path, "centroids")
    if array.ndim != 2 or array.dtype.kind != "f" or not array.size:
        raise ConfigError(f"{path}: centroids are a matrix of floats, (clusters, dimensions), not {_shape(array)}")
    if not np.isfinite(array).all():
        raise DataError(f"{path}: a centroid is not finite")
    return np.ascontiguousarray(array, np.float32)


def read_targets(path: str, clusters: int) -> np.ndarray:
    """Numbers of target clusters in a ``.npy`` or ``.npz``, as a mask ``(clusters,) bool``.

    Raises:
        ConfigError: the file is pickled, holds no whole numbers, or numbers of clusters that do not exist.
    """
    array = read_array(path, "targets")
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise ConfigError(f"{path}: target clusters are a list of whole numbers, not {_shape(array)}")
    if len(array) and not (array.min() >= 0 and array.max() < clusters):
        raise ConfigError(
            f"{path}: cluster {int(array.max() if array.max() >= clusters else array.min())} does not exist; there "
            f"are {clusters} centroids, counted from 0"
        )
    mask = np.zeros(clusters, bool)
    mask[array] = True
    return mask


def read_array(path: str, name: str) -> np.ndarray:
    """The array of a ``.npy``, or of an ``.npz`` the only one or the one called `name`; nothing is unpickled.

    Raises:
        ConfigError: it is neither.
    """
    file = Path(storage.local(path))
    with open(file, "rb") as opened:
        magic = opened.read(6)
    try:
        if magic == b"\x93NUMPY":
            return np.load(file, allow_pickle=False)
        if magic[:2] == b"PK" and all(member.endswith(".npy") for member in zipfile.ZipFile(file).namelist()):
            with np.load(file, allow_pickle=False) as arrays:
                wanted = name if name in arrays.files else arrays.files[0] if len(arrays.files) == 1 else None
                if wanted is None:
                    raise ConfigError(f"{path} holds {', '.join(arrays.files)}; call the array of {name} {name!r}")
                return arrays[wanted]
    except (ValueError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} cannot be read as {name}: {error}; {CONVERT}") from error
    raise ConfigError(f"{path} is no .npy or .npz; a file of torch.save, as DataComp's, is a pickle: {CONVERT}")


def _shape(array: np.ndarray) -> str:
    return f"{'x'.join(map(str, array.shape)) or 'one'} {array.dtype}"


def target_clusters(pool: Pool, column: str, path: str, device: Device = "cpu") -> np.ndarray:
    """Clusters that hold at least one embedding of a target set, as a mask ``(k,) bool``.

    Raises:
        DataError: the target set has no embedding.
    """
    found = pool.map(_clusters, column, path, device)
    mask = np.zeros(found[0][0] if found else 0, bool)
    for _, clusters in found:
        mask[clusters] = True
    if not mask.any():
        raise DataError(f"the target set has no embedding in {column!r}, so no cluster is a target; was it embedded?")
    return mask


def _clusters(part: Part, column: str, path: str, device: Device) -> tuple[int, np.ndarray]:
    centroids = read_centroids(path)
    rows = require_width(part, column, path)
    return len(centroids), np.unique(largest_product(rows[has_direction(rows)], centroids, device)[0])


def require_width(part: Part, column: str, path: str, at: np.ndarray | None = None) -> np.ndarray:
    """Embeddings of a part, ``(n, d) float32``, or of its rows `at`.

    Raises:
        DataError: they are not as wide as the centroids.
    """
    rows = part.array(column)
    rows = rows if at is None else rows[at]
    width = read_centroids(path).shape[1]
    if rows.ndim != 2 or rows.shape[1] != width:
        raise DataError(f"column {column!r} has {rows.shape[-1]} dimensions, the centroids of {path} have {width}")
    return rows
