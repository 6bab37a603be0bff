"""Calls of several processes on a Ray cluster: which wait, which run in a thread of the driver, and how they ended.

The dispatcher of `engine.py` owns all of this but the threads, which only put how their call ended into a queue.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import traceback
from collections.abc import Callable, Iterator

from ..errors import CurateError
from .calls import Outcome, Resources
from .job import Job, JobQueue


class RayGroups:
    """The calls of several processes of one engine.

    Args:
        timeout_s: one that runs longer is ended and counts as hung; 0 = no limit.
        local: Ray runs on this machine only.
    """

    def __init__(self, timeout_s: float, local: bool) -> None:
        self._timeout, self._local = timeout_s, local
        self._waiting = JobQueue()
        self._running: dict[int, Job] = {}  # by serial number
        self._ended: queue.SimpleQueue[tuple[Job, Outcome | Exception]] = queue.SimpleQueue()

    def add(self, job: Job) -> None:
        self._waiting.add(job)

    def wait_for_gpus(self) -> bool:
        """Whether one that has not been started wants GPUs."""
        return any(job.call.resources.gpus for job in self._waiting)

    def held_gpus(self) -> float:
        """GPUs of those that run."""
        return sum(job.call.resources.gpus * job.call.resources.processes for job in self._running.values())

    def held_cpus(self) -> int:
        """Processes without GPUs of those that run."""
        return sum(j.call.resources.processes for j in self._running.values() if not j.call.resources.gpus)

    def start(self, refused: Callable[[Resources], str], has_room: Callable[[Resources], bool]) -> None:
        """Start those that there is room for.

        Args:
            refused: why there will never be room, or nothing.
            has_room: whether there is room now.
        """
        for job in self._waiting.take_all():
            why = refused(job.call.resources)
            if why:
                job.finish(Outcome(error=CurateError(f"{job.call.label}: {why}")))
            elif not has_room(job.call.resources):
                self._waiting.add(job)
            elif job.is_wanted():
                job.attempts += 1
                self._running[job.serial] = job
                threading.Thread(target=self._run, args=(job,), name="curate-group", daemon=True).start()

    def ended(self) -> Iterator[tuple[Job, Outcome | Exception]]:
        """Those that have ended since, with the call's outcome, or what ended the group from outside."""
        with contextlib.suppress(queue.Empty):
            while True:
                job, end = self._ended.get_nowait()
                if self._running.pop(job.serial, None) is not None:
                    yield job, end

    def forget_all(self) -> list[Job]:
        """All that wait or run; from now on none is known."""
        jobs = [*self._waiting.take_all(), *self._running.values()]
        self._running.clear()
        return jobs

    def _run(self, job: Job) -> None:
        try:
            from .ray_train import run_group  # importing Ray Train takes seconds

            self._ended.put((job, run_group(job.call, self._timeout, self._local)))
        except Exception as error:  # noqa: BLE001  (a dead group, or whatever Ray raises as it goes down)
            error.add_note(traceback.format_exc())
            self._ended.put((job, error))
