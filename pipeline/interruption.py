"""A run is stopped from outside: signals are heard, running parts asked to save and stop, and given time for it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import CurateError, Interrupted
from .stop import StopSign, new_token

SECOND_SIGNAL_S = 0.5  # signals closer together than this are one


class Interruption:
    """Whether a run is to end.

    Args:
        grace_s: how long running calls that save their state may take for it.
        say: shows people a line.

    Attributes:
        by_signal: number of the signal that ends the run; 0: none has come.
    """

    def __init__(self, grace_s: float, say: Callable[[str], None]) -> None:
        self._grace, self._say = grace_s, say
        self._asked = threading.Event()
        self._until = 0.0  # when the grace time ends, of `time.monotonic`
        self.by_signal = 0
        self._token = new_token()
        self._signs: set[StopSign] = set()  # of the stages that run; with the lock held
        self._signs_lock = threading.Lock()

    def asked(self) -> bool:
        """Whether the run is to end."""
        return self._asked.is_set()

    def check(self) -> None:
        """Raise in a stage's thread once the run is to end."""
        if self.asked():
            raise Interrupted("interrupted; run the same command again to go on")

    def grace_left(self) -> float:
        """Seconds that running calls still have to save their state."""
        return self._until - time.monotonic()

    def sign(self, artifact_path: str) -> StopSign:
        """This run's sign for the parts of the artifact at `artifact_path`."""
        return StopSign.of(artifact_path, self._token)

    @contextmanager
    def watching(self, sign: StopSign) -> Iterator[None]:
        """Parts that look at a sign run in this block."""
        with self._signs_lock:
            self._signs.add(sign)
        try:
            yield
        finally:
            with self._signs_lock:
                self._signs.discard(sign)
                sign.take_down()

    def put_up_signs(self) -> None:
        """Ask the running parts of all stages to save and stop."""
        with self._signs_lock:
            for sign in self._signs:
                try:
                    sign.put_up()
                except (OSError, CurateError) as error:  # it ends all the same, without what it has not saved
                    self._say(f"cannot ask parts to stop: {error}")

    @contextmanager
    def signals(self) -> Iterator[Callable[[], None]]:
        """First Ctrl-C or SIGTERM: stop cleanly; a second one: without the grace time for what saves its state.

        Only in the main thread; elsewhere the caller's handlers stay.

        Yields a function that takes the signals back from a library which has put a handler of its own before ours
        (Ray's core prints a stack trace, and aborts a process that needs more than three seconds to end).
        """
        if threading.current_thread() is not threading.main_thread():
            yield lambda: None
            return

        first: list[float] = []

        def stop(number: int, _frame: Any) -> None:
            signal.alarm(0)  # the one that such a handler sets
            self.by_signal = number
            now = time.monotonic()
            if not self.asked():
                first.append(now)
                self._until = now + self._grace
                self._asked.set()
                self._say("stopping; finished parts are kept")
            elif now - first[0] > SECOND_SIGNAL_S:
                self._until = now

        def keep_handlers() -> None:
            for number in before:
                signal.signal(number, stop)

        before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield keep_handlers
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
