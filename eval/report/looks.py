"""Who looked at the pool: what each encoder, score of pixels and import saw, and why other rows have nothing."""

from __future__ import annotations

from collections.abc import Sequence

from . import quantity
from .data import Look
from .section import Section

FACTS = {
    "rows": "rows in the files",
    "malformed": "without a usable key",
    "repeated": "repeat a key",
    "conflicting": "keys with different values",
    "not_in_pool": "asked for by no row of the pool",
}
"""Counts of an import's own files, in words."""


def looks_section(looks: Sequence[Look]) -> Section:
    """One table; every line adds up to the rows of the pool."""
    reasons = list(dict.fromkeys(r for look in looks for t in look.tallies for r, n in t.nulls.items() if n))
    lede = "What each encoder, score of pixels and import saw of the pool. Every line adds up to all rows: a row has a "
    lede += "value, or the reason why it has none is counted."
    content = {"looks": [(look, _files(look)) for look in looks], "reasons": reasons}
    return Section("looks", "What looked at the pool", "Looks", lede, content)


def _files(look: Look) -> str:
    """What an import's files held."""
    told = [f"{quantity.count(n)} {FACTS.get(name, name.replace('_', ' '))}" for name, n in look.facts.items() if n]
    return ", ".join(told)
