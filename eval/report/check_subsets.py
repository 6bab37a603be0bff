"""Where the data about subsets contradicts itself, or another section of the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .data import Funnel, FunnelStep, Gallery, Leakage, Overlap, Pool, Quotas, Report


def subset_complaints(report: Report) -> Iterator[str]:
    """Sentences about what does not add up, in the order of the page."""
    for funnel in report.funnels:
        yield from _ends(funnel, report.pool)
    steps = {(f.subset, s.label): s for f in report.funnels for s in f.steps}
    if report.overlap:
        yield from _overlap(report.overlap, {f.subset: f.kept for f in report.funnels})
    for quotas in report.quotas:
        yield from _quotas(quotas, steps)
    for leak in report.leakage:
        yield from _leakage(leak, steps)
    for gallery in report.galleries:
        yield from _gallery(gallery, steps)


def _ends(funnel: Funnel, pool: Pool | None) -> Iterator[str]:
    """Every row of the pool ends in one place: it failed, one filter dropped it, or it was kept."""
    where = f"funnel of {funnel.subset!r}"
    gone = sum(sum(step.reasons.values()) for step in funnel.steps)
    if gone + funnel.kept != funnel.pool:
        yield f"{where}: {gone} dropped and {funnel.kept} kept are not its {funnel.pool} rows"
    if pool and funnel.steps:
        first = funnel.steps[0]
        if first.kept != pool.fetched:
            yield f"{where}: {first.kept} rows come out of {first.label!r}, the pool has {pool.fetched} fetched ones"
        failed = {code: n for code, n in first.reasons.items() if n}
        if failed != {code: n for code, n in pool.failures.items() if n}:
            yield f"{where}: what failed in {first.label!r} is not what failed in the pool"
    if any(n < 0 for step in funnel.steps for n in step.reasons.values()):
        yield f"{where}: a negative count"
    if funnel.samples is not None and funnel.samples < funnel.kept:
        yield f"{where}: {funnel.samples} samples of {funnel.kept} rows"
    if funnel.repeats:
        yield from _repeats(where, funnel)


def _repeats(where: str, funnel: Funnel) -> Iterator[str]:
    rows = sum(funnel.repeats.values())
    samples = sum(times * n for times, n in funnel.repeats.items())
    if min(funnel.repeats) < 1 or min(funnel.repeats.values()) < 0:
        yield f"{where}: a row that is kept less than once"
    if rows != funnel.kept:
        yield f"{where}: multiplicities of {rows} rows, {funnel.kept} are kept"
    if funnel.samples is not None and samples != funnel.samples:
        yield f"{where}: its rows repeat to {samples} samples, not {funnel.samples}"


def _overlap(overlap: Overlap, kept: Mapping[str, int]) -> Iterator[str]:
    names, common = overlap.subsets, overlap.common
    if len(set(names)) != len(names):
        yield "overlap: a subset is there twice"
    if len(common) != len(names) or any(len(row) != len(names) for row in common):
        yield f"overlap: not {len(names)} x {len(names)}"
        return
    for i, one in enumerate(names):
        if kept.get(one, common[i][i]) != common[i][i]:
            yield f"overlap: {one!r} has {common[i][i]} rows, its funnel keeps {kept[one]}"
        for j, other in enumerate(names[:i]):
            both = common[i][j]
            if both != common[j][i]:
                yield f"overlap of {one!r} and {other!r}: {both} rows one way, {common[j][i]} the other"
            if not 0 <= both <= min(common[i][i], common[j][j]):
                yield f"overlap of {one!r} and {other!r}: {both} rows are more than the smaller one has"


def _quotas(quotas: Quotas, steps: Mapping[tuple[str, str], FunnelStep]) -> Iterator[str]:
    where = f"quotas of {quotas.subset!r} / {quotas.filter!r}"
    for group in quotas.groups:
        if not 0 <= group.kept <= group.size:
            yield f"{where}: {group.name!r} keeps {group.kept} of {group.size}"
    step = steps.get((quotas.subset, quotas.filter))
    size, kept = sum(g.size for g in quotas.groups), sum(g.kept for g in quotas.groups)
    if step and (size > step.entered or kept > step.kept):
        yield f"{where}: {kept} of {size} rows in groups, the filter keeps {step.kept} of {step.entered}"


def _leakage(leak: Leakage, steps: Mapping[tuple[str, str], FunnelStep]) -> Iterator[str]:
    where = f"leakage in {leak.subset!r} / {leak.filter!r}"
    step = steps.get((leak.subset, leak.filter))
    if step and (leak.dropped, leak.entered) != (step.dropped, step.entered):
        yield f"{where}: {leak.dropped} of {leak.entered} dropped, in its funnel {step.dropped} of {step.entered}"
    for found in leak.sets:
        if found.images is not None and (found.matched or 0) > found.images:
            yield f"{where}: {found.matched} of {found.images} images of {found.name!r} found"
        if (found.rows or 0) > leak.entered:
            yield f"{where}: {found.rows} copies of {found.name!r} among {leak.entered} rows"


def _gallery(gallery: Gallery, steps: Mapping[tuple[str, str], FunnelStep]) -> Iterator[str]:
    step = steps.get((gallery.subset, gallery.filter))
    where = f"gallery of {gallery.subset!r} / {gallery.filter!r}"
    for what, told, counted in (
        ("dropped", gallery.dropped_total, step.dropped if step else None),
        ("kept", gallery.kept_total, step.kept if step else None),
    ):
        if told is not None and counted is not None and told != counted:
            yield f"{where}: {told} {what}, in its funnel {counted}"
