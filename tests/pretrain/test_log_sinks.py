"""Live logs: append-safe over kills, services that go on with their own run, and services that fail."""

import json
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from curate.errors import ConfigError
from curate.pretrain.outputs.log_sinks import (
    LiveLog,
    LogSink,
    MlflowOptions,
    SinkFailed,
    WandbOptions,
    check_installed,
    read_lines,
)


def events(folder: Path) -> list[tuple[int, str, float]]:
    """(step, tag, value) of all records of all event files, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    found = []
    for path in sorted((folder / "live" / "tensorboard").iterdir()):
        for event in LegacyEventFileLoader(str(path)).Load():
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
    return found


@settings(max_examples=15, deadline=None)
@given(sessions=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=4), torn=st.booleans())
def test_no_step_is_there_twice_however_often_it_was_killed(tmp_path_factory, sessions, torn):
    folder = tmp_path_factory.mktemp("live")
    reached = 0
    for at, more in [*sessions, (10, 10)]:
        begin = min(at, reached)  # the state may be older than what was logged
        with LiveLog(str(folder), step=begin) as log:
            for step in range(begin + 1, min(10, begin + more) + 1):
                log.write("train", {"step": step, "loss": step / 4, "nothing": None, "broken": float("nan")})
                if step % 3 == 0:
                    log.write("val", {"step": step, "clip_val_loss": 1.0})
        reached = min(10, begin + more)
        if torn:
            with open(folder / "live" / "lines.jsonl", "ab") as file:
                file.write(b'{"group": "train", "st')
    lines = read_lines(str(folder / "live"))
    train = [line for line in lines if line["group"] == "train"]
    assert [line["step"] for line in train] == list(range(1, reached + 1))
    assert all(line["loss"] == line["step"] / 4 and "broken" not in line for line in train)
    expected = [(s, "train/loss", s / 4) for s in range(1, reached + 1)]
    assert sorted(events(folder)) == sorted(
        [*expected, *((s, "val/clip_val_loss", 1.0) for s in range(3, reached + 1, 3))]
    )
    assert len(list((folder / "live" / "tensorboard").iterdir())) == 1


def test_lines_can_be_read_while_it_runs(tmp_path):
    with LiveLog(str(tmp_path)) as log:
        log.write("speed", {"step": 5, "samples_per_second": 100.0})
        assert events(tmp_path) == [(5, "speed/samples_per_second", 100.0)]
        line = read_lines(str(tmp_path / "live"))[0]
        assert abs(line["time"] - time.time()) < 60


class FakeWandb(types.ModuleType):
    """As much of wandb as is used; keeps what it was told."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: dict[str, list[tuple[int, dict[str, float]]]] = {}
        self.asked: list[dict[str, Any]] = []
        self.finished = 0
        self.fail_at = -1

    def init(self, **options: Any) -> Any:
        self.asked.append(options)
        logged = self.runs.setdefault(options["id"], [])

        def log(values: dict[str, float], step: int) -> None:
            if step == self.fail_at:
                raise ConnectionError("the server is away")
            logged.append((step, values))

        def finish() -> None:
            self.finished += 1

        return types.SimpleNamespace(log=log, finish=finish)


