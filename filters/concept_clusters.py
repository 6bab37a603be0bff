"""`concept_clusters`: density-based pruning, a budget shared out over concepts by their complexity (arXiv 2401.04578).

Spherical k-means finds the concepts. A cluster that is far from the others and spread out is complex and keeps more of
its rows; a dense one beside its like keeps fewer (`quotas.py`). Inside a cluster ``hard``, as published, keeps the rows
furthest from the centroid. Run `semantic_dedup` before it: the paper calls that a crucial precursor.

Deviations from the published code, where that has faults: quotas are exact and sum to the budget, distances are
averaged exactly (so the sharding leaves no trace), at most k - 1 neighbours are asked for, and a quota of 0 keeps none.
A row without an embedding belongs to no concept and is dropped; it does not count for the budget. An empty
cluster gets the mean complexity of the others and a quota of 0.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ..errors import DataError
from .base import FILTERS, Context, Decision, Filter, Part, Pool, Routed
from .budget import AUTO, Budgeted
from .centroids import Centroids, kept
from .cluster_options import ClusterOptions, facts_of
from .cluster_ranks import Select, rank_in_clusters
from .quotas import complexity, lower_bounds, mean_distance_to_neighbours, project, round_quotas, shares


@dataclass(frozen=True)
class Concepts:
    """The clusters and their quotas.

    Attributes:
        routed: ``cluster``, ``rank`` (from 0, in keeping order) and ``distance`` of every row; None for an empty pool.
        sizes, quotas: ``(k,) int64``.
        intra, inter, complexity: ``(k,) float32``; intra is NaN for an empty cluster.
        place: ``(k, 2) float32``, the centroids' first two principal components, for a map.
        without: rows without an embedding.
        made: facts of the centroids: how they were trained, the file that holds them, its digest.
    """

    routed: Routed | None
    sizes: np.ndarray
    quotas: np.ndarray
    intra: np.ndarray
    inter: np.ndarray
    complexity: np.ndarray
    place: np.ndarray
    without: int
    made: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def none(cls, made: dict[str, Any]) -> Self:
        """Of an empty pool."""
        none = np.zeros(0, np.int64)
        return cls(None, none, none, none, none, none, np.zeros((0, 2), np.float32), 0, made)

    def decide(self, part: Part) -> Decision:
        """Keep what ranks below its cluster's quota."""
        columns = self.routed.of(part) if self.routed is not None else {"found": np.zeros(len(part), bool)}
        found = columns["found"]
        if not found.any():
            return Decision(found, np.full(len(part), np.nan, np.float32), "no_embedding")
        keep = found & (columns["rank"] < self.quotas[columns["cluster"]])
        group = np.where(found, columns["cluster"], -1)
        reason = "over_quota" if found.all() else np.where(found, "over_quota", "no_embedding")
        return Decision(keep, columns["distance"], reason, group=group)

    def facts(self) -> dict[str, Any]:
        """Strict JSON: every cluster with its place on the map, and how the centroids were made."""
        names = ("size", "kept", "d_intra", "d_inter", "complexity", "x", "y")
        columns = (self.sizes, self.quotas, self.intra, self.inter, self.complexity, *self.place.T)
        rows = zip(*(c.tolist() for c in columns), strict=True)
        clusters = [{"cluster": j, **dict(zip(names, row, strict=True))} for j, row in enumerate(rows)]
        for cluster in clusters:
            if not cluster["size"]:
                cluster["d_intra"] = None
        return {
            "clusters": clusters,
            "budget": int(self.quotas.sum()),
            "without_embedding": self.without,
            "empty_clusters": int((self.sizes == 0).sum()),
            **self.made,
        }


