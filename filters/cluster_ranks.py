"""Where every row stands in its cluster: nearest or furthest from the centroid, or in a random order.

What concept clusters and prototypes share: one assignment, one shuffle of 30 bytes a row, one count. Quotas then decide
by rank alone, and nothing row-sized passes through the driver.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .base import Emitted, Part, Pool, Routed
from .centroids import Centroids
from .draw import uid_hash
from .nearest import Device, emit_clusters

PARTS_PER_BUCKET = 16  # clusters share a bucket: a shuffle costs by parts x buckets, and 20 rows a slice are too few
DISTANCE_STEP = 2.0**-24  # every distance is a multiple of it (see nearest.assign)
Select = Literal["hard", "easy", "random"]


@dataclass(frozen=True)
class Ranks:
    """The rows in their clusters.

    Attributes:
        routed: ``cluster``, ``rank`` (from 0, in keeping order) and ``distance`` of every row.
        sizes: ``(k,) int64``.
        intra: ``(k,) float32``, mean distance to the centroid; NaN for an empty cluster.
        without: rows without an embedding.
    """

    routed: Routed
    sizes: np.ndarray
    intra: np.ndarray
    without: int


def rank_in_clusters(
    pool: Pool, column: str, centroids: Centroids, select: Select, purpose: str, device: Device = "cpu"
) -> Ranks:
    """Assign every row and rank it in its cluster; equal distances in uid order.

    Args:
        select: hard = furthest from the centroid first, easy = nearest first, random = by a hash with `purpose`.
    """
    k = len(centroids)
    buckets = min(k, max(1, len(pool.parts) // PARTS_PER_BUCKET))
    routed = pool.shuffle(_emit, _reduce, buckets, column, centroids, select, pool.seed, purpose, device, buckets)
    counted = pool.map(_count, routed, k)
    sizes = np.sum([c[0] for c in counted], axis=0)
    steps = np.sum([c[1] for c in counted], axis=0)
    intra = np.full(k, np.nan, np.float32)
    filled = sizes > 0
    intra[filled] = steps[filled] / sizes[filled] * DISTANCE_STEP
    return Ranks(routed, sizes, intra, sum(c[2] for c in counted))


def _emit(
    part: Part,
    column: str,
    centroids: Centroids,
    select: Select,
    seed: int,
    purpose: str,
    device: Device,
    buckets: int,
) -> Emitted:
    sent = emit_clusters(part, column, centroids, with_rows=False, device=device)
    cluster = sent.bucket.astype(np.uint16 if len(centroids) <= 2**16 else np.int32)  # 16 bits sort in linear time
    return Emitted(sent.bucket % buckets, sent.rows, sent.uids, {**sent.values, "cluster": cluster})


def _reduce(
    bucket: int,
    rows: dict[str, np.ndarray],
    column: str,
    centroids: Centroids,
    select: Select,
    seed: int,
    purpose: str,
    device: Device,
    buckets: int,
) -> dict[str, np.ndarray]:
    distance, cluster = rows["distance"], rows["cluster"]
    if select == "random":
        order = np.argsort(uid_hash(rows["uids"], seed, purpose), kind="stable")
    else:
        order = np.argsort(-distance if select == "hard" else distance, kind="stable")
    order = order[np.argsort(cluster[order], kind="stable")]
    ordered = cluster[order].astype(np.int32)
    opens = np.flatnonzero(np.diff(ordered, prepend=-1))
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order)) - np.repeat(opens, np.diff(opens, append=len(order)))
    return {"cluster": cluster.astype(np.int32), "rank": rank, "distance": distance}


def _count(part: Part, routed: Routed, k: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Rows and summed distance (in steps, exact) of each cluster, and rows without an embedding."""
    columns = routed.of(part)
    found = columns["found"]
    if not found.any():
        return np.zeros(k, np.int64), np.zeros(k, np.int64), len(part)
    cluster = columns["cluster"][found]
    steps = columns["distance"][found].astype(np.float64) / DISTANCE_STEP
    sums = np.bincount(cluster, steps, minlength=k).astype(np.int64)
    return np.bincount(cluster, minlength=k), sums, int((~found).sum())
