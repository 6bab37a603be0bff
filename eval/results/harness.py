"""Results in the shape of lm-evaluation-harness, for tools that collect, diff or plot that JSON.

A task is a set measured by a suite, ``cifar10|zero_shot``; a metric's key has its filter after a comma, ``acc1,none``;
top-1 accuracies have the standard error of a share beside them, sqrt(p (1 - p) / (n - 1)), as there. Named aggregates
are groups; one that is not complete is left out, because a group has a number there. `task_hashes` are over the set's
and the words' digests. There is no date and no duration: the same results give the same file.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

from ...shards import storage
from .files import is_share_right

_LOWER_IS_BETTER = ("toxicity_",)
_COUNTS = ("count_",)


def to_harness(results: Mapping[str, Any], model: str) -> dict[str, Any]:
    """A model's ``results.json`` in that shape, strict JSON; metrics without a value are left out.

    Args:
        results: as `files.read_results` reads it.
        model: what it is called.
    """
    tasks = {f"{record['dataset']}|{record['suite']}": record for record in results["results"]}
    complete = [mean for mean in results.get("aggregates", ()) if mean["value"] is not None]
    digest = results["encoder"]["digest"]
    return {
        "results": {name: {"alias": _alias(record), **_numbers(record)} for name, record in tasks.items()},
        "groups": {mean["name"]: {"alias": mean["name"], "mean,none": mean["value"]} for mean in complete},
        "group_subtasks": {mean["name"]: list(mean["members"]) for mean in complete},
        "configs": {
            name: {
                "task": name,
                "dataset_name": record["dataset"],
                "test_split": record["split"],
                "main_metric": record["main_metric"],
                "options": record["options"],
            }
            for name, record in tasks.items()
        },
        "versions": {name: record["version"] for name, record in tasks.items()},
        "higher_is_better": {
            name: {m: not m.startswith(_LOWER_IS_BETTER) for m in _measured(record)} for name, record in tasks.items()
        },
        "n-samples": {name: {"original": _whole(record), "effective": record["n"]} for name, record in tasks.items()},
        "task_hashes": {name: _hash(record) for name, record in tasks.items()},
        "config": {"model": model, "model_args": {"digest": digest, "precision": results["encoder"].get("precision")}},
        "model_name": model,
    }


def write_harness(path: str, results: Mapping[str, Any], model: str) -> None:
    """Write it."""
    storage.write_json(path, to_harness(results, model))


def _alias(record: Mapping[str, Any]) -> str:
    return (record.get("datacomp") or {}).get("name") or record["dataset"]


def _measured(record: Mapping[str, Any]) -> dict[str, float]:
    return {m: v for m, v in record["metrics"].items() if v is not None and not m.startswith(_COUNTS)}


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    n = record["n"]
    for metric, value in _measured(record).items():
        found[f"{metric},none"] = value
        if record.get("wilson95") and n > 1 and is_share_right(record, metric):
            found[f"{metric}_stderr,none"] = math.sqrt(value * (1 - value) / (n - 1))
    return found


def _whole(record: Mapping[str, Any]) -> int:
    """Samples of the published task, where it is one; else those that were scored."""
    task = record.get("datacomp")
    return task["expected_n"] if task else record["n"]


def _hash(record: Mapping[str, Any]) -> str:
    return hashlib.blake2b(f"{record['dataset_digest']} {record['text_hash']}".encode(), digest_size=16).hexdigest()
