"""Worker processes: whatever happens to worker, host or driver, every call has an outcome and nothing stays behind."""

import ctypes
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cloudpickle
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import CurateError, DataError
from curate.pipeline import processes
from curate.pipeline.calls import Call, Resources
from curate.pipeline.gpus import GpuShares, _parse
from curate.pipeline.processes import ProcessEngine

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test module by its name

pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
WAIT = 60
LIGHT = ("threadpoolctl",)


@pytest.fixture(scope="module")
def engine():
    made = ProcessEngine(2, attempts=3, preload=LIGHT)
    yield made
    made.close()


@pytest.fixture
def start():
    """Makes engines that are closed in the end."""
    made = []

    def make(*arguments, **options):
        made.append(ProcessEngine(*arguments, **{"preload": LIGHT, **options}))
        return made[-1]

    yield make
    for one in made:
        one.close()


def outcome_of(engine, function, *arguments, **options):
    return engine.submit(Call(function.__name__, function, arguments, **options)).result(timeout=WAIT)


def host_of(engine) -> psutil.Process:
    return psutil.Process(engine._host._process.pid)


def wait_until(condition, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# What calls do.


def add(a, b):
    return a + b


def nap(seconds, value=None):
    time.sleep(seconds)
    return value


def hang_after(words):
    print(words, flush=True)
    time.sleep(600)


def exits():
    os._exit(7)


def exits_politely():
    sys.exit(3)


def is_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def crashes():
    print("the last words", file=sys.stderr)
    ctypes.string_at(0)


def closes_everything():
    os.closerange(3, 200)
    time.sleep(600)


class TwoPartError(DataError):
    """Pickles, but does not unpickle: the message is not what it is made from."""

    def __init__(self, what, where):
        super().__init__(f"{what} in {where}")


class LockedError(Exception):
    """Does not pickle."""

    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()


def raises(kind, *arguments):
    raise {"two": TwoPartError, "locked": LockedError, "data": DataError}[kind](*arguments)


def returns_a_lock():
    return threading.Lock()


def returns_a_trap():
    return Trap()


def explode():
    raise ValueError("boom")


class Trap:
    """Does not unpickle."""

    def __reduce__(self):
        return explode, ()


def describe():
    tasks = Path("/proc/self/task")
    return {
        "modules": set(sys.modules),
        "threads": len(list(tasks.iterdir())) if tasks.exists() else 1,
        "group": os.getpgid(0),
        "session": os.getsid(0),
        "omp": os.environ.get("OMP_NUM_THREADS"),
        "interrupt": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "pid": os.getpid(),
        "files": len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0,
    }


def start_child(path):
    child = subprocess.Popen(["sleep", "600"])
    Path(path).write_text(str(child.pid))
    time.sleep(600)


def note(path, word, wait_for=None):
    while wait_for and not os.path.exists(wait_for):
        time.sleep(0.005)
    with open(path, "a") as file:
        file.write(f"{word}\n")


def scribble(path):
    while True:
        with open(path, "a") as file:
            file.write(".")
        time.sleep(0.01)


# Exceptions and results.


def test_exceptions_come_back_as_they_are_or_described(engine):
    data = outcome_of(engine, raises, "data", "row 7 is torn")
    assert (type(data.error), str(data.error)) == (DataError, "row 7 is torn")
    two = outcome_of(engine, raises, "two", "a hole", "the wall")
    assert (type(two.error), str(two.error)) == (CurateError, "a hole in the wall")
    locked = outcome_of(engine, raises, "locked", "no key")
    assert (type(locked.error), str(locked.error)) == (RuntimeError, "LockedError: no key")
    for outcome in (data, two, locked):
        assert "in raises" in outcome.trace
        assert not outcome.crashed
        assert (outcome.attempts, outcome.value) == (1, None)
        assert outcome.peak_bytes > 2**20


def test_what_cannot_be_pickled_is_an_outcome(engine):
    back = outcome_of(engine, returns_a_lock)
    assert "the result (a lock) cannot be sent back: TypeError" in str(back.error)
    trap = outcome_of(engine, returns_a_trap)
    assert "the result cannot be read: ValueError: boom" in str(trap.error)
    there = outcome_of(engine, add, threading.Lock(), 1)
    assert "add: cannot be sent to a worker: TypeError" in str(there.error)
    assert "cannot load the call: ValueError: boom" in str(outcome_of(engine, add, Trap(), 1).error)
    assert outcome_of(engine, add, 1, 1).value == 2
    assert outcome_of(engine, lambda: "also by value").value == "also by value"


def test_huge_arguments_and_results(engine):
    array = np.arange(12_000_000, dtype=np.int64)
    futures = [engine.submit(Call("huge", add, (array, i))) for i in range(3)]
    for i, future in enumerate(futures):
        assert np.array_equal(future.result(timeout=WAIT).value, array + i)


def test_thousands_of_tiny_calls_from_several_threads(engine):
    found = {}

    def ask(thread):
        futures = [engine.submit(Call(f"{thread} {i}", add, (thread, i))) for i in range(500)]
        found[thread] = [f.result(timeout=WAIT).value for f in futures]

    threads = [threading.Thread(target=ask, args=(t,)) for t in range(0, 4000, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {t: [t + i for i in range(500)] for t in range(0, 4000, 1000)}
    assert len(host_of(engine).children()) <= 2


# Order.


def test_urgent_calls_first_then_the_oldest(start, tmp_path):
    engine = start(1)
    gate, log = str(tmp_path / "gate"), str(tmp_path / "log")
    futures = [engine.submit(Call("gate", note, (log, "gate", gate)))]
    assert wait_until(lambda: futures[0].running())
    for word, priority in (("a", 0), ("b", 2), ("c", 0), ("d", 2), ("e", -1)):
        futures.append(engine.submit(Call(word, note, (log, word), priority=priority)))
    futures.append(engine.submit(Call("unwanted", note, (log, "unwanted"))))
    assert futures[-1].cancel()
    Path(gate).touch()
    assert all(f.result(timeout=WAIT).error is None for f in futures[:-1])
    assert Path(log).read_text().split() == ["gate", "b", "d", "a", "c", "e"]


def test_calls_in_turn_stay_on_the_warm_worker(start):
    engine = start(4)
    assert len({outcome_of(engine, os.getpid).value for _ in range(50)}) == 1


# A worker's surroundings.


def test_workers_are_light_and_apart(start):
    with_preload = ProcessEngine(1)
    try:
        seen = outcome_of(with_preload, describe).value
        preloaded = seen["modules"]
        assert preloaded >= {*processes.PRELOAD, "curate.shards.ingest"}
        assert host_of(with_preload).num_threads() == 1  # it forks
    finally:
        with_preload.close()
    heavy = {"torch", "ray", "typer", "rich", "sklearn", "faiss", "multiprocessing.pool"}
    ours = {"curate.pipeline.cli", "curate.pipeline.config", "curate.pipeline.plan", "curate.pipeline.runner"}
    assert not preloaded & (heavy | ours)
    assert seen["threads"] == 1
    assert seen["group"] == seen["pid"] != os.getpgid(0)
    assert seen["session"] not in (seen["pid"], os.getsid(0))
    assert seen["interrupt"]
    assert seen["omp"] == "1"
    assert seen["files"] <= 6  # three standard ones, its socket, and the two that list them


def test_nothing_is_printed_into_the_drivers_terminal(engine, capfd):
    outcome_of(engine, print, "out loud")
    outcome_of(engine, os.system, "echo also its children; echo and errors >&2")
    assert capfd.readouterr() == ("", "")


def test_a_worker_that_keeps_too_much_memory_is_replaced(start, monkeypatch):
    engine = start(1)
    first, second = (outcome_of(engine, os.getpid).value for _ in range(2))
    assert first == second
    monkeypatch.setattr(engine, "_share", 2**20)
    outcome_of(engine, add, 1, 1)
    assert outcome_of(engine, os.getpid).value != first
    assert wait_until(lambda: len(host_of(engine).children()) == 1)


# Death and hanging.


@pytest.mark.parametrize(
    ("function", "how", "said"),
    [
        (exits, "its worker exited with code 7", ""),
        (exits_politely, "its worker exited with code 3", "SystemExit: 3"),
        (is_killed, "its worker was killed by SIGKILL", ""),
        (crashes, "its worker was killed by SIGSEGV", "the last words"),
    ],
)
def test_a_call_that_kills_its_worker_is_given_up_by_name(start, function, how, said):
    engine = start(2, attempts=2)
    good = [engine.submit(Call("good", nap, (0.01, i))) for i in range(10)]
    outcome = outcome_of(engine, function)
    assert (outcome.crashed, outcome.attempts) == (True, 2)
    assert isinstance(outcome.error, CurateError)
    assert str(outcome.error).startswith(f"{function.__name__}: given up after 2 attempts: {how}")
    assert said in outcome.trace
    if function is crashes:
        assert "in crashes" in outcome.trace  # the Python stack at the time
    assert [f.result(timeout=WAIT).value for f in good] == list(range(10))


def test_a_hung_call_is_killed_and_shows_where_it_hung(start):
    engine = start(2, attempts=2, timeout_s=0.4)
    outcome = outcome_of(engine, hang_after, "so far, so good")
    assert (outcome.crashed, outcome.attempts) == (True, 2)
    assert str(outcome.error) == "hang_after: given up after 2 attempts: it ran longer than 0.4 s"
    assert "so far, so good" in outcome.trace
    assert "in hang_after" in outcome.trace
    assert 0.3 < outcome.seconds < 30
    assert outcome_of(engine, add, 1, 2).value == 3


def test_a_worker_that_breaks_off_is_replaced(start, monkeypatch):
    from curate.pipeline import worker_process

    monkeypatch.setattr(worker_process, "END_S", 0.5)
    engine = start(1, attempts=1)
    assert "broke off the connection" in str(outcome_of(engine, closes_everything).error)
    assert outcome_of(engine, add, 1, 2).value == 3
    assert wait_until(lambda: len(host_of(engine).children()) == 1)


def test_workers_killed_at_random_moments_cost_only_retries(start):
    engine = start(2, attempts=100)
    moments = random.Random("kill")
    futures = [engine.submit(Call(f"nap {i}", nap, (0.01, i))) for i in range(250)]
    kills = 0
    while kills < 25 and not all(f.done() for f in futures):
        time.sleep(moments.uniform(0, 0.04))
        victims = host_of(engine).children()
        if victims:
            moments.choice(victims).kill()
            kills += 1
    outcomes = [f.result(timeout=WAIT) for f in futures]
    assert [o.value for o in outcomes] == list(range(250))
    assert kills > 5
    assert sum(o.attempts for o in outcomes) - 250 <= kills


def test_an_idle_worker_that_died_costs_no_attempt(start):
    engine = start(1, attempts=1)
    for _ in range(5):
        pid = outcome_of(engine, os.getpid).value
        os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda pid=pid: not is_running(pid))
        outcome = outcome_of(engine, add, 1, 2)
        assert (outcome.value, outcome.attempts) == (3, 1)


def test_the_host_of_the_workers_is_replaced_too(start):
    engine = start(2, attempts=3)
    futures = [engine.submit(Call("nap", nap, (0.3, i))) for i in range(4)]
    assert wait_until(lambda: len(host_of(engine).children()) == 2)
    before = host_of(engine)
    workers = before.children()
    before.kill()
    assert [f.result(timeout=WAIT).value for f in futures] == [0, 1, 2, 3]
    assert host_of(engine) != before
    assert not any(is_running(w.pid) for w in workers)
    host_of(engine).kill()
    assert outcome_of(engine, add, 1, 2).value == 3


def test_workers_that_cannot_start_say_why(start, tmp_path, monkeypatch):
    broken = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(CurateError, match=r"worker processes cannot be started: .*No such file"):
        start(2)
    broken.write_text("#!/bin/sh\necho this Python is broken >&2; exit 1\n")
    broken.chmod(0o755)
    engine = start(2)
    futures = [engine.submit(Call("add", add, (i, 1))) for i in range(20)]
    for future in futures:
        assert "worker processes cannot be started: this Python is broken" in str(future.result(timeout=WAIT).error)


def test_what_a_dead_worker_started_dies_with_it(start, tmp_path):
    engine = start(1, attempts=1)
    future = engine.submit(Call("child", start_child, (str(tmp_path / "pid"),)))
    assert wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    child = int((tmp_path / "pid").read_text())
    host_of(engine).children()[0].kill()
    assert future.result(timeout=WAIT).crashed
    assert wait_until(lambda: not is_running(child))


# The end.


def test_close_stops_calls_in_flight_and_leaves_nothing():
    engine = ProcessEngine(2, preload=LIGHT)
    futures = [engine.submit(Call("nap", nap, (600,))) for _ in range(5)]
    host = host_of(engine)
    assert wait_until(lambda: len(host.children()) == 2)
    family = [host, *host.children()]
    files = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    engine.close()
    assert all(str(f.result(timeout=0).error) == "the run was stopped" for f in futures)
    assert not any(p.is_running() for p in family)  # a zombie would count as running
    assert not [t for t in threading.enumerate() if t.name == "curate-worker" and t in engine._slots.values()]
    assert files == 0 or len(os.listdir("/proc/self/fd")) <= files - 8
    assert str(outcome_of(engine, add, 1, 1).error) == "the engine is closed"
    engine.close()


def test_close_at_any_moment():
    moments = random.Random("close")
    for _ in range(8):
        engine = ProcessEngine(3, preload=())
        futures = [engine.submit(Call("nap", nap, (0.01, i))) for i in range(100)]
        time.sleep(moments.uniform(0, 0.3))
        engine.close()
        outcomes = [f.result(timeout=0) for f in futures]
        assert all(o.value == i or str(o.error) == "the run was stopped" for i, o in enumerate(outcomes))


DRIVER = """
import sys, signal, threading
sys.path.insert(0, {folder!r})
import test_processes as calls
from curate.pipeline.calls import Call
from curate.pipeline.processes import ProcessEngine
engine = ProcessEngine(3, preload=("threadpoolctl",))
stop = threading.Event()
signal.signal(signal.SIGINT, lambda *_: stop.set())
engine.submit(Call("child", calls.start_child, ({child!r},)))
futures = [engine.submit(Call("scribble", calls.scribble, ({scribbles!r},))) for _ in range(3)]
stop.wait()
print([f.done() for f in futures], flush=True)
engine.close()
print("clean", flush=True)
"""


@pytest.fixture
def driver(tmp_path):
    """A driver in a process group of its own with calls in flight, its whole family, and the file they write."""
    here = str(Path(__file__).parent)
    scribbles, child = str(tmp_path / "scribbles"), str(tmp_path / "child")
    script = DRIVER.format(folder=here, scribbles=scribbles, child=child)
    path = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    )
    assert wait_until(lambda: os.path.exists(scribbles) and os.path.exists(child) and Path(child).read_text(), 30)
    family = psutil.Process(process.pid).children(recursive=True)
    yield process, family, Path(scribbles)
    process.kill()
    process.communicate()


@pytest.mark.parametrize("with_host", [False, True])
def test_a_killed_driver_takes_everything_along(driver, with_host):
    process, family, scribbles = driver
    assert len(family) >= 4  # host, two or three workers, and a child of one
    host = next(p for p in family if p.ppid() == process.pid)
    grandchildren = [p for p in family if p.name() == "sleep"]
    assert len(grandchildren) == 1
    process.kill()
    if with_host:  # then the kernel has to do it; it reaches the workers, not what they started
        host.kill()
    process.wait()
    ours = [p for p in family if not (with_host and p in grandchildren)]
    try:
        assert wait_until(lambda: not any(is_running(p.pid) for p in ours), 5)
        size = scribbles.stat().st_size
        time.sleep(0.2)
        assert scribbles.stat().st_size == size
    finally:
        for orphan in grandchildren:
            if orphan.is_running():
                orphan.kill()


def test_interrupting_the_terminals_group_reaches_only_the_driver(driver):
    process, family, _ = driver
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=WAIT)
    assert out.split("\n") == ["[False, False, False]", "clean", ""]
    assert process.returncode == 0
    assert not any(is_running(p.pid) for p in family)


