"""Where the data about a sweep contradicts itself."""

from __future__ import annotations

from collections.abc import Iterator

from .scaling_data import Scaling, ScalingPanel, ScalingSeries


def scaling_complaints(scaling: Scaling | None) -> Iterator[str]:
    """Sentences about what does not add up."""
    for panel in scaling.panels if scaling else ():
        names = {s.name for s in panel.series}
        if len(names) < len(panel.series):
            yield f"scaling, {panel.metric.label}: two series have one name"
        for series in panel.series:
            yield from _series(panel, series)
        for c in panel.crossings:
            if not {c.below, c.above} <= names or not 0 <= c.share <= 1:
                yield f"scaling, {panel.metric.label}: the crossing of {c.below!r} and {c.above!r} is of no two series"


def _series(panel: ScalingPanel, series: ScalingSeries) -> Iterator[str]:
    where = f"scaling of {series.name!r}, {panel.metric.label}"
    if not series.points:
        yield f"{where}: no points"
    sizes = [panel.x(p) for p in series.points]
    if sizes != sorted(sizes) or any(x < 1 for x in sizes):
        yield f"{where}: sizes {sizes} are not in order"
    if any(p.distinct > p.samples for p in series.points):
        yield f"{where}: more different samples than samples"
    if bool(series.laws) != bool(series.curve) or bool(series.laws) != bool(series.predictions):
        yield f"{where}: a law without its curve and predictions, or the reverse"
    for c in (*series.curve, *series.predictions):
        if not (c.x > 0 and c.low <= c.error <= c.high):
            yield f"{where}: {c.error:g} at {c.x:g} lies outside of its interval"
            return


__all__ = ["scaling_complaints"]
