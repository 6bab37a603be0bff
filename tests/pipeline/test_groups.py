"""Calls of several processes: one result, one error, and nothing left behind whoever is killed."""

import os
import signal
import sys
import time
from pathlib import Path

import cloudpickle
import psutil
import pytest
from group_run import ended, wait_for

from curate.errors import DataError
from curate.pipeline.calls import Call, Resources
from curate.pipeline.inline import InlineEngine
from curate.pipeline.processes import ProcessEngine

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test module by its name
WAIT = 120
TWO = Resources(processes=2)
WARM = ("torch.distributed",)  # loaded once, instead of in every process of every group


def total(base, member):
    import torch
    import torch.distributed

    value = torch.tensor([float(base + member.rank)])
    torch.distributed.all_reduce(value)
    return value.item(), member.rank, member.size, os.environ.get("CUDA_VISIBLE_DEVICES")


def fail_in_one(member):
    import torch
    import torch.distributed

    if member.rank == 1:
        raise DataError("the second process cannot read its data")
    torch.distributed.all_reduce(torch.ones(1))


def die_once(marker, member):
    import torch
    import torch.distributed

    if member.rank == 1 and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    ones = torch.ones(1)
    torch.distributed.all_reduce(ones)
    return ones.item()


def hang_in_one(folder, member):
    Path(folder, str(member.rank)).write_text(str(os.getpid()))
    if member.rank == 1:
        time.sleep(600)
    import torch
    import torch.distributed

    torch.distributed.all_reduce(torch.ones(1))


def visible(seconds):
    time.sleep(seconds)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.fixture(scope="module")
def engine():
    made = ProcessEngine(2, attempts=2, preload=WARM)
    yield made
    made.close()


def outcome_of(engine, function, *arguments, resources=TWO):
    return engine.submit(Call("training", function, arguments, resources)).result(timeout=WAIT)


def test_an_inline_engine_runs_groups_beside_calls_in_its_own_process():
    engine = InlineEngine()
    assert outcome_of(engine, total, 5).value == (11.0, 0, 2, None)
    assert outcome_of(engine, os.getpid, resources=Resources()).value == os.getpid()
    engine.close()
    assert outcome_of(engine, total, 5).error is not None


def test_the_error_of_the_process_that_failed_first_is_the_calls(engine):
    outcome = outcome_of(engine, fail_in_one)
    assert isinstance(outcome.error, DataError)
    assert "second process" in str(outcome.error)
    assert "fail_in_one" in outcome.trace
    assert (outcome.crashed, outcome.attempts) == (False, 1)


def test_the_death_of_one_process_costs_a_retry(engine, tmp_path):
    outcome = outcome_of(engine, die_once, str(tmp_path / "died"))
    assert (outcome.value, outcome.attempts) == (2.0, 2)


def test_a_group_that_hangs_is_given_up_and_nothing_stays(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "_timeout", 3)
    monkeypatch.setattr(engine, "_attempts", 1)
    outcome = outcome_of(engine, hang_in_one, str(tmp_path))
    assert outcome.crashed
    assert "given up after 1 attempts: process " in str(outcome.error)
    assert "longer than 3 s" in str(outcome.error)
    host = engine._host._process
    assert host is not None
    wait_for(lambda: not psutil.Process(host.pid).children())  # it may have hung before it said its number


def test_closing_ends_a_group_at_once(tmp_path):
    engine = ProcessEngine(2, preload=WARM)
    future = engine.submit(Call("training", hang_in_one, (str(tmp_path),), TWO))
    wait_for(lambda: len(list(tmp_path.iterdir())) == 2)
    pids = [int(path.read_text()) for path in tmp_path.iterdir()]
    engine.close()
    assert "stopped" in str(future.result(timeout=WAIT).error)
    wait_for(lambda: ended(*pids))


def test_a_group_gets_whole_gpus_before_those_that_keep_coming(monkeypatch):
    engine = ProcessEngine(2, preload=WARM)
    monkeypatch.setattr("curate.pipeline.processes.visible_gpus", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setattr("curate.pipeline.local_group.GPU_BACKEND", "gloo")  # there is no such GPU
    singles = [engine.submit(Call("one", visible, (0.2,), Resources(gpus=1))) for _ in range(12)]
    group = engine.submit(Call("two", total, (1,), Resources(gpus=1, processes=2)))
    summed, _, _, own = group.result(timeout=WAIT).value
    assert (summed, own in ("GPU-a", "GPU-b")) == (3.0, True)
    assert not all(single.done() for single in singles)
    assert {single.result(timeout=WAIT).value for single in singles} == {"GPU-a", "GPU-b"}
    assert engine._pools.gpus is not None
    assert set(engine._pools.gpus.free.values()) <= {0.0, 1.0}
    for wanted, sentence in (
        (Resources(gpus=1, processes=3), "needs 3 processes with 1 GPU each, and this machine has 2"),
        (Resources(gpus=0.5, processes=2), "cannot share GPUs"),
    ):
        assert sentence in str(outcome_of(engine, total, 1, resources=wanted).error)
    engine.close()
