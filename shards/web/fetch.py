"""Fetching a pool's images: every URL gets exactly one outcome, by its deadline, whatever the web does.

`Fetcher.fetch` keeps many requests in flight in one thread and yields outcomes as they come, so that the caller
decodes one image while the next ones arrive. Five lines of mental model:

- an `Attempt` is one try at one URL with its redirects; it knows the rules (addresses, opt-outs, sizes) and no time;
- `Transfers` sends one request and brings one answer; it knows libcurl and no rules;
- a `Host` says when one more request may go to a host and port: places, pauses, rate, and whether it is dead;
- a `Resolver` turns names into addresses in threads; a name that hangs costs the others nothing;
- a `Batch` is the loop that moves jobs between them, with deadlines and retries.

A URL's attempts and the waits between them take at most ``timeout x (retries + 1)`` seconds. Its turn in the queue does
not count: finding its host's address, waiting for a free place, or for a pause that its host asked for; the last is
bounded per host (``max_wait``, ``host_patience``). Memory: ``max_bytes_in_flight``, plus one body while it is decoded.

Price: a server that is silent now and then, but not always, costs each of its silent URLs ``timeout x (retries + 1)``
seconds, ``per_host`` at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from .attempt import Outcome
from .body import Room
from .options import FetchOptions
from .pacing import Host
from .resolver import Resolve, Resolver, system_resolve
from .robots import Robots

__all__ = ["ERRORS", "FetchOptions", "Fetched", "Fetcher"]

ERRORS = {
    "bad_url": "not a web address: empty, a control character, no host, a bad port or host name, or too long",
    "scheme_denied": "neither http nor https, also as the target of a redirect",
    "address_denied": "the host is, or resolves to, an address that is not public; nothing was sent to it",
    "dns": "the host's name has no address, or no answer came in time",
    "refused": "nobody listens there, or the network has no way there",
    "timeout": "not finished within the deadline: no connection, a silent server or a slow one",
    "tls": "no trusted encrypted connection: certificate, host name, or no TLS at all",
    "bad_response": "not HTTP, headers beyond all measure, or a body that is not in the coding it claims",
    "incomplete_read": "the connection ended before the body, or before any answer",
    "unknown_coding": "a content coding other than gzip, deflate, br and zstd",
    "too_large": "more than ``max_bytes`` bytes, declared, sent or decoded",
    "too_many_redirects": "more than ``max_redirects``",
    "empty": "a good answer without a byte",
    "opted_out": "the server asks not to use it; the detail is the directive, ``tdm-reservation`` or ``robots.txt``",
    "robots_unreachable": "robots.txt is respected and could not be read; the detail says why",
    "http_<status>": "the answer's status, when it is not 200 or 203",
}
"""Every `Fetched.error` and what it means. Codes are stable: rows are counted, explained and retried by them.

URLs of a host that counts as down are not tried any more and fail as it did (``refused``, ``timeout``, ``http_429``),
with no request: which of a dead host's URLs were tried is chance, and must not be seen in a result.
"""


@dataclass(frozen=True)
class Fetched:
    """The outcome for one URL.

    Attributes:
        index: its position among the URLs given.
        url: as it was given.
        body: the bytes, decoded from any content coding; None after an error.
        error: None, or one of the codes in `ERRORS`.
        detail: more about the error, the same on every run; may be empty. Never holds a user name or password.
        final_url: where the redirects led, in canonical form, without user name and password.
        requests: HTTP requests made for it; 0 for the second and later occurrences of a URL. Those for robots.txt are
            not counted.
    """

    index: int
    url: str
    body: bytes | None
    error: str | None
    detail: str
    final_url: str
    requests: int


class Fetcher:
    """Fetches URLs with one set of connections; use as a context manager, one `fetch` at a time.

    Names, TLS sessions, robots.txt files and what is known of hosts are kept for its life.

    Args:
        connect_to: ``"host:port" -> "address:port"`` overrides; these hosts alone are exempt from the address policy.
        resolve: how names become addresses (for tests, or a resolver of one's own).
    """

    def __init__(
        self,
        options: FetchOptions | None = None,
        connect_to: Mapping[str, str] | None = None,
        resolve: Resolve = system_resolve,
    ) -> None:
        from .transfer import Transfers

        self.options = o = options or FetchOptions()
        self.connect_to = dict(connect_to or {})
        self.room = Room(o.max_bytes_in_flight)
        self.transfers = Transfers(o.concurrency, o.connect_timeout, self.room, o.agent(), o.allow_private)
        self.resolver = Resolver(resolve, o.timeout, self.transfers.wake)
        self.hosts: dict[str, Host] = {}
        self.robots: dict[str, Robots | Outcome] = {}

    def fetch(self, urls: Iterable[str | None]) -> Iterator[Fetched]:
        """Yield one `Fetched` per URL, in the order in which they are done. Never raises for what a URL does.

        URLs that are the same in canonical form are requested once. At most ``concurrency`` bodies are held: while
        the caller is busy, what is in flight goes on arriving, but nothing new is started. Time that the caller takes
        for itself, beyond a second at a time, is added to the deadlines.

        Raises:
            CurateError: this machine cannot go on: no room for temporary files, or no more open files.
        """
        from .batch import Batch

        return Batch(self, urls).run()

    def close(self) -> None:
        """Close all connections."""
        self.resolver.close()
        self.transfers.close()

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
