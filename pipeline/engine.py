"""Execution on Ray. Only this file and `ray_train.py` import it.

A fixed set of worker actors, each with at most one call in flight. A worker is given work only after it has answered
"ready" (a pending actor never owns a call), so a lost worker costs exactly the call that it held. A call whose worker
dies or hangs is tried again, at most `attempts` times, then given up by name while the rest goes on. Plain actors cost
0.6 ms a call against tens of milliseconds and seconds of fixed cost for Ray Data, whose retries also repeat rows.

A call of several processes goes through Ray Train (`ray_train.py`), in a thread of the driver. One that waits for GPUs
goes first: workers that have some are ended after the call that they are at.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import os
import queue
import threading
import time
import traceback
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import psutil
import ray
from ray.exceptions import RayError, RayTaskError

from ..errors import CurateError
from .calls import Call, Outcome, Resources, execute

POLL_S = 0.05
MAX_FAILED_STARTS = 5
VITAL = ("raylet", "gcs_server")  # of a local Ray; without them calls wait for ever
VITAL_EVERY_S = 1.0
MIN_OBJECT_STORE = 80 * 2**20  # Ray refuses less than 75 MB; we keep pool-sized data out of it
WORKER_CPUS = 0.99  # of a CPU worker; the rest is for members of groups, which would else wait for idle workers


class _Worker:
    """The actor: one process that executes calls."""

    def ready(self) -> int:
        return os.getpid()

    def execute(self, function: Any, arguments: tuple[Any, ...]) -> Outcome:
        outcome = execute(function, arguments)
        if outcome.error is not None:
            try:
                cloudpickle.dumps(outcome.error)
            except Exception:  # noqa: BLE001  (an exception that cannot travel still has its text)
                outcome.error = RuntimeError(f"{type(outcome.error).__name__}: {outcome.error}")
        return outcome


@dataclass
class _Job:
    call: Call
    future: Future[Outcome]
    serial: int = 0
    attempts: int = 0
    started: float = 0.0


@dataclass
class _Pool:
    """The workers for one kind of resources."""

    size: int
    pending: list[tuple[int, int, _Job]] = field(default_factory=list)  # heap: most urgent first, then oldest
    idle: list[Any] = field(default_factory=list)
    starting: dict[Any, Any] = field(default_factory=dict)  # ready ref -> actor
    running: dict[Any, tuple[Any, _Job]] = field(default_factory=dict)  # result ref -> (actor, job)
    failed_starts: int = 0

    def add(self, job: _Job) -> None:
        heapq.heappush(self.pending, (-job.call.priority, job.serial, job))

    def take(self) -> _Job:
        return heapq.heappop(self.pending)[2]

    def actors(self) -> int:
        return len(self.idle) + len(self.starting) + len(self.running)


class RayEngine:
    """Engine on a local Ray started here, or on the cluster at `address`.

    Args:
        address: ``local`` starts a private Ray on this machine; else an address that `ray.init` takes.
        workers: number of CPU workers; 0 = one per CPU of the machine or cluster.
        attempts: how often a call is started before it is given up because its worker died or hung.
        timeout_s: a call that runs longer is killed and counts as hung; 0 = no limit.
    """

    def __init__(self, address: str = "local", workers: int = 0, attempts: int = 3, timeout_s: float = 0.0) -> None:
        local = address == "local"
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
        if local:
            workers = workers or os.cpu_count() or 1
            options |= {
                "address": "local",
                "num_cpus": workers,
                "include_dashboard": False,
                "object_store_memory": MIN_OBJECT_STORE,
            }
        else:
            options["address"] = address
        try:
            ray.init(**options)
        except (RayError, ConnectionError, RuntimeError, ValueError) as error:
            where = "a local Ray" if local else f"the Ray cluster at {address!r}"
            raise CurateError(f"cannot start or reach {where}: {error}") from error
        self.workers = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._attempts, self._timeout = attempts, timeout_s
        self._pools: dict[Resources, _Pool] = {}
        self._serial = itertools.count()
        self._inbox: queue.Queue[_Job] = queue.Queue()
        self._local = local
        self._vital = _vital_processes() if local else []
        self._checked = time.monotonic()
        self._dead: CurateError | None = None
        self._waiting: list[tuple[int, int, _Job]] = []  # calls of several processes: most urgent first, then oldest
        self._groups: dict[int, _Job] = {}  # those that run, by serial number
        self._ended: queue.SimpleQueue[tuple[_Job, Outcome | Exception]] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._dispatch, name="curate-dispatch", daemon=True)
        self._thread.start()

    def submit(self, call: Call) -> Future[Outcome]:
        job = _Job(call, Future(), next(self._serial))
        if self._closing.is_set():
            job.future.set_result(Outcome(error=RuntimeError("the engine is closed")))
        else:
            self._inbox.put(job)
        return job.future

    def gpus(self) -> int:
        return int(ray.cluster_resources().get("GPU", 0))

    def close(self) -> None:
        if not self._closing.is_set():
            self._closing.set()
            self._thread.join(timeout=10)
            ray.shutdown()

    # The dispatcher thread owns everything below.

    def _dispatch(self) -> None:
        while not self._closing.is_set():
            self._accept()
            if self._is_dead():
                continue
            self._start_groups()
            for resources, pool in self._pools.items():
                self._grow(resources, pool)
                self._assign(pool)
            self._collect()
            self._collect_groups()
        self._end_all(RuntimeError("the run was stopped"))

    def _is_dead(self) -> bool:
        """Whether the local Ray has lost a process that it cannot do without; then no call will ever be answered."""
        now = time.monotonic()
        if self._dead is None and now - self._checked > VITAL_EVERY_S:
            self._checked = now
            for process in self._vital:
                if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                    self._dead = CurateError(
                        f"Ray on this machine has broken down: its {VITAL[0]} or {VITAL[1]} process {process.pid} died "
                        "(did memory run out?); finished parts are kept, run the same command again to go on"
                    )
        if self._dead is not None:
            self._end_all(self._dead)
        return self._dead is not None

    def _end_all(self, closed: Exception) -> None:
        while not self._inbox.empty():
            _finish(self._inbox.get(), Outcome(error=closed))
        jobs = [*(job for _, _, job in self._waiting), *self._groups.values()]
        for pool in self._pools.values():
            jobs += [*(job for _, _, job in pool.pending), *(job for _, job in pool.running.values())]
        for job in jobs:
            _finish(job, Outcome(error=closed, attempts=job.attempts))
        self._waiting.clear()
        self._groups.clear()
        self._pools.clear()

    def _accept(self) -> None:
        busy = any(p.running or p.starting for p in self._pools.values())
        try:
            job = self._inbox.get(block=not busy, timeout=POLL_S)
            while True:
                if job.call.resources.processes > 1:
                    self._wait_as_group(job)
                else:
                    self._pool(job.call.resources).add(job)
                job = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _pool(self, resources: Resources) -> _Pool:
        if resources not in self._pools:
            size = self.workers
            if resources.gpus:
                size = int(ray.cluster_resources().get("GPU", 0) / resources.gpus)
            self._pools[resources] = _Pool(size)
        return self._pools[resources]

    def _grow(self, resources: Resources, pool: _Pool) -> None:
        if pool.size == 0 and pool.pending:
            self._give_up(pool, CurateError(f"a call needs {resources.gpus:g} GPU, and the cluster has none"))
        room = pool.size
        if resources.gpus:
            if any(job.call.resources.gpus for _, _, job in self._waiting):
                return
            room = math.floor((pool.size * resources.gpus - self._gpus_of_groups()) / resources.gpus + 1e-9)
        wanted = min(room, len(pool.pending) + len(pool.running) + len(pool.starting))
        while pool.actors() < wanted:
            actor = (
                ray.remote(_Worker)
                .options(
                    num_cpus=0 if resources.gpus else WORKER_CPUS,
                    num_gpus=resources.gpus,
                    max_restarts=0,
                    runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
                )
                .remote()
            )
            pool.starting[actor.ready.remote()] = actor

    def _assign(self, pool: _Pool) -> None:
        while pool.idle and pool.pending:
            job = pool.take()
            if not (job.future.running() or job.future.set_running_or_notify_cancel()):
                continue
            actor = pool.idle.pop()
            job.attempts += 1
            job.started = time.monotonic()
            pool.running[actor.execute.remote(job.call.function, job.call.arguments)] = (actor, job)

    def _collect(self) -> None:
        refs = [r for p in self._pools.values() for r in (*p.starting, *p.running)]
        if not refs:
            return
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        if not ready:
            ready, _ = ray.wait(refs, num_returns=1, timeout=POLL_S)
        for pool in self._pools.values():
            for ref in ready:
                if ref in pool.starting:
                    self._started(pool, ref)
                elif ref in pool.running:
                    self._finished(pool, ref)
            self._expire(pool)

    def _started(self, pool: _Pool, ref: Any) -> None:
        actor = pool.starting.pop(ref)
        try:
            ray.get(ref)
            pool.idle.append(actor)
            pool.failed_starts = 0
        except RayError as error:  # it died while starting; _grow makes another
            pool.failed_starts += 1
            if pool.failed_starts > MAX_FAILED_STARTS:
                self._give_up(pool, CurateError(f"workers die while they start ({error}); see Ray's logs"))

    def _finished(self, pool: _Pool, ref: Any) -> None:
        actor, job = pool.running.pop(ref)
        try:
            outcome: Outcome = ray.get(ref)
        except RayTaskError as error:  # the worker lives, but the call or its result could not travel
            outcome = Outcome(error=RuntimeError(str(error.cause)), trace=str(error))
        except RayError as error:
            self._retry(job, f"its worker died ({type(error).__name__})")
            return
        outcome.attempts = job.attempts
        pool.idle.append(actor)
        _finish(job, outcome)

    def _expire(self, pool: _Pool) -> None:
        if not self._timeout:
            return
        for ref, (actor, job) in list(pool.running.items()):
            if time.monotonic() - job.started > self._timeout:
                del pool.running[ref]
                ray.kill(actor)
                self._retry(job, f"it ran longer than {self._timeout:g} s")

    def _give_up(self, pool: _Pool, error: CurateError) -> None:
        while pool.pending:
            _finish(pool.take(), Outcome(error=error))

    def _retry(self, job: _Job, why: str) -> None:
        if job.attempts < self._attempts:
            if job.call.resources.processes > 1:
                self._wait_as_group(job)
            else:
                self._pool(job.call.resources).add(job)
            return
        error = CurateError(f"{job.call.label}: given up after {job.attempts} attempts: {why}")
        _finish(job, Outcome(error=error, crashed=True, attempts=job.attempts))

    # Calls of several processes.

    def _wait_as_group(self, job: _Job) -> None:
        heapq.heappush(self._waiting, (-job.call.priority, job.serial, job))

    def _gpus_of_groups(self) -> float:
        resources = [job.call.resources for job in self._groups.values()]
        return sum(r.gpus * r.processes for r in resources)

    def _start_groups(self) -> None:
        """Start the calls that there is room for; what others hold but do not use is taken from them."""
        for entry in sorted(self._waiting, key=lambda entry: entry[:2]):
            job = entry[2]
            refused = self._too_much(job.call.resources)
            if refused:
                self._waiting.remove(entry)
                _finish(job, Outcome(error=CurateError(f"{job.call.label}: {refused}")))
            elif self._has_room(job.call.resources):
                self._waiting.remove(entry)
                if job.future.running() or job.future.set_running_or_notify_cancel():
                    job.attempts += 1
                    self._groups[job.serial] = job
                    threading.Thread(target=self._run_group, args=(job,), name="curate-group", daemon=True).start()
        heapq.heapify(self._waiting)

    def _too_much(self, resources: Resources) -> str:
        if not resources.gpus:
            return ""
        if resources.gpus < 1:
            return f"its {resources.processes} processes cannot share GPUs: give each of them at least one"
        has = self.gpus()
        if resources.gpus * resources.processes <= has:
            return ""
        return f"needs {resources.processes} processes with {resources.gpus:g} GPU each, and the cluster has {has}"

    def _has_room(self, resources: Resources) -> bool:
        if not resources.gpus:
            running = sum(j.call.resources.processes for j in self._groups.values() if not j.call.resources.gpus)
            return not running or running + resources.processes <= self.workers
        pools = [(r.gpus, pool) for r, pool in self._pools.items() if r.gpus]
        held = self._gpus_of_groups() + sum(gpus * pool.actors() for gpus, pool in pools)
        if self.gpus() - held >= resources.gpus * resources.processes - 1e-9:
            return True
        for _, pool in pools:
            for actor in [*pool.idle, *pool.starting.values()]:
                ray.kill(actor)
            pool.idle.clear()
            pool.starting.clear()
        return False

    def _run_group(self, job: _Job) -> None:
        try:
            from .ray_train import run_group  # importing Ray Train takes seconds

            self._ended.put((job, run_group(job.call, self._timeout, self._local)))
        except Exception as error:  # noqa: BLE001  (a dead group, or whatever Ray raises as it goes down)
            error.add_note(traceback.format_exc())
            self._ended.put((job, error))

    def _collect_groups(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                job, end = self._ended.get_nowait()
                if self._groups.pop(job.serial, None) is None:
                    continue
                if isinstance(end, Exception):
                    self._retry(job, str(end) or type(end).__name__)
                else:
                    end.attempts = job.attempts
                    _finish(job, end)


def _vital_processes() -> list[psutil.Process]:
    """The processes of a local Ray, children of this one, whose end is Ray's end."""
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if process.name() in VITAL:
                found.append(process)
    return found


def _finish(job: _Job, outcome: Outcome) -> None:
    with contextlib.suppress(InvalidStateError):  # whoever asked for it no longer wants it
        job.future.set_result(outcome)
