"""What lies behind the numbers of several runs: classes, confusions, groups, named means, robustness; cut to a page.

Tables of classes grow with classes x arms x sets; `CELLS` bounds all of them together, and what is left out is told
(``of``). The classes that are kept are those in which the arms differ most, for they are what a comparison is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import DataError
from ..tasks.aggregates import DATACOMP_TYPES
from .robustness import Accuracy, Scale, effective_robustness, pairs
from .rows import class_column, has_recalls
from .run_measures import Protocol, Results
from .run_values import ArmModels, Measured
from .statistics import mean_over_seeds, wilson

CELLS = 12_000
"""Recalls of classes on a page, about 7 bytes each."""
FEWEST = 10
CONFUSIONS = 2_400
"""Confused pairs on a page, about 14 bytes each."""


def per_class(found: Sequence[Protocol], arms: Sequence[ArmModels]) -> dict[str, Any]:
    """Recall of every class (mean over seeds) per arm, of each protocol that has recalls of classes."""
    with_classes = [p for p in found if all(has_recalls(row) for row in p.rows.values())]
    most = max(FEWEST, CELLS // max(1, len(arms) * len(with_classes)))
    told = {}
    for protocol in with_classes:
        table = protocol.record["per_class"]
        size = class_column(protocol.first, "n")
        rows = [_recall(protocol, arm, size) for arm in arms]
        there = np.array([row for row in rows if row is not None])
        chosen = np.flatnonzero(size > 0)
        if len(chosen) > most:
            spread = np.ptp(there[:, chosen], axis=0)
            chosen = np.sort(chosen[np.argsort(-spread, kind="stable")[:most]])
        told[str(protocol.place)] = {
            "classes": [table[c]["name"] for c in chosen],
            "n": [int(size[c]) for c in chosen],
            "shown": len(chosen),
            "of": len(table),
            "arms": [None if row is None else [round(float(v), 4) for v in row[chosen]] for row in rows],
        }
    return told


def _recall(protocol: Protocol, arm: ArmModels, size: np.ndarray) -> np.ndarray | None:
    mine = [protocol.rows[m] for m in arm.models.values() if m in protocol.rows]
    if not mine:
        return None
    return np.mean([class_column(row, "correct") for row in mine], axis=0) / np.maximum(size, 1)


def confusion(found: Sequence[Protocol], arms: Sequence[ArmModels]) -> dict[str, Any]:
    """The commonest mistakes per arm, summed over seeds, as (true, predicted, count) with numbers of ``names``."""
    with_mistakes = [p for p in found if p.record.get("most_confused")]
    most = max(2, min(20, CONFUSIONS // max(1, len(arms) * len(with_mistakes))))
    told = {}
    for protocol in with_mistakes:
        table = protocol.record["per_class"]
        number: dict[int, int] = {}
        per_arm: list[list[list[int]] | None] = []
        for arm in arms:
            count: dict[tuple[int, int], int] = {}
            mine = [protocol.rows[m] for m in arm.models.values() if m in protocol.rows]
            for row in mine:
                for true, said, times in row.record["most_confused"]:
                    count[true, said] = count.get((true, said), 0) + times
            commonest = sorted(count.items(), key=lambda item: (-item[1], item[0]))[:most]
            rows = [[*(number.setdefault(c, len(number)) for c in pair), times] for pair, times in commonest]
            per_arm.append(rows if mine else None)
        told[str(protocol.place)] = {"names": [table[c]["name"] for c in number], "arms": per_arm}
    return told


def groups(found: Sequence[Protocol], arms: Sequence[ArmModels]) -> dict[str, Any]:
    """Accuracy per group and field: ``[value, low, high]``; t-interval over seeds, Wilson's for one seed."""
    told: dict[str, Any] = {}
    for protocol in found:
        if not (protocol.record.get("groups") and isinstance(protocol.record["groups"], list)):
            continue
        fields: dict[str, Any] = {}
        for field in dict.fromkeys(row["field"] for row in protocol.record["groups"]):
            these = [row for row in protocol.record["groups"] if row["field"] == field]
            fields[field] = {
                "names": [row["name"] or str(row["group"]) for row in these],
                "n": [row["n"] for row in these],
                "metric": "acc",
                "arms": [_in_groups(protocol, arm, field, [row["group"] for row in these]) for arm in arms],
            }
        told[str(protocol.place)] = fields
    return told


def _in_groups(protocol: Protocol, arm: ArmModels, field: str, numbers: Sequence[int]) -> list[Any] | None:
    mine = [protocol.rows[m] for m in arm.models.values() if m in protocol.rows]
    if not mine:
        return None
    tables = [{g["group"]: g for g in row.record["groups"] if g["field"] == field} for row in mine]
    cells = []
    for number in numbers:
        mean = mean_over_seeds([t[number]["correct"] / t[number]["n"] for t in tables])
        alone = wilson(tables[0][number]["correct"], tables[0][number]["n"])
        low, high = (mean.ci95 if mean.n > 1 else alone) or (None, None)
        cells.append([mean.mean, low, high])
    return cells


