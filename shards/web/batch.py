"""The loop behind `Fetcher.fetch`: which URLs may start, which are in flight, what they wait for.

A job is one distinct URL. It waits outside for its name and for its host (`Host.delay`), takes one of ``concurrency``
places when it has a request to send, and one of its host's places for each request, redirects included: a job that a
redirect leads to another host waits for that host in front of those who come from outside, its clock stopped. It never
holds a place at one host while it waits for another, so nothing can wait in a circle.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from .address import Target, UrlError, check_url
from .attempt import Attempt, Outcome, RobotsOf, retry_after
from .coding import CodingError, decode
from .job import Job, Site
from .pacing import Host
from .request import Answer, Request
from .resolver import Resolved
from .robots import MAX_BYTES, MAX_REDIRECTS, Robots
from .robots_answer import rules

if TYPE_CHECKING:
    from .fetch import Fetched, Fetcher

_AHEAD = 256  # jobs outside that may wait for names and robots.txt
_GOLDEN = 0.6180339887498949  # its multiples spread over 0-1 without repeating
_LONGEST_IDLE = 60.0
_AT_A_TIME = 8  # results between two looks at the sockets: after a decode their code and data are cold
_NEGLECT = 0.03  # seconds without such a look after which no further result is given out first
_ABSENCE = 1.0  # seconds that a caller may take between two results before deadlines are moved
_DOWN = "down"  # a job's outcome when its host is not to be asked; the detail is the host's last failure
_CONNECTION = frozenset({"refused", "timeout"})  # failures that speak against the host


class Batch:
    """The jobs of one `Fetcher.fetch`."""

    def __init__(self, fetcher: Fetcher, urls: Iterable[str | None]) -> None:
        self.fetcher = fetcher
        self.options = o = fetcher.options
        self.robots_options = o.model_copy(
            update={"respect": [], "max_redirects": MAX_REDIRECTS, "max_bytes": MAX_BYTES}
        )
        self.budget = o.budget()
        self.transfers = fetcher.transfers
        self.resolver = fetcher.resolver
        self.sites: dict[str, Site] = {}
        self.stirred: deque[Site] = deque()  # where something changed
        self.running: set[Job] = set()
        self.parked = 0
        self.asking: dict[str, list[Job]] = {}  # by name
        self.reading: dict[str, list[Job]] = {}  # by site: jobs that wait for its robots.txt
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.serial = itertools.count()
        self.ready: deque[tuple[Job, Outcome]] = deque()
        self.bad: deque[tuple[int, str, UrlError]] = deque()
        jobs: dict[tuple[str, str], Job] = {}
        for index, url in enumerate(urls):
            try:
                target = check_url(url)
            except UrlError as error:
                self.bad.append((index, url or "", error))
                continue
            key = target.url, target.credentials
            job = jobs.get(key)
            if job is None:
                job = jobs[key] = Job(target)
            job.places.append((index, url or ""))
        self.startable: deque[Job] = deque(jobs.values())
        self.open = len(jobs)

    def run(self) -> Iterator[Fetched]:
        try:
            while self.open or self.ready or self.bad:
                self._start()
                self._pump()
                looked = time.monotonic()
                for _ in range(_AT_A_TIME):
                    for fetched in self._report():
                        before = time.monotonic()
                        yield fetched
                        self._forgive(time.monotonic() - before)
                    if not self.ready or time.monotonic() - looked > _NEGLECT:
                        break
        finally:
            for job in self.running:
                self._leave(job)
                if job.handle is not None:
                    self.transfers.release(job.handle)
            for _, outcome in self.ready:
                if outcome.body is not None:
                    outcome.body.drop()

    def _report(self) -> Iterator[Fetched]:
        """The next result, for every row that asked for it; a body is decoded only now."""
        from .fetch import Fetched

        if self.ready:
            job, outcome = self.ready.popleft()
            body, error, detail = None, outcome.error, outcome.detail
            if outcome.body is not None:
                try:
                    body = decode(outcome.body.take(), list(outcome.codings), self.options.max_bytes)
                except CodingError as failure:
                    error, detail = failure.code, failure.detail
                if body == b"":
                    body, error = None, "empty"
            final_url = job.attempt.final_url if job.attempt is not None else job.target.url
            for i, (index, url) in enumerate(job.places):
                yield Fetched(index, url, body, error, detail, final_url, 0 if i else job.requests)
        elif self.bad:
            index, url, failure = self.bad.popleft()
            yield Fetched(index, url, None, failure.code, failure.detail, "", 0)

    def _forgive(self, away: float) -> None:
        """Nobody read the sockets while the caller was away: that is not the servers' fault."""
        if away > _ABSENCE:
            for job in self.running:
                job.deadline += away
                if job.site is not None and job.handle is not None:
                    job.handle.extend(away)

    # --- starting

    def _start(self) -> None:
        while True:
            while self.stirred:
                self._admit(self.stirred.popleft())
            if not self.startable or self._is_full() or self.parked >= _AHEAD:
                return
            self._try(self.startable.popleft())

    def _is_full(self) -> bool:
        return len(self.running) + len(self.ready) >= self.options.concurrency

    def _site(self, authority: str) -> Site:
        site = self.sites.get(authority)
        if site is None:
            host = self.fetcher.hosts.get(authority)
            if host is None:
                host = self.fetcher.hosts[authority] = Host(self.options)
            site = self.sites[authority] = Site(host)
        return site

    def _try(self, job: Job) -> None:
        """Start an attempt, unless its host is not to be asked now; or send the request of one that has begun."""
        if job.request is not None:
            self._seek(job)
            return
        waiting = self._waiting(job.target)
        if waiting is not None and not job.origin:
            waiting.append(job)
        elif self._may_go(job, self._site(job.target.authority)):
            job.begun = True
            job.attempts += 1
            job.granted = job.left = min(self.options.timeout, self.budget - job.spent)
            options = self.robots_options if job.origin else self.options
            job.attempt = Attempt(job.target, options, self.fetcher.connect_to, whole=not job.origin)
            job.steps = job.attempt.steps()
            self._advance(job, None)

    def _waiting(self, target: Target) -> list[Job] | None:
        """Those who wait already for what this URL needs first: one job at a time finds out about a host."""
        waiting = self.asking.get(target.host) if self.asking else None
        if waiting is None and self.reading:
            waiting = self.reading.get(_origin(target))
        return waiting

    def _may_go(self, job: Job, site: Site) -> bool:
        """Whether a request may go to the site now; otherwise the job is queued there, or ends because it is down."""
        now = time.monotonic()
        delay = site.host.delay(now)
        if delay == 0.0:
            return True
        if delay is None:
            self._refuse(job, site)
        else:
            (site.hops if job.handle is not None or job.origin else site.queue).append(job)
            self._watch(site, now + delay)
        return False

    def _refuse(self, job: Job, site: Site) -> None:
        """End a job, because its host is down."""
        if job.request is None:
            self._over(job, Outcome(_DOWN, site.host.last))
        else:
            job.request = None
            self._advance(job, Answer(error=_DOWN, detail=site.host.last))

    def _watch(self, site: Site, when: float) -> None:
        if when < site.alarm:
            site.alarm = when
            self._at(when, functools.partial(self._ring, site))

    def _ring(self, site: Site) -> None:
        site.alarm = math.inf
        self.stirred.append(site)

    def _admit(self, site: Site) -> None:
        """Let as many of those who wait for the site go as may."""
        while site.hops or site.queue:
            now = time.monotonic()
            delay = site.host.delay(now)
            if delay is None:
                self._refuse((site.hops or site.queue).popleft(), site)
            elif delay > 0.0:
                self._watch(site, now + delay)
                return
            elif site.hops:
                self._try(site.hops.popleft())
            elif site.host.tries:  # from all over the queue: neighbours may be silent for the same reason
                place = int(len(site.queue) * (site.host.tries * _GOLDEN % 1))
                self.startable.appendleft(site.queue[place])
                del site.queue[place]
                return
            else:
                count = min(site.host.free(now), len(site.queue))
                self.startable.extendleft(reversed([site.queue.popleft() for _ in range(count)]))
                return

    def _seek(self, job: Job) -> None:
        """Send the job's request if there is a place for it, in all and at its host."""
        assert job.request is not None
        assert job.attempt is not None
        if job.handle is None and not job.origin and self._is_full():
            self.startable.appendleft(job)
            return
        site = self._site(job.request.target.authority)
        if not self._may_go(job, site):
            return
        now = time.monotonic()
        if job.handle is None:
            self.running.add(job)
            job.handle = self.transfers.handle()
        request, job.request = job.request, None
        site.host.enter(now)
        job.site, job.started, job.deadline = site, now, now + job.left
        job.attempt.requests += 1
        self.transfers.start(job.handle, request, job.left, job)
        if site.queue or site.hops:
            self.stirred.append(site)

    # --- what happens

    def _pump(self) -> None:
        """Let things happen: bytes arrive, names resolve, timers fire. Blocks only when there is nothing to yield."""
        now = time.monotonic()
        idle = min(self.timers[0][0] - now, _LONGEST_IDLE) if self.timers else _LONGEST_IDLE
        if self.asking:
            idle = min(idle, 0.2)  # to see names that hang
        if self.ready or self.bad or self.stirred or not self.open:
            idle = 0.0
        for job, answer in self.transfers.wait(idle):
            self._answered(job, answer)
        if self.asking:
            for name, resolved in self.resolver.answers():
                for job in self.asking.pop(name, ()):
                    self._wake(job, resolved)
        now = time.monotonic()
        while self.timers and self.timers[0][0] <= now:
            heapq.heappop(self.timers)[2]()

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.timers, (when, next(self.serial), act))

    def _answered(self, job: Job, answer: Answer) -> None:
        now = time.monotonic()
        site = job.site
        assert site is not None
        host = site.host
        job.left = max(0.0, job.deadline - now)
        self._leave(job)
        if answer.status in (429, 503):
            code = f"http_{answer.status}"
            host.complained(code, retry_after(answer.header("retry-after")), job.started, now)
        elif answer.error in _CONNECTION or (answer.error == "incomplete_read" and not answer.status):
            host.failed(answer.error or "", job.started, now)
        elif answer.error != "address_denied":
            host.answered(job.started)
            if answer.body is not None:
                host.gave()
        self._advance(job, answer)

    def _leave(self, job: Job) -> None:
        if job.site is not None:
            job.site.host.leave()
            self.stirred.append(job.site)
            job.site = None

    def _advance(self, job: Job, value: Answer | Resolved | Robots | Outcome | None) -> None:
        """Go on with the job's attempt until it waits for something or is over."""
        while True:
            try:
                wanted = job.steps.send(value)
            except StopIteration as stop:
                self._over(job, stop.value)
                return
            if isinstance(wanted, Request):
                job.request = wanted
                self._seek(job)
                return
            value = self._robots(wanted.target, job) if isinstance(wanted, RobotsOf) else self._address(wanted, job)
            if value is None:
                return

    def _park(self, job: Job) -> None:
        if job.handle is None:
            job.parked = True
            self.parked += 1

    def _wake(self, job: Job, value: Resolved | Robots | Outcome) -> None:
        if not job.begun:
            self.startable.append(job)
            return
        if job.parked:
            job.parked = False
            self.parked -= 1
        if job.asking is not None:
            job.asking = None
            job.left = max(0.0, job.deadline - time.monotonic())
        self._advance(job, value)

    def _address(self, target: Target, job: Job) -> Resolved | None:
        """The addresses of a name; None: they are asked for, and the job waits."""
        known = self.resolver.known(target.host, target.port)
        if known is None:
            self.asking.setdefault(target.host, []).append(job)
            self._park(job)
            if job.handle is not None:  # in flight, so its clock runs
                job.asking, job.deadline = target.host, time.monotonic() + job.left
                self._at(job.deadline, functools.partial(self._unanswered, job, target.host))
        return known

    def _unanswered(self, job: Job, name: str) -> None:
        if job.asking == name and time.monotonic() >= job.deadline:
            self.asking[name].remove(job)
            self._wake(job, Resolved(error="no answer in time", heals=True))

    def _robots(self, target: Target, job: Job) -> Robots | Outcome | None:
        """The rules of a site; None: they are being fetched, and the job waits."""
        origin = _origin(target)
        known = self.fetcher.robots.get(origin)
        if known is None:
            self._park(job)
            waiting = self.reading.get(origin)
            if waiting is not None:
                waiting.append(job)
            else:
                self.reading[origin] = [job]
                self._try(Job(check_url("/robots.txt", target), origin))
        return known

    # --- the end of an attempt

    def _over(self, job: Job, outcome: Outcome) -> None:
        """The attempt ended: free its place, then try again later or report."""
        now = time.monotonic()
        job.begun = False
        site = self._site(job.target.authority)
        if job.handle is not None:
            self.running.discard(job)
            self.transfers.release(job.handle)
            job.handle = None
            job.spent += job.granted - job.left
        elif outcome.error == "dns" and outcome.heals:
            site.host.failed("dns", now, now)
        self.stirred.append(site)
        if job.attempt is not None:
            job.requests += job.attempt.requests
            job.attempt.requests = 0
        if outcome.error == _DOWN:  # fails as its host did: which of the host's URLs were tried is a matter of timing
            outcome = job.last or Outcome(outcome.detail)
        elif outcome.heals and job.attempts <= self.options.retries and outcome.wait <= self.options.max_wait:
            wait = self._backoff(job)
            job.spent += wait
            if job.spent < self.budget:
                job.last = outcome
                again = functools.partial(self._try, job) if job.origin else functools.partial(self._again, job)
                self._at(now + wait, again)
                return
        if job.origin:
            self._robots_known(job, rules(outcome))
        else:
            self.open -= 1
            self.ready.append((job, outcome))

    def _again(self, job: Job) -> None:
        self.startable.appendleft(job)

    def _robots_known(self, job: Job, known: Robots | Outcome) -> None:
        self.fetcher.robots[job.origin] = known
        if isinstance(known, Robots) and known.delay:
            self._site(job.target.authority).host.slow_to(known.delay)
        for waiting in self.reading.pop(job.origin):
            self._wake(waiting, known)

    def _backoff(self, job: Job) -> float:
        """Seconds before the next attempt: doubling, times 0.5-1.5 by a hash so that retries spread."""
        digest = hashlib.blake2b(f"{job.attempts} {job.target.url}".encode(), digest_size=4).digest()
        return self.options.backoff * 2 ** (job.attempts - 1) * (0.5 + int.from_bytes(digest, "little") / 2**32)


def _origin(target: Target) -> str:
    return f"{target.scheme}://{target.authority}"
