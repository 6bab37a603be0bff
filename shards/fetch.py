"""Fetching a pool's images: every URL gets exactly one outcome, by its deadline, whatever the web does.

`Fetcher.fetch` keeps many requests in flight in one thread and yields outcomes as they come, so that the caller
decodes one image while the next ones arrive. What one attempt at a URL does is in `attempt`; here are the limits around
it: so many at once, so many per host, so much time, and retries with growing waits for failures that can heal.

A URL's attempts and waits together take at most ``timeout x (retries + 1)`` seconds, its turn in the queue not counted.
Price: a body is held whole, so the worst case is ``concurrency x max_bytes`` of memory; and a server that is silent
costs its URLs ``timeout x (retries + 1)`` seconds each, ``per_host`` at a time.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from .. import __version__
from ..registry import Options
from .address import Target, UrlError, check_url
from .attempt import ROBOT, Attempt, Outcome
from .request import Answer, Request
from .resolver import Resolve, Resolved, Resolver, system_resolve

if TYPE_CHECKING:
    from .transfer import _Handle

_RESOLVER_THREADS = 16


class FetchOptions(Options):
    """How images are fetched from the web."""

    timeout: float = Field(default=10.0, gt=0, description="Seconds for one attempt at a URL, over all its redirects.")
    connect_timeout: float = Field(
        default=5.0, gt=0, description="Seconds for one connection to be made, TLS included."
    )
    retries: int = Field(default=2, ge=0, le=10, description="Further attempts after a failure that can heal.")
    backoff: float = Field(
        default=0.5, ge=0, description="Seconds before the first retry; doubled before each further one."
    )
    concurrency: int = Field(default=64, ge=1, le=1024, description="Requests in flight in one worker.")
    per_host: int = Field(default=16, ge=1, description="Requests in flight to one host and port in one worker.")
    max_bytes: int = Field(default=20_000_000, ge=1, description="Largest body accepted, in bytes, after decoding.")
    max_redirects: int = Field(default=5, ge=0, description="Redirects followed for one URL.")
    allow_private: bool = Field(default=False, description="Also fetch from loopback and private addresses.")
    respect: list[Literal["x-robots-tag", "tdm-reservation"]] = Field(
        default_factory=lambda: ["x-robots-tag"], description="Response headers that are obeyed as opt-outs."
    )
    user_agent: str | None = Field(
        default=None, pattern=r"^[\x20-\x7e]+$", description="User agent; by default our own name and version."
    )
    contact: str = Field(
        default="", pattern=r"^[\x20-\x7e]*$", description="URL or address added to the default user agent."
    )

    def agent(self) -> str:
        """The ``User-Agent`` header."""
        about = f"dataset curation; {self.contact}" if self.contact else "dataset curation"
        return self.user_agent or f"{ROBOT}/{__version__} ({about})"


@dataclass(frozen=True)
class Fetched:
    """The outcome for one URL.

    Attributes:
        index: its position among the URLs given.
        url: as it was given.
        body: the bytes, decoded from any content coding; None after an error.
        error: None, or a stable code: ``bad_url``, ``scheme_denied``, ``address_denied``, ``dns``, ``refused``,
            ``timeout``, ``tls``, ``bad_response``, ``incomplete_read``, ``too_large``, ``too_many_redirects``,
            ``empty``, ``opted_out`` or ``http_<status>``.
        detail: more about the error, the same on every run; may be empty.
        final_url: where the redirects led, in canonical form.
        requests: HTTP requests made; 0 for the second and later occurrences of a URL.
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
        self.transfers = Transfers(o.concurrency, o.connect_timeout, o.max_bytes, o.agent(), o.allow_private)
        self.resolver = Resolver(resolve, _RESOLVER_THREADS, self.transfers.wake)

    def fetch(self, urls: Iterable[str | None]) -> Iterator[Fetched]:
        """Yield one `Fetched` per URL, in the order in which they are done. Never raises for what a URL does.

        URLs that are the same in canonical form are requested once. At most ``concurrency`` bodies are held: while
        the caller is busy, what is in flight goes on arriving, but nothing new is started.
        """
        return _Batch(self, urls).run()

    def close(self) -> None:
        """Close all connections."""
        self.resolver.close()
        self.transfers.close()

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Job:
    """One distinct URL and how far it has come."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.places: list[tuple[int, str]] = []  # (index, url as given)
        self.attempts = 0
        self.requests = 0
        self.spent = 0.0  # seconds in attempts and waits so far; time in the queue does not count
        self.started = 0.0
        self.handle: _Handle | None = None
        self.attempt: Attempt
        self.steps: Generator[Request | Target, Any, Outcome]
        self.asking: str | None = None  # the name it waits for


class _Batch:
    """The jobs of one `Fetcher.fetch`: which may start, which are in flight, what they wait for."""

    def __init__(self, fetcher: Fetcher, urls: Iterable[str | None]) -> None:
        self.options = fetcher.options
        self.budget = self.options.timeout * (self.options.retries + 1)  # seconds for one URL
        self.connect_to = fetcher.connect_to
        self.transfers = fetcher.transfers
        self.resolver = fetcher.resolver
        self.ready: deque[Fetched] = deque()
        self.running: set[_Job] = set()
        self.at_host: dict[str, int] = {}
        self.blocked: dict[str, deque[_Job]] = {}  # by host: jobs that wait for a free place there
        self.asking: dict[str, list[_Job]] = {}  # by name: jobs that wait for its addresses
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.serial = itertools.count()
        self.startable: deque[_Job] = deque()
        jobs: dict[tuple[str, str], _Job] = {}
        for index, url in enumerate(urls):
            try:
                target = check_url(url)
            except UrlError as error:
                self.ready.append(Fetched(index, url or "", None, error.code, error.detail, "", 0))
                continue
            job = jobs.setdefault((target.url, target.credentials), _Job(target))
            job.places.append((index, url or ""))
        self.startable.extend(jobs.values())
        self.open = len(jobs)

    def run(self) -> Iterator[Fetched]:
        try:
            while self.open or self.ready:
                self._start()
                self._pump()
                if self.ready:
                    yield self.ready.popleft()
        finally:
            for job in self.running:
                if job.handle is not None:
                    self.transfers.release(job.handle)

    def _start(self) -> None:
        while self.startable and len(self.running) + len(self.ready) < self.options.concurrency:
            job = self.startable.popleft()
            host = job.target.authority
            if self.at_host.get(host, 0) >= self.options.per_host:
                self.blocked.setdefault(host, deque()).append(job)
                continue
            job.attempts += 1
            job.started = time.monotonic()
            deadline = job.started + min(self.options.timeout, self.budget - job.spent)
            job.attempt = Attempt(job.target, self.options, self.connect_to, deadline)
            job.steps = job.attempt.steps()
            job.handle = self.transfers.handle()
            self.at_host[host] = self.at_host.get(host, 0) + 1
            self.running.add(job)
            self._step(job, None)

    def _pump(self) -> None:
        """Let things happen: bytes arrive, names resolve, timers fire. Blocks only when there is nothing to yield."""
        now = time.monotonic()
        idle = min(self.timers[0][0] - now, 60.0) if self.timers else 60.0
        for job, answer in self.transfers.wait(0.0 if self.ready or not self.open else idle):
            self._step(job, answer)
        for host, resolved in self.resolver.answers():
            for job in self.asking.pop(host, []):
                job.asking = None
                self._step(job, resolved)
        now = time.monotonic()
        while self.timers and self.timers[0][0] <= now:
            heapq.heappop(self.timers)[2]()

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (when, next(self.serial), act))

    def _step(self, job: _Job, value: Answer | Resolved | None) -> None:
        """Go on with the job's attempt until it waits for something or is over."""
        while True:
            try:
                wanted = job.steps.send(value)
            except StopIteration as stop:
                self._over(job, stop.value)
                return
            if isinstance(wanted, Request):
                assert job.handle is not None
                self.transfers.start(job.handle, wanted, job)
                return
            value = self.resolver.known(wanted.host, wanted.port)
            if value is None:
                job.asking = wanted.host
                self.asking.setdefault(wanted.host, []).append(job)
                self._at(job.attempt.deadline, functools.partial(self._unanswered, job, wanted.host))
                return

    def _unanswered(self, job: _Job, host: str) -> None:
        if job.asking == host and job in self.running and time.monotonic() >= job.attempt.deadline:
            job.asking = None
            self.asking[host].remove(job)
            self._step(job, Resolved(error="no answer in time", heals=True))

    def _over(self, job: _Job, outcome: Outcome) -> None:
        """The attempt ended: free its place, then try again later or report."""
        now = time.monotonic()
        job.spent += now - job.started
        job.requests += job.attempt.requests
        self.running.discard(job)
        if job.handle is not None:
            self.transfers.release(job.handle)
            job.handle = None
        host = job.target.authority
        self.at_host[host] -= 1
        if self.blocked.get(host):
            self.startable.appendleft(self.blocked[host].popleft())
        if outcome.heals and job.attempts <= self.options.retries:
            wait = max(outcome.wait, self._backoff(job))
            job.spent += wait
            if job.spent < self.budget:
                self._at(now + wait, lambda: self.startable.appendleft(job))
                return
        self.open -= 1
        for i, (index, url) in enumerate(job.places):
            requests = 0 if i else job.requests
            final_url = job.attempt.final_url
            self.ready.append(Fetched(index, url, outcome.body, outcome.error, outcome.detail, final_url, requests))

    def _backoff(self, job: _Job) -> float:
        """Seconds before the next attempt: doubling, times 0.5-1.5 by a hash so that retries spread."""
        digest = hashlib.blake2b(f"{job.attempts} {job.target.url}".encode(), digest_size=4).digest()
        return self.options.backoff * 2 ** (job.attempts - 1) * (0.5 + int.from_bytes(digest, "little") / 2**32)
