"""Execution on Ray. Only this file and `ray_train.py` import it.

A fixed set of worker actors, each with at most one call in flight. A worker is given work only after it has answered
"ready" (a pending actor never owns a call), so a lost worker costs exactly the call that it held. A call whose worker
dies or hangs is tried again, at most `attempts` times, then given up by name while the rest goes on. Plain actors cost
0.6 ms a call against tens of milliseconds and seconds of fixed cost for Ray Data, whose retries also repeat rows.

A call of several processes goes through Ray Train (`ray_groups.py`), in a thread of the driver. One that waits for GPUs
goes first: workers that have some are ended after the call that they are at.
"""

from __future__ import annotations

import itertools
import math
import os
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import ray
from ray.exceptions import RayError, RayTaskError

from ..errors import CurateError
from .calls import Call, Outcome, Resources, execute
from .job import Job, JobQueue
from .ray_groups import RayGroups
from .ray_vitals import RayVitals

POLL_S = 0.05
MAX_FAILED_STARTS = 5
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
class _Pool:
    """The workers for one kind of resources."""

    size: int
    pending: JobQueue = field(default_factory=JobQueue)
    idle: list[Any] = field(default_factory=list)
    starting: dict[Any, Any] = field(default_factory=dict)  # ready ref -> actor
    running: dict[Any, tuple[Any, Job]] = field(default_factory=dict)  # result ref -> (actor, job)
    failed_starts: int = 0

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
        self._inbox: queue.Queue[Job] = queue.Queue()
        self._local = local
        self._vitals = RayVitals() if local else None
        self._dead: CurateError | None = None
        self._groups = RayGroups(timeout_s, local)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._dispatch, name="curate-dispatch", daemon=True)
        self._thread.start()

    def submit(self, call: Call) -> Future[Outcome]:
        job = Job(call, Future(), next(self._serial))
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
            self._groups.start(self._too_much, self._has_room)
            for resources, pool in self._pools.items():
                self._grow(resources, pool)
                self._assign(pool)
            self._collect()
            self._collect_groups()
        self._end_all(RuntimeError("the run was stopped"))

    def _is_dead(self) -> bool:
        """Whether the local Ray has lost a process that it cannot do without; then no call will ever be answered."""
        if self._dead is None and self._vitals is not None:
            self._dead = self._vitals.broken()
        if self._dead is not None:
            self._end_all(self._dead)
        return self._dead is not None

    def _end_all(self, closed: Exception) -> None:
        while not self._inbox.empty():
            self._inbox.get().finish(Outcome(error=closed))
        jobs = self._groups.forget_all()
        for pool in self._pools.values():
            jobs += [*pool.pending, *(job for _, job in pool.running.values())]
        for job in jobs:
            job.finish(Outcome(error=closed, attempts=job.attempts))
        self._pools.clear()

    def _accept(self) -> None:
        busy = any(p.running or p.starting for p in self._pools.values())
        try:
            job = self._inbox.get(block=not busy, timeout=POLL_S)
            while True:
                self._line_up(job)
                job = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _line_up(self, job: Job) -> None:
        if job.call.resources.processes > 1:
            self._groups.add(job)
        else:
            self._pool(job.call.resources).pending.add(job)

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
            if self._groups.wait_for_gpus():
                return
            room = math.floor((pool.size * resources.gpus - self._groups.held_gpus()) / resources.gpus + 1e-9)
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
            job = pool.pending.take()
            if not job.is_wanted():
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
        job.finish(outcome)

    def _expire(self, pool: _Pool) -> None:
        if not self._timeout:
            return
        for ref, (actor, job) in list(pool.running.items()):
            if time.monotonic() - job.started > self._timeout:
                del pool.running[ref]
                ray.kill(actor)
                self._retry(job, f"it ran longer than {self._timeout:g} s")

    def _give_up(self, pool: _Pool, error: CurateError) -> None:
        for job in pool.pending.take_all():
            job.finish(Outcome(error=error))

    def _retry(self, job: Job, why: str) -> None:
        if job.attempts < self._attempts:
            self._line_up(job)
        else:
            job.finish(Outcome(error=job.given_up(why), crashed=True, attempts=job.attempts))

    # Calls of several processes.

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
        """Whether a group can be started; GPUs that others hold but do not use are taken from them."""
        if not resources.gpus:
            running = self._groups.held_cpus()
            return not running or running + resources.processes <= self.workers
        pools = [(r.gpus, pool) for r, pool in self._pools.items() if r.gpus]
        held = self._groups.held_gpus() + sum(gpus * pool.actors() for gpus, pool in pools)
        if self.gpus() - held >= resources.gpus * resources.processes - 1e-9:
            return True
        for _, pool in pools:
            for actor in [*pool.idle, *pool.starting.values()]:
                ray.kill(actor)
            pool.idle.clear()
            pool.starting.clear()
        return False

    def _collect_groups(self) -> None:
        for job, end in self._groups.ended():
            if isinstance(end, Exception):
                self._retry(job, str(end) or type(end).__name__)
            else:
                end.attempts = job.attempts
                job.finish(end)
