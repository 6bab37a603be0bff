"""`curate plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from ...shards import storage
from ..artifact import RECEIPT, Artifact
from ..config import Config, load
from ..plan import Plan, make_plan
from ..plan_budget import budget_lines
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
    total, on_gpu, unknown_stages = 0.0, 0.0, 0
    for stage in plan.stages:
        artifact = folder.artifact(stage)
        parts, state, finished = _state(stage, artifact, folder, plan)
        estimate = ""
        if state != "reuse":
            guess = next((seconds[key] for key in _keys(stage.kind, stage.identity()) if key in seconds), None)
            if guess is None:
                unknown_stages += 1
            else:
                left = guess.seconds * _size(stage.identity()) * (1 - finished / parts if parts else 1)
                total += left
                on_gpu += left if guess.on_gpu else 0.0
                estimate = f"{left:.0f} s"
        label = f"{finished}/{parts}" if parts is not None and finished and state != "reuse" else str(parts or "")
        table.add_row(stage.name, state, label, estimate, stage.folder)
    out.print(table)
    if told := sweep_line(config, plan.stages):
        out.print(told)
    for line in budget_lines(plan.stages, folder):
        out.print(line, soft_wrap=True, highlight=False, markup=False)
    todo = sum(not folder.artifact(s).is_done() for s in plan.stages)
    if not todo:
        out.print("nothing to run: every stage is finished")
        return
    told = f"about {total:.0f} s of work from earlier runs" if total else "no earlier run to estimate from"
    more = f", {unknown_stages} stages of a kind not run before" if unknown_stages and total else ""
    out.print(f"{todo} stages to run; {told}{more}{_cost(config, total - on_gpu, on_gpu)}")


def _state(stage: Stage, artifact: Artifact, folder: RunFolder, plan: Plan) -> tuple[int | None, str, int]:
    done = {r: folder.artifact(s) for r, s in stage.inputs.items() if folder.artifact(s).is_done()}
    parts = stage.expected_parts(done)
    if artifact.is_done():
        return parts, "reuse", parts or 0
    finished = len(artifact.finished_parts())
    return parts, "resume" if finished else "run", finished if parts is None else min(finished, parts)


@dataclass(frozen=True)
class Pace:
    """How long work takes.

    Attributes:
        seconds: of one device or worker, per sample seen of trainings, else of a whole stage.
        on_gpu: whether they were a GPU's.
    """

    seconds: float
    on_gpu: bool = False


def _earlier_seconds(artifacts: str) -> dict[tuple[str, ...], Pace]:
    """Median pace of work (not of waiting) of each kind of stage, over all artifacts of the workdir.

    Of trainings, seconds per sample seen: those of a sweep differ in length; by model, where it was trained before.
    """
    found: dict[tuple[str, ...], list[tuple[float, bool]]] = {}
    for name in storage.list_names(artifacts):
        folder = storage.join(artifacts, name)
        for receipt in [RECEIPT, *(f"receipts/{r}" for r in storage.list_names(storage.join(folder, "receipts")))]:
            artifact = Artifact(folder, receipt)
            if artifact.is_done():
                receipt = artifact.receipt
                devices, on_gpu = _devices(receipt["summary"])
                pace = receipt["part_seconds"] * devices / _size(receipt["identity"]), on_gpu
                for key in _keys(receipt["kind"], receipt["identity"]):
                    found.setdefault(key, []).append(pace)
    return {key: Pace(*sorted(values)[len(values) // 2]) for key, values in found.items()}


def _keys(kind: str, identity: dict[str, Any]) -> list[tuple[str, ...]]:
    """What a stage's pace is looked up by, the most telling first."""
    model = identity.get("model_identity")
    return [(kind, model), (kind,)] if model else [(kind,)]


def _devices(summary: dict[str, Any]) -> tuple[int, bool]:
    """How many devices a training had, and whether they were GPUs; (1, False) of any other stage."""
    training = next(iter(summary["seeds"].values()), {}) if isinstance(summary.get("seeds"), dict) else summary
    speed = training.get("speed") if isinstance(training, dict) else None
    return (speed.get("devices", 1), speed.get("device", "cpu") != "cpu") if isinstance(speed, dict) else (1, False)


def _size(identity: dict[str, Any]) -> float:
    """Samples seen by all seeds of a training; 1 of any other stage."""
    return float(identity.get("samples_seen", 1) * identity.get("seeds", 1))


def _cost(config: Config, on_cpu: float, on_gpu: float) -> str:
    """What seconds of work cost, as far as the config names prices."""
    told, total = [], 0.0
    for seconds, price, what in (
        (on_cpu, config.report.price_per_cpu_hour, "CPU"),
        (on_gpu, config.report.price_per_gpu_hour, "GPU"),
    ):
        if seconds and price:
            total += seconds / 3600 * price
            told.append(f"{price:g} per {what} hour")
    return f"; about {total:.2f} at {' and '.join(told)}" if told else ""
