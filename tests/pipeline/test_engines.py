"""All engines run calls alike; a call that kills its worker costs only itself."""

import os
import signal
import sys
import time

import cloudpickle
import pytest

from curate.errors import DataError
from curate.pipeline.calls import Call
from curate.pipeline.inline import InlineEngine

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test module by its name


def double(x):
    return 2 * x


def fail(x):
    raise DataError(f"cannot take {x}")


def die_once(marker):
    if not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def sleep_once(marker):
    if not os.path.exists(marker):
        open(marker, "w").close()
        time.sleep(60)
    return "awake"


def thread_counts():
    import torch

    return torch.get_num_threads()


@pytest.fixture(scope="module")
def inline_engine():
    made = InlineEngine()
    yield made
    made.close()


@pytest.fixture(scope="module")
def ray_engine():
    from curate.pipeline.engine import RayEngine

    made = RayEngine("local", workers=2, attempts=3, timeout_s=5)
    yield made
    made.close()


@pytest.fixture(scope="module")
def process_engine():
    from curate.pipeline.processes import ProcessEngine

    made = ProcessEngine(workers=2, attempts=3, timeout_s=5, preload=())
    yield made
    made.close()


@pytest.fixture(params=["inline_engine", "process_engine", "ray_engine"])
def engine(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["process_engine", "ray_engine"])
def engine_with_workers(request):
    return request.getfixturevalue(request.param)


def test_values_and_errors_come_back(engine):
    futures = [engine.submit(Call(f"double {i}", double, (i,))) for i in range(20)]
    assert [f.result(timeout=60).value for f in futures] == [2 * i for i in range(20)]
    outcome = engine.submit(Call("fail", fail, (3,))).result(timeout=60)
    assert isinstance(outcome.error, DataError)
    assert str(outcome.error) == "cannot take 3"
    assert "test_engines.py" in outcome.trace
    assert not outcome.crashed


def test_calls_run_on_one_thread(engine):
    assert engine.submit(Call("threads", thread_counts)).result(timeout=60).value == 1


def test_a_dead_worker_costs_one_retry(engine_with_workers, tmp_path):
    engine = engine_with_workers
    good = [engine.submit(Call("double", double, (i,))) for i in range(6)]
    outcome = engine.submit(Call("die once", die_once, (str(tmp_path / "m"),))).result(timeout=60)
    assert (outcome.value, outcome.attempts) == ("alive", 2)
    poisoned = engine.submit(Call("part 7", die)).result(timeout=60)
    assert poisoned.crashed
    assert poisoned.attempts == 3
    assert "part 7: given up after 3 attempts" in str(poisoned.error)
    assert [f.result(timeout=60).value for f in good] == [2 * i for i in range(6)]


def test_a_hung_call_is_killed_and_tried_again(engine_with_workers, tmp_path):
    outcome = engine_with_workers.submit(Call("hang once", sleep_once, (str(tmp_path / "m"),))).result(timeout=60)
    assert (outcome.value, outcome.attempts) == ("awake", 2)


def test_closed_engines_refuse():
    closed = InlineEngine()
    closed.close()
    assert closed.submit(Call("late", double, (1,))).result().error is not None
