"""Whole runs: reuse, independence from workers and engine, kills, bad input. Outputs are compared byte for byte."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from small_run import curate, outputs, write_config

pytestmark = pytest.mark.slow


def artifacts(workdir: Path, kind: str) -> set[str]:
    return {p.name for p in (workdir / "artifacts").iterdir() if p.name.startswith(f"{kind}-")}


def test_second_run_does_nothing(reference_run):
    config, workdir, _ = reference_run
    before = outputs(workdir)
    again = curate("run", config)
    assert again.returncode == 0
    assert "0 stages run" in again.stdout
    assert outputs(workdir) == before


def test_results_lie_under_their_names(reference_run):
    _, workdir, _ = reference_run
    run = workdir / "small"
    subset = np.load(run / "subsets" / "curated.npy")
    assert subset.dtype == np.dtype([("f0", "<u8"), ("f1", "<u8")])
    assert len(subset) == len(np.load(run / "subsets" / "random.npy")) > 0
    assert (run / "report" / "index.html").stat().st_size > 100_000
    assert (run / "release" / "curated" / "SHA256SUMS").exists()
    assert (run / "models" / "curated" / "seed1" / "open_clip_model.safetensors").exists()


def test_changing_one_option_reruns_only_what_follows(reference_run, tmp_path):
    config, workdir, _ = reference_run
    before = {k: artifacts(workdir, k) for k in ("pool", "embed", "score", "filter", "subset", "pretrain", "eval")}
    changed = curate("run", config, "subsets.curated.4.keep=0.7")
    assert changed.returncode == 0, changed.stderr
    new = {k: len(artifacts(workdir, k) - before[k]) for k in before}
    # the last filter of `curated`, and `random`, which takes its size from it
    assert new == {"pool": 0, "embed": 0, "score": 0, "filter": 2, "subset": 2, "pretrain": 2, "eval": 2}


def test_results_do_not_depend_on_the_number_of_workers(reference_run, tmp_path):
    """Nor on the engine: the killed runs below end with the same bytes on each of them."""
    _, _, expected = reference_run
    done = curate("run", write_config(tmp_path, address="processes", workers=4))
    assert done.returncode == 0, done.stderr
    got = outputs(tmp_path / "runs")
    assert got == expected
    assert len(got) > 50


def start(config: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "curate.pipeline.cli", "run", config]
    with open(f"{config}.log", "a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=dict(os.environ))


def workers_of(driver: int) -> list[psutil.Process]:
    """The worker actors; not the agents of the node, whose death is the node's."""
    try:
        children = psutil.Process(driver).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    found = []
    for child in children:
        try:
            if child.name() == "curate-worker" or (child.cmdline()[:1] and "ray::_Worker" in child.cmdline()[0]):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.parametrize("address", ["inline", "local", "processes"])
def test_killed_driver_resumes_to_the_same_bytes(reference_run, tmp_path, address):
    _, _, expected = reference_run
    config = write_config(tmp_path, address=address)
    moments = random.Random(f"kill {address}")
    killed = 0
    for _ in range(3):
        driver = start(config)
        time.sleep(moments.uniform(4, 14))
        killed += driver.poll() is None
        driver.kill()
        driver.wait()
    assert killed > 0
    done = curate("run", config)
    assert done.returncode == 0, done.stderr
    got = outputs(tmp_path / "runs")
    assert got == expected
    assert not list((tmp_path / "runs").rglob(".tmp-*"))


@pytest.mark.parametrize("address", ["local", "processes"])
def test_killed_workers_do_not_matter(reference_run, tmp_path, address):
    _, _, expected = reference_run
    config = write_config(tmp_path, address=address, cluster__attempts=6)  # a slow machine may meet one call thrice
    driver = start(config)
    moments = random.Random("kill workers")
    killed = 0
    while driver.poll() is None and killed < 4:
        time.sleep(moments.uniform(2, 5))
        victims = workers_of(driver.pid)
        if victims:
            moments.choice(victims).kill()
            killed += 1
    assert driver.wait(timeout=250) == 0, Path(f"{config}.log").read_text()
    assert killed > 0
    got = outputs(tmp_path / "runs")
    assert got == expected


def test_interrupt_is_clean_and_resumable(tmp_path):
    config = write_config(tmp_path, address="local")
    driver = start(config)
    while driver.poll() is None and not list(tmp_path.glob("runs/artifacts/*/artifact.json")):
        time.sleep(0.1)
    driver.send_signal(signal.SIGTERM)  # most stages are still to come
    assert driver.wait(timeout=60) == 130
    status = curate("status", config).stdout
    assert "interrupted" in status
    assert curate("run", config).returncode == 0


def test_second_driver_on_the_workdir_is_told(tmp_path):
    config = write_config(tmp_path)
    driver = start(config)
    try:
        for _ in range(100):
            if (tmp_path / "runs" / "small" / "status.json").exists():
                break
            time.sleep(0.2)
        second = curate("run", config)
        assert second.returncode == 1
        assert f"in use by process {driver.pid}" in second.stderr
    finally:
        driver.kill()
        driver.wait()
    assert "killed" in curate("status", config).stdout
