"""What a report shows of single samples: pictures, captions, pairs of copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Picture:
    """Encoded image bytes. Only PNG, JPEG, WebP and GIF are shown."""

    data: bytes
    mime: str
    width: int
    height: int


@dataclass
class Card:
    """One sample in a gallery. `value` is the number its filter decided by; `note` is shown as is (truth, say)."""

    uid: str
    caption: str = ""
    url: str = ""
    picture: Picture | None = None
    value: float | None = None
    reason: str = ""
    note: str = ""


@dataclass
class Pair:
    """A dropped copy and the sample that was kept in its place."""

    dropped: Card
    kept: Card


@dataclass
class Gallery:
    """Examples of one filter's decisions, drawn at random; the totals say of how many they are examples.

    Attributes:
        just_dropped, just_kept: the samples next to its threshold, nearest first.
        pairs: of a filter that drops copies.
    """

    subset: str
    filter: str
    dropped: Sequence[Card] = ()
    kept: Sequence[Card] = ()
    dropped_total: int | None = None
    kept_total: int | None = None
    note: str = ""
    just_dropped: Sequence[Card] = ()
    just_kept: Sequence[Card] = ()
    pairs: Sequence[Pair] = ()
