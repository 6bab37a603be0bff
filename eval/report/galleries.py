"""Galleries: a few kept and dropped samples per filter, ready for the template.

Pictures go into the page as data URIs, once for every card that shows them: about 1.4 bytes a byte. Captions come short
on the card and in full, up to `CAPTION_LIMIT` characters, behind it.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from ...errors import DataError
from . import quantity
from .data import Card, Gallery, Picture
from .visible import marked, reveal, shorten

MIMES = ("image/png", "image/jpeg", "image/webp", "image/gif")
"""What is shown. SVG is not: it is a document, not a picture."""

SHORT_CAPTION = 110
CAPTION_LIMIT = 4000
URL_LIMIT = 2000
NO_CAPTION = Markup('<i class="faint">no caption</i>')
NEAR, DRAWN = "Next to the threshold, nearest first", "Drawn at random"
SMALL = 96  # pictures up to this many pixels are enlarged with hard edges


@dataclass(frozen=True)
class CardView:
    """One card as the template writes it; `more` is what its details hold."""

    source: Markup | None
    alt: str
    small: bool
    caption: Markup
    value: str
    reason: str
    note: str
    more: Sequence[tuple[str, Markup]]


@dataclass(frozen=True)
class Side:
    """The dropped or the kept half of a row of a gallery."""

    kind: str
    title: str
    cards: Sequence[CardView]
    total: int | None = None


@dataclass(frozen=True)
class GalleryView:
    """One filter's gallery: rows of two sides under a title, and pairs of a dropped and a kept sample."""

    filter: str
    note: str
    rows: Sequence[tuple[str, Sequence[Side]]]
    pairs: Sequence[tuple[CardView, CardView]]


def subset_galleries(galleries: Sequence[Gallery]) -> dict[str, list[GalleryView]]:
    """Galleries by subset, in the order given; those without a card are left out."""
    groups: dict[str, list[GalleryView]] = {}
    for gallery in galleries:
        if gallery.dropped or gallery.kept or gallery.just_dropped or gallery.just_kept or gallery.pairs:
            groups.setdefault(gallery.subset, []).append(_gallery(gallery))
    return groups


def _gallery(gallery: Gallery) -> GalleryView:
    near = [
        Side("dropped", "just dropped", [_card(c) for c in gallery.just_dropped]),
        Side("kept", "just kept", [_card(c) for c in gallery.just_kept]),
    ]
    drawn = [
        Side("dropped", "dropped", [_card(c) for c in gallery.dropped], gallery.dropped_total),
        Side("kept", "kept", [_card(c) for c in gallery.kept], gallery.kept_total),
    ]
    rows = [(title, [s for s in sides if s.cards]) for title, sides in ((NEAR, near), (DRAWN, drawn))]
    rows = [(title, sides) for title, sides in rows if sides]
    pairs = [(_card(pair.dropped), _card(pair.kept)) for pair in gallery.pairs]
    if len(rows) == 1 and not pairs and not near[0].cards:
        rows = [("", rows[0][1])]
    return GalleryView(gallery.filter, gallery.note, rows, pairs)


def _card(card: Card) -> CardView:
    picture = card.picture
    cut = len(card.caption) - CAPTION_LIMIT
    caption = marked(shorten(card.caption, CAPTION_LIMIT))
    if cut > 0:
        caption += Markup(' <span class="faint">({} more characters)</span>').format(quantity.count(cut))
    more = [("caption", caption)] if len(card.caption) > SHORT_CAPTION else []
    more += [("uid", marked(card.uid))]
    if card.url:
        more.append(("url", marked(shorten(card.url, URL_LIMIT))))
    if picture:
        facts = (picture.width, picture.height, quantity.size(len(picture.data)))
        more.append(("image", Markup("{} × {}, {}").format(*facts)))
    return CardView(
        source=data_uri(picture) if picture else None,
        alt=f"sample {card.uid[:8]}: {shorten(reveal(card.caption), 80)}",
        small=bool(picture) and max(picture.width, picture.height) <= SMALL,
        caption=marked(shorten(card.caption, SHORT_CAPTION)) if card.caption else NO_CAPTION,
        value="" if card.value is None else quantity.value(card.value),
        reason=card.reason,
        note=card.note,
        more=more,
    )


def data_uri(picture: Picture) -> Markup:
    """The picture as text for a ``src`` attribute.

    Raises:
        DataError: a type that is not one of `MIMES`.
    """
    if picture.mime not in MIMES:
        raise DataError(f"a report shows {', '.join(MIMES)}, not {picture.mime!r}")
    return Markup(f"data:{picture.mime};base64,{base64.b64encode(picture.data).decode()}")
