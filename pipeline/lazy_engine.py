"""The engine that the config asks for, started when the first call comes, so that a run with nothing to do has none."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .calls import Engine
from .config import ClusterConfig
from .inline import InlineEngine


class LazyEngine:
    """An engine in waiting.

    Args:
        cluster: which one.
        say: shows people a line.
    """

    def __init__(self, cluster: ClusterConfig, say: Callable[[str], None]) -> None:
        self._cluster, self._say = cluster, say
        self._engine: Engine | None = None
        self._lock = threading.Lock()

    def get(self) -> Engine:
        with self._lock:
            if self._engine is None:
                c = self._cluster
                if c.address == "inline":
                    self._engine = InlineEngine(c.attempts)
                elif c.address == "processes":
                    from .processes import ProcessEngine

                    self._engine = ProcessEngine(c.workers, c.attempts, c.part_timeout)
                else:
                    from .engine import RayEngine  # importing Ray takes half a second

                    where = "on this machine" if c.address == "local" else f"at {c.address}"
                    self._say(f"starting workers {where} (Ray)")
                    self._engine = RayEngine(c.address, c.workers, c.attempts, c.part_timeout)
            return self._engine

    def close(self) -> None:
        with self._lock:
            if self._engine is not None:
                self._engine.close()