class Clustered(Budgeted, ClusterOptions, Filter):
    """Base of filters that cluster the pool and keep a budget of it."""

    encoder: str = Field(description="Encoder whose embeddings define the clusters.")
    modality: Literal["image", "text"] = Field("image", description="Cluster images or captions.")
    keep: Annotated[float, Field(gt=0, le=1)] | AUTO | None = Field(
        None, description="Share of the samples to keep, 0-1, rounded down. `auto`: by the training budget."
    )
    count: int | None = Field(None, ge=1, description="How many samples to keep, instead of `keep`.")
    select: Select = Field(
        "hard", description="Which rows of a cluster stay: hard = furthest from its centroid, easy = nearest, random."
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.keep is None) == (self.count is None):
            raise ValueError(f"{self.type} needs exactly one of `keep` (a share) and `count`")
        return self

    @property
    def wants_budget(self) -> bool:
        return self.keep == "auto"

    def columns(self) -> list[str]:
        return [f"{self.encoder}.{self.modality}"]

    def budget(self, rows: int) -> int:
        """Samples to keep of `rows` that have an embedding.

        Raises:
            DataError: more than there are.
        """
        if self.keep == "auto":
            return self.budget_of(rows).kept
        budget = self.count if self.count is not None else int(rows * (self.keep or 0.0))
        if budget > rows:
            raise DataError(f"{self.type}: {budget} samples asked for, but only {rows} have an embedding")
        return budget


class WithQuotas(Clustered):
    """Base of filters that give every cluster a quota; subclasses say how (`quotas`)."""

    @abstractmethod
    def quotas(self, sizes: np.ndarray, budget: int, complexities: np.ndarray) -> np.ndarray:
        """Rows that each cluster keeps, ``(k,) int64``, of `sizes`."""

    def fit(self, pool: Pool) -> Concepts:
        return self._fit(pool)[0]

    def fit_in(self, context: Context) -> Concepts:
        concepts, centroids = self._fit(context.pool)
        return replace(concepts, made=facts_of(centroids, kept(context, centroids)))

    def _fit(self, pool: Pool) -> tuple[Concepts, Centroids]:
        column = self.columns()[0]
        centroids = self.fit_clusters(pool, column)
        made = facts_of(centroids, centroids.facts())
        if not len(centroids) or not pool.parts:
            return Concepts.none(made), centroids
        ranks = rank_in_clusters(pool, column, centroids, self.select, self.type, self.device)
        rows = int(ranks.sizes.sum())
        if not rows:
            return replace(Concepts.none(made), without=ranks.without), centroids
        inter, place = pool.call(geometry, centroids.vectors)
        complexities = complexity(ranks.intra, inter)
        quotas = self.quotas(ranks.sizes, self.budget(rows), complexities)
        concepts = Concepts(
            ranks.routed, ranks.sizes, quotas, ranks.intra, inter, complexities, place, ranks.without, made
        )
        return concepts, centroids

    def decide(self, part: Part, state: Concepts) -> Decision:
        return state.decide(part)

    def describe(self, state: Concepts) -> dict[str, Any]:
        if self.keep != "auto":
            return state.facts()
        return state.facts() | {"training_budget": self.budget_of(int(state.sizes.sum())).facts()}


@FILTERS.register
class ConceptClusters(WithQuotas):
    """Keep a share of every concept, more of the complex ones (density-based pruning)."""

    type: Literal["concept_clusters"] = "concept_clusters"
    temperature: float = Field(0.1, gt=0, description="Softness of the shares; large values make all clusters equal.")
    balance: float = Field(0.5, ge=0, le=1, description="Every cluster keeps at least this part of an equal share.")
    rounding: Literal["exact", "reference"] = Field(
        "exact", description="exact = the quotas sum to the budget; reference = each is rounded by itself."
    )

    def quotas(self, sizes: np.ndarray, budget: int, complexities: np.ndarray) -> np.ndarray:
        low = lower_bounds(sizes, budget, self.balance)
        x = project(shares(complexities, self.temperature).astype(np.float64) * budget, low, sizes, budget)
        return round_quotas(x, sizes, budget, self.rounding)


def geometry(centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