# GPUs.

LISTING = """\
GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-aaa)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-bbb)
  MIG 3g.40gb     Device  0: (UUID: MIG-b1)
  MIG 3g.40gb     Device  1: (UUID: MIG-b2)
"""


@pytest.fixture
def two_gpus(tmp_path, monkeypatch):
    """An `nvidia-smi` that lists two."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: X (UUID: GPU-aaa)'; echo 'GPU 1: X (UUID: GPU-bbb)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def gpus_after(seconds):
    time.sleep(seconds)
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_gpu_listing():
    assert _parse(LISTING) == ["GPU-aaa", "MIG-b1", "MIG-b2"]
    assert _parse("No devices were found\n") == []


def test_calls_get_gpus_of_their_own(start, two_gpus):
    engine = start(2)
    whole, both = Resources(gpus=1), Resources(gpus=2)
    futures = [engine.submit(Call("one", gpus_after, (0.2,), whole)) for _ in range(4)]
    seen = [f.result(timeout=WAIT).value for f in futures]
    assert sorted(seen) == ["GPU-aaa", "GPU-aaa", "GPU-bbb", "GPU-bbb"]
    pair = engine.submit(Call("two", gpus_after, (0.0,), both)).result(timeout=WAIT)  # idle workers let go of theirs
    assert pair.value == "GPU-aaa,GPU-bbb"
    assert engine.submit(Call("one", gpus_after, (0.0,), whole)).result(timeout=WAIT).value in seen
    halves = [engine.submit(Call("half", gpus_after, (0.1,), Resources(gpus=0.5))) for _ in range(8)]
    assert {f.result(timeout=WAIT).value for f in halves} == {"GPU-aaa", "GPU-bbb"}
    too_many = engine.submit(Call("embed 3", gpus_after, (0.0,), Resources(gpus=3))).result(timeout=WAIT)
    assert str(too_many.error) == "embed 3: needs 3 GPU per worker, and this machine has 2"
    assert engine.submit(Call("cpu", gpus_after, (0.0,))).result(timeout=WAIT).value is None


def test_only_the_gpus_that_the_driver_may_use(start, two_gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    engine = start(1)
    assert engine.submit(Call("one", gpus_after, (0.0,), Resources(gpus=1))).result(timeout=WAIT).value == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    none = start(1).submit(Call("embed 3", gpus_after, (0.0,), Resources(gpus=1))).result(timeout=WAIT)
    assert str(none.error) == "embed 3: needs 1 GPU per worker, and this machine has 0"


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 4), st.lists(st.tuples(st.sampled_from([0.25, 0.3, 0.5, 1, 2]), st.booleans()), max_size=30))
def test_shares_never_overlap(count, steps):
    shares = GpuShares([f"g{i}" for i in range(count)])
    held = []
    for gpus, give_back in steps:
        if give_back and held:
            shares.give_back(*held.pop(0))
        elif names := shares.take(gpus):
            held.append((names, gpus))
        used = dict.fromkeys(shares.free, 0.0)
        for names, share in held:
            for name in names:
                used[name] += min(share, 1)
        assert all(used[name] <= 1 + 1e-6 for name in used)
        assert all(abs(used[name] + free - 1) < 1e-6 for name, free in shares.free.items())
    for one in held:
        shares.give_back(*one)
    for gpus in (0.25, 0.5, 1, 2):
        room = 0
        while shares.take(gpus):
            room += 1
        assert room == shares.fits(gpus)
        shares = GpuShares(list(shares.free))


# A whole run.
