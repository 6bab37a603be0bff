"""The other side of `processes.py`: the host, which forks worker processes, and what a worker does.

The driver has threads and must not fork; starting Python anew for every worker costs each the same imports again. So
the driver starts one host: a process with one thread that imports what nearly every call needs, once, and then only
forks, kills and reaps. Workers share those pages and start in milliseconds. The host asks nothing of the driver's main
module, so a worker never sees the command line or the config.

How everything ends by itself: the host sees the driver go (end of file on its socket) and kills every worker with all
its children; where the kernel can, workers are killed when the host goes; an idle worker that is let go ends.

Messages on a worker's socket are 8 bytes of length and a pickle; the host's are a fixed header, an environment as JSON,
and, to fork, three descriptors: the worker's socket, the pipe for its process id and exit status, and its output file.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import pickle
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Iterable
from typing import Any, NoReturn

import cloudpickle

from ..errors import CurateError
from .calls import Outcome, execute

SIZE = struct.Struct("<Q")
ORDER = struct.Struct("<iiI")  # process id (0: fork a new one), signal, length of the environment that follows
STATUS = struct.Struct("<i")  # first the process id, or minus the errno of a failed fork; at the end its wait status
STACKS = signal.SIGUSR1
"""A worker that gets it writes where its threads are to its output."""
SMALL = 1 << 16
DRIVER_CHECK_S = 1.0
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15  # linux/prctl.h
WORKER_NAME = "curate-worker"  # what `top` and `ps` show
OOM_SCORE = "500"  # out of memory, the kernel takes a worker before the driver


def send(connection: socket.socket, message: bytes) -> None:
    """Send one message; raises `OSError` when the other side is gone."""
    if len(message) < SMALL:
        connection.sendall(SIZE.pack(len(message)) + message)
    else:
        connection.sendall(SIZE.pack(len(message)))
        connection.sendall(message)


def receive(connection: socket.socket, deadline: float | None = None) -> bytearray:
    """The next message.

    Raises:
        EOFError: the other side is gone.
        TimeoutError: it was not complete at `deadline` (of `time.monotonic`).
    """
    (size,) = SIZE.unpack(_exactly(connection, SIZE.size, deadline))
    return _exactly(connection, size, deadline)


def _exactly(connection: socket.socket, size: int, deadline: float | None = None) -> bytearray:
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        if deadline is not None:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
        got = connection.recv_into(view[done:])
        if not got:
            raise EOFError("the other side is gone")
        done += got
    return data


# The host.


def serve(control: int, driver: int, preload: Iterable[str]) -> None:
    """Import `preload`, then fork and kill workers as told on socket `control` until process `driver` is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C, the end of a whole unit: the driver's, which then ends us
        signal.signal(number, signal.SIG_IGN)
    gc.disable()  # nothing that a module makes as it loads is garbage
    for name in preload:
        # A library that is missing or broken is the business of the call that needs it.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or the workers' first collection would copy every page that they share
    gc.set_threshold(20_000, 20, 20)  # a row makes a few hundred objects, none of them in circles
    gc.enable()
    _Host(socket.socket(fileno=control), driver).run()


