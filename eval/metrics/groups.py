"""Groups of a classification (region, income, slide): accuracy per group, and how well off the worst one is.

Names are those of WILDS and DataComp: ``acc_avg`` over all samples, ``acc_{field}:{i}`` and ``count_{field}:{i}`` per
group, ``acc_wg`` of the worst group that has samples. A group without samples has None, where DataComp writes a bare
NaN. A negative number means that the group is not known; such samples are in no group of that field.

Some tasks have rules of their own (`RULES`):

    GeoDE          ``acc_wg``: the worst region
    Dollar Street  ``acc_top5_wg``: the worst income quartile, a hit among the five best counts
    FMoW           ``acc_worst_region`` and ``acc_worst_year``; the benchmark means to leave out the region "Other", but
                   its reader does not know the names and does not, so neither does the number of that name;
                   ``acc_worst_region_without_other`` does
    iWildCam       ``F1-macro_all`` and ``recall-macro_all`` over classes that are true or predicted anywhere (a class
                   that is only predicted counts 0)
    Camelyon17     per slide

Any other set has all of its fields reported; ``acc_wg`` is then the worst group of its first field, and
``acc_worst_{field}`` that of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ...shards.evalsets.base import Groups, plain_name
from .outcomes import Outcomes

if TYPE_CHECKING:
    from ...shards.evalsets.base import EvalSet, EvalSplit

MOST_GROUPS = 1000
FMOW_OTHER = 5
"""Number of the region "Other" in FMoW as WILDS numbers them."""


@dataclass(frozen=True)
class Rule:
    """What a task reports of its groups.

    Attributes:
        fields: those whose groups are reported; None = all.
        worst: field whose worst group is ``acc_wg``; None = the first of `fields`.
        top5: whether the same is also reported for the five best (``acc_top5_...``).
        macro: whether macro-averages over classes are reported.
    """

    fields: tuple[str, ...] | None = None
    worst: str | None = None
    top5: bool = False
    macro: bool = False


RULES: dict[str, Rule] = {
    "fairness-geode": Rule(("region",)),
    "fairness-dollar_street": Rule(("income_ds",), top5=True),
    "wilds-fmow": Rule(("region", "year")),
    "wilds-iwildcam": Rule((), macro=True),
    "wilds-camelyon17": Rule(("slide",)),
}


def rule_of(task: str | None) -> Rule:
    """The rule of a DataComp task, by its key or its set's name; that of unknown sets otherwise."""
    name = plain_name((task or "").replace("/", "-"))
    return next((rule for known, rule in RULES.items() if name in (known, known.partition("-")[2])), Rule())


