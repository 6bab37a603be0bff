"""Run a command and tell the CPU time of every process that came of it.

    python benchmarks/cpu_tree.py RESULT.json COMMAND ...

The kernel adds a process's CPU time to its parent's account when the parent waits for it, whoever killed it. What a
parent never waits for (a daemon, the children of a killed one) is handed to the nearest *subreaper* above: that is this
process, so nothing is lost, and at the end one `getrusage` has the sum. Exact, and without polling. Linux only.

`RESULT.json`: ``code`` (exit status), ``wall`` (seconds until the command ended), ``user`` and ``system`` (CPU seconds
of the whole tree), ``peak_bytes`` (resident memory of its largest process).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
LINGER_S = 15.0
"""Seconds that processes may outlive the command before they are killed."""


def run(command: list[str]) -> dict[str, float]:
    """Run `command` to the end of its last descendant; to be called in a process without other children."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this kernel has no subreapers")
    started = time.monotonic()
    first = os.posix_spawnp(command[0], command, os.environ)
    code, wall = -1, 0.0
    while True:
        try:
            pid, status = os.waitpid(-1, 0 if not wall else os.WNOHANG)
        except ChildProcessError:
            break
        if pid == first:
            code, wall = os.waitstatus_to_exitcode(status), time.monotonic() - started
        elif pid == 0:
            if time.monotonic() - started - wall > LINGER_S:
                _kill_children()
            time.sleep(0.02)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "code": code,
        "wall": wall,
        "user": used.ru_utime,
        "system": used.ru_stime,
        "peak_bytes": used.ru_maxrss * 1024,
    }


def _kill_children() -> None:
    """End what is left below this process."""
    for line in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        os.kill(int(line), signal.SIGKILL)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(run(sys.argv[2:])))
