"""A comparison of finished runs (`comparison/runs.py`, whose docstring tells its form) as the data of a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .data import (
    Aggregate,
    Arm,
    Confusion,
    Curve,
    Dashboard,
    Difference,
    Fact,
    Groups,
    GroupScore,
    Measure,
    Mistake,
    Overall,
    PerClass,
    Rank,
    Retrieved,
    Robustness,
    Score,
    Span,
    Step,
)
from .notes import chosen_first, notes_of

DATACOMP = {
    "DataComp ImageNet": "ImageNet",
    "DataComp ImageNet dist. shifts": "ImageNet dist. shifts",
    "DataComp VTAB": "VTAB-13 (DataComp's)",
    "DataComp Retrieval": "Retrieval (DataComp's)",
}
"""DataComp's groups by the names that a page has for them: VTAB always says which."""
INTERVALS = {"wilson": "Wilson", "bca": "BCa bootstrap", "normal": "normal approximation"}
"""Kinds of intervals over test images by the names that a page has for them."""
TEMPLATES = 3  # of a measure that are told
OPTIONS_TOLD = 160  # characters of a protocol's options


@dataclass
class Background:
    """What is known of an arm beside its results.

    Attributes:
        pool, steps: its curation funnel.
        report: relative path of its run's report.
        description: a line of text.
    """

    pool: int | None = None
    steps: Sequence[Step] = ()
    report: str = ""
    description: str = ""


@dataclass
class Beside:
    """What a page shows that no comparison holds.

    Attributes:
        groups: further tables by group, such as languages.
        altered: aggregate -> members of another size than the published one.
        samples: measure -> test samples, where they are fewer than its protocol's (one language of several).
    """

    arms: Mapping[str, Background] = field(default_factory=dict)
    curves: Sequence[Curve] = ()
    mistakes: Sequence[Mistake] = ()
    retrieved: Sequence[Retrieved] = ()
    groups: Sequence[Groups] = ()
    altered: Mapping[str, Sequence[str]] = field(default_factory=dict)
    samples: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


def dashboard_of(
    comparison: Mapping[str, Any], title: str, summary: str = "", beside: Beside | None = None
) -> Dashboard:
    """The page of a comparison."""
    beside = beside or Beside()
    arms = [_arm(comparison, i, beside.arms) for i in range(len(comparison["arms"]))]
    control = comparison["control"]
    chosen, note = chosen_first(comparison)
    return Dashboard(
        title,
        [_measure(comparison, m, beside.samples) for m in comparison["measures"]],
        arms,
        summary=summary,
        control=arms[control].name if control is not None and arms else "",
        notes=[*beside.notes, *note, *notes_of(comparison)],
        facts=[Fact(a["id"], *_FACTS.get(a["id"], (a["label"], "")), a.get("log", True)) for a in _axes(comparison)],
        differences=list(_differences(comparison)),
        aggregates=[
            Aggregate(
                a["name"],
                a["measures"],
                len(a["measures"]) + len(a["missing"]),
                altered=list(beside.altered.get(a["name"], ())),
            )
            for a in comparison.get("aggregates", ())
            if _says_more(a)
        ],
        per_class=list(_per_class(comparison)),
        confusions=list(_confusions(comparison)),
        groups=[*_groups(comparison), *beside.groups],
        robustness=[_robustness(r) for r in comparison.get("robustness", ()) if r["scale"] == "logit"],
        curves=beside.curves,
        mistakes=beside.mistakes,
        retrieved=beside.retrieved,
        overall=_overall(comparison),
        chosen=chosen,
    )


_FACTS = {"flops": ("training operations", "FLOPs"), "seconds": ("training time", "s"), "cost": ("cost", "")}


