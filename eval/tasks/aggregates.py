"""Named means over a model's results: DataComp's five, VTAB-1k's, and one per capability. Never an unnamed average.

A closed aggregate (DataComp's, VTAB-1k's) is over exactly its tasks: with one missing there is no value, and those are
listed, because a mean over other tasks under the same name is another number. An open one (capabilities) is over the
sets that are there, and lists them: it is comparable only between models that were measured on the same ones.

Means are plain, over main metrics as fractions, as DataComp's aggregator takes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .by_name import datacomp_task
from .capabilities import CAPABILITIES, members
from .datacomp import TASKS, DataCompTask
from .vtab import GROUPS as VTAB_GROUPS
from .vtab import TASKS as VTAB_TASKS
from .vtab import vtab_means

Record = Mapping[str, Any]

DATACOMP_TYPES = ("zero_shot", "retrieval", "association", "fairness")
"""Suites that follow DataComp's protocols."""
UNTRAINED_TYPES = (*DATACOMP_TYPES, "multi_label", "compositional")
"""Suites that measure a model as it is, over the whole of a set."""
GROUPS = ("ImageNet", "ImageNet dist. shifts", "VTAB", "Retrieval", "Average")
_NAMES = {"VTAB": "VTAB (13 tasks, zero-shot)", "Average": "average of 38"}


def zero_shot_records(records: Sequence[Record]) -> list[Record]:
    """Of each set the record that DataComp's protocol would give: of the first suite of its kind."""
    found: dict[str, Record] = {}
    for record in records:
        if record.get("type") in DATACOMP_TYPES and record.get("kind") not in ("multilabel", "compositional"):
            found.setdefault(record["dataset"], record)
    return list(found.values())


def task_of_record(record: Record) -> DataCompTask | None:
    """The DataComp task that a result is of; None if it is none of the 40."""
    return datacomp_task(record["dataset"], record.get("kind", "classification"))


def main_value(record: Record) -> float | None:
    """The main metric's value; None if there is no main metric, or no value of it."""
    metric = record["main_metric"]
    return None if metric is None else record["metrics"].get(metric)


def aggregates(records: Sequence[Record]) -> list[dict[str, Any]]:
    """All aggregates of which at least one member is there, as strict JSON.

    Args:
        records: entries of one model's ``results.json``.

    Returns:
        ``name``; ``family`` (datacomp, vtab-1k, capability) and ``group``; ``value`` (fraction, or None);
        ``members``: names of the results in the mean; ``missing``: names of those that ought to be; ``complete``:
        whether none is; ``not_whole``: members of another size than the published task.
    """
    return [*datacomp_aggregates(records), *_vtab_1k(records), *capability_aggregates(records)]


def datacomp_aggregates(records: Sequence[Record]) -> list[dict[str, Any]]:
    """``ImageNet``, ``ImageNet dist. shifts``, ``VTAB`` (13), ``Retrieval`` and ``Average`` (38), members by display
    name."""
    there: dict[str, Record] = {}
    for record in zero_shot_records(records):
        task = task_of_record(record)
        if task is not None and task.metric is not None and main_value(record) is not None:
            there.setdefault(task.name, record)
    found = []
    for group in GROUPS:
        names = [task.name for task in TASKS if task.metric and group in (task.group, "Average")]
        mine = [name for name in names if name in there]
        if mine:
            altered = [name for name in mine if not (there[name].get("datacomp") or {}).get("whole", False)]
            values = {name: main_value(there[name]) for name in mine}
            title = f"DataComp {_NAMES.get(group, group)}"
            found.append(_closed(title, "datacomp", group, names, values) | {"not_whole": altered})
    return found


def capability_aggregates(
    records: Sequence[Record], capabilities: Mapping[str, tuple[str, ...]] = CAPABILITIES
) -> list[dict[str, Any]]:
    """Mean of the main metrics of the sets that ask for each capability, without training on them; members by set."""
    values: dict[str, float] = {}
    for record in records:
        value = main_value(record)
        if value is not None and record.get("type") in UNTRAINED_TYPES:
            values.setdefault(record["dataset"], value)
    found = []
    for capability, mine in members(list(values), capabilities).items():
        mean = sum(values[name] for name in mine) / len(mine)
        found.append(_entry(f"capability: {capability}", "capability", capability, mean, mine, []))
    return found


def _vtab_1k(records: Sequence[Record]) -> list[dict[str, Any]]:
    """VTAB-1k's four means (its three groups, and all 19 tasks) of each suite that ran on one of its tasks."""
    by_suite: dict[str, list[Record]] = {}
    for record in records:
        if record.get("type") == "vtab":
            by_suite.setdefault(record["suite"], []).append(record)
    found = []
    for suite, mine in by_suite.items():
        means, protocol = vtab_means(mine), mine[0]["facts"].get("protocol")
        for group in (*VTAB_GROUPS, "mean"):
            names = [task.name for task in VTAB_TASKS if group in (task.group, "mean")]
            there = [name for name in names if name in means["tasks"]]
            if there or means["made_up"]:
                title = f"VTAB-1k {'average of 19' if group == 'mean' else group} ({suite}: {protocol})"
                missing = [name for name in names if name in means["missing"]]
                entry = _entry(title, "vtab-1k", group, means[group], there, missing)
                found.append(entry | {"not_whole": [name for name in names if name in means["made_up"]]})
    return found


def _closed(
    name: str, family: str, group: str, wanted: Sequence[str], values: Mapping[str, float | None]
) -> dict[str, Any]:
    """A mean over exactly `wanted`; without a value unless all are there."""
    there = [one for one in wanted if values.get(one) is not None]
    missing = [one for one in wanted if values.get(one) is None]
    mean = None if missing else sum(float(values[one] or 0.0) for one in there) / len(there)
    return _entry(name, family, group, mean, there, missing)


def _entry(
    name: str, family: str, group: str, value: float | None, there: Sequence[str], missing: Sequence[str]
) -> dict[str, Any]:
    return {
        "name": name,
        "family": family,
        "group": group,
        "value": value,
        "members": list(there),
        "missing": list(missing),
        "complete": not missing,
    }


__all__ = ["DATACOMP_TYPES", "GROUPS", "aggregates", "capability_aggregates", "datacomp_aggregates", "main_value",
           "task_of_record", "zero_shot_records"]  # fmt: skip
