"""The nearest centroid of every row, bit for bit the same whichever rows stand beside it, on CPU and GPU alike.

A matrix product rounds a row differently according to where in the matrix it stands, so two equal rows could get
unequal distances, and a tie would be broken by the sharding. Here the product only nominates: the few centroids that
rounding cannot tell apart, and the distance to the winner, are computed again in float64, row by row. So a GPU, which
rounds otherwise again, gives the same rows to the same centroids. Price: a fifth of the product's time at k = 500,
half of it at k = 100.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..errors import DataError
from .base import Emitted, Part
from .centroids import Centroids, Groups, Metric

TILE_VALUES = 2**20  # similarities computed at a time: 4 MB, which stays in cache
NOMINEES = 16  # of a GPU, per row; rows with more in doubt are done again on the CPU
Device = Literal["auto", "cpu", "gpu"]


def unit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length 1.

    Args:
        rows: ``(n, d)`` floats; a row with NaN or infinity, and a zero row, has no direction.

    Returns:
        ``(m, d) float32``, the rows that have a direction, and the mask ``(n,) bool`` of them.
    """
    out = np.empty(rows.shape, np.float32)
    usable = np.zeros(len(rows), bool)
    step = max(1, TILE_VALUES // 4 // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        block = rows[start : start + step].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            norm = np.sqrt(np.einsum("ij,ij->i", block, block))
            block /= norm[:, None]
            out[start : start + step] = block
        usable[start : start + step] = np.isfinite(norm) & (norm > 0)
    return (out if usable.all() else out[usable]), usable


def compact(rows: np.ndarray) -> np.ndarray:
    """The same numbers as float16 where nothing is lost (embedding files are float16), else as float32."""
    with np.errstate(over="ignore"):
        half = rows.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), rows) else np.asarray(rows, np.float32)


def on_gpu(device: Device) -> bool:
    """Whether faiss is to use a GPU here.

    Raises:
        DataError: ``gpu`` was asked for, and this faiss has or sees none.
    """
    if device == "cpu":
        return False
    import faiss

    there = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
    if device == "gpu" and not there:
        raise DataError("a GPU was asked for, but this worker's faiss sees none; install faiss-gpu or say device: auto")
    return there


def nearest(rows: np.ndarray, centroids: np.ndarray, metric: Metric = "cosine") -> np.ndarray:
    """Centroid nearest to every row, ``(n,) int64``: largest inner product, or smallest L2 distance."""
    if metric == "cosine":
        return largest_product(rows, centroids)[0]
    # argmin |x - c|^2 = argmax <(x, 1), (c, -|c|^2 / 2)>
    half = np.einsum("ij,ij->i", centroids, centroids, dtype=np.float64) / -2
    with_half = np.concatenate([centroids, half[:, None].astype(np.float32)], axis=1)
    with_one = np.concatenate([rows, np.ones((len(rows), 1), np.float32)], axis=1)
    return largest_product(with_one, with_half)[0]


