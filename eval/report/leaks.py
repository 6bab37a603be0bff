"""Evaluation images in the pool: what was found of each set, and what a score measured on it is worth."""

from __future__ import annotations

from collections.abc import Sequence

from . import quantity
from .data import Leakage, LeakSet
from .facts import fact_lines
from .section import Section, Titled


def leakage_section(leaks: Sequence[Leakage]) -> Section:
    """One panel per filter that looked for evaluation images."""
    lede = "Pictures of evaluation sets that were found in the pool. A model that was trained on them is not tested by "
    lede += "them: what a set measures counts as far as its pictures were dropped."
    panels = [
        Titled(f"{leak.subset} · {leak.filter}", (leak, _sentence(leak), fact_lines(leak.facts))) for leak in leaks
    ]
    return Section("leakage", "Evaluation sets in the pool", "Leakage", lede, {"panels": panels})


def _sentence(leak: Leakage) -> str:
    touched = [found for found in leak.sets if found.matched or found.rows]
    if not leak.sets:
        return "No evaluation set was compared."
    if not touched:
        return f"Nothing of {_sets(leak.sets)} was found among {quantity.count(leak.entered)} rows."
    said = f"{quantity.count(leak.dropped)} of {quantity.count(leak.entered)} rows were dropped"
    return f"{said}; pictures of {_sets(touched)} were found."


def _sets(sets: Sequence[LeakSet]) -> str:
    n = len(sets)
    return f"{n} evaluation set{'s' if n > 1 else ''}"
