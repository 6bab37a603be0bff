"""Where a filter cut each of its clusters, worked out from its decisions: it ranked them, and kept one end.

Filters that keep the furthest or the nearest rows of a cluster tell no thresholds, but there is one: kept values lie on
one side of it. When that is not so in any one cluster (a random choice), there is no such thing as just kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..decisions import read_decision


@dataclass(frozen=True)
class Edges:
    """The cut of each cluster, ``(k,) float64``; NaN of one that was kept or dropped whole."""

    cuts: np.ndarray

    def of(self, values: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Distance ``(n,) float64`` of each value from its cluster's cut; infinite without either."""
        gap = np.abs(values.astype(np.float64) - np.append(self.cuts, np.nan)[groups])
        return np.where(np.isfinite(gap) & (groups >= 0), gap, np.inf)


def cluster_edges(files: Sequence[tuple[str, str]]) -> Edges | None:
    """The cuts of a filter with clusters; None of one without, or one that did not keep one end of each.

    Args:
        files: folder and part of each decision table.
    """
    low = {side: np.empty(0) for side in (False, True)}
    high = {side: np.empty(0) for side in (False, True)}
    for folder, part in files:
        table = read_decision(folder, part)
        if "group" not in table.column_names:  # a part none of whose rows is in a cluster
            continue
        group, keep = table["group"].to_numpy(), table["keep"].to_numpy()
        value = table["value"].to_numpy().astype(np.float64)
        more = int(group.max(initial=-1)) + 1 - len(low[True])
        for side in (False, True):
            if more > 0:
                low[side] = np.append(low[side], np.full(more, np.inf))
                high[side] = np.append(high[side], np.full(more, -np.inf))
            mine = (keep == side) & (group >= 0) & np.isfinite(value)
            np.minimum.at(low[side], group[mine], value[mine])
            np.maximum.at(high[side], group[mine], value[mine])
    both = np.isfinite(low[True]) & np.isfinite(low[False])
    cuts = np.full(len(both), np.nan)
    if both.any() and (low[True] >= high[False])[both].all():
        cuts[both] = low[True][both]
    elif both.any() and (high[True] <= low[False])[both].all():
        cuts[both] = high[True][both]
    else:
        return None
    return Edges(cuts)
