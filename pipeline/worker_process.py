"""Worker processes as the driver sees them: the host that forks them, one worker with its socket, and how it ended.

Nothing here waits for a dead process: a worker's end is an end of file on its socket (the host kills what it leaves
behind, so nobody else holds that open), then its wait status on a pipe; both end also when the host itself is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

from ..errors import CurateError
from .worker_host import ORDER, STACKS, STATUS, receive, send, serve

MAX_FAILED_STARTS = 5
STACKS_S = 0.2  # how long a hung worker gets to write where it hangs
END_S = 5.0  # how long we wait for the kernel to end what was killed
OUTPUT_BYTES = 8192  # of a dead worker's output that are shown
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)
"""Set before numpy, Arrow and torch load: no thread pools, so forking is clean and results are equal everywhere."""
NO_ARROW_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}  # its allocator's; a fork would lose it


class WorkerLost(Exception):
    """A worker died, or was killed because it hung, during a call.

    Attributes:
        output: the last lines that it wrote to stdout and stderr.
    """

    def __init__(self, how: str, output: str) -> None:
        super().__init__(how)
        self.output = output


class WorkerHost:
    """The process that workers are forked from; started at once, and again if it dies. Thread-safe.

    Args:
        preload: modules that it imports, once for all workers; none that starts threads or keeps open files.

    Raises:
        CurateError: it cannot be started.
    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._preload = tuple(preload)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        try:
            self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the host)
            self._start()
        except OSError as error:
            raise CurateError(f"worker processes cannot be started: {error}") from error

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        descriptor = theirs.fileno()
        code = (
            f"import sys; sys.path[:] = {[str(p) for p in sys.path]!r}; from {serve.__module__} import serve; "
            f"serve({descriptor}, {os.getpid()}, {self._preload!r})"
        )
        with theirs:  # Popen marks our end as closed on exec, so its end of file is the driver's end
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                pass_fds=[descriptor],
                start_new_session=True,  # Ctrl-C in the terminal is the driver's alone
                env={**os.environ, **ONE_THREAD, **NO_ARROW_THREAD},
            )

    def fork(self, environment: Mapping[str, str]) -> WorkerProcess:
        """A new worker, with `environment` on top of the driver's.

        Raises:
            CurateError: it cannot be started.
        """
        why = ""
        for _ in range(MAX_FAILED_STARTS):
            worker = self._try_fork(environment)
            if worker is not None:
                return worker
            with self._lock:
                if self._closed:
                    raise CurateError("the engine is closed")
                why = _tail(self._output.fileno())
        raise CurateError(f"worker processes cannot be started: {why or 'no reason is known'}")

    def _try_fork(self, environment: Mapping[str, str]) -> WorkerProcess | None:
        """None if there is no host, or it died over it."""
        output = tempfile.TemporaryFile()  # noqa: SIM115  (handed on)
        fcntl.fcntl(output, fcntl.F_SETFL, os.O_APPEND)  # so that it can be emptied while the worker holds it
        ours, theirs = socket.socketpair()
        status, their_status = os.pipe()
        try:
            sent = self._order(0, 0, environment, [theirs.fileno(), their_status, output.fileno()])
        finally:
            theirs.close()
            os.close(their_status)
        process = _read_status(status) if sent else None
        if process is not None and process > 0:
            return WorkerProcess(self, process, ours, status, output)
        ours.close()
        output.close()
        os.close(status)
        if process is not None:
            raise CurateError(f"a worker process cannot be started: {os.strerror(-process)}")
        return None

    def kill(self, process: int, number: int = signal.SIGKILL) -> None:
        """Send a signal to a worker; does nothing if it has ended."""
        self._order(process, number, {}, [])

    def _order(self, process: int, number: int, environment: Mapping[str, str], descriptors: list[int]) -> bool:
        text = json.dumps(dict(environment)).encode()
        with self._lock:
            if self._closed:
                return False
            try:
                socket.send_fds(self._control, [ORDER.pack(process, number, len(text)) + text], descriptors)
            except ConnectionError:  # it was killed, and its workers with it
                self._end()
                self._start()
                return False
        return True

    def close(self) -> None:
        """Kill all workers, with whatever they started, and end."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._end()
                self._output.close()

    def _end(self) -> None:
        assert self._process is not None
        self._control.close()  # the host sees that, kills its children and exits
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class WorkerProcess:
    """One worker. Not thread-safe: it belongs to the thread that gives it calls."""

    def __init__(
        self, host: WorkerHost, process: int, connection: socket.socket, status: int, output: IO[bytes]
    ) -> None:
        self.process = process
        self._host, self._connection, self._status, self._output = host, connection, status, output
        self._chatty = False

    def run(self, message: bytes, timeout_s: float = 0.0) -> bytearray:
        """Send a call and wait for its answer; `timeout_s` 0 waits for ever.

        Raises:
            WorkerLost: it died, or hung and was killed; the worker can only be ended now.
        """
        deadline = time.monotonic() + timeout_s if timeout_s else None
        try:
            if os.fstat(self._output.fileno()).st_size:
                os.ftruncate(self._output.fileno(), 0)  # what it said in earlier calls explains nothing now
            self._connection.settimeout(timeout_s or None)
            send(self._connection, message)
            return receive(self._connection, deadline)
        except TimeoutError:
            self._host.kill(self.process, STACKS)
            time.sleep(STACKS_S)
            self._kill()
            how = f"it ran longer than {timeout_s:g} s"
        except (EOFError, ConnectionError):
            how = self._how_it_ended()
        raise WorkerLost(how, _tail(self._output.fileno()))

    def is_alive(self) -> bool:
        """Whether it waits for a call; a worker that died while it was idle has cost nobody anything."""
        self._connection.setblocking(False)
        try:
            self._connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        return False

    def end(self) -> None:
        """Let it go: it ends when it is done with what it does."""
        self._connection.close()
        self._output.close()
        os.close(self._status)

    def abandon(self) -> None:
        """Make a `run` in another thread end now, even if the process cannot be killed (a dead network disk)."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _kill(self) -> None:
        self._host.kill(self.process)
        with contextlib.suppress(TimeoutError):  # then not even the kernel can end it now
            _read_status(self._status, END_S)

    def _how_it_ended(self) -> str:
        try:
            status = _read_status(self._status, END_S)
        except TimeoutError:  # it lives, but closed all its files, say
            self._kill()
            return "its worker broke off the connection"
        if status is None:
            return "the process that started its worker was killed"
        code = os.waitstatus_to_exitcode(status)
        if code >= 0:
            return f"its worker exited with code {code}"
        names = {s.value: s.name for s in signal.Signals}
        by = names.get(-code, f"signal {-code}")
        return f"its worker was killed by {by}" + (" (did memory run out?)" if -code == signal.SIGKILL else "")


def _read_status(pipe: int, timeout_s: float | None = None) -> int | None:
    """The next number on a status pipe; None when its writer, the host, is gone. Raises `TimeoutError`."""
    readable = select.poll()  # `select` takes no descriptor above 1023
    readable.register(pipe, select.POLLIN)
    if not readable.poll(None if timeout_s is None else 1000 * timeout_s):
        raise TimeoutError
    data = os.read(pipe, STATUS.size)
    return STATUS.unpack(data)[0] if len(data) == STATUS.size else None


def _tail(descriptor: int) -> str:
    """The last lines of an output file."""
    size = os.fstat(descriptor).st_size
    text = os.pread(descriptor, OUTPUT_BYTES, max(0, size - OUTPUT_BYTES)).decode(errors="replace")
    return (text.partition("\n")[2] if size > OUTPUT_BYTES else text).strip()
