"""Learning curves, and what each training did and took, from the folders and the record of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...eval.report.data import Curve, Line, Training
from ...shards import storage
from ..artifact import Artifact
from ..config import ReportConfig
from .source import RunData

CURVE_POINTS = 30  # per measure and training; a page holds dozens of these
LAST_OF = ("lr", "logit_scale")  # measures that are no noisy ones: the value at a point's place, not a mean up to it
PLACES = ("step", "samples_seen")
VALIDATION_LOSSES = ("clip_val_loss", "val_loss")
VALIDATION_MEASURES = ("top1", "image_to_text_R@1", "text_to_image_R@1")


def curves(run: RunData) -> list[Curve]:
    """Losses, rates and scales of every model, thinned out."""
    found = []
    for arm, seed, number, artifact in _trainings(run):
        folder = storage.join(artifact.data, seed)
        log = read_lines(storage.join(folder, "log.jsonl"))
        if not log:
            continue
        others = {name: thinned(log, name) for name in _measures(log)}
        validation = read_lines(storage.join(folder, "checkpoints", "results.jsonl"))
        key = next((k for k in VALIDATION_LOSSES if any(k in line for line in validation)), None)
        if key:
            others["validation_loss"] = thinned(validation, key, last=True)
        for name in VALIDATION_MEASURES:
            if sum(name in line for line in validation) > 1:  # one value is no curve; it stands in the table
                others[f"validation/{name}"] = thinned(validation, name, last=True)
        loss = thinned(log, "loss")
        found.append(Curve(arm, number, loss.samples, loss.values, others))
    return found


def trainings(run: RunData) -> list[Training]:
    """What every training of the run did and took."""
    return [
        training(arm, number, artifact.summary["seeds"][seed], run.config.report, artifact.receipt.get("identity", {}))
        for arm, seed, number, artifact in _trainings(run)
    ]


def _trainings(run: RunData) -> list[tuple[str, str, int, Artifact]]:
    """Subset, part name, seed and artifact of every training."""
    return [
        (arm, seed, int(seed.removeprefix("seed")), artifact)
        for arm, artifact in run.named("pretrain").items()
        for seed in artifact.summary["seeds"]
    ]


def training(
    arm: str, seed: int, report: Mapping[str, Any], prices: ReportConfig, identity: Mapping[str, Any] | None = None
) -> Training:
    """From what a training reported: the fields of its report and, as ``speed``, how fast it was.

    Args:
        identity: of its stage, which says what was trained and how.
    """
    told = identity or {}
    speed = report.get("speed") or {}
    return Training(
        arm,
        seed,
        steps=report["steps"],
        samples_seen=report["samples_seen"],
        epochs=report.get("epochs"),
        samples=report.get("samples"),
        distinct=report.get("distinct"),
        parameters=report.get("parameters"),
        corrupt=report.get("corrupt", 0),
        replaced=report.get("replaced", 0),
        skipped=report.get("skipped_steps", 0),
        flops=speed.get("flops"),
        seconds=speed.get("seconds"),
        samples_per_second=speed.get("samples_per_second"),
        data_wait=speed.get("data_wait"),
        mfu=speed.get("mfu"),
        sessions=speed.get("sessions"),
        peak_bytes=speed.get("peak_rss_bytes") or None,
        peak_gpu_bytes=speed.get("peak_gpu_bytes") or None,
        device=speed.get("device", ""),
        devices=speed.get("devices"),
        cost=_cost(speed, prices),
        model=str(told.get("model", "")).rstrip("/").rsplit("/", 1)[-1],
        recipe=told.get("recipe", {}).get("type", ""),
        loss=report.get("loss"),
        validation=report.get("validation") or {},
    )


def _cost(speed: Mapping[str, Any], prices: ReportConfig) -> float | None:
    """Hours of all devices times the price of one; None without a price or without a clock."""
    on_gpu = speed.get("device", "cpu") != "cpu"
    price = prices.price_per_gpu_hour if on_gpu else prices.price_per_cpu_hour
    if price is None or "seconds" not in speed:
        return None
    return speed["seconds"] / 3600 * speed.get("devices", 1) * price


def stage_cost(receipt: Mapping[str, Any], prices: ReportConfig) -> float | None:
    """Cost of a stage: of trainings by the devices that each had, of everything else by the hours of its workers; None
    without a price."""
    summary = receipt["summary"]
    seeds = summary.get("seeds")
    reports = list(seeds.values()) if isinstance(seeds, dict) else [summary]
    speeds = [speed for report in reports if isinstance(report, dict) and (speed := report.get("speed"))]
    if not speeds:
        speeds = [{"seconds": receipt["part_seconds"]}]
    costs = [_cost(speed, prices) for speed in speeds]
    return None if None in costs else sum(cost for cost in costs if cost is not None)


def read_lines(path: str) -> list[dict[str, Any]]:
    """Objects of a file of JSON lines; none if it is not there."""
    if not storage.exists(path):
        return []
    return [json.loads(line) for line in storage.read_bytes(path).decode().splitlines()]


def _measures(log: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a log holds beside the loss; a part that is the whole loss at every line tells nothing."""
    names = list(dict.fromkeys(name for line in log for name in line if name not in (*PLACES, "loss")))
    return [name for name in names if any(name in line and line[name] != line["loss"] for line in log)]


def thinned(
    lines: Sequence[Mapping[str, Any]], name: str, points: int = CURVE_POINTS, last: bool | None = None
) -> Line:
    """At most `points` values of one key: means of equal runs of lines (or their last value), each at its run's end."""
    told = [line for line in lines if line.get(name) is not None]
    count = min(points, len(told))
    ends = [len(told) * (i + 1) // count for i in range(count)]
    samples, values = [], []
    for start, end in zip([0, *ends], ends, strict=False):
        part = [float(line[name]) for line in told[start:end]]
        samples.append(int(told[end - 1]["samples_seen"]))
        values.append(part[-1] if (name in LAST_OF if last is None else last) else sum(part) / len(part))
    return Line(samples, values)
