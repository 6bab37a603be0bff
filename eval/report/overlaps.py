"""Which rows subsets have in common, as a heat table: shares, counts and Jaccard indices behind tabs.

The number stands in every cell, so the shade only helps. Up to `NAMED` subsets have their names over the columns; more
are numbered, which keeps 30 of them on one screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import marks, quantity
from .data import Overlap
from .section import Section, Titled

NAMED = 7


@dataclass(frozen=True)
class Cell:
    """A cell: what stands in it, its shade, and the same as a sentence."""

    text: str
    shade: str
    says: str


@dataclass(frozen=True)
class View:
    """One way to look at the overlaps."""

    says: str
    rows: Sequence[Sequence[Cell]]


def overlap_section(overlap: Overlap) -> Section:
    """One table per way to compare two subsets."""
    n = range(len(overlap.subsets))
    views = [
        Titled("share of the row's subset", View("How much of the row's subset is in the column's too, in percent.",
               [[_share(overlap, i, j) for j in n] for i in n])),
        Titled("rows in both", View("Rows that are in both subsets; on the diagonal, all of the subset.",
               [[_common(overlap, i, j) for j in n] for i in n])),
        Titled("Jaccard index", View("Rows in both divided by rows in either; 1 = the same rows, 0 = none in common.",
               [[_jaccard(overlap, i, j) for j in n] for i in n])),
    ]  # fmt: skip
    lede = "Which rows subsets have in common. A row counts once, however often a subset repeats it."
    content = {"subsets": overlap.subsets, "views": views, "named": len(overlap.subsets) <= NAMED}
    return Section("overlap", "Overlap of subsets", "Overlap", lede, content)


def _share(overlap: Overlap, i: int, j: int) -> Cell:
    share = overlap.share(i, j)
    text = quantity.NONE if share is None else _percent(share)
    said = quantity.share(overlap.common[i][j], overlap.common[i][i])
    return Cell(text, marks.heat(share), f"{said} of {overlap.subsets[i]} is in {overlap.subsets[j]}")


def _percent(share: float) -> str:
    """Whole percent; what is not nothing is not 0, and what is not all is not 100."""
    whole = round(100 * share)
    if 0 < share < 0.005:
        return "<1"
    return ">99" if 0.995 <= share < 1 else str(whole)


def _common(overlap: Overlap, i: int, j: int) -> Cell:
    both = overlap.common[i][j]
    said = f"{quantity.count(both)} rows are in {overlap.subsets[i]} and in {overlap.subsets[j]}"
    return Cell(
        quantity.compact(both) if both >= 100_000 else quantity.count(both), marks.heat(overlap.share(i, j)), said
    )


def _jaccard(overlap: Overlap, i: int, j: int) -> Cell:
    index = overlap.jaccard(i, j)
    text = quantity.NONE if index is None else f"{index:.2f}"
    return Cell(text, marks.heat(index), f"Jaccard index of {overlap.subsets[i]} and {overlap.subsets[j]}: {text}")
