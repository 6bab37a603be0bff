"""A group of worker processes on this machine: start them, wait for the first end that decides, end them all.

Each member is a fresh worker with a thread of the driver that waits for it, like any worker (`processes.py`), so all of
them end with the driver, however that ends. They find each other through a file in a folder of their own, and talk over
the loopback interface only. Starting costs what importing torch costs in each of them: about 3 s of CPU time.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable

import cloudpickle

from .calls import Call, Outcome
from .group import CPU_BACKEND, GPU_BACKEND, Member, cause, lost_connection, run_member
from .worker_process import WorkerHost, WorkerLost, WorkerProcess

SETTLE_S = 2.0  # after the first failure, for the one that caused it: a killed process may be noticed by others first
LOST_S = 20.0  # after a process has lost the others, for the end of the one that went: it explains more
LEAVE_S = 5.0  # for the others to end when member 0 has its result


class LocalGroup:
    """One attempt at one call of several processes.

    Args:
        gpus: names of the GPUs of each member; empty tuples without GPUs.
        timeout_s: members that run longer are killed and count as hung; 0 = no limit.
    """

    def __init__(self, host: WorkerHost, call: Call, gpus: list[tuple[str, ...]], timeout_s: float) -> None:
        self._host, self._call, self._gpus, self._timeout = host, call, gpus, timeout_s
        self._size = call.resources.processes
        self._workers: list[WorkerProcess] = []
        self._ends: queue.SimpleQueue[tuple[int, Outcome | BaseException]] = queue.SimpleQueue()

    def run(self, read: Callable[[bytearray], Outcome]) -> Outcome:
        """Start all members, and return the outcome of the call.

        Args:
            read: makes an outcome of a worker's answer.

        Raises:
            WorkerLost: a member died or hung; all are ended.
            CurateError: they cannot be started.
        """
        folder = tempfile.mkdtemp(prefix="curate-group-")
        threads: list[threading.Thread] = []
        try:
            messages = [self._message(rank, f"file://{folder}/rendezvous") for rank in range(self._size)]
            for names in self._gpus:
                self._workers.append(self._host.fork({"CUDA_VISIBLE_DEVICES": ",".join(names)} if names else {}))
            for rank, (worker, message) in enumerate(zip(self._workers, messages, strict=True)):
                thread = threading.Thread(
                    target=self._wait, args=(rank, worker, message, read), name="curate-member", daemon=True
                )
                threads.append(thread)
                thread.start()
            return self._decide()
        finally:
            for worker in self._workers:
                self._host.kill(worker.process)
            for thread in threads:
                thread.join(LEAVE_S)
            self.abandon()  # those that not even the kernel can end now
            for worker in self._workers:
                worker.end()
            shutil.rmtree(folder, ignore_errors=True)

    def abandon(self) -> None:
        """Make `run` in another thread end now."""
        for worker in self._workers:
            worker.abandon()

    def _message(self, rank: int, rendezvous: str) -> bytes:
        backend = GPU_BACKEND if self._call.resources.gpus else CPU_BACKEND
        member = Member(rank, self._size, rank, rendezvous, backend)
        return cloudpickle.dumps((run_member, (self._call.function, self._call.arguments, member)))

    def _wait(self, rank: int, worker: WorkerProcess, message: bytes, read: Callable[[bytearray], Outcome]) -> None:
        try:
            self._ends.put((rank, read(worker.run(message, self._timeout))))
        except (WorkerLost, OSError, MemoryError, pickle.PickleError) as error:
            self._ends.put((rank, error))

    def _decide(self) -> Outcome:
        """Wait until it is known how the call ended."""
        ended: dict[int, Outcome | BaseException] = {}
        until: float | None = None
        while len(ended) < self._size:
            with contextlib.suppress(queue.Empty):
                rank, end = self._ends.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
                ended[rank] = end
                failed = isinstance(end, BaseException) or end.error is not None
                if isinstance(end, WorkerLost):
                    break
                if rank == 0 and not failed:
                    until = time.monotonic() + LEAVE_S
                elif failed:
                    explained = not (isinstance(end, Outcome) and end.error is not None and lost_connection(end.error))
                    settled = time.monotonic() + (SETTLE_S if explained else LOST_S)
                    until = settled if until is None else min(until, settled)
            if until is not None and time.monotonic() >= until:
                break
        first = ended.get(0)
        if isinstance(first, Outcome) and first.error is None:
            return first
        outcomes: list[Outcome] = []
        for rank, end in ended.items():
            if isinstance(end, WorkerLost):
                raise WorkerLost(f"process {rank} of {self._size}: {end}", end.output)
            outcomes.append(end if isinstance(end, Outcome) else Outcome(error=end))
        failure = cause(outcomes)
        if failure is None:
            texts = [o.trace for o in outcomes if o.trace]
            raise WorkerLost(f"its {self._size} processes lost the connection to each other", "\n".join(texts[:1]))
        return failure
