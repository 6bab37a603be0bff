"""The pictures of a page, each stored once however many cards show it."""

from __future__ import annotations

from collections.abc import Iterator

from ..galleries import MIMES
from ..gallery_data import Picture
from .data import Dashboard


def pictures_of(data: Dashboard) -> Iterator[Picture]:
    """Distinct pictures (by content), in the order in which they are first shown."""
    seen: set[tuple[str, bytes]] = set()
    for picture in _all(data):
        if picture and (picture.mime, picture.data) not in seen:
            seen.add((picture.mime, picture.data))
            yield picture


def _all(data: Dashboard) -> Iterator[Picture | None]:
    for mistake in data.mistakes:
        yield mistake.picture
    for query in data.retrieved:
        yield query.picture
        for hits in query.hits.values():
            for hit in hits:
                yield hit.picture


__all__ = ["MIMES", "pictures_of"]
