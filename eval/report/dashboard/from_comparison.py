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
    PerClass,
    Retrieved,
    Robustness,
    Score,
    Span,
    Step,
)

DATACOMP = {
    "DataComp ImageNet": "ImageNet",
    "DataComp ImageNet dist. shifts": "ImageNet dist. shifts",
    "DataComp VTAB": "VTAB-13 (DataComp's)",
    "DataComp Retrieval": "Retrieval (DataComp's)",
}
"""DataComp's groups by the names that a page has for them: VTAB always says which."""
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
    """What a page shows that no comparison holds."""

    arms: Mapping[str, Background] = field(default_factory=dict)
    curves: Sequence[Curve] = ()
    mistakes: Sequence[Mistake] = ()
    retrieved: Sequence[Retrieved] = ()
    notes: Sequence[str] = ()


def dashboard_of(
    comparison: Mapping[str, Any], title: str, summary: str = "", beside: Beside | None = None
) -> Dashboard:
    """The page of a comparison."""
    beside = beside or Beside()
    arms = [_arm(comparison, i, beside.arms) for i in range(len(comparison["arms"]))]
    control = comparison["control"]
    return Dashboard(
        title,
        [_measure(comparison, m) for m in comparison["measures"]],
        arms,
        summary=summary,
        control=arms[control].name if control is not None and arms else "",
        notes=[*beside.notes, *_notes(comparison)],
        facts=[Fact(a["id"], a["label"], log=a.get("log", True)) for a in comparison.get("axes", ())],
        differences=list(_differences(comparison)),
        aggregates=[
            Aggregate(a["name"], a["measures"], len(a["measures"]) + len(a["missing"]))
            for a in comparison.get("aggregates", ())
            if a["measures"]
        ],
        per_class=list(_per_class(comparison)),
        confusions=list(_confusions(comparison)),
        groups=list(_groups(comparison)),
        robustness=[_robustness(r) for r in comparison.get("robustness", ()) if r["scale"] == "logit"],
        curves=beside.curves,
        mistakes=beside.mistakes,
        retrieved=beside.retrieved,
    )


def _notes(comparison: Mapping[str, Any]) -> Iterator[str]:
    yield from (d["sentence"] for d in comparison.get("differs", ()))
    if sentence := comparison.get("family", {}).get("sentence"):
        yield sentence


def _measure(comparison: Mapping[str, Any], measure: Mapping[str, Any]) -> Measure:
    protocol = comparison["protocols"][measure["protocol"]]
    return Measure(
        measure["id"],
        measure["label"],
        measure["dataset"],
        measure["suite"],
        measure["metric"],
        groups=_chosen_under(protocol),
        main=measure["main"],
        n=measure["n"],
        chance=measure.get("chance"),
        unit="percent" if measure["unit"] == "fraction" else "",
        higher_is_better=measure["higher_is_better"],
        protocol=_told(protocol),
        version=str(protocol["version"]),
        split=protocol["split"],
        text_hash=protocol["text_hash"],
        digest=protocol["dataset_digest"],
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
    kinds = {m["id"]: m["interval"] for m in comparison["measures"]}
    scores = {}
    for name, means in comparison["arm_values"].items():
        if (mean := means[place]) is None:
            continue
        own = [comparison["values"][name][m] for m in arm["models"]]
        kind = "Student's t, other seeds" if mean[3] > 1 else f"{kinds[name]}, other test images"
        scores[name] = Score(
            [v[0] if v else None for v in own],
            None if mean[1] is None else Span(mean[1], mean[2], kind),
            [Span(v[1], v[2], f"{kinds[name]}, other test images") if v and v[1] is not None else None for v in own],
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
                found["low"],
                found["high"],
                found["p"],
                found["p_holm"],
                over,
            )

    for measure, pairs in comparison.get("pairs", {}).items():
        for first, second, difference, low, high in pairs:
            if comparison["control"] not in (first, second):
                yield Difference(names[first], names[second], measure, difference, low, high, kind="paired")


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
