"""`report`: the page that people look at, made from everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..artifact import Artifact
from ..config import Config
from ..stage import Stage, Work


@dataclass(eq=False)
class ReportStage(Stage):
    """Write the report. Inputs: every other stage, by role. Files: ``index.html``, ``report.json``."""

    kind: ClassVar[str] = "report"
    version: ClassVar[int] = 3
    config: Config = None  # type: ignore[assignment]

    def identity(self) -> dict[str, Any]:
        return {"config": self.config.model_dump(mode="json", exclude={"workdir", "cluster"})}

    def run(self, work: Work) -> dict[str, Any]:
        work.gather(build_run_report, [(self.config, dict(work.inputs), work.out)])
        return {}


def build_run_report(config: Config, inputs: Mapping[str, Artifact], out: str) -> None:
    """Write ``index.html`` and ``report.json`` in folder `out` from finished artifacts, by their roles."""
    from ...eval.report.build import build_report
    from ..reporting.whole import whole_report

    build_report(whole_report(config, inputs), out)
