"""Spherical k-means over a pool: centroids trained on a fixed random sample, every row given to its nearest one.

The sample is the rows with the smallest keyed hash of their uid, in uid order, so centroids do not depend on how the
pool is cut or who reads it. They do depend on the faiss version, and on whether a GPU trained them, which is why both
are recorded. The sample goes from the parts straight to the worker that trains (one bucket of a shuffle); the driver
sees k centroids and nothing else.

Which centroid a row gets, and how that is the same everywhere, is in `nearest.py`.

Many clusters: training costs ``points * k`` and ``points`` grows with k. ``hierarchical`` trains sqrt(k) clusters, then
each of them by itself (`centroids.Groups` is the same thought for the assignment).

Sources: SemDeDup (arXiv 2303.09540) and Density-Based Pruning (arXiv 2401.04578), which cluster alike; DataComp (arXiv
2304.14108) for plain L2 with raw centroids.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..errors import DataError
from .base import Emitted, Part, Pool, Routed
from .centroids import Centroids, Groups, Metric
from .draw import SPREADS, uid_hash
from .nearest import Device, assign, compact, emit_clusters, nearest, on_gpu, unit
from .quotas import project, round_quotas

__all__ = [
    "Centroids",
    "assign",
    "compact",
    "emit_clusters",
    "fit_centroids",
    "group",
    "refit",
    "train",
    "train_levels",
    "unit",
    "with_assignment",
]

SAMPLE = "kmeans"
Training = Literal["flat", "hierarchical"]
Assignment = Literal["flat", "two_level"]


def train(
    points: np.ndarray, k: int, iterations: int, seed: int, metric: Metric = "cosine", device: Device = "cpu"
) -> tuple[np.ndarray, str]:
    """k-means (faiss) of ``(n, d)`` points; for cosine all of them must have a direction.

    Returns:
        ``(k, d) float32`` centroids, unit rows for cosine, and the faiss version.

    Raises:
        DataError: fewer points than centroids.
    """
    import faiss

    if len(points) < k:
        raise DataError(f"{k} clusters asked for, but only {len(points)} samples have an embedding; ask for fewer")
    if metric == "cosine":
        rows, usable = unit(points)
        assert usable.all(), "a point without direction in the k-means sample"
    else:
        rows = np.ascontiguousarray(points, np.float32)
    gpu = on_gpu(device)
    model = faiss.Kmeans(
        rows.shape[1],
        k,
        niter=iterations,
        seed=seed,
        spherical=metric == "cosine",
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
        **({"gpu": True} if gpu else {}),
    )
    model.train(rows)
    vectors = np.asarray(model.centroids, np.float32).reshape(k, -1)
    if metric == "cosine":
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        vectors = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
    return vectors, f"faiss {faiss.__version__}" + (" on a GPU" if gpu else "")


def train_levels(
    points: np.ndarray, k: int, iterations: int, seed: int, metric: Metric = "cosine", device: Device = "cpu"
) -> tuple[np.ndarray, str]:
    """`train` in two steps: about sqrt(k) clusters, then each of them by itself, more where it holds more points."""
    coarse = round(k**0.5)
    if coarse < 2 or len(points) < k:
        return train(points, k, iterations, seed, metric, device)
    heads, made_by = train(points, coarse, iterations, seed, metric, device)
    rows = unit(points)[0] if metric == "cosine" else np.asarray(points, np.float32)
    member = nearest(rows, heads, metric)
    sizes = np.bincount(member, minlength=coarse)
    wanted = project(sizes / len(points) * k, np.minimum(sizes, 1), sizes, k)
    shares = round_quotas(wanted, sizes, k)
    fine = [
        train(points[member == j], int(shares[j]), iterations, seed, metric, device)[0] for j in np.flatnonzero(shares)
    ]
    return np.concatenate(fine), f"{made_by}, two levels"


def group(vectors: np.ndarray, iterations: int, seed: int, metric: Metric = "cosine") -> Groups:
    """The centroids of ``(k, d)`` centroids: about sqrt(k) groups, none of them empty."""
    usable = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64) > 0 if metric == "cosine" else slice(None)
    points = vectors[usable]
    count = max(1, min(round(len(vectors) ** 0.5), len(points)))
    heads, _ = train(points, count, iterations, seed, metric) if len(points) else (vectors[:1], "")
    of = nearest(vectors, heads, metric)
    used = np.unique(of)
    return Groups(heads[used], np.searchsorted(used, of))


@dataclass(frozen=True)
class _Plan:
    """What the worker that trains is told."""

    column: str
    k: int
    count: int
    iterations: int
    seed: int
    faiss_seed: int
    metric: Metric
    training: Training
    assignment: Assignment
    device: Device


def fit_centroids(
    pool: Pool,
    column: str,
    k: int,
    iterations: int,
    points_per_centroid: int,
    *,
    training: Training = "flat",
    assignment: Assignment = "flat",
    device: Device = "cpu",
    metric: Metric = "cosine",
    points: int | None = None,
) -> Centroids:
    """Train centroids on a sample of the pool, on one worker; the driver sees only the centroids.

    The sample is at most ``k * points_per_centroid`` rows (or `points`): three times its float16 size in the memory of
    the worker that trains.

    Raises:
        DataError: no row, or fewer than `k`, has an embedding. An empty pool is no error: it has no centroids.
    """
    rows = sum(pool.map(_length))
    if not rows:
        return Centroids(np.empty((0, 0), np.float32), 0, "", metric)
    digest = hashlib.blake2b(f"{SAMPLE}\0{pool.seed}".encode(), digest_size=4).digest()
    faiss_seed = int.from_bytes(digest, "little") >> 1  # faiss takes 31 bits
    count = min(rows, k * points_per_centroid if points is None else points)
    plan = _Plan(column, k, count, iterations, pool.seed, faiss_seed, metric, training, assignment, device)
    share = count / rows
    share += (SPREADS * np.sqrt(count * (1 - share)) + 64) / rows
    while True:
        bound = 2**64 - 1 if share >= 1 else int(share * 2**64)
        trained = _trained(pool, pool.shuffle(_emit_sample, _reduce_sample, 1, plan, bound), plan)
        if bound == 2**64 - 1 or trained is not None:
            break
        share *= 4  # many rows without an embedding
    if trained is None:
        raise DataError(f"column {column!r} has no embedding in any of {rows} rows; was its encoder run?")
    return with_assignment(pool, trained, assignment, iterations)


def refit(pool: Pool, column: str, ranked: Routed, nearest_rows: int, k: int, iterations: int, seed: int) -> Centroids:
    """Spherical k-means again, on the few rows nearest to every centroid only (resampling; arXiv 2405.15613).

    Args:
        ranked: ``rank`` of every row in its cluster, the nearest first (`cluster_ranks`).
        nearest_rows: rows of each cluster that take part.

    Raises:
        DataError: fewer rows than centroids.
    """
    plan = _Plan(column, k, 2**62, iterations, seed, seed % 2**31, "cosine", "flat", "flat", "cpu")
    trained = _trained(
        pool, pool.shuffle(_emit_nearest, _reduce_sample, 1, plan, 2**64 - 1, ranked, nearest_rows), plan
    )
    if trained is None:
        raise DataError(f"column {column!r} has no embedding; was its encoder run?")
    return trained


def _trained(pool: Pool, routed: Routed, plan: _Plan) -> Centroids | None:
    """The centroids that came back over the parts; None when nobody trained."""
    found = [s for s in pool.map(_collect, routed) if s is not None]
    if not found or found[0].short:
        return None
    flat = np.concatenate([s.vector for s in found])[np.argsort(np.concatenate([s.place for s in found]))]
    first = found[0]
    made_by = pool.call(_made_by) + (" on a GPU" if first.gpu else "")
    made_by += ", two levels" if plan.training == "hierarchical" else ""
    vectors = flat.reshape(-1)[: plan.k * first.dimensions].reshape(plan.k, first.dimensions)
    return Centroids(np.ascontiguousarray(vectors), first.used, made_by, plan.metric)


def with_assignment(pool: Pool, centroids: Centroids, assignment: Assignment, iterations: int) -> Centroids:
    """The same centroids with the upper level that a two-level assignment needs."""
    if assignment == "flat" or len(centroids) < 4:
        return centroids
    return replace(centroids, groups=pool.call(group, centroids.vectors, iterations, 1, centroids.metric))


def _length(part: Part) -> int:
    return len(part)


def _made_by() -> str:
    import faiss

    return f"faiss {faiss.__version__}"


def _emit_sample(part: Part, plan: _Plan, bound: int) -> Emitted:
    """Rows whose hash is small enough that they may be in the sample, as far as they have an embedding."""
    uids = part.uids()
    at = np.flatnonzero(uid_hash(uids, plan.seed, SAMPLE) <= np.uint64(bound))
    only = getattr(part, "only", None)  # a part that can read some rows spares the disk the others
    rows = only(part.rows[at]).array(plan.column) if only is not None else part.array(plan.column)[at]
    norm = np.einsum("ij,ij->i", rows, rows, dtype=np.float64) if len(rows) else np.empty(0)
    usable = np.isfinite(norm) & ((norm > 0) | (plan.metric == "l2"))
    at = at[usable]
    return Emitted(np.zeros(len(at), np.int64), part.rows[at], uids[at], {"embedding": compact(rows[usable])})


def _emit_nearest(part: Part, plan: _Plan, bound: int, ranked: Routed, nearest_rows: int) -> Emitted:
    columns = ranked.of(part)
    found = columns["found"]
    at = np.flatnonzero(found & (columns["rank"] < nearest_rows)) if found.any() else np.empty(0, np.int64)
    rows = part.array(plan.column)[at]
    return Emitted(np.zeros(len(at), np.int64), part.rows[at], part.uids()[at], {"embedding": compact(rows)})


def _reduce_sample(
    bucket: int, rows: dict[str, np.ndarray], plan: _Plan, bound: int, *more: Any
) -> dict[str, np.ndarray]:
    """Train; the centroids go back spread over the sample's rows, a few numbers each."""
    m = len(rows["uids"])
    short = m < plan.count and bound < 2**64 - 1
    used = min(m, plan.count)
    gpu = False
    vectors = np.zeros((0, 0), np.float32)
    if not short:
        order = np.argsort(uid_hash(rows["uids"], plan.seed, SAMPLE), kind="stable")[:used]
        trainer = train_levels if plan.training == "hierarchical" else train
        gpu = on_gpu(plan.device)
        points = rows["embedding"][np.sort(order)]
        vectors, _ = trainer(points, plan.k, plan.iterations, plan.faiss_seed, plan.metric, plan.device)
    width = -(-vectors.size // m)
    spread = np.zeros(m * width, np.float32)
    spread[: vectors.size] = vectors.reshape(-1)
    facts = {"short": short, "used": used, "gpu": gpu, "dimensions": rows["embedding"].shape[1]}
    columns = {name: np.full(m, value) for name, value in facts.items()}
    return {"place": np.arange(m), "vector": spread.reshape(m, width), **columns}


@dataclass(frozen=True)
class _Sent:
    """A part's share of what came back."""

    place: np.ndarray
    vector: np.ndarray
    short: bool
    used: int
    gpu: bool
    dimensions: int


def _collect(part: Part, routed: Routed) -> _Sent | None:
    columns = routed.of(part)
    found = np.flatnonzero(columns["found"])
    if not len(found):
        return None
    first = {name: columns[name][found[0]].item() for name in ("short", "used", "gpu", "dimensions")}
    return _Sent(columns["place"][found], columns["vector"][found], **first)
