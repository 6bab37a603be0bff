"""`hierarchical_sampling`: a balanced sample over a hierarchy of concepts (Vo et al., arXiv 2405.15613).

Level 1 clusters the samples, every further level the centroids below it; sampling then goes from the top down and gives
every node an equal share, as far as it has rows (`hierarchy.py`). So a subject that fills a tenth of the web, in ten
thousand small clusters, still gets only what its few clusters at the top get. With `resample` each level is trained
again on the few points nearest to each centroid, which evens out the density further.

Deviations from the published code: spherical k-means of faiss (float32, random start, ends when nothing improves)
instead of float64 Lloyd steps from k-means++, some 13 times faster and another partition; level 1 is trained on a
sample of the pool; draws depend on node and uid, not on one stream. Nothing row-sized is held: level 1 is one shuffle
of 28 bytes a row, the levels above are k centroids in one worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ..errors import DataError
from .base import FILTERS, Context, Decision, Part, Pool
from .centroids import Centroids, kept
from .cluster_options import facts_of
from .cluster_ranks import Ranks, Select, rank_in_clusters
from .concept_clusters import Clustered, Concepts, geometry
from .hierarchy import sum_children, top_down
from .kmeans import refit, train, with_assignment
from .nearest import largest_product, unit
from .quotas import complexity


@dataclass(frozen=True)
class Sampled:
    """The leaves, what each gives, and what the levels look like.

    Attributes:
        concepts: the leaves; its quotas are different rows kept.
        targets: ``(k,) int64`` samples of each leaf, repeats included.
        levels: clusters of each level, from the leaves up.
        shares: samples of each cluster of the top level, and its rows.
        resampled: rounds of resampling done at level 1.
    """

    concepts: Concepts
    targets: np.ndarray
    levels: tuple[int, ...]
    shares: tuple[tuple[int, int], ...]
    resampled: int


@FILTERS.register
class HierarchicalSampling(Clustered):
    """Sample evenly from the top of a hierarchy of clusters down, repeats included."""

    type: Literal["hierarchical_sampling"] = "hierarchical_sampling"
    levels: list[int] = Field(
        default_factory=lambda: [10],
        description="Clusters of the levels above `clusters`, from the lower to the upper: [500, 50, 10].",
    )
    repeats: int = Field(1, ge=1, description="How often a sample may be taken, where its cluster has too few.")
    resample: list[int] = Field(
        default_factory=list,
        description="Points nearest to each centroid that a level is trained on again, from level 1 up; 0 = not.",
    )
    rounds: int = Field(10, ge=1, description="How often a level with `resample` is trained again.")
    select: Select = Field("random", description="Which rows of a leaf come first: random, easy = nearest, or hard.")

    @model_validator(mode="after")
    def _levels(self) -> Self:
        counts = [self.clusters, *self.levels]
        if any(a <= b for a, b in pairwise(counts)) or min(counts) < 1:
            raise ValueError(f"every level needs fewer clusters than the one below it, at least 1; these are {counts}")
        if len(self.resample) > len(counts) or min(self.resample, default=0) < 0:
            raise ValueError(f"`resample` has a number of points, 0 or more, for each of {len(counts)} levels at most")
        return self

    def budget(self, rows: int) -> int:
        budget = self.count if self.count is not None else int(rows * (self.keep or 0.0))
        if budget > rows * self.repeats:
            raise DataError(
                f"{self.type}: {budget} samples asked for, but {rows} have an embedding and each may be taken "
                f"{self.repeats} times; ask for fewer or raise `repeats`"
            )
        return budget

    def fit(self, pool: Pool) -> Sampled:
        centroids, resampled = self._leaves(pool)
        return self._sample(pool, centroids, resampled, centroids.facts())

    def fit_in(self, context: Context) -> Sampled:
        centroids, resampled = self._leaves(context.pool)
        return self._sample(context.pool, centroids, resampled, kept(context, centroids))

    def _leaves(self, pool: Pool) -> tuple[Centroids, int]:
        column = self.columns()[0]
        centroids = self.fit_clusters(pool, column)
        points = self.resample[0] if self.resample and self.centroids is None else 0
        done = 0
        while len(centroids) and points > 1 and done < self.rounds:
            ranks = rank_in_clusters(pool, column, centroids, "easy", self.type, self.device)
            if int(np.minimum(ranks.sizes, points).sum()) < len(centroids):
                break  # too few different rows to train on again
            done += 1
            seed = pool.seed * 1_000_003 + done
            again = refit(pool, column, ranks.routed, points, len(centroids), self.iterations, seed)
            again = Centroids(again.vectors, centroids.sample, again.made_by)
            centroids = with_assignment(pool, again, self.assignment, self.iterations)
        return centroids, done

    def _sample(self, pool: Pool, centroids: Centroids, resampled: int, written: dict[str, Any]) -> Sampled:
        made = facts_of(centroids, written)
        none = np.zeros(0, np.int64)
        if not len(centroids) or not pool.parts:
            return Sampled(Concepts.none(made), none, (), (), 0)
        ranks = rank_in_clusters(pool, self.columns()[0], centroids, self.select, self.type, self.device)
        rows = int(ranks.sizes.sum())
        if not rows:
            return Sampled(Concepts.none(made), none, (), (), 0)
        upper = self.resample[1:]
        parents = pool.call(
            build_levels, centroids.vectors, self.levels, upper, self.rounds, self.iterations, pool.seed % 2**31
        )
        targets = top_down(ranks.sizes, parents, self.budget(rows), self.repeats, pool.seed)
        concepts = self._concepts(pool, centroids, ranks, targets, made)
        levels = (len(centroids), *(int(p.max()) + 1 for p in parents))
        given, held = targets, ranks.sizes
        for parent in parents:
            given, held = sum_children(given, parent), sum_children(held, parent)
        top = tuple(zip(given.tolist(), held.tolist(), strict=True))
        return Sampled(concepts, targets, levels, top, resampled)

    def _concepts(
        self, pool: Pool, centroids: Centroids, ranks: Ranks, targets: np.ndarray, made: dict[str, Any]
    ) -> Concepts:
        inter, place = pool.call(geometry, centroids.vectors)
        quotas = np.minimum(ranks.sizes, targets)
        complexities = complexity(ranks.intra, inter)
        return Concepts(ranks.routed, ranks.sizes, quotas, ranks.intra, inter, complexities, place, ranks.without, made)

    def decide(self, part: Part, state: Sampled) -> Decision:
        concepts = state.concepts
        columns = concepts.routed.of(part) if concepts.routed is not None else {"found": np.zeros(len(part), bool)}
        found = columns["found"]
        if not found.any():
            return Decision(found, np.full(len(part), np.nan, np.float32), "no_embedding")
        cluster = columns["cluster"]
        target, size = state.targets[cluster], np.maximum(concepts.sizes[cluster], 1)
        times = np.where(found, target // size + (columns["rank"] < target % size), 0)
        reason = np.where(found, "over_share", "no_embedding")
        group = np.where(found, cluster, -1)
        return Decision(times > 0, columns["distance"], reason, np.maximum(times, 1).astype(np.int32), group)

    def describe(self, state: Sampled) -> dict[str, Any]:
        top = [{"samples": t, "rows": n} for t, n in state.shares]
        return state.concepts.facts() | {
            "samples": int(state.targets.sum()),
            "levels": list(state.levels),
            "top_level": top,
            "resampled_rounds": state.resampled,
        }


def build_levels(
    leaves: np.ndarray, levels: list[int], resample: list[int], rounds: int, iterations: int, seed: int
) -> list[np.ndarray]:
    """The cluster of the level above for every cluster of each level, numbered without gaps.

    Args:
        leaves: ``(k, d) float32`` centroids of level 1.
        levels: clusters of the levels above, descending.
        resample: points per centroid of each of these levels, 0 or 1 or missing = no resampling.
    """
    points, parents = unit(np.where(np.any(leaves != 0, axis=1)[:, None], leaves, np.float32(1)))[0], []
    for depth, k in enumerate(levels):
        k = min(k, len(points))
        vectors, _ = train(points, k, iterations, seed)
        few = resample[depth] if depth < len(resample) else 0
        for again in range(rounds if few > 1 else 0):
            of, product = largest_product(points, vectors)
            order = np.lexsort((-product, of))
            rank = np.arange(len(order)) - np.searchsorted(of[order], of[order])
            chosen = np.sort(order[rank < few])
            if len(chosen) < k:
                break
            vectors, _ = train(points[chosen], k, iterations, (seed + again + 1) % 2**31)
        of, _ = largest_product(points, vectors)
        used, numbered = np.unique(of, return_inverse=True)
        parents.append(numbered.astype(np.int64))
        points = vectors[used]
    return parents
