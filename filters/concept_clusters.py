"""`concept_clusters`: density-based pruning, a budget shared out over concepts by their complexity (arXiv 2401.04578).

Spherical k-means finds the concepts. A cluster that is far from the others and spread out is complex and keeps more of
its rows; a dense one beside its like keeps fewer (`quotas.py`). Inside a cluster ``hard``, as published, keeps the rows
furthest from the centroid. Run `semantic_dedup` before it: the paper calls that a crucial precursor.

Deviations from the published code, where that has faults: quotas are exact and sum to the budget, distances are
averaged exactly (so the sharding leaves no trace), at most k - 1 neighbours are asked for, and a quota of 0 keeps none.
A row without an embedding belongs to no concept and is dropped; it does not count for the budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ..errors import DataError
from .base import FILTERS, Decision, Emitted, Filter, Part, Pool, Routed
from .draw import uid_hash
from .kmeans import emit_clusters, fit_centroids
from .quotas import complexity, lower_bounds, mean_distance_to_neighbours, project, round_quotas, shares

DISTANCE_STEP = 2.0**-24  # every distance is a multiple of it (see kmeans.assign)


@dataclass(frozen=True)
class Concepts:
    """The clusters and their quotas.

    Attributes:
        routed: ``cluster``, ``rank`` (from 0, in keeping order) and ``distance`` of every row; None for an empty pool.
        sizes, quotas: ``(k,) int64``.
        intra, inter, complexity: ``(k,) float32``; intra is NaN for an empty cluster.
        place: ``(k, 2) float32``, the centroids' first two principal components, for a map.
        without: rows without an embedding.
        sample, made_by: how the centroids were trained.
    """

    routed: Routed | None
    sizes: np.ndarray
    quotas: np.ndarray
    intra: np.ndarray
    inter: np.ndarray
    complexity: np.ndarray
    place: np.ndarray
    without: int
    sample: int
    made_by: str


@FILTERS.register
class ConceptClusters(Filter):
    """Keep a share of every concept, more of the complex ones (density-based pruning)."""

    type: Literal["concept_clusters"] = "concept_clusters"
    encoder: str = Field(description="Encoder whose embeddings define the concepts.")
    modality: Literal["image", "text"] = Field("image", description="Cluster images or captions.")
    clusters: int = Field(100, ge=1, description="Number of concepts; 100 for 10 M samples, 500 for 300 M.")
    keep: float | None = Field(None, gt=0, le=1, description="Share of the samples to keep, 0-1, rounded down.")
    count: int | None = Field(None, ge=1, description="How many samples to keep, instead of `keep`.")
    temperature: float = Field(0.1, gt=0, description="Softness of the shares; large values make all clusters equal.")
    balance: float = Field(0.5, ge=0, le=1, description="Every cluster keeps at least this part of an equal share.")
    select: Literal["hard", "easy", "random"] = Field(
        "hard", description="Which rows of a cluster stay: hard = furthest from its centroid, easy = nearest, random."
    )
    rounding: Literal["exact", "reference"] = Field(
        "exact", description="exact = the quotas sum to the budget; reference = each is rounded by itself."
    )
    iterations: int = Field(100, ge=1, description="k-means iterations, at most.")
    points_per_centroid: int = Field(256, ge=1, description="Samples per cluster that k-means is trained on, at most.")

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.keep is None) == (self.count is None):
            raise ValueError("concept_clusters needs exactly one of `keep` (a share) and `count`")
        return self

    def columns(self) -> list[str]:
        return [f"{self.encoder}.{self.modality}"]

    def fit(self, pool: Pool) -> Concepts:
        column = self.columns()[0]
        centroids = fit_centroids(pool, column, self.clusters, self.iterations, self.points_per_centroid)
        k = len(centroids)
        if not k:
            none = np.zeros(0, np.int64)
            return Concepts(None, none, none, none, none, none, np.zeros((0, 2), np.float32), 0, 0, "")
        routed = pool.shuffle(_emit, _reduce, k, column, centroids.vectors, self.select, pool.seed)
        counted = pool.map(_count, routed, k)
        sizes = np.sum([c[0] for c in counted], axis=0)
        steps = np.sum([c[1] for c in counted], axis=0)
        intra = np.full(k, np.nan, np.float32)
        filled = sizes > 0
        intra[filled] = steps[filled] / sizes[filled] * DISTANCE_STEP
        inter, place = pool.call(_geometry, centroids.vectors)
        complexities = complexity(intra, inter)
        without = sum(c[2] for c in counted)
        quotas = self._quotas(sizes, complexities)
        return Concepts(
            routed,
            sizes,
            quotas,
            intra,
            inter,
            complexities,
            place,
            without,
            centroids.sample,
            centroids.made_by,
        )

    def _quotas(self, sizes: np.ndarray, complexities: np.ndarray) -> np.ndarray:
        rows = int(sizes.sum())
        budget = self.count if self.count is not None else int(rows * (self.keep or 0.0))
        if budget > rows:
            raise DataError(f"concept_clusters: {budget} samples asked for, but only {rows} have an embedding")
        low = lower_bounds(sizes, budget, self.balance)
        x = project(shares(complexities, self.temperature).astype(np.float64) * budget, low, sizes, budget)
        return round_quotas(x, sizes, budget, self.rounding)

    def decide(self, part: Part, state: Concepts) -> Decision:
        columns = state.routed.of(part) if state.routed is not None else {"found": np.zeros(len(part), bool)}
        found = columns["found"]
        if not found.any():
            return Decision(found, np.full(len(part), np.nan, np.float32), "no_embedding")
        keep = found & (columns["rank"] < state.quotas[columns["cluster"]])
        group = np.where(found, columns["cluster"], -1)
        return Decision(keep, columns["distance"], np.where(found, "over_quota", "no_embedding"), group=group)

    def describe(self, state: Concepts) -> dict[str, Any]:
        names = ("size", "kept", "d_intra", "d_inter", "complexity", "x", "y")
        columns = (state.sizes, state.quotas, state.intra, state.inter, state.complexity, *state.place.T)
        rows = zip(*(c.tolist() for c in columns), strict=True)
        clusters = [{"cluster": j, **dict(zip(names, row, strict=True))} for j, row in enumerate(rows)]
        for cluster in clusters:
            if not cluster["size"]:
                cluster["d_intra"] = None
        return {
            "clusters": clusters,
            "budget": int(state.quotas.sum()),
            "without_embedding": state.without,
            "trained_on": state.sample,
            "made_by": state.made_by,
        }


def _emit(part: Part, column: str, vectors: np.ndarray, select: str, seed: int) -> Emitted:
    return emit_clusters(part, column, vectors, with_rows=False)


def _reduce(
    bucket: int, rows: dict[str, np.ndarray], column: str, vectors: np.ndarray, select: str, seed: int
) -> dict[str, np.ndarray]:
    """Rank of the rows of one cluster in keeping order; equal distances in uid order."""
    distance = rows["distance"]
    if select == "random":
        order = np.argsort(uid_hash(rows["uids"], seed, "concept_clusters"), kind="stable")
    else:
        order = np.argsort(-distance if select == "hard" else distance, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return {"cluster": np.full(len(order), bucket, np.int32), "rank": rank, "distance": distance}


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


def _geometry(centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances between concepts, and their places on a map."""
    return mean_distance_to_neighbours(centroids), first_two_components(centroids)


def first_two_components(points: np.ndarray) -> np.ndarray:
    """Principal components ``(k, 2) float32`` of ``(k, d)`` points; each axis points to its largest loading."""
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1, 1)
    place = np.zeros((len(points), 2), np.float32)
    place[:, : axes.shape[1]] = centred @ axes
    return place
