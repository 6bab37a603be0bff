"""What a report shows of subsets and their filters: overlaps, how filters came to their decisions, quotas, leaks.

Plain dataclasses as in `data`, which hands them out too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Overlap:
    """Which rows subsets have in common; every row counts once, however often a subset repeats it.

    Attributes:
        subsets: names, ``n``.
        common: ``n x n`` rows that are in both; on the diagonal, those of the subset itself.
    """

    subsets: Sequence[str]
    common: Sequence[Sequence[int]]

    def share(self, row: int, column: int) -> float | None:
        """Part of the row's subset that is in the column's; None of an empty subset."""
        size = self.common[row][row]
        return self.common[row][column] / size if size else None

    def jaccard(self, row: int, column: int) -> float | None:
        """Rows in both by rows in either; None when there is none in either."""
        both = self.common[row][column]
        either = self.common[row][row] + self.common[column][column] - both
        return both / either if either else None


@dataclass
class FilterFacts:
    """How one filter came to its decisions, told by itself.

    Attributes:
        options: its options in short.
        facts: strict JSON; nested and long values are shortened on the page, not in ``report.json``.
        budget: what ``keep: auto`` made of the training budget, as a sentence.
        also: other subsets that share it.
    """

    subset: str
    filter: str
    type: str
    options: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    budget: str = ""
    also: Sequence[str] = ()


@dataclass
class Group:
    """One group or cluster of a filter: rows that reached it, and rows that it kept."""

    name: str
    size: int
    kept: int


@dataclass
class Quotas:
    """How a filter shared out what it kept.

    Attributes:
        what: what a group is: ``cluster``, or the name of the column whose values are the groups.
        left_out: groups that there are beside those listed.
    """

    subset: str
    filter: str
    what: str
    groups: Sequence[Group]
    left_out: int = 0


@dataclass
class LeakSet:
    """One evaluation set, looked for in the pool.

    Attributes:
        images: how many it has.
        matched: how many of them have a copy among the rows.
        rows: rows of the pool that are such a copy.
    """

    name: str
    split: str = ""
    images: int | None = None
    matched: int | None = None
    rows: int | None = None


@dataclass
class Leakage:
    """What one filter found of the evaluation sets in the pool, and dropped.

    Attributes:
        dropped: rows that it dropped; a row may be a copy of images of several sets.
        facts: by what it compared: a threshold, hashes...
    """

    subset: str
    filter: str
    sets: Sequence[LeakSet]
    dropped: int
    entered: int
    facts: Mapping[str, Any] = field(default_factory=dict)


__all__ = ["FilterFacts", "Group", "LeakSet", "Leakage", "Overlap", "Quotas"]
