"""Names -> addresses in a few threads, each name asked once.

The system's resolver blocks, so it runs in threads; answers (and failures that will not heal) are kept for the life
of the resolver, which is one shard: with a pool of URLs most names come back hundreds of times.

Price: a name that the network's resolver does not answer holds a thread until the resolver itself gives up.
"""

from __future__ import annotations

import queue
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

Resolve = Callable[[str, int], list[str]]
"""``(host, port) -> addresses``; raises `OSError`. The injectable part."""


@dataclass(frozen=True)
class Resolved:
    """Addresses of a name, or why there are none; `heals` says whether asking again may help."""

    addresses: tuple[str, ...] = ()
    error: str = ""
    heals: bool = False


def system_resolve(host: str, port: int) -> list[str]:
    """All IPv4 and IPv6 addresses that the system's resolver gives, in its order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


class Resolver:
    """Asks for names in threads; `wake` is called, from such a thread, when an answer is ready."""

    def __init__(self, resolve: Resolve, threads: int, wake: Callable[[], None]) -> None:
        self._resolve = resolve
        self._wake = wake
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="resolver")
        self._known: dict[str, Resolved] = {}
        self._asked: set[str] = set()
        self._answers: queue.SimpleQueue[tuple[str, Resolved]] = queue.SimpleQueue()

    def known(self, host: str, port: int) -> Resolved | None:
        """The answer if it is known; otherwise None, and the name is being asked for."""
        if host in self._known:
            return self._known[host]
        if host not in self._asked:
            self._asked.add(host)
            self._pool.submit(self._ask, host, port)
        return None

    def answers(self) -> list[tuple[str, Resolved]]:
        """Names answered since the last call."""
        found = []
        while not self._answers.empty():
            host, answer = self._answers.get_nowait()
            self._asked.discard(host)
            if not answer.heals:
                self._known[host] = answer
            found.append((host, answer))
        return found

    def close(self) -> None:
        """Ask no more; threads end when the names they hold are answered."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, host: str, port: int) -> None:
        try:
            answer = Resolved(tuple(self._resolve(host, port)))
            if not answer.addresses:
                answer = Resolved(error="no address")
        except socket.gaierror as error:
            answer = Resolved(error="no answer" if error.errno == socket.EAI_AGAIN else "no such name")
            if error.errno == socket.EAI_AGAIN:
                answer = Resolved(error=answer.error, heals=True)
        except (OSError, UnicodeError) as error:
            answer = Resolved(error=type(error).__name__)
        self._answers.put((host, answer))
        self._wake()
