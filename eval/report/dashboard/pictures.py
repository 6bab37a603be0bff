"""The pictures of a page: each stored once however many cards show it, and as many as a page can hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..galleries import MIMES
from ..gallery_data import Picture
from .data import Dashboard
from .example_data import MOST_BYTES, MOST_PICTURES, Mistake, Retrieved

Example = Mistake | Retrieved


def pictures_of(data: Dashboard) -> Iterator[Picture]:
    """Distinct pictures (by content), in the order in which they are first shown."""
    seen: set[tuple[str, bytes]] = set()
    for example in (*data.mistakes, *data.retrieved):
        yield from _new(example, seen)


def bounded(data: Dashboard, most: int = MOST_PICTURES, size: int = MOST_BYTES) -> Dashboard:
    """The same page with as many examples as its bounds on pictures allow; a note says how many were left out.

    Measures take turns, so that each keeps its first examples.
    """
    kept: set[int] = set()
    seen: set[tuple[str, bytes]] = set()
    examples = list(_in_turns([*data.mistakes, *data.retrieved]))
    for example in examples:
        new = list(_new(example, set(seen)))
        if len(seen) + len(new) > most or sum(len(p.data) for p in new) > size:
            continue
        size -= sum(len(p.data) for p in new)
        seen |= {(p.mime, p.data) for p in new}
        kept.add(id(example))
    if len(kept) == len(examples):
        return data
    note = f"{len(kept)} of {len(examples)} examples with pictures are shown; a page holds {most} pictures at most."
    return replace(
        data,
        mistakes=[m for m in data.mistakes if id(m) in kept],
        retrieved=[r for r in data.retrieved if id(r) in kept],
        notes=[*data.notes, note],
    )


def _in_turns(examples: Iterable[Example]) -> Iterator[Example]:
    by_measure: dict[tuple[type, str], list[Example]] = {}
    for example in examples:
        by_measure.setdefault((type(example), example.measure), []).append(example)
    for turn in range(max(map(len, by_measure.values()), default=0)):
        yield from (those[turn] for those in by_measure.values() if turn < len(those))


def _new(example: Example, seen: set[tuple[str, bytes]]) -> Iterator[Picture]:
    for picture in _pictures(example):
        if picture and (picture.mime, picture.data) not in seen:
            seen.add((picture.mime, picture.data))
            yield picture


def _pictures(example: Example) -> Iterator[Picture | None]:
    yield example.picture
    if isinstance(example, Retrieved):
        yield from (hit.picture for hits in (*example.hits.values(), example.answers) for hit in hits)


__all__ = ["MIMES", "bounded", "pictures_of"]
