"""Where filters cut: thresholds as their facts tell them, and how far a row's value is from the one that it met."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BOUNDS = ("threshold", "low", "high", "at_least", "at_most", "above", "below", "similarity_threshold", "radius")
"""Facts that are a value at which decisions change."""
LINES = 8  # thresholds of groups that a histogram shows


def number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def thresholds(facts: Mapping[str, Any]) -> list[float]:
    """Values at which a filter cuts all rows alike, ascending."""
    if "radius" in facts and "similarity_threshold" in facts:
        return []  # values are of two kinds
    told = list(facts.get("bounds") or []) + [facts.get(name) for name in BOUNDS]
    return sorted({found for value in told if (found := number(value)) is not None})


def group_thresholds(facts: Mapping[str, Any]) -> dict[str, float]:
    """Threshold of each group that was cut at one."""
    cuts = facts.get("cuts")
    if not isinstance(cuts, Mapping):
        return {}
    found = {name: number(cut.get("threshold")) for name, cut in cuts.items() if isinstance(cut, Mapping)}
    return {name: value for name, value in found.items() if value is not None}


def lines(facts: Mapping[str, Any]) -> list[float]:
    """Thresholds for a histogram: of many groups a few, from the lowest to the highest."""
    common = thresholds(facts)
    groups = sorted(set(group_thresholds(facts).values()))
    if common or len(groups) <= LINES:
        return common or groups
    return [groups[round(i * (len(groups) - 1) / (LINES - 1))] for i in range(LINES)]


def groups_as_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values of a column of groups as filters name them: text, null where there is none."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values if pa.types.is_string(values.type) else values.cast(pa.string())


def distance(values: np.ndarray, cuts: Sequence[float]) -> np.ndarray:
    """Distance ``(n,) float64`` of each value from the nearest of the `cuts`; infinite without a value or a cut."""
    if not len(cuts):
        return np.full(len(values), np.inf)
    ordered = np.asarray(cuts, np.float64)
    wide = values.astype(np.float64)
    after = np.searchsorted(ordered, wide)
    below = np.abs(wide - ordered[np.maximum(after - 1, 0)])
    above = np.abs(wide - ordered[np.minimum(after, len(ordered) - 1)])
    return np.where(np.isfinite(wide), np.minimum(below, above), np.inf)


def group_distance(values: np.ndarray, groups: pa.ChunkedArray, cuts: Mapping[str, float]) -> np.ndarray:
    """Distance of each value from its own group's cut; infinite without a value, a group or a cut."""
    names = pa.array(list(cuts), pa.string())
    at = pc.index_in(groups_as_text(groups), names).fill_null(-1).to_numpy()  # type: ignore[attr-defined]
    cut = np.append(np.fromiter(cuts.values(), np.float64, len(cuts)), np.nan)[at]
    gap = np.abs(values.astype(np.float64) - cut)
    return np.where(np.isfinite(gap), gap, np.inf)
