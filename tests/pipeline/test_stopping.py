"""Being asked to stop: by a signal, by a sign on the disk, or by another process of the group."""

import os
import pickle
import signal
import sys
import threading
import time

import cloudpickle

from curate.errors import Interrupted
from curate.pipeline import stop as stop_module
from curate.pipeline.calls import Call, Resources
from curate.pipeline.processes import ProcessEngine
from curate.pipeline.stop import NO_SIGN, StopSign
from curate.pretrain import stopping
from curate.pretrain.stopping import Stopped, StopRequest

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test module by its name


def test_stopped_travels_with_its_numbers():
    error = pickle.loads(pickle.dumps(Stopped(12_000, 100_000)))
    assert (error.done, error.total, error.exit_code) == (12_000, 100_000, 130)
    assert str(error) == "stopped after 12,000 of 100,000 samples; run again to go on"
    assert isinstance(error, Interrupted)


def test_sigterm_asks_while_the_training_runs_and_only_then():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.requested()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested()
        assert stop.requested()
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_only_the_function_asks():
    answers = []

    def ask():
        with StopRequest(lambda: True) as stop:
            answers.append(stop.requested())

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert answers == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_function_is_asked_now_and_then(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    asked = []
    stop = StopRequest(lambda: asked.append(now[0]) or len(asked) > 2)
    answers = []
    for _ in range(20):
        answers.append(stop.requested())
        now[0] += 0.125
    assert len(asked) == 3
    assert answers == [False] * 8 + [True] * 12


def test_a_sign_stops_those_that_ask_for_its_own_driver(tmp_path, monkeypatch):
    monkeypatch.setattr(stop_module, "LOOK_EVERY_S", 0.0)
    artifact = str(tmp_path / "artifact")
    driver, other = StopSign.of(artifact, "one"), StopSign.of(artifact, "two")
    in_worker = pickle.loads(pickle.dumps(driver))
    assert driver.asking(["seed0", "seed1"]) == set()
    assert not in_worker.is_up("seed0")
    assert driver.asking(["seed0", "seed1"]) == {"seed0"}
    other.put_up()
    assert not in_worker.is_up("seed0")
    driver.put_up()
    assert in_worker.is_up("seed0")
    driver.take_down()
    assert other.is_up("seed0")
    assert os.listdir(tmp_path / "artifact" / "scratch" / ".stop") != []
    other.take_down()
    assert os.listdir(tmp_path / "artifact" / "scratch" / ".stop") == []
    assert not NO_SIGN.is_up("seed0")


def steps_until_stopped(asks_at, member):
    """Only process 1 is asked, in step `asks_at`; what each process saw goes to the first."""
    import torch
    import torch.distributed

    with StopRequest(together=True) as stop:
        step = 0
        while True:
            step += 1
            if member.rank == 1 and step == asks_at:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.3)  # the others are ahead
            if stop.requested():
                break
    steps = [torch.zeros(1, dtype=torch.int64) for _ in range(member.size)]
    torch.distributed.all_gather(steps, torch.tensor([step]))
    return [int(s) for s in steps]


def test_a_group_stops_after_the_same_step():
    engine = ProcessEngine(2, preload=("torch.distributed",))
    outcome = engine.submit(Call("training", steps_until_stopped, (5,), Resources(processes=2))).result(timeout=100)
    engine.close()
    assert outcome.error is None
    assert outcome.value == [6, 6]  # one step later than asked


def test_workers_outlive_a_signal_to_everybody(tmp_path):
    """Schedulers signal a whole unit: the host must not end, and take the trainings along, before they have saved."""
    engine = ProcessEngine(1, preload=())
    host = engine._host._process
    assert host is not None
    assert engine.submit(Call("first", os.getpid)).result(timeout=30).error is None
    os.kill(host.pid, signal.SIGTERM)
    assert engine.submit(Call("second", os.getpid)).result(timeout=30).attempts == 1
    assert host.poll() is None
    engine.close()
    assert host.poll() is not None
