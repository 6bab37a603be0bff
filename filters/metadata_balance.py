"""`metadata_balance`: MetaCLIP's balancing of captions over the entries of a metadata list (arXiv 2309.16671).

Reads the entries that `metadata_match` found. An entry that at most `target` captions name keeps them all; one that
more captions name keeps about `target` of them, and a caption that names several has several chances. A caption that
names none is dropped. Published targets: 20,000 for 400 M captions, 170,000 for 2.5 B. How it becomes a threshold is in
`entry_balance.py`.

With `language` each language is balanced by itself, as in MetaCLIP 2 (arXiv 2507.22062): `target` is that of the
reference language; another language's target is the count below which its entries hold the same share of all matches.

Deviations: the published code draws from one stream and writes a caption once for every entry that wins; here each
(caption, entry) has its own draw, and a caption is kept once. Price: a pass to count, another to decide; the counts,
some 12 bytes an entry, go to every worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ..errors import DataError
from .base import FILTERS, Decision, Filter, Part, Pool
from .counters import Counters, sum_counters
from .entry_balance import (
    PURPOSE,
    CheapestFirst,
    Costs,
    language_numbers,
    languages_of,
    read_entries,
    tail_share,
    target_of,
)
from .group_cuts import Cuts, Share, fit_cuts, tell


@dataclass(frozen=True)
class Balance:
    """Counts, and what is kept.

    Attributes:
        costs: how a caption's cost is computed.
        targets: of each language, in the order of ``costs.languages``; one without a language.
        cuts: where the cheapest N end, with `samples`; else None.
        rows, matched: captions that came, and those that name an entry.
    """

    costs: Costs
    targets: tuple[float, ...]
    cuts: Cuts | None
    rows: int
    matched: int


@FILTERS.register
class MetadataBalance(Filter):
    """Thin out captions of frequent entries, keep those of rare ones (MetaCLIP)."""

    type: Literal["metadata_balance"] = "metadata_balance"
    by: str = Field(description="Score of type `metadata_match`; its column <by>_entries is read.")
    target: int | None = Field(None, ge=1, description="Captions that every entry may have (t): 20000 for 400 M pairs.")
    samples: int | None = Field(
        None, ge=1, description="How many samples to keep, exactly, instead of `target`; the target follows from it."
    )
    language: str | None = Field(None, description="Column of languages; each gets a target of its own (MetaCLIP 2).")
    reference: str = Field("en", description="Language that `target` is meant for.")
    seed: int = Field(0, ge=0, description="Another number draws other samples, independently of the run's seed.")

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if (self.target is None) == (self.samples is None):
            raise ValueError("metadata_balance needs exactly one of `target` and `samples`")
        if self.samples is not None and self.language is not None:
            raise ValueError("`samples` knows no languages; give a `target`, or use one filter for each language")
        return self

    def columns(self) -> list[str]:
        return ["uid", f"{self.by}_entries", *([self.language] if self.language else [])]

    def fit(self, pool: Pool) -> Balance:
        column = f"{self.by}_entries"
        looked = pool.map(_look, column, self.language)
        rows, matched = sum(x.rows for x in looked), sum(x.matched for x in looked)
        languages = tuple(sorted(set().union(*(x.languages for x in looked)))) if self.language else ("",)
        stride = max((x.largest for x in looked), default=-1) + 1
        width = max((x.width for x in looked), default=1)
        counts = sum_counters(pool, _count, column, stride, self.language, languages, width=width)
        purpose = f"{PURPOSE}/{self.seed}"
        costs = Costs(column, stride, counts, self.language, languages, pool.seed, purpose)
        if self.samples is None:
            return Balance(costs, self._targets(costs), None, rows, matched)
        if self.samples > matched and rows:
            raise DataError(
                f"metadata_balance: {self.samples} samples asked for, but only {matched} of {rows} name an entry"
            )
        cuts = fit_cuts(pool, CheapestFirst(None, costs=costs), Share(count=self.samples))
        threshold = tell(pool, cuts).get("", {}).get("threshold")
        return Balance(costs, (np.inf if threshold is None else threshold,), cuts, rows, matched)

    def _targets(self, costs: Costs) -> tuple[float, ...]:
        assert self.target is not None
        if self.language is None or not costs.stride:
            return (float(self.target),) * len(costs.languages)
        of, counts = costs.counts.keys // costs.stride, costs.counts.counts
        if self.reference not in costs.languages:
            known = ", ".join(repr(name) for name in costs.languages[:20])
            raise DataError(f"no sample has the reference language {self.reference!r}; there are {known}")
        share = tail_share(counts[of == costs.languages.index(self.reference)], self.target)
        return tuple(
            float(self.target if name == self.reference else target_of(counts[of == i], share))
            for i, name in enumerate(costs.languages)
        )

    def decide(self, part: Part, state: Balance) -> Decision:
        cost = state.costs.of(part)
        if state.cuts is not None:
            keep, _ = state.cuts.keep(part)
        else:
            of = language_numbers(part, self.language, state.costs.languages)
            target = np.array([*state.targets, 0], np.float32)[of]
            keep = cost < target  # NaN is not
        return Decision(keep, cost, np.where(np.isnan(cost), "no_entry", "over_target"))

    def describe(self, state: Balance) -> dict[str, Any]:
        counts, of = state.costs.counts, state.costs.counts.keys // max(1, state.costs.stride)
        told: dict[str, Any] = {"rows": state.rows, "matched": state.matched, "entries_named": len(counts.keys)}
        by_language = {}
        for i, (name, target) in enumerate(zip(state.costs.languages, state.targets, strict=True)):
            mine = counts.counts[of == i]
            by_language[name] = {
                "target": float(target) if np.isfinite(target) else None,
                "entries": len(mine),
                "over_target": int((mine > target).sum()),
                "matches": int(mine.sum()),
                "tail_share": tail_share(mine, target),
            }
        return told | ({"languages": by_language} if self.language else by_language.get("", {}))


@dataclass(frozen=True)
class _Look:
    """What the first pass says of a part."""

    rows: int
    matched: int
    largest: int
    width: int
    languages: frozenset[str]


def _look(part: Part, column: str, language: str | None) -> _Look:
    pairs = read_entries(part, column)
    named = frozenset(languages_of(part, language).tolist()) if language else frozenset()
    width = -(-len(pairs.row) // len(part)) if len(part) else 1
    largest = int(pairs.entry.max(initial=-1))
    return _Look(len(part), len(np.unique(pairs.row)), largest, max(1, width), named)


def _count(part: Part, column: str, stride: int, language: str | None, languages: tuple[str, ...]) -> Counters:
    unread = Costs(column, stride, Counters.of(np.empty(0, np.int64)), language, languages, 0)
    return Counters.of(unread.keys(part)[1])
