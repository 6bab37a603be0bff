"""Noticing that a local Ray has broken down: without its raylet or its `gcs_server` no call will ever be answered."""

from __future__ import annotations

import contextlib
import time

import psutil

from ..errors import CurateError

VITAL = ("raylet", "gcs_server")
EVERY_S = 1.0


class RayVitals:
    """Watches the processes of the Ray that this process has just started."""

    def __init__(self) -> None:
        self._processes: list[psutil.Process] = []
        self._looked = time.monotonic()
        for process in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if process.name() in VITAL:
                    self._processes.append(process)

    def broken(self) -> CurateError | None:
        """What has happened, if something has; looks at most once in `EVERY_S` seconds."""
        now = time.monotonic()
        if now - self._looked <= EVERY_S:
            return None
        self._looked = now
        for process in self._processes:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return CurateError(
                    f"Ray on this machine has broken down: its {VITAL[0]} or {VITAL[1]} process {process.pid} died "
                    "(did memory run out?); finished parts are kept, run the same command again to go on"
                )
        return None
