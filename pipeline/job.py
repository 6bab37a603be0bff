"""A call on its way through an engine, and the line in which calls wait: the most urgent first, then the oldest."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Iterator
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass

from ..errors import CurateError
from .calls import Call, Outcome


@dataclass(eq=False)
class Job:
    """A call and what has become of it.

    Attributes:
        future: what the caller waits for.
        serial: smaller ones came earlier.
        attempts: how often it was started.
        started: when last, of `time.monotonic`.
    """

    call: Call
    future: Future[Outcome]
    serial: int
    attempts: int = 0
    started: float = 0.0

    def is_wanted(self) -> bool:
        """Whether it is to be started; from now on it cannot be cancelled."""
        return self.future.running() or self.future.set_running_or_notify_cancel()

    def finish(self, outcome: Outcome) -> None:
        """Tell the caller."""
        with contextlib.suppress(InvalidStateError):  # whoever asked for it no longer wants it
            self.future.set_result(outcome)

    def given_up(self, why: str) -> CurateError:
        """The error of a call that has been started often enough."""
        return CurateError(f"{self.call.label}: given up after {self.attempts} attempts: {why}")


class JobQueue:
    """Jobs that wait; iterated in the order in which they are taken."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Job]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Job]:
        return (job for _, _, job in sorted(self._heap, key=lambda entry: entry[:2]))

    def add(self, job: Job) -> None:
        heapq.heappush(self._heap, (-job.call.priority, job.serial, job))

    def take(self) -> Job:
        return heapq.heappop(self._heap)[2]

    def take_all(self) -> list[Job]:
        """All of them, in order; none waits any more."""
        jobs = list(self)
        self._heap.clear()
        return jobs
