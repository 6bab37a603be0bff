"""`train_centroids`: train centroids on the samples that come by, write them to a file, and keep every sample.

With ``metric: l2`` these are DataComp's image clusters (arXiv 2304.14108): plain k-means of faiss with raw centroids,
20 iterations, 100,000 clusters, trained on a share of the pool (1.0 at small and medium, 0.3 at large, 0.03 at xlarge).
Deviations: the sample is drawn without replacement by a hash of the uid, so it can be drawn again, where the published
code draws with replacement and without a seed; which samples take part is up to the filters before this one, where the
published code applies its caption rule. ``centroids.npy``, ``(k, d) float32``, is what ``image_based`` reads.

The sample is in the memory of one worker: 30 GB at 10 M samples of 768 dimensions.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field

from .base import FILTERS, Context, Decision, Filter, Part, Pool
from .centroids import Centroids, Metric, kept
from .cluster_options import facts_of
from .kmeans import Training, fit_centroids
from .nearest import Device


@FILTERS.register
class TrainCentroids(Filter):
    """Train k-means centroids for other filters, and keep everything."""

    type: Literal["train_centroids"] = "train_centroids"
    encoder: str = Field(description="Encoder whose embeddings are clustered.")
    modality: Literal["image", "text"] = Field("image", description="Cluster images or captions.")
    clusters: int = Field(100_000, ge=1, description="Number of clusters.")
    metric: Metric = Field("l2", description="l2 = DataComp's, with raw centroids; cosine = spherical, unit centroids.")
    iterations: int = Field(20, ge=1, description="k-means iterations, at most.")
    fraction: float = Field(1.0, gt=0, le=1, description="Share of the samples to train on.")
    points_per_centroid: int = Field(10_000_000, ge=1, description="Samples per cluster to train on, at most.")
    training: Training = Field("flat", description="hierarchical = in two steps, for many clusters.")
    device: Device = Field("auto", description="Where k-means runs; auto = on a GPU if faiss sees one.")

    def columns(self) -> list[str]:
        return [f"{self.encoder}.{self.modality}"]

    def train(self, pool: Pool) -> Centroids:
        """Train them."""
        rows = sum(pool.map(_length))
        return fit_centroids(
            pool,
            self.columns()[0],
            self.clusters,
            self.iterations,
            self.points_per_centroid,
            training=self.training,
            device=self.device,
            metric=self.metric,
            points=max(1, min(int(rows * self.fraction), self.clusters * self.points_per_centroid)),
        )

    def fit(self, pool: Pool) -> dict[str, Any]:
        centroids = self.train(pool)
        return facts_of(centroids, centroids.facts())

    def fit_in(self, context: Context) -> dict[str, Any]:
        centroids = self.train(context.pool)
        return facts_of(centroids, kept(context, centroids))

    def decide(self, part: Part, state: dict[str, Any]) -> Decision:
        return Decision(np.ones(len(part), bool), np.full(len(part), np.nan, np.float32), "")

    def describe(self, state: dict[str, Any]) -> dict[str, Any]:
        return state


def _length(part: Part) -> int:
    return len(part)
