"""Single test samples that a dashboard shows: mistakes, and queries with what was retrieved; how many a page holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..gallery_data import Picture

MOST_PICTURES = 600
MOST_BYTES_EACH = 64 * 1024
MOST_BYTES = 6 * 1024 * 1024
"""Bounds of the pictures of one page: how many, encoded bytes of one, and of all."""


@dataclass
class Guess:
    """What one arm said to one sample."""

    label: str
    right: bool


@dataclass
class Mistake:
    """One sample that not all arms got right. `guesses`: arm -> what it said."""

    measure: str
    key: str
    true: str
    guesses: Mapping[str, Guess]
    picture: Picture | None = None
    note: str = ""


@dataclass
class Hit:
    """One retrieved item: a caption or a picture; `right`: it belongs to the query."""

    right: bool
    text: str = ""
    picture: Picture | None = None
    score: float | None = None


@dataclass
class Retrieved:
    """One query and what each arm retrieved, best first.

    Attributes:
        rank: arm -> rank of the first right item, from 1.
        answers: what belongs to the query, retrieved or not.
    """

    measure: str
    key: str
    hits: Mapping[str, Sequence[Hit]]
    text: str = ""
    picture: Picture | None = None
    rank: Mapping[str, int] = field(default_factory=dict)
    answers: Sequence[Hit] = ()
