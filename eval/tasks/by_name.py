"""Which published task a set is, told by its name; what is published about it is then checked, never assumed.

A folder may be called as DataComp calls it (``wds_vtab-caltech101_test``), with or without ``wds_`` and ``_test``, or a
config may give the task's key (``vtab/caltech101``). A set of the same name but of another size stays under its own
numbers: the record says how many samples the task has, and that these are not all of them.
"""

from __future__ import annotations

from typing import Any

from ...shards.evalsets.base import EvalSet, Kind, plain_name
from .datacomp import TASKS, DataCompTask

_BY_FOLDER = {task.folder: task for task in TASKS}


def datacomp_task(name: str, kind: Kind = "classification") -> DataCompTask | None:
    """The DataComp task that a set of this name and kind is; None if it is none of the 40.

    The kind must agree: a multi-label set called ``voc2007`` is not DataComp's VOC 2007, which has one label each.
    """
    name = name.strip().rstrip("/")
    if "/" in name and name.replace("/", "-").removeprefix("wds_") not in _BY_FOLDER:
        name = name.rsplit("/", 1)[-1]  # the path of a folder
    found = _BY_FOLDER.get(plain_name(name.replace("/", "-")))
    return found if found is not None and found.kind == kind else None


def task_of(evalset: EvalSet) -> DataCompTask | None:
    """As `datacomp_task`, of a set."""
    return datacomp_task(evalset.name, evalset.kind)


def described(task: DataCompTask, n: int, classes: int | None) -> dict[str, Any]:
    """What a result's record says about its task, strict JSON.

    ``key``, ``name``; ``expected_n`` and ``expected_classes`` of the published task; ``whole``: whether the result is
    over exactly as many samples and classes. A number that is not is still right, but is not the published task's.
    """
    same_classes = task.classes is None or classes == task.classes
    return {
        "key": task.key,
        "name": task.name,
        "expected_n": task.size,
        "expected_classes": task.classes,
        "whole": n == task.size and same_classes,
    }
