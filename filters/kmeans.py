"""Spherical k-means over a pool: centroids trained on a fixed random sample, every row given to its nearest one.

The sample is the rows with the smallest keyed hash of their uid, in uid order, so centroids do not depend on how the
pool is cut or who reads it. They do depend on the faiss version, which is why it is recorded.

A matrix product rounds a row differently according to where in the matrix it stands, so two equal rows could get
unequal distances, and a tie would be broken by the sharding. Here the product only nominates: the few centroids that
rounding cannot tell apart, and the distance to the winner, are computed again in float64, row by row. Price: a
fifth of the product's time at k = 500, half of it at k = 100.

Sources: SemDeDup (arXiv 2303.09540) and Density-Based Pruning (arXiv 2401.04578), which cluster alike.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .base import Emitted, Part, Pool
from .draw import draw

TILE_VALUES = 2**20  # similarities computed at a time: 4 MB, which stays in cache
SAMPLE = "kmeans"


def unit(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length 1.

    Args:
        rows: ``(n, d)`` floats; a row with NaN or infinity, and a zero row, has no direction.

    Returns:
        ``(m, d) float32``, the rows that have a direction, and the mask ``(n,) bool`` of them.
    """
    out = np.empty(rows.shape, np.float32)
    usable = np.zeros(len(rows), bool)
    step = max(1, TILE_VALUES // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        block = rows[start : start + step].astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            norm = np.sqrt(np.einsum("ij,ij->i", block, block))
            out[start : start + step] = block / norm[:, None]
        usable[start : start + step] = np.isfinite(norm) & (norm > 0)
    return (out if usable.all() else out[usable]), usable


def compact(rows: np.ndarray) -> np.ndarray:
    """The same numbers as float16 where nothing is lost (embedding files are float16), else as float32."""
    with np.errstate(over="ignore"):
        half = rows.astype(np.float16)
    return half if np.array_equal(half.astype(np.float32), rows) else np.asarray(rows, np.float32)


@dataclass(frozen=True)
class Centroids:
    """Trained centroids.

    Attributes:
        vectors: ``(k, d) float32``, unit rows; k = 0 for an empty pool.
        sample: rows that they were trained on.
        made_by: library and version.
    """

    vectors: np.ndarray
    sample: int
    made_by: str

    def __len__(self) -> int:
        return len(self.vectors)


def train(points: np.ndarray, k: int, iterations: int, seed: int) -> tuple[np.ndarray, str]:
    """Spherical k-means (faiss) of ``(n, d)`` points that all have a direction.

    Returns:
        ``(k, d) float32`` unit centroids, and the faiss version.

    Raises:
        DataError: fewer points than centroids.
    """
    import faiss

    if len(points) < k:
        raise DataError(f"{k} clusters asked for, but only {len(points)} samples have an embedding; ask for fewer")
    rows, usable = unit(points)
    assert usable.all(), "a point without direction in the k-means sample"
    model = faiss.Kmeans(
        rows.shape[1],
        k,
        niter=iterations,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
    )
    model.train(rows)
    vectors = np.asarray(model.centroids, np.float32).reshape(k, -1)
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    vectors = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
    return vectors, f"faiss {faiss.__version__}"


def assign(rows: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centroid of every row, the same whichever rows stand beside it.

    Args:
        rows: ``(n, d) float32`` unit rows.
        centroids: ``(k, d) float32`` unit rows, k >= 1.

    Returns:
        ``(n,) int64``, the centroid with the largest inner product (the first of equal ones), and
        ``(n,) float32``, 1 - that product; always a multiple of 2**-24, so sums of it are exact in float64.
    """
    nearest = np.empty(len(rows), np.int64)
    product = np.empty(len(rows), np.float32)
    k, d = centroids.shape
    doubt = np.float32(2 * (d + 2) * np.finfo(np.float32).eps)  # twice the worst error of a float32 product
    step = min(1024, max(64, TILE_VALUES // k))
    similarity = np.empty((step, k), np.float32)
    every = np.arange(step)
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        n = len(block)
        tile = np.matmul(block, centroids.T, out=similarity[:n])
        first = tile.argmax(axis=1)
        best = tile[every[:n], first]
        tile[every[:n], first] = -np.inf
        unsure = np.flatnonzero(tile.max(axis=1) >= best - doubt)
        if len(unsure):
            tile[unsure, first[unsure]] = best[unsure]
            row, column = np.nonzero(tile[unsure] >= (best[unsure] - doubt)[:, None])
            exact = _products(block, unsure[row], centroids, column)
            order = np.lexsort((column, -exact, row))
            winners = order[np.searchsorted(row[order], np.arange(len(unsure)))]
            first[unsure] = column[winners]
        nearest[start : start + n] = first
        product[start : start + n] = _products(block, every[:n], centroids, first)
    return nearest, np.float32(1) - product


def _products(a: np.ndarray, i: np.ndarray, b: np.ndarray, j: np.ndarray) -> np.ndarray:
    """``<a[i], b[j]>``, ``(n,) float32``; summed in float64, so the order of summation leaves no trace."""
    out = np.empty(len(i), np.float32)
    step = max(1, TILE_VALUES // max(1, a.shape[1]))  # a collapsed encoder leaves every centroid in doubt
    for start in range(0, len(i), step):
        pairs = slice(start, start + step)
        out[pairs] = np.einsum("ij,ij->i", a[i[pairs]].astype(np.float64), b[j[pairs]].astype(np.float64))
    return out


def fit_centroids(pool: Pool, column: str, k: int, iterations: int, points_per_centroid: int) -> Centroids:
    """Train centroids on a sample of the pool.

    The sample, at most ``k * points_per_centroid`` rows in float16, passes through the driver.

    Raises:
        DataError: no row, or fewer than `k`, has an embedding. An empty pool is no error: it has no centroids.
    """
    drawn = draw(pool, k * points_per_centroid, pool.seed, SAMPLE, _usable, (column,), whole=True)
    if not drawn.count:
        if rows := sum(pool.map(_length)):
            raise DataError(f"column {column!r} has no embedding in any of {rows} rows; was its encoder run?")
        return Centroids(np.empty((0, 0), np.float32), 0, "")
    order = np.lexsort((drawn.uids["f1"], drawn.uids["f0"]))
    digest = hashlib.blake2b(f"{SAMPLE}\0{pool.seed}".encode(), digest_size=4).digest()
    seed = int.from_bytes(digest, "little") >> 1  # faiss takes 31 bits
    vectors, made_by = pool.call(train, drawn.values["embedding"][order], k, iterations, seed)
    return Centroids(vectors, drawn.count, made_by)


def _length(part: Part) -> int:
    return len(part)


def _usable(part: Part, column: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    rows = part.array(column)
    norm = np.einsum("ij,ij->i", rows, rows, dtype=np.float64) if len(rows) else np.empty(0)
    return np.isfinite(norm) & (norm > 0), {"embedding": compact(rows)}


def emit_clusters(part: Part, column: str, centroids: np.ndarray, with_rows: bool) -> Emitted:
    """Send the part's rows that have an embedding to their clusters.

    Values: ``distance``, ``(m,) float32``, and, if `with_rows`, ``embedding``, ``(m, d)``, as it was stored.
    """
    stored = part.array(column)
    rows, usable = unit(stored)
    cluster, distance = assign(rows, centroids)
    values = {"distance": distance}
    if with_rows:
        values["embedding"] = compact(stored[usable])
    return Emitted(cluster, part.rows[usable], part.uids()[usable], values)
