"""`semantic_dedup`: SemDeDup, dropping what looks the same to an encoder (arXiv 2303.09540).

Spherical k-means splits the pool; inside a cluster the rows are put in order, and a row goes if any row before it, even
one that goes itself, is within epsilon:

    M_j = max over rows i before j of <x_i, x_j>        drop j  iff  float32(M_j) > float32(1 - epsilon)

so the order decides who survives: ``hard`` (as published) puts the rows furthest from the centroid first, ``easy`` the
nearest, ``random`` draws it. Near-duplicates in different clusters are not seen; that is the price of not comparing all
pairs. The comparison walks the upper triangle in tiles, at the speed of the matrix product.

A row without an embedding is a duplicate of nothing: it is kept, counted, and has no say over others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from .base import FILTERS, Decision, Emitted, Filter, Part, Pool, Routed
from .draw import uid_hash
from .kmeans import emit_clusters, fit_centroids, unit

TILE_ROWS, TILE_COLUMNS = 1024, 256
Order = Literal["hard", "easy", "random"]


@dataclass(frozen=True)
class Similarities:
    """M of every row, and what became of the clusters.

    Attributes:
        routed: ``similarity`` (M), per row; None for an empty pool.
        sizes, dropped: rows of each cluster, and those that go, ``(k,) int64``.
        without: rows without an embedding.
        sample, made_by: how the centroids were trained.
    """

    routed: Routed | None
    sizes: np.ndarray
    dropped: np.ndarray
    without: int
    sample: int
    made_by: str


@FILTERS.register
class SemanticDedup(Filter):
    """Drop near-duplicates by cosine similarity inside k-means clusters (SemDeDup)."""

    catches: ClassVar[tuple[str, ...]] = ("exact_copy", "near_copy")
    type: Literal["semantic_dedup"] = "semantic_dedup"
    encoder: str = Field(description="Encoder whose embeddings are compared.")
    modality: Literal["image", "text"] = Field("image", description="Compare images or captions.")
    clusters: int = Field(100, ge=1, description="k-means clusters; about 1,000-10,000 samples each is fast.")
    epsilon: float = Field(0.07, ge=0, le=1, description="Drop above cosine similarity 1 - epsilon; larger drops more.")
    keep: Order = Field("hard", description="Who survives: hard = furthest from its centroid, easy = nearest, random.")
    iterations: int = Field(100, ge=1, description="k-means iterations, at most.")
    points_per_centroid: int = Field(256, ge=1, description="Samples per cluster that k-means is trained on, at most.")

    def columns(self) -> list[str]:
        return [f"{self.encoder}.{self.modality}"]

    def limit(self) -> np.float32:
        """Rows with M above this are dropped."""
        return np.float32(1 - self.epsilon)

    def fit(self, pool: Pool) -> Similarities:
        column = self.columns()[0]
        centroids = fit_centroids(pool, column, self.clusters, self.iterations, self.points_per_centroid)
        if not len(centroids):
            return Similarities(None, np.zeros(0, np.int64), np.zeros(0, np.int64), 0, 0, "")
        routed = pool.shuffle(_emit, _reduce, len(centroids), column, centroids.vectors, self.keep, pool.seed)
        counted = pool.map(_count, routed, len(centroids), self.limit())
        sizes, dropped = np.sum([c[:2] for c in counted], axis=0)
        without = sum(c[2] for c in counted)
        return Similarities(routed, sizes, dropped, without, centroids.sample, centroids.made_by)

    def decide(self, part: Part, state: Similarities) -> Decision:
        similarity = _similarity(part, state.routed)
        return Decision(~(similarity > self.limit()), similarity, "near_duplicate")

    def describe(self, state: Similarities) -> dict[str, Any]:
        clusters = zip(state.sizes.tolist(), (state.sizes - state.dropped).tolist(), strict=True)
        return {
            "epsilon": self.epsilon,
            "similarity_threshold": float(self.limit()),
            "without_embedding": state.without,
            "clusters": [{"cluster": j, "size": size, "kept": kept} for j, (size, kept) in enumerate(clusters)],
            "trained_on": state.sample,
            "made_by": state.made_by,
        }


def _similarity(part: Part, routed: Routed | None) -> np.ndarray:
    """M of the alive rows, NaN where there is no embedding."""
    columns = routed.of(part) if routed is not None else {}
    return columns.get("similarity", np.full(len(part), np.nan, np.float32))


def _emit(part: Part, column: str, vectors: np.ndarray, keep: Order, seed: int) -> Emitted:
    return emit_clusters(part, column, vectors, with_rows=True)


def _reduce(
    bucket: int, rows: dict[str, np.ndarray], column: str, vectors: np.ndarray, keep: Order, seed: int
) -> dict[str, np.ndarray]:
    order = survivor_order(rows["distance"], rows["uids"], keep, seed)
    ordered, _ = unit(rows["embedding"][order])
    similarity = np.empty(len(order), np.float32)
    similarity[order] = largest_earlier_similarity(ordered)
    return {"similarity": similarity, "cluster": np.full(len(order), bucket, np.int32)}


def _count(part: Part, routed: Routed, k: int, limit: np.float32) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows and dropped rows of each cluster, and rows without an embedding."""
    columns = routed.of(part)
    found = columns["found"]
    if not found.any():
        return np.zeros(k, np.int64), np.zeros(k, np.int64), len(part)
    cluster = columns["cluster"]
    dropped = found & (columns["similarity"] > limit)
    sizes = np.bincount(cluster[found], minlength=k)
    return sizes, np.bincount(cluster[dropped], minlength=k), int((~found).sum())


def survivor_order(distance: np.ndarray, uids: np.ndarray, keep: Order, seed: int) -> np.ndarray:
    """Order in which the rows of a cluster are judged; the first ones survive.

    Args:
        distance: ``(n,) float32`` to the centroid.
        uids: ``(n,)`` uid records, ascending: the order of equal distances (reversed for ``easy``, as published).
    """
    if keep == "random":
        return np.argsort(uid_hash(uids, seed, "semantic_dedup"), kind="stable")
    hardest_first = np.argsort(-distance, kind="stable")
    return hardest_first if keep == "hard" else hardest_first[::-1]


def largest_earlier_similarity(rows: np.ndarray) -> np.ndarray:
    """For every row the largest inner product with a row before it, at least 0.

    ``n^2 d`` flop: the strict upper triangle of ``rows @ rows.T``, in tiles that are reused and stay in cache.

    Args:
        rows: ``(n, d) float32``, unit rows without NaN.

    Returns:
        ``(n,) float32``; 0 for the first row.
    """
    n = len(rows)
    largest = np.zeros(n, np.float32)
    tile = np.empty((TILE_ROWS, TILE_COLUMNS), np.float32)
    upper = np.triu(np.ones((TILE_COLUMNS, TILE_COLUMNS), np.float32), 1)
    for left in range(0, n, TILE_COLUMNS):
        columns = rows[left : left + TILE_COLUMNS]
        width = len(columns)
        found = largest[left : left + width]
        if width < tile.shape[1]:  # the last columns: a tile of their width, contiguous
            tile, upper = np.empty((TILE_ROWS, width), np.float32), upper[:width, :width]
        for top in range(0, left, TILE_ROWS):
            height = min(TILE_ROWS, left - top)
            products = np.matmul(rows[top : top + height], columns.T, out=tile[:height])
            np.maximum(found, products.max(axis=0), out=found)
        products = np.matmul(columns, columns.T, out=tile[:width])
        products *= upper
        np.maximum(found, products.max(axis=0), out=found)
    return largest
