"""Who may have a worker on this machine: how many of each kind there can be, which GPUs are whose, which calls wait.

Bookkeeping alone, without threads or processes; `ProcessEngine` holds its lock around all of it.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass, field

from .calls import Resources
from .gpus import GpuShares
from .job import Job, JobQueue
from .local_group import LocalGroup
from .worker_process import WorkerProcess


@dataclass(eq=False)
class Pool:
    """The workers for one kind of resources.

    Attributes:
        size: how many slots there can be at a time.
        idle: slots with nothing to do; the last one is the warmest, and is used first.
        slots: how many there are.
        starting: how many of them have no worker yet.
    """

    resources: Resources
    size: int
    pending: JobQueue = field(default_factory=JobQueue)
    idle: list[Slot] = field(default_factory=list)
    slots: int = 0
    starting: int = 0

    def waits_for_gpus(self) -> bool:
        return bool(self.resources.gpus and self.pending and not self.starting and self.slots < self.size)


@dataclass(eq=False)
class Slot:
    """Room for one worker or one group of them, and the GPUs that are its own, by process.

    Attributes:
        inbox: calls for an idle one; None: end.
    """

    pool: Pool
    gpus: list[tuple[str, ...]]
    inbox: queue.SimpleQueue[Job | None] = field(default_factory=queue.SimpleQueue)
    worker: WorkerProcess | None = None
    group: LocalGroup | None = None


class Pools:
    """The pools of one engine, made as calls come.

    Args:
        workers: number of CPU workers.

    Attributes:
        gpus: of this machine; None until they have been counted.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pools: dict[Resources, Pool] = {}
        self.gpus: GpuShares | None = None

    def __iter__(self) -> Iterator[Pool]:
        return iter(self._pools.values())

    def pool(self, resources: Resources) -> Pool:
        """The pool for such calls; its size is 0 if they can never run. Counted GPUs are needed if they want some."""
        if resources not in self._pools:
            size = self._workers // resources.processes or 1
            if resources.gpus:
                assert self.gpus is not None
                size = self.gpus.fits(resources.gpus) // resources.processes
                if resources.processes > 1 and resources.gpus < 1:
                    size = 0
            self._pools[resources] = Pool(resources, size)
        return self._pools[resources]

    def too_much(self, resources: Resources) -> str:
        """Why such calls can never run."""
        has = len(self.gpus.free) if self.gpus else 0
        if resources.processes == 1:
            return f"needs {resources.gpus:g} GPU per worker, and this machine has {has}"
        if resources.gpus < 1:
            return f"its {resources.processes} processes cannot share GPUs: give each of them at least one"
        return f"needs {resources.processes} processes with {resources.gpus:g} GPU each, and this machine has {has}"

    def new_slot(self, pool: Pool) -> Slot | None:
        """A slot for a call that waits, if it needs a new one and there is room.

        If workers of another kind hold the GPUs, one of them that has nothing to do is told to go.
        """
        if pool.starting >= len(pool.pending) or pool.slots >= pool.size:
            return None
        shares: list[tuple[str, ...]] = [() for _ in range(pool.resources.processes)]
        if pool.resources.gpus:
            if pool.resources.processes == 1 and self.group_waits():
                return None
            shares = self._take_gpus(pool.resources)
            if not shares:
                idle = next((p.idle for p in self if p.resources.gpus and p.idle), None)
                if idle:
                    idle.pop().inbox.put(None)
                return None
        pool.slots += 1
        pool.starting += 1
        return Slot(pool, shares)

    def remove(self, slot: Slot) -> None:
        """The end of a slot."""
        slot.pool.slots -= 1
        if slot.pool.resources.gpus and self.gpus is not None:
            for names in slot.gpus:
                self.gpus.give_back(names, slot.pool.resources.gpus)

    def group_waits(self) -> bool:
        """Whether a call of several processes waits for GPUs."""
        return any(p.resources.processes > 1 and p.waits_for_gpus() for p in self)

    def is_wanted(self, slot: Slot) -> bool:
        """Whether calls of another kind wait for the GPUs of an idle worker."""
        return bool(slot.pool.resources.gpus) and any(p.waits_for_gpus() for p in self if p is not slot.pool)

    def _take_gpus(self, resources: Resources) -> list[tuple[str, ...]]:
        """A share for each process of a call, or nothing at all."""
        assert self.gpus is not None
        shares: list[tuple[str, ...]] = []
        for _ in range(resources.processes):
            names = self.gpus.take(resources.gpus)
            if not names:
                for share in shares:
                    self.gpus.give_back(share, resources.gpus)
                return []
            shares.append(names)
        return shares
