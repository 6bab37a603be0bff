"""A dashboard whose parts do not fit is not shown: this finds the first place where they do not.

It also keeps the page small and harmless: pictures are few and of kinds that browsers draw without running anything,
and a link leads only to a path beside the page.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from ....errors import DataError
from ..gallery_data import Picture
from .data import Arm, Dashboard, Score, Span
from .example_data import MOST_BYTES, MOST_BYTES_EACH, MOST_PICTURES
from .pictures import MIMES, pictures_of

_RELATIVE = re.compile(r"(?!/)[A-Za-z0-9._~/ +@%-]+\Z")


def check_dashboard(data: Dashboard) -> None:
    """Refuse data that contradicts itself.

    Raises:
        DataError: names the place and what disagrees.
    """
    for complaint in _complaints(data):
        raise DataError(f"the dashboard's data does not fit: {complaint}")


def is_relative(path: str) -> bool:
    """Whether a link stays beside the page: no scheme, no host, no root, nothing that a browser would strip."""
    return bool(_RELATIVE.match(path)) and "//" not in path and path == path.strip()


def _complaints(data: Dashboard) -> Iterator[str]:
    arms = [a.name for a in data.arms]
    measures = [m.name for m in data.measures]
    if not arms:
        yield "it has no arm"
    yield from _twice("arm", arms)
    yield from _twice("measure", measures)
    yield from _twice("aggregate", [a.name for a in data.aggregates])
    if data.control and data.control not in arms:
        yield f"the control {data.control!r} is no arm"
    for measure in data.measures:
        if not measure.groups:
            yield f"measure {measure.name!r} is in no group"
    for arm in data.arms:
        yield from _arm(arm, set(measures))
    yield from _references(data, set(arms), set(measures))
    yield from _tables(data)
    yield from _pictures([*pictures_of(data)])


def _arm(arm: Arm, measures: set[str]) -> Iterator[str]:
    where = f"arm {arm.name!r}"
    yield from _twice(f"seed of {where}", list(arm.seeds))
    for name, score in arm.scores.items():
        if name not in measures:
            yield f"{where} has a score for {name!r}, which is no measure"
        yield from _score(f"{where}, {name!r}", score, len(arm.seeds))
    for fact, number in arm.facts.items():
        if number is not None and not math.isfinite(number):
            yield f"{where}: {fact!r} is not finite"
    entered = arm.pool
    for step in arm.steps:
        if step.entered != entered:
            yield f"{where}: {step.entered} rows enter {step.label!r}, but {entered} came before"
        if not 0 <= step.kept <= step.entered:
            yield f"{where}: {step.label!r} keeps {step.kept} of {step.entered}"
        entered = step.kept
    if arm.report and not is_relative(arm.report):
        yield f"{where}: its report {arm.report!r} is not a relative path"


def _score(where: str, score: Score, seeds: int) -> Iterator[str]:
    if len(score.seeds) != seeds:
        yield f"{where}: {len(score.seeds)} values for {seeds} seeds"
    if score.spans and len(score.spans) != seeds:
        yield f"{where}: {len(score.spans)} intervals for {seeds} seeds"
    if score.chance and len(score.chance) != seeds:
        yield f"{where}: {len(score.chance)} verdicts on chance for {seeds} seeds"
    if any(v is not None and not math.isfinite(v) for v in score.seeds):
        yield f"{where}: a value is not finite (None stands for what was not measured)"
    for span in (score.span, *score.spans):
        if span and not _ordered(span):
            yield f"{where}: its interval [{span.low}, {span.high}] is none"


def _ordered(span: Span) -> bool:
    return math.isfinite(span.low) and math.isfinite(span.high) and span.low <= span.high


def _references(data: Dashboard, arms: set[str], measures: set[str]) -> Iterator[str]:
    named = [
        *(("difference", d.measure, (d.arm, d.control)) for d in data.differences),
        *(("per-class table", p.measure, p.arms) for p in data.per_class),
        *(("confusion", c.measure, (c.arm,)) for c in data.confusions),
        *(("groups", g.measure, g.arms) for g in data.groups),
        *(("robustness", r.x, ()) for r in data.robustness),
        *(("robustness", r.y, ()) for r in data.robustness),
        *(("mistake", m.measure, m.guesses) for m in data.mistakes),
        *(("retrieval", r.measure, r.hits) for r in data.retrieved),
        *(("aggregate", m, ()) for a in data.aggregates for m in a.measures),
        *(("curve", None, (c.arm,)) for c in data.curves),
        *(("choice", m, ()) for m in data.chosen),
        *(("mean rank", m, overall.ranks) for overall in (data.overall,) if overall for m in overall.measures),
    ]
    for what, measure, whose in named:
        if measure is not None and measure not in measures:
            yield f"a {what} is of {measure!r}, which is no measure"
        for arm in whose:
            if arm not in arms:
                yield f"a {what} is of {arm!r}, which is no arm"
    for aggregate in data.aggregates:
        if len(aggregate.measures) > aggregate.needed:
            yield f"aggregate {aggregate.name!r} needs {aggregate.needed}, has {len(aggregate.measures)}"


def _tables(data: Dashboard) -> Iterator[str]:
    for table in data.per_class:
        for arm, values in table.arms.items():
            if len(values) != len(table.classes):
                yield f"classes of {table.measure!r}, {arm!r}: {len(values)} values for {len(table.classes)} classes"
        if table.n and len(table.n) != len(table.classes):
            yield f"classes of {table.measure!r}: {len(table.n)} counts for {len(table.classes)} classes"
    for c in data.confusions:
        if c.counts and (len(c.counts) != len(c.classes) or any(len(r) != len(c.classes) for r in c.counts)):
            yield f"confusion of {c.arm!r} on {c.measure!r} is not {len(c.classes)} x {len(c.classes)}"
    for g in data.groups:
        if any(len(row) != len(g.groups) for row in (g.n, *g.arms.values(), *([g.chance] if g.chance else ()))):
            yield f"groups of {g.measure!r} by {g.field!r}: not all have {len(g.groups)} entries"
    for curve in data.curves:
        if len(curve.x) != len(curve.y):
            yield f"curve of {curve.arm!r}, {curve.label!r}: {len(curve.x)} places, {len(curve.y)} values"


def _pictures(pictures: Sequence[Picture]) -> Iterator[str]:
    if len(pictures) > MOST_PICTURES:
        yield f"{len(pictures)} pictures; a page holds at most {MOST_PICTURES}"
    if any(len(p.data) > MOST_BYTES_EACH for p in pictures):
        yield f"a picture is larger than {MOST_BYTES_EACH} bytes"
    if (size := sum(len(p.data) for p in pictures)) > MOST_BYTES:
        yield f"its pictures have {size} bytes; a page holds at most {MOST_BYTES}"
    for picture in pictures:
        if picture.mime not in MIMES:
            yield f"a picture is {picture.mime!r}; shown are {', '.join(MIMES)}"


def _twice(what: str, names: Sequence[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield f"{what} {name!r} is there twice"
        seen.add(name)