class FakeMlflow(types.ModuleType):
    """As much of mlflow as is used."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.uris: list[str | None] = []

    def MlflowClient(self, tracking_uri: str | None) -> Any:
        self.uris.append(tracking_uri)
        return self

    def get_experiment_by_name(self, name: str) -> Any:
        return types.SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name: str) -> str:
        return self.experiments.setdefault(name, str(len(self.experiments)))

    def create_run(self, experiment_id: str, run_name: str) -> Any:
        run_id = f"run{len(self.runs)}"
        run = {"experiment": experiment_id, "name": run_name, "metrics": [], "params": {}, "status": "RUNNING"}
        self.runs[run_id] = run
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))

    def log_param(self, run_id: str, key: str, value: str) -> None:
        assert key not in self.runs[run_id]["params"], "mlflow refuses to change a parameter"
        self.runs[run_id]["params"][key] = value

    def log_metric(self, run_id: str, key: str, value: float, step: int) -> None:
        assert all(c.isalnum() or c in "_-. /" for c in key), "mlflow refuses such names"
        self.runs[run_id]["metrics"].append((step, key, value))

    def update_run(self, run_id: str, status: str) -> None:
        self.runs[run_id]["status"] = status

    def set_terminated(self, run_id: str) -> None:
        self.runs[run_id]["status"] = "FINISHED"


def test_wandb_goes_on_with_its_run(tmp_path, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    sinks = [WandbOptions(project="digits", mode="offline")]
    for begin, end in ((0, 6), (3, 9)):
        with LiveLog(str(tmp_path), sinks, begin, "curated/seed0", {"lr": "0.1"}) as log:
            for step in range(begin + 1, end + 1):
                log.write("train", {"step": step, "loss": 1.0})
    assert len(wandb.runs) == 1
    assert wandb.finished == 2
    assert [step for step, _ in next(iter(wandb.runs.values()))] == list(range(1, 10))
    assert {(a["project"], a["name"], a["mode"], a["resume"]) for a in wandb.asked} == {
        ("digits", "curated/seed0", "offline", "allow")
    }
    assert wandb.asked[0]["config"] == {"lr": "0.1"}


def test_mlflow_goes_on_with_its_run(tmp_path, monkeypatch):
    mlflow = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    sinks = [MlflowOptions(experiment="digits", name="mine", tracking_uri="sqlite:///runs.db")]
    for begin, end in ((0, 4), (2, 6)):
        with LiveLog(str(tmp_path), sinks, begin, "unused", {"recipe.lr": "0.1" * 400}) as log:
            for step in range(begin + 1, end + 1):
                log.write("train", {"step": step, "loss": 1.0})
                log.write("val", {"step": step, "image_to_text_R@1": 0.5})
    (run,) = mlflow.runs.values()
    assert (run["name"], run["status"], len(run["params"]["recipe.lr"])) == ("mine", "FINISHED", 500)
    assert [s for s, key, _ in run["metrics"] if key == "train/loss"] == [1, 2, 3, 4, 5, 6]
    assert [s for s, key, _ in run["metrics"] if key == "val/image_to_text_R_at_1"] == [1, 2, 3, 4, 5, 6]
    assert set(mlflow.uris) == {"sqlite:///runs.db"}


def test_a_service_that_fails_does_not_end_the_training(tmp_path, monkeypatch):
    wandb = FakeWandb()
    wandb.fail_at = 2
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with LiveLog(str(tmp_path), [WandbOptions()]) as log:
        log.write("train", {"step": 1, "loss": 1.0})
        with pytest.warns(SinkFailed, match="the server is away"):
            log.write("train", {"step": 2, "loss": 1.0})
        log.write("train", {"step": 3, "loss": 1.0})
    assert len(read_lines(str(tmp_path / "live"))) == 3
    assert [step for step, _ in next(iter(wandb.runs.values()))] == [1]


def test_a_missing_package_is_told_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(ConfigError, match="wandb, which is not installed"):
        check_installed([WandbOptions()])
    with pytest.raises(ConfigError, match="not installed"):
        LiveLog(str(tmp_path), [WandbOptions()])
    assert not list(tmp_path.iterdir())


def test_a_service_that_refuses_to_begin_is_an_error_of_the_config(tmp_path, monkeypatch):
    broken = types.ModuleType("wandb")
    monkeypatch.setitem(sys.modules, "wandb", broken)
    with pytest.raises(ConfigError, match="wandb cannot begin a run"):
        LiveLog(str(tmp_path), [WandbOptions()])


def test_names_and_names_with_options():
    adapter = TypeAdapter(list[LogSink])
    assert adapter.validate_python(["wandb", {"type": "mlflow", "experiment": "x"}]) == [
        WandbOptions(),
        MlflowOptions(experiment="x"),
    ]
    with pytest.raises(ValidationError):
        adapter.validate_python(["tensorbored"])
    assert "string" in json.dumps(adapter.json_schema())


def test_on_an_object_store_only_services_are_told(monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for begin in (0, 1):
        with LiveLog("memory://training", [WandbOptions()], begin) as log:
            log.write("train", {"step": begin + 1, "loss": 1.0})
    assert [[step for step, _ in run] for run in wandb.runs.values()] == [[1, 2]]
