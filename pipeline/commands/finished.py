"""What a run has finished, for commands that only look."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import CurateError
from ..artifact import Artifact
from ..config import Config
from ..plan import Plan
from ..reporting.source import RunData
from ..run_folder import RunFolder
from ..stage import Stage


def finished(config: Config, stages: Mapping[str, Stage]) -> dict[str, Artifact]:
    """Artifacts of those stages that are done, by role."""
    folder = RunFolder.of(config)
    found = {role: folder.artifact(stage) for role, stage in stages.items()}
    return {role: artifact for role, artifact in found.items() if artifact.is_done()}


def finished_run(config: Config, plan: Plan) -> RunData:
    """Everything of a run that is done.

    Raises:
        CurateError: not even the pool is.
    """
    inputs = finished(config, plan.named("report").inputs)
    if "pool" not in inputs:
        raise CurateError("the pool is not ingested yet; `curate run` first")
    return RunData(config, inputs)
