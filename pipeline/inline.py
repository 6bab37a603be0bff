"""The engine without workers: every call in this process, for debugging and tests."""

from __future__ import annotations

import threading
from concurrent.futures import Future

from .calls import Call, Engine, Outcome, execute


class InlineEngine:
    """Runs every call in this process, in the caller's thread, one at a time.

    Calls of several processes are the exception: they run in worker processes, because one process cannot be two.

    Args:
        attempts: how often such a call is started before it is given up because a process of it died.
    """

    workers = 1

    def __init__(self, attempts: int = 3) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._attempts = attempts
        self._groups: Engine | None = None

    def submit(self, call: Call) -> Future[Outcome]:
        if call.resources.processes > 1:
            return self._engine_of_groups().submit(call)
        future: Future[Outcome] = Future()
        with self._lock:
            if self._closed:
                future.set_result(Outcome(error=RuntimeError("the engine is closed")))
            else:
                future.set_result(execute(call.function, call.arguments))
        return future

    def _engine_of_groups(self) -> Engine:
        with self._lock:
            if self._groups is None:
                from .processes import ProcessEngine  # torch's groups are seldom wanted here

                self._groups = ProcessEngine(1, self._attempts, preload=())
                if self._closed:
                    self._groups.close()
            return self._groups

    def gpus(self) -> int:
        return 0  # nothing is handed out: a call sees what this process sees

    def close(self) -> None:
        self._closed = True
        if self._groups is not None:
            self._groups.close()
