"""`report`: the page that people look at, made from everything else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...shards import storage
from ..artifact import Artifact
from ..config import Config
from ..run_results import BANK, ENCODERS, SUBSETS, RunResults, measured
from ..stage import Stage, Work

if TYPE_CHECKING:
    from ..reporting.source import RunData


@dataclass(eq=False)
class ReportStage(Stage):
    """Write the report.

    Inputs: every other stage, by role.
    Files: ``index.html``, ``report.json``; if models were evaluated, ``evaluation/`` with all results and
    ``examples.parquet`` with test pictures.
    """

    kind: ClassVar[str] = "report"
    version: ClassVar[int] = 5
    config: Config = None  # type: ignore[assignment]

    def identity(self) -> dict[str, Any]:
        return {"config": self.config.model_dump(mode="json", exclude={"workdir", "cluster"})}

    def run(self, work: Work) -> dict[str, Any]:
        work.gather(build_run_report, [(self.config, dict(work.inputs), work.out)])
        return {}


def build_run_report(config: Config, inputs: Mapping[str, Artifact], out: str) -> None:
    """Write the pages of a run in folder `out` from finished artifacts, by their roles."""
    from ...eval.examples import write_bank
    from ...eval.report.build import build_report, machine_readable
    from ..reporting.evaluation_page import write_evaluation
    from ..reporting.examples_bank import example_banks
    from ..reporting.source import RunData
    from ..reporting.whole import whole_report

    run = RunData(config, inputs)
    report = whole_report(run)
    results = run_results(run, machine_readable(report))
    if results.models:
        banks = example_banks(run, results.models)
        write_bank(storage.join(out, BANK), banks)
        control = config.eval.control or "" if config.eval else ""
        pages = ["../index.html"]
        shifts = config.eval.shifts or None if config.eval else None
        to = storage.join(out, "evaluation")
        write_evaluation([results], to, config.name, control, pages=pages, banks=banks, shifts=shifts)
        report.evaluation = "evaluation/index.html"
    build_report(report, out)


def run_results(run: RunData, report: Mapping[str, Any]) -> RunResults:
    """What a run measured, from its artifacts."""
    kinds = {SUBSETS: run.named("eval"), ENCODERS: run.named("network")}
    models = [
        measured(report, kind, name, seed, storage.join(artifact.data, seed))
        for kind, artifacts in kinds.items()
        for name, artifact in artifacts.items()
        for seed in artifact.summary["seeds"]
    ]
    return RunResults(run.config.name, report, tuple(models))