def group_metrics(
    outcomes: Outcomes, groups: Groups, classes: Sequence[str], task: str | None = None
) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Metrics by name, and the table ``groups`` for ``results.json``.

    Args:
        outcomes: of a classification.
        groups: of all samples of the split.
        classes: class names in label order.
        task: DataComp's key of the task (``wilds/fmow``) or the set's name (``wilds-fmow``): says which rule holds.

    Returns:
        The metrics, and ``{"groups": rows}``; see `group_rows`.
    """
    rule, correct = rule_of(task), outcomes.correct
    metrics: dict[str, float | None] = {"acc_avg": float(correct.mean())}
    hits = {"acc": correct}
    if rule.top5:
        hits["acc_top5"] = outcomes.rank < 5
        metrics["acc_top5_avg"] = float(hits["acc_top5"].mean()) if outcomes.classes >= 5 else None
    fields = reported(groups, rule)
    worst_field = rule.worst or next(iter(fields), None)
    for name in fields:
        number = _numbers(groups, outcomes, name)
        listed = _listed(number, len(groups.names.get(name, ())))
        for prefix, hit in hits.items():
            share, counts = group_means(hit, number, listed)
            if prefix == "acc_top5" and outcomes.classes < 5:
                share = [None] * len(listed)
            for i, value, count in zip(listed.tolist(), share, counts.tolist(), strict=True):
                metrics[f"{prefix}_{name}:{i}"], metrics[f"count_{name}:{i}"] = value, count
            metrics[f"{prefix}_worst_{name}"] = worst = lowest(share)
            if name == worst_field:
                metrics[f"{prefix}_wg"] = worst
            if rule is RULES["wilds-fmow"] and name == "region":
                kept = [value for i, value in zip(listed.tolist(), share, strict=True) if i != FMOW_OTHER]
                metrics[f"{prefix}_worst_region_without_other"] = lowest(kept)
    if rule.macro:
        metrics |= macro_averages(outcomes.labels, outcomes.prediction, len(classes))
    return metrics, {"groups": group_rows(outcomes, groups, fields)}


def reported(groups: Groups, rule: Rule) -> list[str]:
    """Fields that a rule reports and that are there.

    Without a rule: all but ``y``, which WILDS adds and which is the label, and fields of more than `MOST_GROUPS`
    different numbers, which name samples (a time, a sequence) and not groups.
    """
    if rule.fields is not None:
        return [name for name in rule.fields if name in groups.fields]
    distinct = (len(np.unique(column)) for column in groups.values.T)
    return [name for name, count in zip(groups.fields, distinct, strict=True) if name != "y" and count <= MOST_GROUPS]


def group_means(values: np.ndarray, number: np.ndarray, listed: np.ndarray) -> tuple[list[float | None], np.ndarray]:
    """Mean of `values` in each group that is listed (None without samples), and the groups' sizes.

    Args:
        values: ``(n,)`` bool.
        number: ``(n,) int64`` group of each; negative = in none.
        listed: ascending group numbers; all of `number` that are not negative.
    """
    known = number >= 0
    place = np.searchsorted(listed, number[known])
    counts = np.bincount(place, minlength=len(listed))
    sums = np.bincount(place[values[known]], minlength=len(listed))
    return [s / c if c else None for s, c in zip(sums.tolist(), counts.tolist(), strict=True)], counts


def lowest(values: Sequence[float | None]) -> float | None:
    """The smallest that is there."""
    return min((value for value in values if value is not None), default=None)


def macro_averages(labels: np.ndarray, prediction: np.ndarray, classes: int) -> dict[str, float | None]:
    """``F1-macro_all`` and ``recall-macro_all``: plain means over the classes that are true or predicted anywhere.

    scikit-learn's `f1_score` and `recall_score` with ``average="macro"``.
    """
    size, said = np.bincount(labels, minlength=classes), np.bincount(prediction, minlength=classes)
    right = np.bincount(labels[labels == prediction], minlength=classes)
    there = size + said > 0
    size, said, right = size[there], said[there], right[there]
    recall = np.divide(right, size, out=np.zeros(len(size)), where=size > 0)
    return {"F1-macro_all": float((2 * right / (size + said)).mean()), "recall-macro_all": float(recall.mean())}


def group_rows(outcomes: Outcomes, groups: Groups, fields: Sequence[str]) -> list[dict[str, Any]]:
    """One row per group that has samples, as strict JSON.

    ``field``, ``group`` (number), ``name`` (None if it has none), ``n``, ``correct``, ``acc``, ``wilson95``, ``worst``
    (whether no group of the field is worse; the first of equals).
    """
    from ..comparison.statistics import wilson  # scipy

    rows = []
    for name in fields:
        number, names = _numbers(groups, outcomes, name), groups.names.get(name, ())
        there = np.unique(number[number >= 0])
        share, counts = group_means(outcomes.correct, number, there)
        worst = share.index(low) if (low := lowest(share)) is not None else None
        for place, (i, n) in enumerate(zip(there.tolist(), counts.tolist(), strict=True)):
            correct = int(np.count_nonzero(outcomes.correct[number == i]))
            rows.append(
                {
                    "field": name,
                    "group": i,
                    "name": names[i] if i < len(names) else None,
                    "n": n,
                    "correct": correct,
                    "acc": share[place],
                    "wilson95": list(wilson(correct, n) or ()),
                    "worst": place == worst,
                }
            )
    return rows


def _numbers(groups: Groups, outcomes: Outcomes, name: str) -> np.ndarray:
    column = groups.values[:, groups.fields.index(name)]
    return column if outcomes.rows is None else column[outcomes.rows]


def _listed(number: np.ndarray, named: int) -> np.ndarray:
    """Numbers of the groups that metrics name: 0 to the last, empty ones too, as the benchmarks count them; where that
    would be more than `MOST_GROUPS` (years as they are), those that have samples."""
    there = np.unique(number[number >= 0])
    size = max(int(there[-1]) + 1 if len(there) else 0, named)
    return np.arange(size) if size <= MOST_GROUPS else there


@dataclass(frozen=True)
class GroupedOutcomes(Outcomes):
    """Outcomes that remember the groups of their samples: columns ``group:<field>`` of the table, and ``groups``.

    Attributes:
        groups: of all samples of the split.
        task: as in `group_metrics`.
    """

    groups: Groups = field(kw_only=True)
    task: str | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, outcomes: Outcomes, groups: Groups, task: str | None = None) -> GroupedOutcomes:
        """`outcomes` with the groups of their split."""
        o = outcomes
        return cls(o.labels, o.prediction, o.rank, o.classes, o.rows, counted=o.counted, groups=groups, task=task)

    def table(self, split: EvalSplit) -> pa.Table:
        table = super().table(split)
        for name in self.groups.fields:
            table = table.append_column(f"group:{name}", _smallest(_numbers(self.groups, self, name)))
        return table

    def tables(self, evalset: EvalSet, split: EvalSplit) -> dict[str, Any]:
        more = group_metrics(self, self.groups, evalset.classnames, self.task)[1]
        return {**super().tables(evalset, split), **more}


def _smallest(values: np.ndarray) -> pa.Array:
    """Numbers in as few bytes as they need; they may be negative."""
    kind = np.promote_types(np.min_scalar_type(int(values.min(initial=0))), np.int8)
    return pa.array(values.astype(np.promote_types(kind, np.min_scalar_type(int(values.max(initial=0))))))
