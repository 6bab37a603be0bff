"""The options of every filter that clusters a pool: how many, how trained, how assigned, or whose centroids.

A filter takes them by inheriting `ClusterOptions` before `Filter`. `fit_clusters` is all it then needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from ..errors import ConfigError, DataError
from ..registry import Options
from .base import Pool
from .centroids import Centroids, named, read_centroids
from .kmeans import Assignment, Training, fit_centroids, with_assignment
from .nearest import Device


class ClusterOptions(Options):
    """k-means: trained on the pool, or given."""

    clusters: int = Field(100, ge=1, description="Number of clusters; 100 for 10 M samples, 500 for 300 M.")
    iterations: int = Field(100, ge=1, description="k-means iterations, at most.")
    points_per_centroid: int = Field(256, ge=1, description="Samples per cluster that k-means is trained on, at most.")
    centroids: str | None = Field(
        None, description="File of centroids to use instead of training: a .npy of (clusters, dimensions) float32."
    )
    training: Training = Field(
        "flat",
        description="hierarchical = about sqrt(clusters) clusters first, then each of them by itself; for more than "
        "some thousands of clusters, where flat training takes days. Other centroids than flat ones.",
    )
    assignment: Assignment = Field(
        "flat",
        description="two_level = a sample looks for the group of centroids first, then in that group: about "
        "sqrt(clusters) / 2 times fewer operations, and another partition than flat.",
    )
    device: Device = Field(
        "auto",
        description="Where k-means runs. auto = on a GPU if faiss sees one there; the facts say which. Centroids "
        "of a GPU differ in the last bits; the assignment to given centroids does not.",
    )

    @model_validator(mode="after")
    def _given_or_trained(self) -> Self:
        if self.centroids is not None and self.training != "flat":
            raise ValueError("`training` has no meaning with a file of `centroids`; leave one of them out")
        return self

    def files(self) -> list[str]:
        if self.centroids is None:
            return []
        if not Path(self.centroids).is_file():
            raise ConfigError(f"there is no file of centroids {self.centroids!r}")
        return [self.centroids]

    def fit_clusters(self, pool: Pool, column: str) -> Centroids:
        """Read or train the centroids; k = 0 for an empty pool.

        Raises:
            DataError: fewer samples with an embedding than clusters, or a file that does not fit.
        """
        if self.centroids is None:
            return fit_centroids(
                pool,
                column,
                self.clusters,
                self.iterations,
                self.points_per_centroid,
                training=self.training,
                assignment=self.assignment,
                device=self.device,
            )
        given = pool.call(_read, self.centroids)
        if "clusters" in self.model_fields_set and self.clusters != len(given):
            raise DataError(f"{self.centroids} holds {len(given)} centroids, but `clusters` is {self.clusters}")
        return with_assignment(pool, given, self.assignment, self.iterations)


def _read(path: str) -> Centroids:
    """Centroids of a file, as unit rows."""
    import numpy as np

    from .nearest import unit

    stored = read_centroids(path)
    vectors, usable = unit(stored)
    if not usable.all():
        raise DataError(f"{path}: centroid {int(np.flatnonzero(~usable)[0])} is zero, it has no direction")
    lengths = np.einsum("ij,ij->i", stored, stored, dtype=np.float64)
    if (np.abs(lengths - 1) < 1e-6).all():
        vectors = stored  # what was written here comes back to the last bit
    return Centroids(vectors, 0, named(path))


def facts_of(centroids: Centroids, written: dict[str, Any]) -> dict[str, Any]:
    """What a clustering filter says of its centroids (`centroids.kept` made `written`)."""
    return {"trained_on": centroids.sample, "made_by": centroids.made_by, "centroids": written}
