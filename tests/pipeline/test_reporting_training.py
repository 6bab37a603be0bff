"""From a training's folder and record to what the page shows."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.pipeline.artifact import Artifact
from curate.pipeline.config import ReportConfig
from curate.pipeline.reporting.training import CURVE_POINTS, curves, stage_cost, thinned, training, trainings
from curate.shards import storage

REPORT = {"steps": 100, "samples_seen": 6400, "epochs": 6.4, "samples": 1000, "distinct": 900, "parameters": 12}
SPEED = {"seconds": 1800.0, "samples_per_second": 3.5, "data_wait": 0.1, "sessions": 2, "peak_rss_bytes": 9}


def run_of(folder: Path, log: list[dict[str, Any]], validation: list[dict[str, Any]]) -> Any:
    artifact = Artifact(str(folder))
    for name, lines in (("log.jsonl", log), ("checkpoints/results.jsonl", validation)):
        if lines:
            text = "".join(json.dumps(line) + "\n" for line in lines)
            storage.write_bytes(storage.join(artifact.data, "seed3", name), text.encode())
    speed = SPEED | {"device": "cpu", "devices": 2}
    storage.write_json(str(folder / "artifact.json"), {"summary": {"seeds": {"seed3": REPORT | {"speed": speed}}}})
    config = SimpleNamespace(report=ReportConfig(price_per_cpu_hour=0.5))
    return SimpleNamespace(config=config, named=lambda kind: {"curated": artifact} if kind == "pretrain" else {})


def test_curves_of_all_measures(tmp_path):
    log = [
        {"step": s, "samples_seen": 64 * s, "loss": 1 / s, "clip": 1 / s, "teacher": 0.1, "lr": 0.5 - s / 1000}
        for s in range(1, 101)
    ]
    validation = [{"samples_seen": 6400, "clip_val_loss": 0.5, "image_to_text_R@1": 0.1}]
    run = run_of(tmp_path, log, validation)
    (curve,) = curves(run)
    assert (curve.arm, curve.seed) == ("curated", 3)
    assert len(curve.samples) == len(curve.loss) == CURVE_POINTS
    assert list(curve.others) == ["teacher", "lr", "validation_loss"]  # `clip` is the loss itself
    assert curve.others["lr"].values[-1] == pytest.approx(0.4)
    assert curve.loss[0] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert (curve.samples[0], curve.samples[-1]) == (192, 6400)
    assert list(curve.others["validation_loss"].values) == [0.5]
    (told,) = trainings(run)
    assert (told.samples_seen, told.sessions, told.peak_bytes, told.mfu) == (6400, 2, 9, None)
    assert told.cost == pytest.approx(0.5 * 2 * 0.5)


def test_a_training_without_a_log_or_a_clock(tmp_path):
    assert curves(run_of(tmp_path, [], [])) == []
    told = training("a", 0, REPORT, ReportConfig(price_per_cpu_hour=1.0))
    assert (told.seconds, told.cost, told.device, told.corrupt) == (None, None, "", 0)
    on_gpu = training("a", 0, REPORT | {"speed": SPEED | {"device": "NVIDIA H100"}}, ReportConfig(price_per_cpu_hour=1))
    assert on_gpu.cost is None  # the price of a processor says nothing about a GPU


@given(count=st.integers(1, 200), points=st.integers(1, 40))
def test_thinning_keeps_means_and_the_end(count, points):
    lines = [{"samples_seen": 10 * (i + 1), "loss": float(i % 7)} for i in range(count)]
    line = thinned(lines, "loss", points)
    assert len(line.samples) == len(line.values) == min(points, count)
    assert line.samples[-1] == 10 * count
    widths = [b - a for a, b in zip([0, *line.samples], line.samples, strict=False)]
    weighted = sum(v * w / 10 for v, w in zip(line.values, widths, strict=True))
    assert weighted == pytest.approx(sum(i % 7 for i in range(count)))
    assert max(widths) - min(widths) <= 10


def test_costs_of_stages():
    both = ReportConfig(price_per_cpu_hour=0.5, price_per_gpu_hour=4.0)
    assert stage_cost({"part_seconds": 7200, "summary": {"rows": 3}}, both) == pytest.approx(1.0)
    assert stage_cost({"part_seconds": 7200, "summary": {"seeds": ["seed0"]}}, both) == pytest.approx(1.0)
    on_gpus = REPORT | {"speed": SPEED | {"device": "NVIDIA H100", "devices": 8}}
    trained = {"part_seconds": 1800, "summary": {"seeds": {"seed0": on_gpus, "seed1": on_gpus}}}
    assert stage_cost(trained, both) == pytest.approx(2 * 0.5 * 8 * 4)
    assert stage_cost({"part_seconds": 1800, "summary": on_gpus}, both) == pytest.approx(0.5 * 8 * 4)
    assert stage_cost(trained, ReportConfig(price_per_cpu_hour=1.0)) is None
    assert stage_cost({"part_seconds": 1, "summary": {}}, ReportConfig()) is None
