"""How one host (and port) is treated: so many requests at once, no faster than it likes, none while it is dead.

- **Places.** At most ``per_host`` requests at once. After a 429 or 503 half as many, then one more for each round of
  answers that went well.
- **Pauses.** After a 429 or 503 no request starts until what ``Retry-After`` asks for has passed, or a wait that
  doubles. A host has ``max_wait`` seconds of pauses to spend and earns one back with each image; beyond that it counts
  as down, so a host cannot hold a run for ever.
- **Rate.** ``per_host_rate`` or robots.txt's ``Crawl-delay`` set the time between two starts.
- **Breaker.** After `SUSPECT` failed connections in a row only one request at a time tries whether the host is back,
  with growing waits between them; after ``host_patience`` seconds of this the host is down and its URLs fail at once.
  One answer, whatever it says, and the host is as before. While it is down one more try is made every ``host_patience``
  seconds, if there are URLs left.

Pure: times come from the caller.
"""

from __future__ import annotations

from .options import FetchOptions

SUSPECT = 8  # failed connections in a row
_LONGEST_TRY = 5.0  # seconds between two tries at most


class Host:
    """What is known of one host, and how many requests it has.

    Attributes:
        running: requests now.
        last: code of the last failure, ``http_429`` for example.
    """

    def __init__(self, options: FetchOptions) -> None:
        self._options = options
        self.running = 0
        self.last = ""
        self._places = float(options.per_host)
        self._interval = 1 / options.per_host_rate if options.per_host_rate else 0.0
        self._next_start = 0.0
        self._paused_until = 0.0
        self._paused_at = -1.0
        self._throttled = 0  # pauses in a row
        self._waited = 0.0
        self._failures = 0
        self._failing_since = 0.0
        self._suspected_at = 0.0
        self._tries = 0
        self._next_try = 0.0
        self._down = False

    @property
    def tries(self) -> int:
        """How often it was tried, one request at a time, since it became suspect; 0: it is not suspect."""
        return self._tries + 1 if self._failures >= SUSPECT or self._down else 0

    def slow_to(self, interval: float) -> None:
        """Keep at least `interval` seconds between two requests from now on."""
        self._interval = max(self._interval, interval)

    def delay(self, now: float) -> float | None:
        """Seconds until one more request may start; infinity: when one of the running ones ends; None: host is down."""
        if self._failures >= SUSPECT or self._down:
            if self._down and now < self._next_try:
                return None
            return float("inf") if self.running else max(0.0, self._next_try - now)
        if self.running >= max(1, int(self._places)):
            return float("inf")
        return max(0.0, self._paused_until - now, self._next_start - now)

    def free(self, now: float) -> int:
        """How many requests may start now."""
        if self.delay(now) != 0.0:
            return 0
        if self._interval or self._failures >= SUSPECT or self._down:
            return 1
        return max(1, int(self._places)) - self.running

    def enter(self, now: float) -> None:
        """A request starts."""
        self.running += 1
        if self._interval:
            self._next_start = now + self._interval

    def leave(self) -> None:
        """A request ended."""
        self.running -= 1

    def answered(self, started: float) -> None:
        """The host answered something that is no complaint, to a request of time `started`: it is alive."""
        self._failures, self._down = 0, False
        if started <= self._paused_at:
            return  # of the crowd that it complained about
        self._throttled = 0
        if self._places < self._options.per_host:
            self._places = min(float(self._options.per_host), self._places + 1 / self._places)

    def gave(self) -> None:
        """An image arrived from it."""
        self._waited = max(0.0, self._waited - 1.0)

    def complained(self, code: str, asked: float, started: float, now: float) -> None:
        """It answered 429 or 503 to a request of time `started` and asked for `asked` seconds of peace (0: no number).

        Complaints about requests that had started before the pause are about the same crowd, and count as one.
        """
        self._failures, self._down = 0, False
        self.last = code
        until = now + min(asked, self._options.max_wait)
        if started > self._paused_at:
            self._paused_at = now
            self._throttled += 1
            self._places = max(1.0, self._places / 2)
            doubled = self._options.backoff * 2.0 ** min(self._throttled - 1, 16)
            until = max(until, now + min(doubled, self._options.max_wait))
        if until > self._paused_until:
            self._waited += until - max(now, self._paused_until)
            self._paused_until = until
        if self._waited > self._options.max_wait + 1e-6:
            self._go_down(now)

    def failed(self, code: str, started: float, now: float) -> None:
        """A connection of time `started` failed: refused, timed out, cut without an answer, or without an address."""
        if not self._failures:
            self._failing_since, self._tries = started, 0
        self._failures += 1
        self.last = code
        if self._failures == SUSPECT:
            self._suspected_at = now
        if self._failures >= SUSPECT:
            patient_until = self._failing_since + self._options.host_patience
            self._tries += started > self._suspected_at  # what was under way already is no try
            wait = min(self._options.backoff * 2.0 ** min(self._tries, 16), _LONGEST_TRY)
            self._next_try = min(now + wait, max(now, patient_until))
            if self._down or now >= patient_until:
                self._go_down(now)

    def _go_down(self, now: float) -> None:
        self._down = True
        self._next_try = now + max(self._options.host_patience, 1.0)
