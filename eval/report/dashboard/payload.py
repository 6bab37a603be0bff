"""A dashboard's data as the page's script reads it: short, by index, with no text that hides or reorders.

Every text goes through `reveal`, so the script only has to set it as text. Arms, measures and pictures stand once and
are named by their place; differences are told as arrays. What the script would have to look up in a table of the
t distribution is in here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from scipy import special

from ..galleries import SMALL, data_uri
from ..gallery_data import Picture
from ..visible import reveal, shorten
from .data import Arm, Dashboard, Score, Span
from .example_data import Hit
from .pictures import pictures_of

LONGEST = 600  # characters of one caption or class name
MOST_DF = 60


def filled(data: Dashboard) -> Dashboard:
    """Without tables and examples that no arm has."""
    return replace(
        data,
        per_class=[p for p in data.per_class if p.arms and p.classes],
        confusions=[c for c in data.confusions if c.pairs or c.counts],
        groups=[g for g in data.groups if g.arms and g.groups],
        mistakes=[m for m in data.mistakes if m.guesses],
        retrieved=[r for r in data.retrieved if r.hits],
        curves=[c for c in data.curves if len(c.x)],
    )


def payload(data: Dashboard) -> dict[str, Any]:
    """Strict JSON values for the page."""
    return _Payload(data).whole()


class _Payload:
    def __init__(self, data: Dashboard) -> None:
        self.data = data
        self.arm = {a.name: i for i, a in enumerate(data.arms)}
        self.measure = {m.name: i for i, m in enumerate(data.measures)}
        pictures = list(pictures_of(data))
        self.pictures = pictures
        self.place = {(p.mime, p.data): i for i, p in enumerate(pictures)}
        self.kinds: dict[str, int] = {}  # of intervals and tests, said once

    def whole(self) -> dict[str, Any]:
        data = self.data
        arms, differences = [self._arm(a) for a in data.arms], self._differences()
        return {
            "title": _text(data.title),
            "control": self.arm[data.control] if data.control else 0,
            "measures": [_record(m) for m in data.measures],
            "chosen": sorted(self.measure[m] for m in data.chosen or [m.name for m in data.measures if m.main]),
            "facts": [_record(f) for f in data.facts],
            "arms": arms,
            "differences": differences,
            "overall": self._overall(),
            "kinds": list(self.kinds),
            "aggregates": [{**_record(a), "measures": [self.measure[m] for m in a.measures]} for a in data.aggregates],
            "perClass": [
                {
                    "m": self.measure[p.measure],
                    "classes": _texts(p.classes),
                    "n": list(p.n),
                    "arms": {self.arm[a]: list(v) for a, v in p.arms.items()},
                }
                for p in data.per_class
            ],
            "confusions": [
                {
                    "m": self.measure[c.measure],
                    "arm": self.arm[c.arm],
                    "pairs": [[_text(t), _text(p), n] for t, p, n in c.pairs],
                    "classes": _texts(c.classes),
                    "counts": [list(row) for row in c.counts],
                }
                for c in data.confusions
            ],
            "groups": [
                {
                    "m": self.measure[g.measure],
                    "field": _text(g.field),
                    "groups": _texts(g.groups),
                    "n": list(g.n),
                    "chance": list(g.chance),
                    "arms": {self.arm[a]: [[s.value, s.low, s.high] for s in row] for a, row in g.arms.items()},
                }
                for g in data.groups
            ],
            "robustness": [{**_record(r), "x": self.measure[r.x], "y": self.measure[r.y]} for r in data.robustness],
            "curves": [{**_record(c), "arm": self.arm[c.arm], "x": list(c.x), "y": list(c.y)} for c in data.curves],
            "mistakes": [
                {
                    "m": self.measure[m.measure],
                    "key": _text(m.key),
                    "true": _text(m.true),
                    "note": _text(m.note),
                    "picture": self._picture(m.picture),
                    "guesses": {self.arm[a]: [_text(g.label), int(g.right)] for a, g in m.guesses.items()},
                }
                for m in data.mistakes
            ],
            "retrieved": [
                {
                    "m": self.measure[r.measure],
                    "key": _text(r.key),
                    "text": _text(r.text),
                    "picture": self._picture(r.picture),
                    "rank": {self.arm[a]: n for a, n in r.rank.items()},
                    "hits": {self.arm[a]: [self._hit(h) for h in hits] for a, hits in r.hits.items()},
                    "answers": [self._hit(h) for h in r.answers],
                }
                for r in data.retrieved
            ],
            "pictures": [
                [str(data_uri(p)), p.width, p.height, int(max(p.width, p.height) <= SMALL)] for p in self.pictures
            ],
            "t": [round(float(special.stdtrit(df, 0.975)), 9) for df in range(1, MOST_DF + 1)],
        }

    def _arm(self, arm: Arm) -> dict[str, Any]:
        scores: list[Any] = [None] * len(self.data.measures)
        for name, score in arm.scores.items():
            scores[self.measure[name]] = self._score(score)
        return {
            "name": _text(arm.name),
            "run": _text(arm.run),
            "description": _text(arm.description),
            "seeds": _texts(arm.seeds),
            "facts": [arm.facts.get(f.name) for f in self.data.facts],
            "pool": arm.pool,
            "steps": [[_text(s.label), s.entered, s.kept] for s in arm.steps],
            "report": arm.report,
            "scores": scores,
        }

    def _differences(self) -> dict[int, dict[str, list[Any]]]:
        """Measure -> "arm,control" -> [mean, low, high, p, Holm's p, place of its kind, the rest if it is known]."""
        found: dict[int, dict[str, list[Any]]] = {}
        for d in self.data.differences:
            pair = f"{self.arm[d.arm]},{self.arm[d.control]}"
            rest = [d.samples, d.both, d.wins, d.losses, d.detectable]
            told = [d.mean, d.low, d.high, d.p, d.holm, self._kind(d.kind), *(rest if any(rest) else ())]
            found.setdefault(self.measure[d.measure], {})[pair] = told
        return found

    def _overall(self) -> dict[str, Any] | None:
        if (overall := self.data.overall) is None:
            return None
        return {
            "measures": sorted(self.measure[m] for m in overall.measures),
            "ranks": {self.arm[a]: list(found) for a, found in overall.ranks.items()},
            "tau": overall.tau,
        }

    def _kind(self, text: str) -> int:
        return self.kinds.setdefault(_text(text), len(self.kinds))

    def _score(self, score: Score) -> list[Any]:
        """[values, interval, intervals, verdicts on chance, rank], cut after the last that is known."""
        rank = score.rank
        told: list[Any] = [
            list(score.seeds),
            self._span(score.span),
            [self._span(s) for s in score.spans],
            [None if c is None else list(c) for c in score.chance],
            None if rank is None else [rank.rank, rank.low, rank.high, rank.shared, rank.of],
        ]
        while len(told) > 1 and not told[-1]:
            told.pop()
        return told

    def _span(self, span: Span | None) -> list[Any] | None:
        return None if span is None else [span.low, span.high, self._kind(span.kind)]

    def _hit(self, hit: Hit) -> list[Any]:
        return [int(hit.right), _text(hit.text), self._picture(hit.picture), hit.score]

    def _picture(self, picture: Picture | None) -> int | None:
        return None if picture is None else self.place[picture.mime, picture.data]


def _record(item: Any) -> dict[str, Any]:
    """A flat dataclass; texts revealed."""
    return {name: _texts(v) if isinstance(v, (list, tuple)) else _text(v) for name, v in vars(item).items()}


def _text(value: Any) -> Any:
    return shorten(reveal(value), LONGEST) if isinstance(value, str) else value


def _texts(values: Sequence[Any]) -> list[Any]:
    return [_text(v) for v in values]


def choices(data: Dashboard) -> Mapping[str, bool]:
    """Which sections a page has."""
    return {
        "scatter": bool(data.measures),
        "curves": bool(data.curves),
        "classes": bool(data.per_class),
        "confusions": bool(data.confusions),
        "groups": bool(data.groups),
        "retrieval": bool(data.retrieved),
        "mistakes": bool(data.mistakes),
        "funnels": any(a.steps or a.report for a in data.arms),
    }
