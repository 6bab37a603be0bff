"""One HTTP request and what came of it: what the fetcher and the wire say to each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .address import Target
from .body import Body

Headers = list[tuple[str, str]]
"""``(lower-case name, value)`` in order of arrival; only names in `WANTED`."""

Verdict = Literal["read", "skip", "stop"]
"""What to do with a body: keep it, read past it (to keep the connection), or close the connection now."""

WANTED = frozenset({"location", "content-length", "content-encoding", "retry-after", "x-robots-tag", "tdm-reservation"})
"""The headers that the fetcher reads; no others are kept."""


@dataclass
class Request:
    """One request: where to, and which addresses may be connected to.

    Attributes:
        target: what is asked for.
        addresses: vetted addresses of the host; empty when the host is an address itself or `connect_to` is set.
        connect_to: ``host:port`` to connect to instead, exempt from the address policy; or None.
        fresh: the first request of a chain of redirects, which starts without cookies.
        judge: called once with status and headers, before any of the body.
        max_bytes: most bytes of a body.
        whole: whether a longer body is an error; otherwise its start is enough.
        anew: over a new connection, whatever is open.
    """

    target: Target
    addresses: Sequence[str]
    connect_to: str | None
    fresh: bool
    judge: Callable[[int, Headers], Verdict]
    max_bytes: int
    whole: bool = True
    anew: bool = False


@dataclass
class Answer:
    """What came of a request: an `error` code with `detail`, or `status`, `headers` and the body if it was wanted.

    Attributes:
        stale: nothing came, over a connection that had served before: the server had closed it, and never saw the
            request.
    """

    status: int = 0
    headers: Headers = field(default_factory=list)
    body: Body | None = None
    error: str | None = None
    detail: str = ""
    stale: bool = False

    def header(self, name: str) -> str | None:
        """First value of a header, by lower-case name."""
        return next((value for key, value in self.headers if key == name), None)
