"""Runs with many suites on every kind of set: what they leave, that scheduling changes no byte, kills, reuse."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from evaluation_run import (
    KNN,
    SETS,
    SUITES,
    artifacts,
    image_folder,
    parquet_set,
    results_of,
    small_set,
    without_results,
)
from pretrain_run import config, labelled_pool, summary
from small_run import curate

from curate.eval.examples import SCHEMA
from curate.eval.results.tidy import read_tidy
from curate.shards.demo.captions import WORDS
from curate.shards.demo.digits import held_out
from curate.shards.tar import TarReader, TarWriter

pytestmark = pytest.mark.timeout(600)
KINDS = ("ingest", "evalset", "subset", "filter", "pretrain")
RESULTS = "runs/trained/evaluation/subsets/half/seed0/results.json"


def strict(path: Path) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{path}: {name} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_every_model_has_results_under_its_name(measured):
    run = measured / "runs" / "trained"
    models = sorted(str(p.relative_to(run / "evaluation")) for p in (run / "evaluation").glob("*/*/*"))
    assert models == [f"subsets/{arm}/seed{seed}" for arm in ("everything", "half") for seed in (0, 1)]
    folder = run / "evaluation" / models[0]
    value = strict(folder / "results.json")
    by_set = {name: {r["suite"] for r in value["results"] if r["dataset"] == name} for name in SETS}
    assert by_set["digits"] == {"zero_shot", "knn", "ridge_probe", "fast"}
    assert by_set["digits_shift"] == {"zero_shot", "fast"}
    assert by_set["digits_languages"] == {"zero_shot", "multilingual"}
    assert by_set["digits_pairs"] == {"compositional"}
    for record in value["results"]:
        table = pq.read_table(folder / record["outcomes"])
        assert len(table) == record["n"]
        assert record["dataset"] in SETS
        value = record["metrics"][record["main_metric"]]
        assert 0 <= value <= 1
        assert f"{record['dataset']}.{record['suite']}" in record["outcomes"]


def test_files_for_other_tools(measured):
    for folder in (measured / "runs" / "trained" / "evaluation").glob("*/*/*"):
        lines = (folder / "eval_results.jsonl").read_text().splitlines()
        tasks = [json.loads(line) for line in lines]
        assert {"key", "dataset", "metrics"} <= tasks[0].keys()
        assert all("main_metric" in task["metrics"] for task in tasks)
        files = list((folder / "clip_benchmark").glob("*.json"))
        records = strict(folder / "results.json")["results"]
        assert len(files) >= len({r["dataset"] for r in records})
        for file in files:
            assert {"dataset", "model", "pretrained", "task", "metrics", "language"} <= strict(file).keys()


def test_tables_over_all_models(measured):
    report = measured / "runs" / "trained" / "report"
    table = read_tidy(str(report / "evaluation" / "results.parquet"))
    rows = table.to_pylist()
    assert {(r["subset"], r["seed"]) for r in rows} == {(a, s) for a in ("everything", "half") for s in (0, 1)}
    assert {r["dataset"] for r in rows if r["kind"] != "aggregate"} == set(SETS)
    for r in rows:
        assert r["value"] is None or -1 <= r["value"] <= 1 or not r["is_main"]
    seed = strict(measured / "runs" / "trained" / "evaluation" / "subsets" / "half" / "seed1" / "results.json")
    wanted = {(r["dataset"], r["suite"]): r["metrics"][r["main_metric"]] for r in seed["results"]}
    found = {
        (r["dataset"], r["suite"]): r["value"]
        for r in rows
        if r["is_main"] and (r["subset"], r["seed"]) == ("half", 1) and r["kind"] != "aggregate"
    }
    assert wanted.items() <= found.items()
    comparison = strict(report / "evaluation" / "comparison.json")
    assert [arm["name"] for arm in comparison["arms"]] == ["everything", "half"]
    assert comparison["arms"][comparison["control"]]["name"] == "everything"
    assert len(comparison["models"]) == 4
    bank = pq.read_table(report / "examples.parquet")
    assert bank.schema.equals(SCHEMA)
    assert len(bank) > 20
    assert len(set(bank["dataset"].to_pylist())) >= 4


def test_the_dashboard_is_linked_and_says_no_machine_path(measured):
    report = measured / "runs" / "trained" / "report"
    page = (report / "evaluation" / "index.html").read_text()
    assert "digits_association" in page
    assert "../index.html" in page
    assert str(measured) not in page
    assert 'href="evaluation/index.html"' in (report / "index.html").read_text()
    strict(report / "evaluation" / "dashboard.json")
    assert strict(report / "report.json")["evaluation"] == "evaluation/index.html"
    said = (measured / "said").read_text()
    assert "digits_association, association" in said
    assert "evaluation/index.html" in said


def test_a_second_run_reuses_and_another_option_evaluates_alone(measured, tmp_path):
    again = curate("run", str(measured / "config.yaml"))
    assert (again.returncode, "0 stages run" in again.stdout) == (0, True), again.stderr
    before = {kind: artifacts(measured, kind) for kind in KINDS}
    changed = [s if s is not KNN else {**KNN, "k": [7]} for s in SUITES]
    done = curate("run", without_results(measured, tmp_path, suites=changed))
    assert done.returncode == 0, done.stderr
    assert "4 stages run" in done.stdout  # the check, two evaluations, the report
    assert {kind: artifacts(tmp_path, kind) for kind in KINDS} == before
    one, other = (strict(f / RESULTS)["results"] for f in (measured, tmp_path))
    assert [r["suite"] for r, s in zip(one, other, strict=True) if r != s] == ["knn"]


@pytest.mark.parametrize(("together", "address"), [(1, "processes"), (2, "inline")])
def test_results_do_not_depend_on_models_per_pass_or_engine(measured, tmp_path, together, address):
    done = curate("run", without_results(measured, tmp_path, address, models_per_pass=together))
    assert done.returncode == 0, done.stdout + done.stderr
    expected = results_of(measured)
    assert results_of(tmp_path) == expected
    assert len(expected) > 4 * len(SETS)


def test_fast_looks_at_what_earlier_models_tell(measured, tmp_path):
    history = str(measured / "runs" / "trained" / "evaluation" / "subsets" / "*" / "*")
    suite = {"type": "fast", "samples": 50, "history": [history]}
    done = curate("run", without_results(measured, tmp_path, suites=[suite], data=["digits"], shifts={}))
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / "trained" / "evaluation" / "subsets" / "half" / "seed0"
    (record,) = strict(folder / "results.json")["results"]
    facts = record["facts"]
    assert (facts["method"], facts["earlier_models"], facts["n"], facts["of"]) == ("sort_search", 4, 50, 450)
    low, high = facts["interval95"]
    assert low < record["metrics"]["fast_acc1"] < high
    asked = set(pq.read_table(folder / record["outcomes"])["key"].to_pylist())
    assert len(asked) == 50


# --- kills


def start(path: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "curate.pipeline.cli", "run", path]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def features(folder: Path) -> list[Path]:
    """Features that are written while an evaluation is under way."""
    found = [*folder.glob("runs/.features/**/*"), *folder.glob("runs/artifacts/eval-*/scratch/**/*")]
    return [path for path in found if path.is_file() and not path.name.startswith(".tmp-")]


@pytest.mark.slow
def test_killed_drivers_and_workers_change_no_byte(measured, tmp_path):
    path = without_results(measured, tmp_path, "processes", models_per_pass=1)
    killed = 0
    for whom in ("driver", "worker", "driver"):
        before = len(features(tmp_path))
        driver = start(path)
        wait_for(lambda d=driver, b=before: d.poll() is not None or len(features(tmp_path)) > b + 1)
        if driver.poll() is None:
            killed += 1
            children = psutil.Process(driver.pid).children(recursive=True)
            workers = [child for child in children if child.name() == "curate-worker"]
            if whom == "worker" and workers:
                workers[-1].kill()
                driver.wait(timeout=240)
            else:
                os.kill(driver.pid, signal.SIGKILL)
                driver.wait()
    assert killed > 0
    done = curate("run", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert results_of(tmp_path) == results_of(measured)
    assert not list((tmp_path / "runs").rglob(".tmp-*"))


# --- what cannot be evaluated is not trained for


def test_nothing_is_trained_for_an_evaluation_that_cannot_be(tmp_path):
    labelled_pool(tmp_path / "pool", 1, 20)
    labelled_pool(tmp_path / "trusted", 1, 3, 9)
    bad = small_set(tmp_path)
    tar = bad / "test" / "0.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    pretrain = {"samples_seen": 32, "subsets": ["everything"]}
    evaluation = {"suites": ["zero_shot"], "data": [str(bad)], "decontaminate": False}
    path = config(tmp_path, pretrain, eval=evaluation)
    assert curate("run", path, "--until", "pool").returncode == 0  # so that a training could begin at once
    done = curate("run", path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0.tar" in done.stderr
    assert "Traceback" not in done.stderr
    assert "pretrain/everything: started" not in done.stderr


# --- layouts, loaded encoders, decontamination


@pytest.fixture(scope="module")
def layouts(measured, tmp_path_factory) -> Path:
    """An evaluation-only config: loaded encoders on an image folder, a parquet set and a WebDataset; a leaking pool."""
    folder = tmp_path_factory.mktemp("layouts")
    labelled_pool(folder / "pool", 1, 40)
    leak(folder / "pool", 5)
    model = str(measured / "runs" / "trained" / "models" / "half" / "seed0")
    data = [
        {"path": str(small_set(folder)), "name": "wds"},
        {"path": str(image_folder(folder)), "classnames": list(WORDS), "templates": ["a {c}"], "name": "pictures"},
        {"path": str(parquet_set(folder)), "classnames": list(WORDS), "templates": ["a {c}"], "name": "table"},
    ]
    done = curate(
        "run",
        config(
            folder,
            None,
            targets=None,
            subsets={"everything": []},
            encoders={name: {"model": model, "pretrained": model} for name in ("net", "twin")},
            eval={"suites": ["zero_shot"], "data": data, "encoders": ["net", "twin"]},
        ),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def leak(pool: Path, count: int) -> None:
    """Put evaluation images into the pool's first shard, in the place of its own."""
    tar = pool / "00000000.tar"
    own = list(TarReader(str(tar)).samples())
    images = [body for body, _ in held_out("test")][:count]
    with TarWriter(str(tar)) as out:
        for row, (key, members) in enumerate(own):
            out.write(
                key,
                {"webp" if row < count else "png": images[row] if row < count else members["png"]}
                | {"txt": members["txt"]},
            )


def test_layouts_give_the_same_numbers_to_loaded_encoders(layouts):
    run = layouts / "runs" / "trained"
    net, twin = (strict(run / "evaluation" / "encoders" / n / "model" / "results.json") for n in ("net", "twin"))
    assert net == twin
    assert [r["dataset"] for r in net["results"]] == ["wds", "pictures", "table"]
    assert len({json.dumps(r["metrics"]) for r in net["results"]}) == 1
    comparison = strict(run / "report" / "evaluation" / "comparison.json")
    assert [arm["name"] for arm in comparison["arms"]] == ["encoder net", "encoder twin"]


def test_evaluation_images_of_every_layout_are_kept_out(layouts):
    facts = summary(layouts, "subset/everything/0-decontaminate")["facts"]
    assert facts["matched"] == 5
    assert [(s["set"], s["images"], s["images_in_pool"]) for s in facts["sets"]] == [
        ("wds", 20, 5),
        ("pictures", 20, 5),
        ("table", 20, 5),
    ]
