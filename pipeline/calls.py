"""Calls and the engine interface: run a function somewhere, get its outcome, whatever kills the worker.

An engine takes `Call`s and gives back futures of `Outcome`s. It never raises for a failing call: an exception, a dead
worker and a call that never ends are outcomes, so that one bad part cannot take the others with it. Three engines:
`InlineEngine` in `inline.py` (this process, one call at a time; debugging and tests), `ProcessEngine` in `processes.py`
(worker processes of this machine) and `RayEngine` in `engine.py` (a cluster, or a local Ray).
"""

from __future__ import annotations

import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol


@dataclass(frozen=True)
class Resources:
    """What one call needs besides a worker.

    Attributes:
        gpus: GPUs per process; 0 runs on the CPU workers.
        processes: that do the call together, see `group.py`; each gets a `Member` as its last argument if there are
            several.
    """

    gpus: float = 0.0
    processes: int = 1


@dataclass(frozen=True)
class Call:
    """One unit of work: ``function(*arguments)``; the function must be importable by a worker.

    Attributes:
        priority: calls with a larger one are started first.
        scratch: a folder that all machines see, for the files of engines that need some; may be missing.
    """

    label: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    resources: Resources = Resources()
    priority: int = 0
    scratch: str = ""


@dataclass
class Outcome:
    """How a call ended.

    Attributes:
        value: what it returned, if `error` is None.
        error: the exception it raised, or why it was given up.
        trace: the worker's traceback text, for bugs.
        crashed: the worker died or hung (every attempt), rather than raising.
        attempts: how often it was started.
        seconds: wall time of the last attempt.
        peak_bytes: peak resident memory of the worker so far.
    """

    value: Any = None
    error: BaseException | None = None
    trace: str = ""
    crashed: bool = False
    attempts: int = 1
    seconds: float = 0.0
    peak_bytes: int = 0


class Engine(Protocol):
    """Runs calls. Thread-safe: several stages submit at the same time."""

    workers: int

    def submit(self, call: Call) -> Future[Outcome]:
        """Queue a call; the future never carries an exception."""
        ...

    def gpus(self) -> int:
        """How many GPUs its workers can be given."""
        ...

    def close(self) -> None:
        """Stop all work at once; unfinished calls end with an error outcome."""
        ...


@lru_cache(maxsize=1)
def _thread_pools(modules: int) -> Any:
    """The loaded libraries that have thread pools. Looking for them costs milliseconds, so it is done again only when
    the number of loaded modules has changed."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread per call for BLAS, OpenMP and torch.

    Parallel sums depend on the number of threads; one thread makes results equal on every machine size, and workers,
    not threads, fill the cores.
    """
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else 1
    if torch:
        torch.set_num_threads(1)
    try:
        with _thread_pools(len(sys.modules)).limit(limits=1):
            yield
    finally:
        if torch and before != 1:
            torch.set_num_threads(before)


def execute(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Outcome:
    """Run one call here and now and describe how it ended. Used by every engine's workers."""
    started = time.perf_counter()
    outcome = Outcome()
    try:
        with single_threaded():
            outcome.value = function(*arguments)
    except Exception as error:  # noqa: BLE001  (the boundary of a worker: every failure is an outcome)
        outcome.error, outcome.trace = error, traceback.format_exc()
    outcome.seconds = time.perf_counter() - started
    outcome.peak_bytes = peak_bytes_now()
    return outcome


def peak_bytes_now() -> int:
    """Peak resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