class _Host:
    def __init__(self, control: socket.socket, driver: int) -> None:
        self._control, self._driver = control, driver
        self._children: dict[int, int] = {}  # process id -> pipe that takes its exit status
        self._wake, self._woken = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # it only has to interrupt `select`
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)

    def run(self) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while os.getppid() == self._driver:  # the socket tells sooner, unless a copy of it is still open somewhere
                ready, _, _ = select.select([self._control, self._wake], [], [], DRIVER_CHECK_S)
                if self._wake in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 512)
                    self._reap()
                if self._control in ready:
                    self._obey()
        signal.set_wakeup_fd(-1)
        for child in self._children:
            _kill_group(child)
        for child in self._children:
            os.waitpid(child, 0)

    def _obey(self) -> None:
        header, descriptors, _, _ = socket.recv_fds(self._control, ORDER.size, 3)
        if not header:
            raise EOFError("the driver is gone")
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        header += bytes(_exactly(self._control, ORDER.size - len(header)))
        process, number, size = ORDER.unpack(header)
        environment = json.loads(_exactly(self._control, size) or b"{}")
        if not process:
            connection, status, output = descriptors
            self._fork(connection, status, output, environment)
        elif process in self._children:  # not reaped yet, so the number cannot be another process's by now
            if number == signal.SIGKILL:
                _kill_group(process)
            else:
                os.kill(process, number)

    def _fork(self, connection: int, status: int, output: int, environment: dict[str, str]) -> None:
        host = os.getpid()
        try:
            process = os.fork()
        except OSError as error:
            os.write(status, STATUS.pack(-(error.errno or 1)))
            os.close(status)
        else:
            if process == 0:
                self._become_worker(host, socket.socket(fileno=connection), status, output, environment)
            with contextlib.suppress(OSError):  # the worker does it too; whoever comes first
                os.setpgid(process, process)
            self._children[process] = status
            os.write(status, STATUS.pack(process))
        os.close(connection)
        os.close(output)

    def _reap(self) -> None:
        while self._children:
            process, how = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            _kill_group(process)  # its children hold its socket open, and are of no use to anyone
            status = self._children.pop(process)
            with contextlib.suppress(BrokenPipeError):
                os.write(status, STATUS.pack(how))
            os.close(status)

    def _become_worker(
        self, host: int, connection: socket.socket, status: int, output: int, environment: dict[str, str]
    ) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.setpgid(0, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            for descriptor in (self._wake, self._woken, status, output, *self._children.values()):
                os.close(descriptor)
            self._control.close()
            _end_with(host)
            os.environ.update(environment)
            work(connection)
        except BaseException as error:  # noqa: BLE001  (also SystemExit: nothing may run on into the host's code)
            traceback.print_exc()
            if isinstance(error, SystemExit) and isinstance(error.code, int):
                code = error.code
        finally:
            _flush()
            os._exit(code)


def _kill_group(process: int) -> None:
    """Kill a worker and what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)


def _end_with(host: int) -> None:
    """Ask the kernel to kill this process when its host goes, to prefer it when memory runs out, and to name it."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(PR_SET_NAME, WORKER_NAME.encode())
    if os.getppid() != host:  # it went before we asked
        os._exit(1)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(OOM_SCORE)


# A worker.


def work(connection: socket.socket) -> NoReturn:
    """Execute the calls that come in, one after the other, until the driver lets go."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  (a crash must not take the last lines along)
    faulthandler.enable()
    faulthandler.register(STACKS, all_threads=True)
    while True:
        try:
            message = receive(connection)
        except (EOFError, ConnectionError):
            _flush()
            os._exit(0)
        answer = _answer(message)
        del message
        with contextlib.suppress(ConnectionError):  # the driver is gone: the next `receive` tells
            send(connection, answer)
        del answer


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _answer(message: bytearray) -> bytes:
    try:
        function, arguments = pickle.loads(message)
    except Exception as error:  # noqa: BLE001  (a module that only the driver can import, most often)
        why = RuntimeError(f"a worker cannot load the call: {type(error).__name__}: {error}")
        return cloudpickle.dumps(Outcome(error=why, trace=traceback.format_exc()))
    return packed(execute(function, arguments))


def packed(outcome: Outcome) -> bytes:
    """An outcome as a pickle; one whose value or error cannot be pickled becomes one that says so."""
    if outcome.error is not None:
        outcome.error = fit_to_travel(outcome.error)
    try:
        return cloudpickle.dumps(outcome)
    except Exception as error:  # noqa: BLE001  (pickling runs the value's own code)
        kind = type(outcome.value).__name__
        outcome.value, outcome.trace = None, traceback.format_exc()
        outcome.error = RuntimeError(f"the result (a {kind}) cannot be sent back: {type(error).__name__}: {error}")
        return cloudpickle.dumps(outcome)


def fit_to_travel(error: BaseException) -> BaseException:
    """The exception itself if it survives pickling, else one of ours with its text."""
    try:
        copy: Any = pickle.loads(cloudpickle.dumps(error))
        if type(copy) is type(error) and str(copy) == str(error):
            return error
    except Exception:  # noqa: BLE001  (an exception that cannot travel still has its text)
        pass
    if isinstance(error, CurateError):
        return CurateError(str(error))
    return RuntimeError(f"{type(error).__name__}: {error}")
