"""One driver per workdir.

A lock on ``<workdir>/.lock`` held by the operating system for as long as the driver lives: it cannot go stale, because
the kernel drops it when the process ends, however it ends. The file's text says who holds it, for people.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import CurateError, StorageError


class WorkdirBusy(CurateError):
    """Another driver is running on the workdir."""


def holder(workdir: str) -> str | None:
    """Who holds the lock of `workdir`, or None when nobody does."""
    path = Path(workdir) / ".lock"
    try:
        with open(path, "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                return _describe(file.read())
            fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        return None
    return None


def _describe(text: str) -> str:
    try:
        facts = json.loads(text)
        return f"process {facts['pid']} on {facts['host']} (run {facts['run']!r}, since {facts['since']})"
    except (ValueError, KeyError):
        return "another process"


@contextmanager
def locked(workdir: str, run: str, wait: bool = False) -> Iterator[None]:
    """Hold the workdir while the block lasts.

    Args:
        wait: wait for the other driver to end instead of raising.

    Raises:
        WorkdirBusy: another driver is running there.
        StorageError: the workdir cannot be written.
    """
    path = Path(workdir) / ".lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115
    except OSError as error:
        raise StorageError(f"cannot write to workdir {workdir!r}: {error.strerror}; choose another workdir") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            who = _describe(file.read())
            raise WorkdirBusy(
                f"workdir {workdir!r} is in use by {who}; wait for it (--wait), or choose another workdir"
            ) from None
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        facts = {"pid": os.getpid(), "host": socket.gethostname(), "run": run, "since": since}
        file.write(json.dumps(facts))
        file.flush()
        yield
