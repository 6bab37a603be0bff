"""One part of a stage, on a worker: run its function, then leave the receipt."""

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
    task = Task(name, artifact.data, artifact.scratch(name), artifact.progress_path(name))
    result = function(task, *arguments)
    receipt = {"result": result, "seconds": round(time.perf_counter() - started, 3), "peak_bytes": peak_bytes_now()}
    storage.write_json(artifact.part_path(name), receipt)
    return result