def assign(
    rows: np.ndarray, centroids: np.ndarray | Centroids, device: Device = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centroid of every row, the same whichever rows stand beside it.

    Args:
        rows: ``(n, d) float32`` unit rows.
        centroids: ``(k, d) float32`` unit rows, k >= 1; with `Centroids.groups`, only the row's group is looked at.

    Returns:
        ``(n,) int64``, the centroid with the largest inner product (the first of equal ones), and
        ``(n,) float32``, 1 - that product; always a multiple of 2**-24, so sums of it are exact in float64.
    """
    if isinstance(centroids, Centroids) and centroids.groups is not None:
        found, product = _two_levels(rows, centroids.vectors, centroids.groups, device)
    else:
        vectors = centroids.vectors if isinstance(centroids, Centroids) else centroids
        found, product = largest_product(rows, vectors, device)
    return found, np.float32(1) - product


def _two_levels(rows: np.ndarray, vectors: np.ndarray, groups: Groups, device: Device) -> tuple[np.ndarray, np.ndarray]:
    upper, _ = largest_product(rows, groups.heads, device)
    found, product = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    order = np.argsort(upper, kind="stable")
    bounds = np.searchsorted(upper[order], np.arange(len(groups.heads) + 1))
    for g in np.flatnonzero(np.diff(bounds)):
        mine = order[bounds[g] : bounds[g + 1]]
        members = np.flatnonzero(groups.of == g)
        inside, product[mine] = largest_product(rows[mine], vectors[members], device)
        found[mine] = members[inside]
    return found, product


def largest_product(rows: np.ndarray, centroids: np.ndarray, device: Device = "cpu") -> tuple[np.ndarray, np.ndarray]:
    """Centroid with the largest inner product, the same whichever rows stand beside it.

    Args:
        rows: ``(n, d) float32``, finite.
        centroids: ``(k, d) float32``, finite, k >= 1; raw ones (DataComp's) as well as unit rows.

    Returns:
        ``(n,) int64`` (the first of equal ones) and the product, ``(n,) float32``, as if computed in float64.
    """
    if len(rows) and on_gpu(device):
        return _largest_on_gpu(rows, centroids)
    found = np.empty(len(rows), np.int64)
    product = np.empty(len(rows), np.float32)
    k = len(centroids)
    exact_centroids = centroids.astype(np.float64) if k * centroids.shape[1] <= 2**24 else centroids
    longest = _longest(centroids)
    step = min(1024, max(64, TILE_VALUES // k))
    similarity = np.empty((step, k), np.float32)
    every = np.arange(step)
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        n = len(block)
        doubt = _doubt(block, longest)
        tile = np.matmul(block, centroids.T, out=similarity[:n])
        first = tile.argmax(axis=1)
        best = tile[every[:n], first]
        tile[every[:n], first] = -np.inf
        unsure = np.flatnonzero(tile.max(axis=1) >= best - doubt)
        if len(unsure):
            tile[unsure, first[unsure]] = best[unsure]
            row, column = np.nonzero(tile[unsure] >= (best[unsure] - doubt)[:, None])
            first[unsure] = _winners(block, unsure, row, exact_centroids, column)
        found[start : start + n] = first
        exact = np.einsum("ij,ij->i", block.astype(np.float64), exact_centroids[first].astype(np.float64, copy=False))
        product[start : start + n] = exact
    return found, product


def _longest(centroids: np.ndarray) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", centroids, centroids, dtype=np.float64).max(initial=0)))


def _doubt(block: np.ndarray, longest: float) -> np.float32:
    """Twice the worst error of a float32 product of these rows."""
    row = float(np.sqrt(np.einsum("ij,ij->i", block, block).max(initial=0)))
    return np.float32(2 * (block.shape[1] + 2) * np.finfo(np.float32).eps * max(row * longest, 1e-30) * 1.01)


def _winners(
    block: np.ndarray, unsure: np.ndarray, row: np.ndarray, centroids: np.ndarray, column: np.ndarray
) -> np.ndarray:
    """For each of the `unsure` rows its best nominee; pairs ``(row, column)`` come ordered by row."""
    exact = _products(block, unsure[row], centroids, column)
    order = np.lexsort((column, -exact, row))
    return column[order[np.searchsorted(row[order], np.arange(len(unsure)))]]


def _products(a: np.ndarray, i: np.ndarray, b: np.ndarray, j: np.ndarray) -> np.ndarray:
    """``<a[i], b[j]>``, ``(n,) float32``; summed in float64, so the order of summation leaves no trace."""
    out = np.empty(len(i), np.float32)
    step = max(1, TILE_VALUES // max(1, a.shape[1]))  # a collapsed encoder leaves every centroid in doubt
    for start in range(0, len(i), step):
        pairs = slice(start, start + step)
        out[pairs] = np.einsum("ij,ij->i", a[i[pairs]].astype(np.float64), b[j[pairs]].astype(np.float64, copy=False))
    return out


def _largest_on_gpu(rows: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The GPU nominates `NOMINEES` centroids a row; who wins is settled here, so the result is the CPU's."""
    import faiss

    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(centroids)
    index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    found, product = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    count, longest, step = min(NOMINEES, len(centroids)), _longest(centroids), 65_536
    for start in range(0, len(rows), step):
        block = np.ascontiguousarray(rows[start : start + step])
        similarity, nominees = index.search(block, count)
        possible = similarity >= (similarity[:, 0] - _doubt(block, longest))[:, None]
        row, place = np.nonzero(possible)
        first = _winners(block, np.arange(len(block)), row, centroids, nominees[row, place])
        crowded = np.flatnonzero(possible[:, -1]) if count < len(centroids) else np.empty(0, np.int64)
        if len(crowded):
            first[crowded] = largest_product(block[crowded], centroids)[0]
        found[start : start + step] = first
        product[start : start + step] = _products(block, np.arange(len(block)), centroids, first)
    return found, product


def emit_clusters(
    part: Part, column: str, centroids: np.ndarray | Centroids, with_rows: bool, device: Device = "cpu"
) -> Emitted:
    """Send the part's rows that have an embedding to their clusters.

    Values: ``distance``, ``(m,) float32``, and, if `with_rows`, ``embedding``, ``(m, d)``, as it was stored.

    Raises:
        DataError: the embeddings have other dimensions than the centroids.
    """
    stored = part.array(column)
    d = (centroids.vectors if isinstance(centroids, Centroids) else centroids).shape[1]
    if len(stored) and stored.shape[1] != d:
        raise DataError(f"{column} of part {part.name} has {stored.shape[1]} dimensions, the centroids have {d}")
    rows, usable = unit(stored)
    cluster, distance = assign(rows, centroids, device)
    values = {"distance": distance}
    if with_rows:
        values["embedding"] = compact(stored if usable.all() else stored[usable])
    return Emitted(cluster, part.rows[usable], part.uids()[usable], values)
