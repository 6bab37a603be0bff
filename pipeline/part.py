"""Parts of a stage, on a worker: run the function, then leave the receipts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..shards import storage
from .artifact import Artifact
from .calls import peak_bytes_now
from .stage import Task


def run_part(
    function: Callable[..., dict[str, Any]], artifact: Artifact, name: str, arguments: tuple[Any, ...]
) -> dict[str, Any]:
    """Run one part on a worker and leave its receipt. The receipt comes after everything that the part published."""
    started = time.perf_counter()
    result = function(task_of(artifact, name), *arguments)
    leave_receipt(artifact, name, result, time.perf_counter() - started)
    return result


def run_bundle(
    function: Callable[..., list[dict[str, Any]]],
    artifact: Artifact,
    names: list[str],
    arguments: list[tuple[Any, ...]],
) -> list[dict[str, Any]]:
    """`run_part` for several parts in one call; each gets an equal share of the time."""
    started = time.perf_counter()
    results = function([task_of(artifact, name) for name in names], arguments)
    share = (time.perf_counter() - started) / len(names)
    for name, result in zip(names, results, strict=True):
        leave_receipt(artifact, name, result, share)
    return results


def task_of(artifact: Artifact, name: str) -> Task:
    """What a part function learns about itself."""
    return Task(name, artifact.data, artifact.scratch(name), artifact.progress_path(name))


def leave_receipt(artifact: Artifact, name: str, result: dict[str, Any], seconds: float) -> None:
    """Declare a part done."""
    receipt = {"result": result, "seconds": round(seconds, 3), "peak_bytes": peak_bytes_now()}
    storage.write_json(artifact.part_path(name), receipt)
