"""One attempt at one URL, redirects included: vet the address, send, look at the answer, follow, vet again.

`Attempt.steps` is a generator, so the rules stand in one straight line while hundreds of attempts are in flight: it
yields what it waits for (a `Target` whose name is to be resolved, a `RobotsOf` a site, a `Request`) and is sent what
came of it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from .address import Target, UrlError, check_url, is_local_name, is_public
from .body import Body
from .coding import CodingError, codings
from .options import ROBOT, FetchOptions
from .optout import refusal, reserved
from .request import Answer, Headers, Request, Verdict
from .resolver import Resolved
from .robots import Robots

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEALING = frozenset({"timeout", "refused", "incomplete_read", "http_408", "http_425", "http_429"})


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended.

    Attributes:
        error: None, or one of the codes that `Fetched` lists.
        body: the bytes as they were sent, after `codings`; None after an error.
        heals: another attempt may go better.
        wait: seconds that the server asked for.
    """

    error: str | None = None
    detail: str = ""
    body: Body | None = None
    codings: tuple[str, ...] = ()
    heals: bool = False
    wait: float = 0.0


@dataclass(frozen=True)
class RobotsOf:
    """Asks for robots.txt of the site that `target` belongs to; answered with `Robots`, or an `Outcome` without any."""

    target: Target


class Attempt:
    """One attempt at `target`.

    Args:
        whole: whether a body longer than ``max_bytes`` is an error; otherwise its start is enough.

    Attributes:
        requests: HTTP requests made so far.
        final_url: where the redirects have led, in canonical form.
    """

    def __init__(
        self, target: Target, options: FetchOptions, connect_to: Mapping[str, str], whole: bool = True
    ) -> None:
        self.target = target
        self.options = options
        self.connect_to = connect_to
        self.whole = whole
        self.requests = 0
        self.final_url = target.url

    def steps(self) -> Generator[Target | RobotsOf | Request, Any, Outcome]:
        """Yields a `Target` and is sent a `Resolved`; a `RobotsOf`: see there; a `Request`: its `Answer`."""
        options, target = self.options, self.target
        robots_txt = "robots.txt" in options.respect
        for hop in range(options.max_redirects + 1):
            self.final_url = target.url
            addresses: tuple[str, ...] = ()
            connect_to = self.connect_to.get(target.authority) if self.connect_to else None
            if connect_to is None:
                if target.address is None and not self._is_local(target):
                    resolved: Resolved = yield target
                    if resolved.error:
                        return Outcome("dns", resolved.error, heals=resolved.heals)
                    addresses = resolved.addresses
                if not self._may_connect(target, addresses):
                    return Outcome("address_denied", target.host)
            if robots_txt:
                robots: Robots | Outcome = yield RobotsOf(target)
                if isinstance(robots, Outcome):
                    return robots
                if not robots.allows(path_of(target)):
                    return Outcome("opted_out", "robots.txt")
            judge = _Judge(options, self.whole)
            request = Request(target, addresses, connect_to, hop == 0, judge, options.max_bytes, self.whole)
            answer: Answer = yield request
            if answer.stale:
                answer = yield replace(request, anew=True)
            if answer.error or judge.refused:
                error, detail = judge.refused or (answer.error, answer.detail)
                return Outcome(error, detail, heals=error in _HEALING)
            location = answer.header("location")
            if answer.status not in _REDIRECTS or not location:
                return _judged(answer, judge.codings)
            try:
                target = check_url(location, target)
            except UrlError as error:
                return Outcome(error.code, f"redirect: {error.detail}")
        return Outcome("too_many_redirects", f"more than {options.max_redirects}")

    def _is_local(self, target: Target) -> bool:
        return not self.options.allow_private and is_local_name(target.host)

    def _may_connect(self, target: Target, addresses: tuple[str, ...]) -> bool:
        """Whether every address passes; a name with one private address among public ones is an attack or a mistake."""
        if self._is_local(target):
            return False
        vetted = addresses if target.address is None else (target.address,)
        return all(is_public(address, self.options.allow_private) for address in vetted)


def path_of(target: Target) -> str:
    """Path and query of a canonical URL."""
    return "/" + target.url.split("/", 3)[3]


class _Judge:
    """Decides from status and headers what to do with a body, and remembers why it was refused."""

    def __init__(self, options: FetchOptions, whole: bool) -> None:
        self._options = options
        self._whole = whole
        self.refused: tuple[str, str] | None = None
        self.codings: tuple[str, ...] = ()

    def __call__(self, status: int, headers: Headers) -> Verdict:
        if headers:
            self.refused = self._opted_out(headers)
            if self.refused:
                return "stop"
        if status not in (200, 203):
            return "skip"
        coding = ",".join(value for name, value in headers if name == "content-encoding")
        if coding:
            try:
                self.codings = tuple(codings(coding))
            except CodingError as error:
                self.refused = error.code, error.detail
                return "stop"
        declared = max((_number(value) for name, value in headers if name == "content-length"), default=0)
        if declared > self._options.max_bytes and self._whole:
            self.refused = "too_large", f"more than {self._options.max_bytes} bytes"
            return "stop"
        return "read"

    def _opted_out(self, headers: Headers) -> tuple[str, str] | None:
        respect = self._options.respect
        if "x-robots-tag" in respect:
            values = [value for name, value in headers if name == "x-robots-tag"]
            directive = refusal(values, ROBOT) if values else None
            if directive:
                return "opted_out", directive
        if "tdm-reservation" in respect and reserved([value for name, value in headers if name == "tdm-reservation"]):
            return "opted_out", "tdm-reservation"
        return None


def _judged(answer: Answer, coded: tuple[str, ...]) -> Outcome:
    """The outcome of a complete response that is not a redirect."""
    if answer.status == 204 or (answer.body is not None and not answer.body.size):
        return Outcome("empty")
    if answer.body is not None:
        return Outcome(body=answer.body, codings=coded)
    code = f"http_{answer.status}"
    heals = code in _HEALING or 500 <= answer.status <= 599
    return Outcome(code, heals=heals, wait=retry_after(answer.header("retry-after")) if heals else 0.0)


def _number(value: str) -> int:
    """A header's non-negative integer, however long; 0 when it is none."""
    digits = value.strip().lstrip("0")[:18]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def retry_after(value: str | None) -> float:
    """Seconds that a ``Retry-After`` header (a number or a date) asks for; 0 when there is none or it is unreadable."""
    if not value or _number(value):
        return float(_number(value or ""))
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
