"""Names -> addresses in threads, each name asked once.

The system's resolver blocks and cannot be told to stop, so it runs in threads, many, because it mostly waits. Answers
(and failures that will not heal) are kept for the life of the resolver, which is one shard: with a pool of URLs most
names come back hundreds of times. A name without an answer after `patience` seconds is given up for those who wait, and
for those who ask again until the system's resolver returns; its thread is written off and another may take its place,
so names that hang cost the others nothing.

Price: at most `MOST_THREADS` names can hang at once; beyond that the next ones wait for a thread.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

THREADS = 64  # names asked at once
MOST_THREADS = 512  # with those that hang

Resolve = Callable[[str, int], list[str]]
"""``(host, port) -> addresses``; raises `OSError`. The injectable part."""


@dataclass(frozen=True)
class Resolved:
    """Addresses of a name, or why there are none; `heals` says whether asking again may help."""

    addresses: tuple[str, ...] = ()
    error: str = ""
    heals: bool = False


_GIVEN_UP = Resolved(error="no answer in time", heals=True)


def system_resolve(host: str, port: int) -> list[str]:
    """All IPv4 and IPv6 addresses that the system's resolver gives, in its order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


class Resolver:
    """Asks for names in threads; `wake` is called, from such a thread, when an answer is ready.

    Args:
        patience: seconds for one name, from when a thread takes it up.
    """

    def __init__(self, resolve: Resolve, patience: float, wake: Callable[[], None], threads: int = THREADS) -> None:
        self._resolve = resolve
        self._patience = patience
        self._wake = wake
        self._width = threads
        self._threads = 0
        self._known: dict[str, Resolved] = {}
        self._asked: set[str] = set()
        self._hung: set[str] = set()
        self._begun: dict[str, float] = {}  # by name, in order of time; written by the threads
        self._names: queue.SimpleQueue[tuple[str, int] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[str, Resolved]] = queue.SimpleQueue()

    def known(self, host: str, port: int) -> Resolved | None:
        """The answer if it is known; otherwise None, and the name is being asked for."""
        if host in self._known:
            return self._known[host]
        if host in self._hung:
            return _GIVEN_UP
        if host not in self._asked:
            self._asked.add(host)
            self._names.put((host, port))
            self._hire()
        return None

    def answers(self) -> list[tuple[str, Resolved]]:
        """Names answered, or given up, since the last call."""
        found = []
        while not self._answers.empty():
            host, answer = self._answers.get_nowait()
            self._asked.discard(host)
            self._begun.pop(host, None)
            self._hung.discard(host)
            if not answer.heals:
                self._known[host] = answer
            found.append((host, answer))
        late = time.monotonic() - self._patience
        for host, begun in list(self._begun.items()) if self._begun else ():
            if begun > late:
                break
            if host not in self._hung:
                self._hung.add(host)
                found.append((host, _GIVEN_UP))
                self._hire()
        return found

    def close(self) -> None:
        """Ask no more; threads end when the names they hold are answered."""
        for _ in range(self._threads):
            self._names.put(None)

    def _hire(self) -> None:
        """Start a thread if names outnumber the threads that do not hang."""
        hung = len(self._hung)
        if self._threads - hung < min(self._width, len(self._asked) - hung) and self._threads < MOST_THREADS:
            self._threads += 1
            threading.Thread(target=self._work, name="resolver", daemon=True).start()

    def _work(self) -> None:
        while (asked := self._names.get()) is not None:
            host, port = asked
            self._begun[host] = time.monotonic()
            self._answers.put((host, self._ask(host, port)))
            self._wake()

    def _ask(self, host: str, port: int) -> Resolved:
        try:
            addresses = tuple(self._resolve(host, port))
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                return Resolved(error="no answer", heals=True)
            return Resolved(error="no such name")
        except (OSError, UnicodeError) as error:
            return Resolved(error=type(error).__name__)
        return Resolved(addresses) if addresses else Resolved(error="no address")
