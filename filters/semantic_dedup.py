"""`semantic_dedup`: SemDeDup, dropping what looks the same to an encoder (arXiv 2303.09540).

Spherical k-means splits the pool; inside a cluster the rows are put in order, and a row goes if any row before it, even
one that goes itself, is within epsilon:

    M_j = max over rows i before j of <x_i, x_j>        drop j  iff  float32(M_j) > float32(1 - epsilon)

so the order decides who survives: ``hard`` (as published) puts the rows furthest from the centroid first, ``easy`` the
nearest, ``random`` draws it. Near-duplicates in different clusters are not seen; that is the price of not comparing all
pairs. The comparison walks the upper triangle in tiles, at the speed of the matrix product.

Memory does not grow with clusters. A cluster of more than two blocks (64 MB of float32: 32,768 rows of 512) is compared
block by block and every two blocks together, each of them once as the teams of a tournament, exactly as if it were
whole; it is written to disk again for each round, once per block. A worker holds two blocks: about 400 MB.

A row without an embedding is a duplicate of nothing: it is kept, counted, and has no say over others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from .base import FILTERS, Decision, Emitted, Filter, Part, Pool, Routed
from .centroids import Centroids
from .cluster_options import ClusterOptions
from .draw import uid_hash
from .nearest import Device, compact, emit_clusters, unit

TILE_ROWS, TILE_COLUMNS = 1024, 256
BLOCK_BYTES = 2**26  # of float32 rows
Order = Literal["hard", "easy", "random"]


@dataclass(frozen=True)
class Similarities:
    """M of every row, and what became of the clusters.

    Attributes:
        places: ``cluster``, and ``place`` in its order, per row; None for an empty pool.
        routed: ``similarity``, per row; M is the largest: of each block, then of each round between blocks.
        sizes, dropped: rows of each cluster, and those that go, ``(k,) int64``.
        without: rows without an embedding.
        sample, made_by: how the centroids were trained.
    """

    places: Routed | None
    routed: tuple[Routed, ...]
    sizes: np.ndarray
    dropped: np.ndarray
    without: int
    sample: int
    made_by: str


@FILTERS.register
class SemanticDedup(ClusterOptions, Filter):
    """Drop near-duplicates by cosine similarity inside k-means clusters (SemDeDup)."""

    catches: ClassVar[tuple[str, ...]] = ("exact_copy", "near_copy")
    type: Literal["semantic_dedup"] = "semantic_dedup"
    encoder: str = Field(description="Encoder whose embeddings are compared.")
    modality: Literal["image", "text"] = Field("image", description="Compare images or captions.")
    epsilon: float = Field(0.07, ge=0, le=1, description="Drop above cosine similarity 1 - epsilon; larger drops more.")
    keep: Order = Field("hard", description="Who survives: hard = furthest from its centroid, easy = nearest, random.")

    def columns(self) -> list[str]:
        return [f"{self.encoder}.{self.modality}"]

    def limit(self) -> np.float32:
        """Rows with M above this are dropped."""
        return np.float32(1 - self.epsilon)

    def fit(self, pool: Pool) -> Similarities:
        column = self.columns()[0]
        centroids = self.fit_clusters(pool, column)
        if not len(centroids):
            return Similarities(None, (), np.zeros(0, np.int64), np.zeros(0, np.int64), 0, 0, "")
        k = len(centroids)
        places = pool.shuffle(_emit_places, _reduce_places, k, column, centroids, self.keep, self.device, pool.seed)
        sizes = np.sum(pool.map(_sizes, places, k), axis=0)
        blocks = Blocks.of(sizes, max(1, BLOCK_BYTES // (4 * centroids.vectors.shape[1])))
        routed: list[Routed] = [pool.shuffle(_emit_blocks, _reduce_block, blocks.total, column, places, blocks, None)]
        for number in range(blocks.rounds):
            routed.append(pool.shuffle(_emit_blocks, _reduce_pair, blocks.total, column, places, blocks, number))
        found = Similarities(places, tuple(routed), sizes, sizes, 0, centroids.sample, centroids.made_by)
        counted = pool.map(_count, found, self.limit())
        dropped, without = np.sum([c[0] for c in counted], axis=0), sum(c[1] for c in counted)
        return replace(found, dropped=dropped, without=without)

    def decide(self, part: Part, state: Similarities) -> Decision:
        similarity, cluster = _similarity(part, state)
        return Decision(~(similarity > self.limit()), similarity, "near_duplicate", group=cluster)

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


@dataclass(frozen=True)
class Blocks:
    """How clusters are cut, in the order in which their rows are judged.

    Attributes:
        rows: of a block.
        counts: blocks of each cluster, ``(k,)``; 1 for one that is not cut.
        first: number of each cluster's first block, ``(k,)``.
    """

    rows: int
    counts: np.ndarray
    first: np.ndarray

    @classmethod
    def of(cls, sizes: np.ndarray, rows: int) -> Blocks:
        """Cut clusters of ``(k,)`` sizes that have more than two blocks."""
        counts = np.where(sizes > 2 * rows, -(-sizes // rows), 1)
        return cls(rows, counts, np.cumsum(counts) - counts)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def rounds(self) -> int:
        """Rounds in which every two blocks of a cluster meet once."""
        most = int(self.counts.max())
        return most - 1 + most % 2 if most > 1 else 0

    def at(self, cluster: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Block of each row in its cluster."""
        return np.where(self.counts[cluster] > 1, place // self.rows, 0)

    def partner(self, cluster: np.ndarray, block: np.ndarray, number: int) -> np.ndarray:
        """Whom a block meets in a round (the circle method): another block of the cluster, or -1 = none."""
        counts = self.counts[cluster]
        teams = counts + counts % 2  # with an odd number one has a rest
        last = teams - 1
        circle = np.maximum(last, 1)
        other = (number - block) % circle
        alone = (number * ((circle + 1) // 2)) % circle  # who would meet itself meets the last: 2 x = number
        other = np.where(block == last, alone, np.where(other == block, last, other))
        return np.where((counts > 1) & (number < last) & (other < counts), other, -1)


def _similarity(part: Part, state: Similarities) -> tuple[np.ndarray, np.ndarray]:
    """M of the alive rows, NaN where there is no embedding, and their clusters, -1 = none."""
    largest, cluster = np.full(len(part), np.nan, np.float32), np.full(len(part), -1, np.int32)
    if state.places is None:
        return largest, cluster
    places = state.places.of(part)
    if places["found"].any():
        cluster = np.where(places["found"], places["cluster"], np.int32(-1))
    for routed in state.routed:
        columns = routed.of(part)
        if columns["found"].any():
            largest = np.fmax(largest, columns["similarity"])
    return largest, cluster


def _emit_places(part: Part, column: str, centroids: Centroids, keep: Order, device: Device, seed: int) -> Emitted:
    return emit_clusters(part, column, centroids, with_rows=False, device=device)


def _reduce_places(
    bucket: int,
    rows: dict[str, np.ndarray],
    column: str,
    centroids: Centroids,
    keep: Order,
    device: Device,
    seed: int,
) -> dict[str, np.ndarray]:
    order = survivor_order(rows["distance"], rows["uids"], keep, seed)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return {"cluster": np.full(len(order), bucket, np.int32), "place": place}


def _sizes(part: Part, places: Routed, k: int) -> np.ndarray:
    columns = places.of(part)
    found = columns["found"]
    return np.bincount(columns["cluster"][found], minlength=k) if found.any() else np.zeros(k, np.int64)


def _emit_blocks(part: Part, column: str, places: Routed, blocks: Blocks, number: int | None) -> Emitted:
    """Embeddings to the block that they are in, or, of round `number`, to the meeting of their block with another."""
    columns = places.of(part)
    at = np.flatnonzero(columns["found"])
    cluster = columns["cluster"][at] if len(at) else np.empty(0, np.int32)
    place = columns["place"][at] if len(at) else np.empty(0, np.int64)
    block = blocks.at(cluster, place)
    if number is not None:
        partner = blocks.partner(cluster, block, number)
        meets = partner >= 0
        at, cluster, place = at[meets], cluster[meets], place[meets]
        block = np.minimum(block, partner)[meets]
    rows = part.array(column) if len(at) else np.empty((0, 1), np.float32)
    embedding = compact(rows if len(at) == len(part) else rows[at])
    return Emitted(
        blocks.first[cluster] + block, part.rows[at], part.uids()[at], {"place": place, "embedding": embedding}
    )


def _reduce_block(bucket: int, rows: dict[str, np.ndarray], *_: Any) -> dict[str, np.ndarray]:
    order = np.argsort(rows["place"])
    similarity = np.empty(len(order), np.float32)
    similarity[order] = largest_earlier_similarity(unit(rows["embedding"][order])[0])
    return {"similarity": similarity}


def _reduce_pair(
    bucket: int, rows: dict[str, np.ndarray], column: str, places: Routed, blocks: Blocks, number: int
) -> dict[str, np.ndarray]:
    order = np.argsort(rows["place"])
    split = int(np.searchsorted(rows["place"][order], (rows["place"].min() // blocks.rows + 1) * blocks.rows))
    similarity = np.zeros(len(order), np.float32)
    earlier, _ = unit(rows["embedding"][order[:split]])
    for left in range(split, len(order), TILE_COLUMNS):
        columns = order[left : left + TILE_COLUMNS]
        similarity[columns] = largest_similarity(unit(rows["embedding"][columns])[0], earlier)
    return {"similarity": similarity}


def _count(part: Part, state: Similarities, limit: np.float32) -> tuple[np.ndarray, int]:
    """Dropped rows of each cluster, and rows without an embedding."""
    similarity, cluster = _similarity(part, state)
    return np.bincount(cluster[similarity > limit], minlength=len(state.sizes)), int((cluster < 0).sum())


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
    upper = np.triu(np.ones((TILE_COLUMNS, TILE_COLUMNS), np.float32), 1)
    buffer = np.empty(TILE_ROWS * TILE_COLUMNS, np.float32)
    for left in range(0, n, TILE_COLUMNS):
        columns = rows[left : left + TILE_COLUMNS]
        width = len(columns)
        found = largest[left : left + width]
        np.maximum(found, largest_similarity(columns, rows[:left], buffer), out=found)
        products = np.matmul(columns, columns.T, out=buffer[: width * width].reshape(width, width))
        products *= upper[:width, :width]
        np.maximum(found, products.max(axis=0), out=found)
    return largest


def largest_similarity(columns: np.ndarray, rows: np.ndarray, buffer: np.ndarray | None = None) -> np.ndarray:
    """For each of at most `TILE_COLUMNS` columns the largest inner product with any of `rows`, at least 0.

    Args:
        columns, rows: ``(w, d)`` and ``(n, d) float32``.
        buffer: ``(TILE_ROWS * TILE_COLUMNS,) float32`` to work in.

    Returns:
        ``(w,) float32``.
    """
    width = len(columns)
    buffer = np.empty(TILE_ROWS * width, np.float32) if buffer is None else buffer
    found = np.zeros(width, np.float32)
    for top in range(0, len(rows), TILE_ROWS):
        some = rows[top : top + TILE_ROWS]
        tile = buffer[: len(some) * width].reshape(len(some), width)
        np.maximum(found, np.matmul(some, columns.T, out=tile).max(axis=0), out=found)
    return found
