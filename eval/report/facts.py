"""Facts as scorers tell them, nested and long, in short lines: a name and a value that fits the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import quantity
from .visible import shorten

FEW = 8  # items of a list that are shown
TEXT = 300  # characters of a value that are shown
LINES = 60  # facts of one score that are shown
DEPTH = 3


def fact_lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of every fact; what is left out is said. ``report.json`` holds all of it."""
    found = list(_lines(facts, (), DEPTH))
    rest = len(found) - LINES
    return [*found[:LINES], ("more", f"{rest} further facts, in report.json")] if rest > 0 else found


def _lines(facts: Mapping[str, Any], path: tuple[str, ...], depth: int) -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        here = (*path, str(name).replace("_", " "))
        if isinstance(value, Mapping) and value and depth > 1:
            yield from _lines(value, here, depth - 1)
        else:
            yield shorten(" · ".join(here), TEXT), _said(value)


def _said(value: Any) -> str:
    if isinstance(value, str):
        return shorten(value, TEXT) or "(empty)"
    if value is None or isinstance(value, bool):
        return {None: quantity.NONE, True: "yes", False: "no"}[value]
    if isinstance(value, int):
        return shorten(quantity.count(value), TEXT)
    if isinstance(value, float):
        return quantity.value(value)
    if isinstance(value, Mapping):
        return _listed([f"{name}: {_said(v)}" for name, v in list(value.items())[:FEW]], len(value))
    if isinstance(value, Sequence):
        return _listed([_said(v) for v in value[:FEW]], len(value))
    return shorten(str(value), TEXT)


def _listed(shown: list[str], all_of_them: int) -> str:
    rest = all_of_them - len(shown)
    text = shorten(", ".join(shown) or "none", TEXT)
    return f"{text} … and {quantity.count(rest)} more" if rest > 0 else text
