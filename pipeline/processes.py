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

import itertools
import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import cloudpickle

from ..errors import CurateError
from .calls import Call, Outcome
from .gpus import GpuShares, may_have_gpus, visible_gpus
from .job import Job
from .local_group import LocalGroup
from .process_pools import Pool, Pools, Slot
from .worker_process import WorkerHost, WorkerLost

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
        self._pools = Pools(self.workers)
        self._slots: dict[Slot, threading.Thread] = {}
        self._serial = itertools.count()
        self._closed = False
        self._host = WorkerHost(preload)

    def gpus(self) -> int:
        return len(self._counted_gpus(visible_gpus if may_have_gpus() else list).free)

    def submit(self, call: Call) -> Future[Outcome]:
        job = Job(call, Future(), next(self._serial))
        refused = None
        if call.resources.gpus:
            try:
                self._counted_gpus(visible_gpus)
            except CurateError as error:
                job.finish(Outcome(error=CurateError(f"{call.label}: {error}")))
                return job.future
        with self._lock:
            pool = self._pools.pool(call.resources)
            if self._closed:
                refused = Outcome(error=RuntimeError("the engine is closed"))
            elif pool.size == 0:
                refused = Outcome(error=CurateError(f"{call.label}: {self._pools.too_much(call.resources)}"))
            elif pool.idle:
                pool.idle.pop().inbox.put(job)
            else:
                pool.pending.add(job)
                self._grow(pool)
        if refused is not None:
            job.finish(refused)
        return job.future

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            jobs = [job for pool in self._pools for job in pool.pending.take_all()]
            slots = dict(self._slots)
        self._host.close()
        for slot in slots:
            slot.inbox.put(None)
            if (worker := slot.worker or slot.group) is not None:
                worker.abandon()
        for thread in slots.values():
            thread.join(CLOSE_S)
        for job in jobs:
            job.finish(_stopped(job))

    def _counted_gpus(self, count: Callable[[], list[str]]) -> GpuShares:
        if self._pools.gpus is None:
            names = count()
            with self._lock:
                self._pools.gpus = self._pools.gpus or GpuShares(names)
        return self._pools.gpus

    def _grow(self, pool: Pool) -> None:
        """Start workers for calls that wait, as far as there is room. With the lock held."""
        while not self._closed and (slot := self._pools.new_slot(pool)) is not None:
            serve = self._serve if pool.resources.processes == 1 else self._serve_group
            thread = threading.Thread(target=serve, args=(slot,), name="curate-worker", daemon=True)
            self._slots[slot] = thread
            thread.start()

    # The threads of the workers.

    def _serve(self, slot: Slot) -> None:
        done: list[tuple[Job, Outcome]] = []  # none or one; nothing else may keep a large result alive while we wait
        try:
            try:
                self._start(slot)
            finally:
                with self._lock:
                    slot.pool.starting -= 1
            while slot.worker is not None:
                job = self._next(slot)
                _tell(done)  # only now, so that a caller who sends one call after the other finds this worker idle
                if job is slot:
                    job = slot.inbox.get()
                if not isinstance(job, Job):
                    return
                if job.is_wanted():
                    self._attempt(slot, job, done)
                if slot.worker is None:
                    self._start(slot)
        finally:
            _tell(done)
            self._leave(slot)

    def _start(self, slot: Slot) -> None:
        """Give the slot a new worker; if that cannot be, all calls of its kind that wait are given up."""
        try:
            names = slot.gpus[0]
            slot.worker = self._host.fork({"CUDA_VISIBLE_DEVICES": ",".join(names)} if names else {})
        except (CurateError, OSError) as error:
            why = error if isinstance(error, CurateError) else CurateError(f"cannot start a worker process: {error}")
            with self._lock:
                jobs = slot.pool.pending.take_all()
            for job in jobs:
                job.finish(_stopped(job) if self._closed else Outcome(error=why, attempts=job.attempts))

    def _next(self, slot: Slot) -> Job | Slot | None:
        """The most urgent call; the slot itself if it is idle now, and its inbox is to be watched; None to end."""
        with self._lock:
            if self._closed:
                return None
            if slot.pool.resources.gpus and self._pools.group_waits():
                return None
            if slot.pool.pending:
                return slot.pool.pending.take()
            if self._pools.is_wanted(slot):
                return None
            slot.pool.idle.append(slot)
        return slot

    def _attempt(self, slot: Slot, job: Job, done: list[tuple[Job, Outcome]]) -> None:
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

    def _lost(self, job: Job, lost: WorkerLost, seconds: float, done: list[tuple[Job, Outcome]]) -> None:
        if job.attempts < self._attempts:
            self._requeue(job)
            return
        done.append((job, Outcome(None, job.given_up(str(lost)), lost.output, True, job.attempts, seconds)))

    # The threads of groups: each is for one attempt at one call.

    def _serve_group(self, slot: Slot) -> None:
        done: list[tuple[Job, Outcome]] = []
        try:
            with self._lock:
                slot.pool.starting -= 1
                job = slot.pool.pending.take() if slot.pool.pending else None
            if job is not None and job.is_wanted():
                self._attempt_group(slot, job, done)
        finally:
            self._leave(slot)
            _tell(done)

    def _attempt_group(self, slot: Slot, job: Job, done: list[tuple[Job, Outcome]]) -> None:
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

    def _requeue(self, job: Job) -> None:
        with self._lock:
            if not self._closed:
                self._pools.pool(job.call.resources).pending.add(job)
                return
        job.finish(_stopped(job))

    def _drop(self, slot: Slot) -> None:
        worker, slot.worker = slot.worker, None
        if worker is not None:
            worker.end()

    def _leave(self, slot: Slot) -> None:
        self._drop(slot)
        with self._lock:
            del self._slots[slot]
            self._pools.remove(slot)
            for pool in self._pools:
                self._grow(pool)


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _tell(done: list[tuple[Job, Outcome]]) -> None:
    if done:
        job, outcome = done.pop()
        job.finish(outcome)


def _stopped(job: Job) -> Outcome:
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
