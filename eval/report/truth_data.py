"""What a report shows of planted faults, and of the clusters that filters cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Fault:
    """One kind of planted fault among the rows that reached a filter, and how many of these it dropped."""

    kind: str
    present: int
    dropped: int


@dataclass
class FilterTruth:
    """What a filter did, judged by the truth that was kept aside.

    Attributes:
        entered, dropped: rows that reached it and rows it dropped.
        faulty: rows that reached it with a fault it is meant to catch.
        caught: of those, the dropped ones.
        faults: every kind of fault, meant or not; a row with two faults counts in both.
        targets: kinds that it is meant to catch.
        good, good_dropped: rows without any fault, and how many of these it dropped.
    """

    subset: str
    filter: str
    entered: int
    dropped: int
    faulty: int
    caught: int
    faults: Sequence[Fault] = ()
    targets: Sequence[str] = ()
    good: int = 0
    good_dropped: int = 0

    @property
    def precision(self) -> float | None:
        """Share of what it dropped that deserved it; None when it dropped nothing."""
        return self.caught / self.dropped if self.dropped else None

    @property
    def recall(self) -> float | None:
        """Share of what deserved it that it dropped; None when there was nothing to catch."""
        return self.caught / self.faulty if self.faulty else None


@dataclass
class Cluster:
    """One cluster: place on the map, size before and rows kept after, spread, and what it is about.

    Attributes:
        label: two or three words or digits, drawn beside the point.
        examples: a few captions.
        d_intra: mean cosine distance to its centroid.
        d_inter: mean cosine distance to its nearest centroids.
    """

    id: int
    x: float
    y: float
    size: int
    kept: int
    d_intra: float | None = None
    d_inter: float | None = None
    label: str = ""
    examples: Sequence[str] = ()


@dataclass
class ClusterMap:
    """The clusters of one filter of one subset, placed in two dimensions."""

    subset: str
    filter: str
    clusters: Sequence[Cluster]
    description: str = ""