def aggregates(
    results: Sequence[Results], found: Sequence[Protocol], arms: Sequence[ArmModels]
) -> list[dict[str, Any]]:
    """The named means that models' own results carry, over measures that are comparable across models.

    A mean of a model that was measured differently on a member (another protocol than the first model's) is left out.
    """
    names = {a["name"]: a for one in results for a in one.value.get("aggregates", [])}
    told = []
    for name, entry in names.items():
        members = dict.fromkeys(m for one in results for a in _named(one, name) for m in a["members"])
        chosen = {member: protocol for member in members if (protocol := _of_member(found, member, entry))}
        if not chosen:
            continue
        values = [_mean_of(one, name, m, chosen) for m, one in enumerate(results)]
        missing = sorted({x for one in results for a in _named(one, name) for x in a["missing"]} - set(chosen))
        told.append(
            {
                "name": name,
                "family": entry.get("family"),
                "measures": [p.main for p in chosen.values()],
                "models": values,
                "arms": [_over_seeds([values[m] for m in arm.models.values()]) for arm in arms],
                "missing": missing,
            }
        )
    return told


def _named(one: Results, name: str) -> list[dict[str, Any]]:
    return [a for a in one.value.get("aggregates", []) if a["name"] == name]


def _of_member(found: Sequence[Protocol], member: str, entry: Mapping[str, Any]) -> Protocol | None:
    """The protocol that a member's number comes from: a DataComp display name, a set, or a set and suite."""
    vtab = str(entry.get("family", "")).startswith("vtab")
    for protocol in found:
        record = protocol.record
        known = {record["dataset"], (record.get("datacomp") or {}).get("name")}
        follows = record["type"].startswith("vtab") if vtab else not record["type"].startswith("vtab")
        if member in known and protocol.main and follows and (vtab or record["type"] in _UNTRAINED):
            return protocol
    return None


_UNTRAINED = (*DATACOMP_TYPES, "compositional", "multilabel", "multi_label")


def _mean_of(one: Results, name: str, model: int, chosen: Mapping[str, Protocol]) -> float | None:
    """The recorded mean, if it is over members that this model was measured on alike."""
    entry = next(iter(_named(one, name)), None)
    if entry is None or entry["value"] is None or set(entry["members"]) != set(chosen):
        return None
    return entry["value"] if all(model in p.rows for p in chosen.values()) else None


def _over_seeds(values: Sequence[float | None]) -> list[Any] | None:
    known = [v for v in values if v is not None]
    if not known or len(known) < len(values):
        return None
    mean = mean_over_seeds(known)
    low, high = mean.ci95 or (None, None)
    return [mean.mean, low, high, mean.n]


def robustness(
    found: Sequence[Protocol],
    measures: Mapping[str, Measured],
    names: Sequence[str],
    baselines: Sequence[int] | None = None,
    shifts: Mapping[str, Sequence[str]] | None = None,
    scale: Scale = "logit",
) -> list[dict[str, Any]]:
    """Effective robustness on every (reference, shifted) pair of sets that one suite measured by top-1.

    Pairs with fewer than two models, or models of one reference accuracy, are left out: they have no line.
    """
    told = []
    by_suite: dict[str, dict[str, Protocol]] = {}
    for protocol in found:
        if protocol.variant == 1 and (protocol.record["main_metric"] or "").endswith("acc1"):
            by_suite.setdefault(protocol.first.suite, {})[protocol.first.dataset] = protocol
    for sets in by_suite.values():
        for reference, shifted in pairs(list(sets), shifts):
            one, other = (measures[str(sets[name].main)] for name in (reference, shifted))
            n, m = (sets[name].record["n"] for name in (reference, shifted))
            first = {names[k]: Accuracy(v * n, n) for k, v in one.value.items()}
            second = {names[k]: Accuracy(v * m, m) for k, v in other.value.items()}
            chosen = None if baselines is None else [names[k] for k in baselines]
            try:
                line = effective_robustness(first, second, chosen, scale)
            except DataError:
                continue
            told.append(
                {
                    "reference": one.id,
                    "shifted": other.id,
                    "scale": line.scale,
                    "slope": line.slope,
                    "intercept": line.intercept,
                    "baselines": [names.index(name) for name in line.baselines],
                    "range": list(line.range),
                    "sentence": line.sentence,
                    "models": [
                        None
                        if (r := line.models.get(name)) is None
                        else {
                            "expected": r.expected,
                            "residual": r.residual,
                            "low": r.interval[0],
                            "high": r.interval[1],
                            "in_fit": r.in_fit,
                        }
                        for name in names
                    ],
                }
            )
    return told
