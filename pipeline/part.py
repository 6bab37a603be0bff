"""Parts of a stage, on a worker: run the function, then leave the receipts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..shards import storage
from .artifact import Artifact
from .calls import peak_bytes_now
from .group import ALONE, Member
from .stage import Task
from .stop import NO_SIGN, StopSign


def run_part(
    function: Callable[..., dict[str, Any]],
    artifact: Artifact,
    name: str,
    arguments: tuple[Any, ...],
    sign: StopSign = NO_SIGN,
    member: Member = ALONE,
) -> dict[str, Any]:
    """Run one part on a worker and leave its receipt. The receipt comes after everything that the part published.

    Of several processes that do it together, only member 0 leaves one.
    """
    started = time.perf_counter()
    result = function(task_of(artifact, name, sign, member), *arguments)
    if member.rank == 0:
        leave_receipt(artifact, name, result, time.perf_counter() - started)
    return result


def run_bundle(
    function: Callable[..., list[dict[str, Any]]],
    artifact: Artifact,
    names: list[str],
    arguments: list[tuple[Any, ...]],
    sign: StopSign = NO_SIGN,
) -> list[dict[str, Any]]:
    """`run_part` for several parts in one call; each gets an equal share of the time."""
    started = time.perf_counter()
    results = function([task_of(artifact, name, sign) for name in names], arguments)
    share = (time.perf_counter() - started) / len(names)
    for name, result in zip(names, results, strict=True):
        leave_receipt(artifact, name, result, share)
    return results


def task_of(artifact: Artifact, name: str, sign: StopSign = NO_SIGN, member: Member = ALONE) -> Task:
    """What a part function learns about itself."""
    return Task(name, artifact.data, artifact.scratch(name), artifact.progress_path(name), sign, member)


def leave_receipt(artifact: Artifact, name: str, result: dict[str, Any], seconds: float) -> None:
    """Declare a part done."""
    receipt = {"result": result, "seconds": round(seconds, 3), "peak_bytes": peak_bytes_now()}
    storage.write_json(artifact.part_path(name), receipt)
