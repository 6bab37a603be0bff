"""`curate plan`."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from ...shards import storage
from ..artifact import RECEIPT, Artifact
from ..config import Config, load
from ..plan import Plan, make_plan
from ..plan_sweep import sweep_line
from ..run_folder import RunFolder
from ..stage import Stage


def show_plan(path: str, overrides: list[str], out: Console) -> None:
    """Print the stages, what is reused, and an estimate from earlier runs in the same workdir."""
    config, _ = load(path, overrides)
    plan = make_plan(config)
    folder = RunFolder.of(config)
    seconds = _earlier_seconds(folder.artifacts)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, justify in (
        ("stage", "left"),
        ("state", "left"),
        ("parts", "right"),
        ("estimate", "right"),
        ("artifact", "left"),
    ):
        table.add_column(column, justify=justify, no_wrap=column == "stage")  # type: ignore[arg-type]
    total, unknown_stages = 0.0, 0
    for stage in plan.stages:
        artifact = folder.artifact(stage)
        parts, state, finished = _state(stage, artifact, folder, plan)
        estimate = ""
        if state != "reuse":
            guess = seconds.get(stage.kind)
            if guess is None:
                unknown_stages += 1
            else:
                left = guess * _size(stage.identity()) * (1 - finished / parts if parts else 1)
                total += left
                estimate = f"{left:.0f} s"
        label = f"{finished}/{parts}" if parts is not None and finished and state != "reuse" else str(parts or "")
        table.add_row(stage.name, state, label, estimate, stage.folder)
    out.print(table)
    if told := sweep_line(config, plan.stages):
        out.print(told)
    workers = config.cluster.workers or 1
    todo = sum(not folder.artifact(s).is_done() for s in plan.stages)
    if not todo:
        out.print("nothing to run: every stage is finished")
        return
    told = f"about {total:.0f} s of work from earlier runs" if total else "no earlier run to estimate from"
    more = f", {unknown_stages} stages of a kind not run before" if unknown_stages and total else ""
    out.print(f"{todo} stages to run; {told}{more}{_cost(config, total, workers)}")


def _state(stage: Stage, artifact: Artifact, folder: RunFolder, plan: Plan) -> tuple[int | None, str, int]:
    done = {r: folder.artifact(s) for r, s in stage.inputs.items() if folder.artifact(s).is_done()}
    parts = stage.expected_parts(done)
    if artifact.is_done():
        return parts, "reuse", parts or 0
    finished = len(artifact.finished_parts())
    return parts, "resume" if finished else "run", finished if parts is None else min(finished, parts)


def _earlier_seconds(artifacts: str) -> dict[str, float]:
    """Median seconds of work (not of waiting) of a stage of each kind, over all artifacts of the workdir.

    Of trainings, seconds per sample seen: those of a sweep differ in length.
    """
    found: dict[str, list[float]] = {}
    for name in storage.list_names(artifacts):
        folder = storage.join(artifacts, name)
        for receipt in [RECEIPT, *(f"receipts/{r}" for r in storage.list_names(storage.join(folder, "receipts")))]:
            artifact = Artifact(folder, receipt)
            if artifact.is_done():
                receipt = artifact.receipt
                found.setdefault(receipt["kind"], []).append(receipt["part_seconds"] / _size(receipt["identity"]))
    return {kind: sorted(values)[len(values) // 2] for kind, values in found.items()}


def _size(identity: dict[str, Any]) -> float:
    """Samples seen by all seeds of a training; 1 of any other stage."""
    return float(identity.get("samples_seen", 1) * identity.get("seeds", 1))


def _cost(config: Config, seconds: float, workers: int) -> str:
    price = config.report.price_per_cpu_hour
    return f"; about {seconds * workers / 3600 * price:.2f} at {price:g} per CPU hour" if price and seconds else ""
