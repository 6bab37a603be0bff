"""Execution on worker processes of this machine, without Ray: the light engine for one machine.

Started in a third of a second, most of which runs beside the driver, against seconds for a local Ray; a call costs a
tenth of a millisecond. Each worker belongs to one thread of the driver, which gives it a call and blocks until the
answer is there or the worker is not; so a lost worker costs exactly the call that it held, and nothing polls. As with
Ray, a call whose worker dies or hangs is tried again, at most `attempts` times, then given up by name.

Values travel through a socket as one pickle, copied once on either side; pool-sized data belongs into files. What a
worker prints is kept, not shown; the last lines, and where a hung call hung, go into the outcome of a call that is
given up. A worker lives as long as the engine, with what it has loaded, unless its memory after a call is more than
its share of the machine's: then it is replaced, for the price of a fork and of loading again. There is no limit by
number of calls.

A call of several processes (`local_group.py`) gets fresh workers beside the others, at most as many at a time as there
are CPU workers, though always one such call. One that waits for GPUs goes first: workers that have some give them back
after the call that they are at.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import pickle
import queue
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

import cloudpickle

from ..errors import CurateError
from .calls import Call, Outcome, Resources
from .gpus import GpuShares, may_have_gpus, visible_gpus
from .local_group import LocalGroup
from .worker_process import WorkerHost, WorkerLost, WorkerProcess

PRELOAD = (
    "PIL.Image",
    "cykooz_resizer",
    "numpy",
    "pyarrow.parquet",
    "pycurl",
    "simplejpeg",
    "threadpoolctl",
    "curate.pipeline.part",
    "curate.pipeline.stages.pool",
    "curate.shards.images.pixels",
    "curate.shards.images.raster",
    "curate.shards.web.transfer",
)
"""What the parts of an ingest import; torch and the like are left to the calls that need them."""
MEMORY_SHARE = 0.8  # of the machine's memory, that all workers together may keep between calls
CLOSE_S = 5.0


@dataclass
class _Job:
    call: Call
    future: Future[Outcome]
    serial: int
    attempts: int = 0


@dataclass(eq=False)
class _Pool:
    """The workers for one kind of resources."""

    resources: Resources
    size: int
    pending: list[tuple[int, int, _Job]] = field(default_factory=list)  # heap: most urgent first, then oldest
    idle: list[_Slot] = field(default_factory=list)  # the last one is the warmest, and is used first
    slots: int = 0
    starting: int = 0

    def add(self, job: _Job) -> None:
        heapq.heappush(self.pending, (-job.call.priority, job.serial, job))

    def take(self) -> _Job:
        return heapq.heappop(self.pending)[2]

    def waits_for_gpus(self) -> bool:
        return bool(self.resources.gpus and self.pending and not self.starting and self.slots < self.size)


@dataclass(eq=False)
class _Slot:
    """Room for one worker or one group of them, its thread, and the GPUs that are its own, by process."""

    pool: _Pool
    gpus: list[tuple[str, ...]]
    inbox: queue.SimpleQueue[_Job | None] = field(default_factory=queue.SimpleQueue)  # for an idle one; None: end
    worker: WorkerProcess | None = None
    group: LocalGroup | None = None


class ProcessEngine:
    """Engine on processes of this machine.

    Args:
        workers: number of CPU workers; 0 = one per CPU that this process may use.
        attempts: how often a call is started before it is given up because its worker died or hung.
        timeout_s: a call that runs longer is killed and counts as hung; 0 = no limit.
        preload: modules that are imported once for all workers.
    """

    def __init__(
        self, workers: int = 0, attempts: int = 3, timeout_s: float = 0.0, preload: Sequence[str] = PRELOAD
    ) -> None:
        self.workers = workers or _cpus()
        self._attempts, self._timeout = attempts, timeout_s
        self._share = MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / self.workers
        self._lock = threading.Lock()  # of everything below
        self._pools: dict[Resources, _Pool] = {}
        self._gpus: GpuShares | None = None
        self._slots: dict[_Slot, threading.Thread] = {}
        self._serial = itertools.count()
        self._closed = False
        self._host = WorkerHost(preload)

    def gpus(self) -> int:
        if self._gpus is None:
            names = visible_gpus() if may_have_gpus() else []
            with self._lock:
                self._gpus = self._gpus or GpuShares(names)
        return len(self._gpus.free)

    def submit(self, call: Call) -> Future[Outcome]:
        job = _Job(call, Future(), next(self._serial))
        refused = None
        if call.resources.gpus and self._gpus is None:
            try:
                names = visible_gpus()
                with self._lock:
                    self._gpus = self._gpus or GpuShares(names)
            except CurateError as error:
                job.future.set_result(Outcome(error=CurateError(f"{call.label}: {error}")))
                return job.future
        with self._lock:
            pool = self._pool(call.resources)
            if self._closed:
                refused = Outcome(error=RuntimeError("the engine is closed"))
            elif pool.size == 0:
                refused = Outcome(error=CurateError(f"{call.label}: {self._too_much(call.resources)}"))
            elif pool.idle:
                pool.idle.pop().inbox.put(job)
            else:
                pool.add(job)
                self._grow(pool)
        if refused is not None:
            job.future.set_result(refused)
        return job.future

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            jobs = [job for pool in self._pools.values() for _, _, job in pool.pending]
            for pool in self._pools.values():
                pool.pending.clear()
            slots = dict(self._slots)
        self._host.close()
        for slot in slots:
            slot.inbox.put(None)
            if (worker := slot.worker or slot.group) is not None:
                worker.abandon()
        for thread in slots.values():
            thread.join(CLOSE_S)
        for job in jobs:
            _finish(job, _stopped(job))

    # With the lock held.

    def _pool(self, resources: Resources) -> _Pool:
        if resources not in self._pools:
            size = self.workers // resources.processes or 1
            if resources.gpus:
                assert self._gpus is not None
                size = self._gpus.fits(resources.gpus) // resources.processes
                if resources.processes > 1 and resources.gpus < 1:
                    size = 0
            self._pools[resources] = _Pool(resources, size)
        return self._pools[resources]

    def _too_much(self, resources: Resources) -> str:
        has = len(self._gpus.free) if self._gpus else 0
        if resources.processes == 1:
            return f"needs {resources.gpus:g} GPU per worker, and this machine has {has}"
        if resources.gpus < 1:
            return f"its {resources.processes} processes cannot share GPUs: give each of them at least one"
        return f"needs {resources.processes} processes with {resources.gpus:g} GPU each, and this machine has {has}"

    def _grow(self, pool: _Pool) -> None:
        """Start workers for calls that wait, as far as there is room."""
        while not self._closed and pool.starting < len(pool.pending) and pool.slots < pool.size:
            shares: list[tuple[str, ...]] = [() for _ in range(pool.resources.processes)]
            if pool.resources.gpus:
                if pool.resources.processes == 1 and self._group_waits():
                    return
                shares = self._take_gpus(pool.resources)
                if not shares:  # workers of another kind hold them; one that has nothing to do goes
                    idle = next((p.idle for p in self._pools.values() if p.resources.gpus and p.idle), None)
                    if idle:
                        idle.pop().inbox.put(None)
                    return
            slot = _Slot(pool, shares)
            pool.slots += 1
            pool.starting += 1
            serve = self._serve if pool.resources.processes == 1 else self._serve_group
            thread = threading.Thread(target=serve, args=(slot,), name="curate-worker", daemon=True)
            self._slots[slot] = thread
            thread.start()

    def _take_gpus(self, resources: Resources) -> list[tuple[str, ...]]:
        """A share for each process of a call, or nothing at all."""
        assert self._gpus is not None
        shares: list[tuple[str, ...]] = []
        for _ in range(resources.processes):
            names = self._gpus.take(resources.gpus)
            if not names:
                for share in shares:
                    self._gpus.give_back(share, resources.gpus)
                return []
            shares.append(names)
        return shares

    def _group_waits(self) -> bool:
        return any(p.resources.processes > 1 and p.waits_for_gpus() for p in self._pools.values())

    def _is_wanted(self, slot: _Slot) -> bool:
        """Whether calls of another kind wait for the GPUs of an idle worker."""
        others = [p for p in self._pools.values() if p is not slot.pool]
        return bool(slot.pool.resources.gpus) and any(p.waits_for_gpus() for p in others)

    # The threads of the workers.

    def _serve(self, slot: _Slot) -> None:
        done: list[tuple[_Job, Outcome]] = []  # none or one; nothing else may keep a large result alive while we wait
        try:
            try:
                self._start(slot)
            finally:
                with self._lock:
                    slot.pool.starting -= 1
            while slot.worker is not None:
                job = self._next(slot)
                if done:  # only now, so that a caller who sends one call after the other finds this worker idle
                    _finish(*done.pop())
                if job is slot:
                    job = slot.inbox.get()
                if not isinstance(job, _Job):
                    return
                if job.future.running() or job.future.set_running_or_notify_cancel():
                    self._attempt(slot, job, done)
                if slot.worker is None:
                    self._start(slot)
        finally:
            if done:
                _finish(*done.pop())
            self._leave(slot)

    def _start(self, slot: _Slot) -> None:
        """Give the slot a new worker; if that cannot be, all calls of its kind that wait are given up."""
        try:
            names = slot.gpus[0]
            slot.worker = self._host.fork({"CUDA_VISIBLE_DEVICES": ",".join(names)} if names else {})
        except (CurateError, OSError) as error:
            why = error if isinstance(error, CurateError) else CurateError(f"cannot start a worker process: {error}")
            with self._lock:
                jobs = [job for _, _, job in slot.pool.pending]
                slot.pool.pending.clear()
            for job in jobs:
                _finish(job, _stopped(job) if self._closed else Outcome(error=why, attempts=job.attempts))

    def _next(self, slot: _Slot) -> _Job | _Slot | None:
        """The most urgent call; the slot itself if it is idle now, and its inbox is to be watched; None to end."""
        with self._lock:
            if self._closed:
                return None
            if slot.pool.resources.gpus and self._group_waits():
                return None
            if slot.pool.pending:
                return slot.pool.take()
            if self._is_wanted(slot):
                return None
            slot.pool.idle.append(slot)
        return slot

    def _attempt(self, slot: _Slot, job: _Job, done: list[tuple[_Job, Outcome]]) -> None:
        """Bring one call to its outcome, or back into the queue; leaves the slot without a worker if that is lost."""
        worker = slot.worker
        assert worker is not None
        started = time.perf_counter()
        try:
            if not worker.is_alive():  # it died while it was idle, and this call was not its doing
                self._drop(slot)
                self._requeue(job)
                return
            try:
                message = cloudpickle.dumps((job.call.function, job.call.arguments))
            except Exception as error:  # noqa: BLE001  (pickling runs the arguments' own code)
                why = f"{job.call.label}: cannot be sent to a worker: {type(error).__name__}: {error}"
                done.append((job, Outcome(error=RuntimeError(why), trace=traceback.format_exc())))
                return
            job.attempts += 1
            outcome = _read(worker.run(message, self._timeout))
            outcome.attempts = job.attempts
            if outcome.peak_bytes > self._share and _resident(worker.process) > self._share:
                self._drop(slot)
            done.append((job, outcome))
        except WorkerLost as lost:
            self._drop(slot)
            self._lost(job, lost, time.perf_counter() - started, done)
        except Exception as error:  # noqa: BLE001  (of this side: no memory for the answer, no descriptors left...)
            self._drop(slot)
            done.append((job, Outcome(error=error, trace=traceback.format_exc(), attempts=job.attempts)))

    def _lost(self, job: _Job, lost: WorkerLost, seconds: float, done: list[tuple[_Job, Outcome]]) -> None:
        if job.attempts < self._attempts:
            self._requeue(job)
            return
        error = CurateError(f"{job.call.label}: given up after {job.attempts} attempts: {lost}")
        done.append((job, Outcome(None, error, lost.output, True, job.attempts, seconds)))

    # The threads of groups: each is for one attempt at one call.

    def _serve_group(self, slot: _Slot) -> None:
        done: list[tuple[_Job, Outcome]] = []
        try:
            with self._lock:
                slot.pool.starting -= 1
                job = slot.pool.take() if slot.pool.pending else None
            if job is not None and (job.future.running() or job.future.set_running_or_notify_cancel()):
                self._attempt_group(slot, job, done)
        finally:
            self._leave(slot)
            if done:
                _finish(*done.pop())

    def _attempt_group(self, slot: _Slot, job: _Job, done: list[tuple[_Job, Outcome]]) -> None:
        started = time.perf_counter()
        job.attempts += 1
        try:
            slot.group = LocalGroup(self._host, job.call, slot.gpus, self._timeout)
            outcome = slot.group.run(_read)
            outcome.attempts = job.attempts
            done.append((job, outcome))
        except WorkerLost as lost:
            self._lost(job, lost, time.perf_counter() - started, done)
        except CurateError as error:
            done.append((job, _stopped(job) if self._closed else Outcome(error=error, attempts=job.attempts)))
        except Exception as error:  # noqa: BLE001  (arguments that cannot be sent, no memory, no descriptors left...)
            done.append((job, Outcome(error=error, trace=traceback.format_exc(), attempts=job.attempts)))

    def _requeue(self, job: _Job) -> None:
        with self._lock:
            if not self._closed:
                self._pools[job.call.resources].add(job)
                return
        _finish(job, _stopped(job))

    def _drop(self, slot: _Slot) -> None:
        worker, slot.worker = slot.worker, None
        if worker is not None:
            worker.end()

    def _leave(self, slot: _Slot) -> None:
        self._drop(slot)
        with self._lock:
            del self._slots[slot]
            slot.pool.slots -= 1
            if slot.pool.resources.gpus and self._gpus is not None:
                for names in slot.gpus:
                    self._gpus.give_back(names, slot.pool.resources.gpus)
            for pool in self._pools.values():
                self._grow(pool)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _finish(job: _Job, outcome: Outcome) -> None:
    with contextlib.suppress(InvalidStateError):  # whoever asked for it no longer wants it
        job.future.set_result(outcome)


def _stopped(job: _Job) -> Outcome:
    return Outcome(error=RuntimeError("the run was stopped"), attempts=job.attempts)


def _read(answer: bytearray) -> Outcome:
    try:
        return pickle.loads(answer)
    except Exception as error:  # noqa: BLE001  (a class that only the worker can import, most often)
        return Outcome(error=RuntimeError(f"the result cannot be read: {type(error).__name__}: {error}"))


def _resident(process: int) -> int:
    """Memory of a process in bytes; 0 if it has ended."""
    import psutil

    try:
        return psutil.Process(process).memory_info().rss
    except psutil.Error:
        return 0