def _axes(comparison: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Facts for scatter plots: those in which arms differ first, for at equal training many do not."""

    def varies(axis: Mapping[str, Any]) -> bool:
        return len({arm["facts"].get(axis["id"]) for arm in comparison["arms"]} - {None}) > 1

    chosen = ("unique_images", "samples_seen")  # what curation changes comes before what it happens to cost
    order = {name: place for place, name in enumerate(chosen)}
    return sorted(comparison.get("axes", ()), key=lambda a: (not varies(a), order.get(a["id"], len(order))))


def _says_more(aggregate: Mapping[str, Any]) -> bool:
    """Not so a mean of one measure, which repeats its column; DataComp's groups are shown even so."""
    return bool(aggregate["measures"]) and (
        aggregate.get("family") != "capability" or len(aggregate["measures"]) + len(aggregate["missing"]) > 1
    )


def _overall(comparison: Mapping[str, Any]) -> Overall | None:
    found = comparison.get("ranks", {}).get("overall")
    if not found:
        return None
    arms = zip(comparison["arms"], found["arms"], strict=True)
    ranks = {arm["name"]: (one["mean_rank"], one["low"], one["high"]) for arm, one in arms if one}
    return Overall(found["measures"], ranks, tuple(found["tau"]) if found["tau"] else None)


def _measure(comparison: Mapping[str, Any], measure: Mapping[str, Any], samples: Mapping[str, int]) -> Measure:
    protocol = comparison["protocols"][measure["protocol"]]
    return Measure(
        measure["id"],
        measure["label"],
        measure["dataset"],
        measure["suite"],
        measure["metric"],
        groups=_chosen_under(protocol),
        main=measure["main"],
        n=samples.get(measure["id"], measure["n"]),
        chance=measure.get("chance"),
        unit="percent" if measure["unit"] == "fraction" else "",
        higher_is_better=measure["higher_is_better"],
        protocol=_told(protocol),
        version=str(protocol["version"]),
        split=protocol["split"],
        text_hash=protocol["text_hash"],
        digest=protocol["dataset_digest"],
        templates=list(protocol["options"].get("templates") or protocol.get("templates", ()))[:TEMPLATES],
        note=measure.get("note") or "",
    )


def _chosen_under(protocol: Mapping[str, Any]) -> list[str]:
    """Headings that a measure is chosen under: DataComp's group first, else the first capability, else the kind."""
    tags: list[str] = list(protocol["tags"])
    if (protocol["type"] or "").startswith("vtab"):
        return ["VTAB-1k", *tags]
    first = [DATACOMP[t] for t in tags if t in DATACOMP] or [t for t in tags[2:] if t != "DataComp"][:1] or tags[:1]
    return list(dict.fromkeys([*first, *(DATACOMP.get(t, t) for t in tags)]))


def _told(protocol: Mapping[str, Any]) -> str:
    """The protocol and those of its options that say something."""
    passed_over = {"type", "name", "split", "sets"}
    options = {k: v for k, v in protocol["options"].items() if k not in passed_over and v not in (None, [], {}, False)}
    told = ", ".join(f"{k} {v}" for k, v in options.items())
    if len(told) > OPTIONS_TOLD:
        told = told[: OPTIONS_TOLD - 1] + "…"
    return protocol["task"] + (f" ({told})" if told else "")


def _arm(comparison: Mapping[str, Any], place: int, backgrounds: Mapping[str, Background]) -> Arm:
    arm = comparison["arms"][place]
    models = [comparison["models"][m] for m in arm["models"]]
    behind = backgrounds.get(arm["name"], Background())
    kinds = {m["id"]: INTERVALS.get(m["interval"], m["interval"]) for m in comparison["measures"]}
    ranked = comparison.get("ranks", {}).get("measures", {})
    verdicts = comparison.get("chance", {})
    scores = {}
    for name, means in comparison["arm_values"].items():
        if (mean := means[place]) is None:
            continue
        own = [comparison["values"][name][m] for m in arm["models"]]
        kind = "Student's t, other seeds" if mean[3] > 1 else f"{kinds[name]}, other test images"
        scores[name] = Score(
            [v[0] if v else None for v in own],
            _span(mean[1], mean[2], kind),
            [Span(v[1], v[2], f"{kinds[name]}, other test images") if v and v[1] is not None else None for v in own],
            [_verdict(verdicts[name][m]) for m in arm["models"]] if name in verdicts else (),
            _rank(ranked[name], place) if name in ranked else None,
        )
    return Arm(
        arm["name"],
        [str(m["seed"]) if m["seed"] is not None else m["name"] for m in models],
        scores,
        description=behind.description,
        run=arm["run"],
        facts={k: v for k, v in arm["facts"].items() if isinstance(v, (int, float)) and not isinstance(v, bool)},
        pool=behind.pool,
        steps=behind.steps,
        report=behind.report,
    )


def _ends(low: float | None, high: float | None) -> tuple[float | None, float | None]:
    """An interval's ends; none where seeds happened to agree, for a spread that was not seen is not a spread of 0."""
    return (None, None) if low is None or low == high else (low, high)


def _span(low: float | None, high: float | None, kind: str) -> Span | None:
    return None if low is None or high is None or low == high else Span(low, high, kind)


def _verdict(found: Sequence[Any] | None) -> tuple[str, float] | None:
    return (str(found[0]), found[1]) if found else None


def _rank(arms: Sequence[Mapping[str, Any] | None], place: int) -> Rank | None:
    mine = arms[place]
    there = [one["rank"] for one in arms if one]
    return Rank(mine["rank"], mine["low"], mine["high"], there.count(mine["rank"]), len(there)) if mine else None


def _differences(comparison: Mapping[str, Any]) -> Iterator[Difference]:
    names = [a["name"] for a in comparison["arms"]]
    for measure, by_arm in comparison["paired"].items():
        for place, found in enumerate(by_arm):
            if found is None or place == comparison["control"]:
                continue
            over = "seeds, paired t" if found["basis"] == "seeds" else "the same samples, paired"
            yield Difference(
                names[place],
                names[comparison["control"]],
                measure,
                found["difference"],
                *_ends(found["low"], found["high"]),
                found["p"],
                found["p_holm"],
                over,
                _pair(found.get("samples")),
                _pair(found.get("both")),
                found.get("wins"),
                found.get("losses"),
                found.get("detectable"),
            )

    for measure, pairs in comparison.get("pairs", {}).items():
        for first, second, difference, low, high in pairs:
            if comparison["control"] not in (first, second):
                yield Difference(names[first], names[second], measure, difference, low, high, kind="paired")


def _pair(ends: Sequence[float] | None) -> tuple[float, float] | None:
    return (ends[0], ends[1]) if ends else None


def _main_of(comparison: Mapping[str, Any], protocol: str | int) -> str | None:
    mine = [m for m in comparison["measures"] if m["protocol"] == int(protocol)]
    return next((m["id"] for m in mine if m["main"]), mine[0]["id"] if mine else None)


def _per_class(comparison: Mapping[str, Any]) -> Iterator[PerClass]:
    names = [a["name"] for a in comparison["arms"]]
    for protocol, table in comparison.get("per_class", {}).items():
        if measure := _main_of(comparison, protocol):
            rows = {names[i]: values for i, values in enumerate(table["arms"]) if values is not None}
            yield PerClass(measure, table["classes"], rows, table["n"])


def _confusions(comparison: Mapping[str, Any]) -> Iterator[Confusion]:
    for protocol, table in comparison.get("confusion", {}).items():
        measure = _main_of(comparison, protocol)
        for place, pairs in enumerate(table["arms"]):
            if measure and pairs:
                names = table["names"]
                told = [(names[t], names[p], n) for t, p, n in pairs]
                yield Confusion(measure, comparison["arms"][place]["name"], told)


def _groups(comparison: Mapping[str, Any]) -> Iterator[Groups]:
    names = [a["name"] for a in comparison["arms"]]
    for protocol, fields in comparison.get("groups", {}).items():
        if not (measure := _main_of(comparison, protocol)):
            continue
        for name, table in fields.items():
            rows = {names[i]: [_score(v) for v in values] for i, values in enumerate(table["arms"]) if values}
            yield Groups(measure, name, table["names"], table["n"], rows)


def _score(value: Any) -> GroupScore:
    return GroupScore(*value) if isinstance(value, Sequence) else GroupScore(value)


def _robustness(found: Mapping[str, Any]) -> Robustness:
    return Robustness(
        found["reference"],
        found["shifted"],
        found["slope"],
        found["intercept"],
        found["scale"] == "logit",
        found["sentence"],
    )
