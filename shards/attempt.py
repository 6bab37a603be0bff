"""One attempt at one URL, redirects included: vet the address, send, look at the answer, follow, vet again.

`Attempt.steps` is a generator, so the rules stand in one straight line while hundreds of attempts are in flight: it
yields what it waits for (a `Request`, or a `Target` whose name is to be resolved) and is sent what came of it.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from .address import Target, UrlError, check_url, is_local_name, is_public
from .optout import refusal
from .request import Answer, Headers, Request, Verdict
from .resolver import Resolved

if TYPE_CHECKING:
    from .fetch import FetchOptions

ROBOT = "curate"  # the name under which X-Robots-Tag may address us
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEALING = frozenset({"timeout", "refused", "incomplete_read", "http_408", "http_425", "http_429"})


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended; `heals`: another one may go better; `wait`: what the server asked for, in seconds."""

    error: str | None = None
    detail: str = ""
    body: bytes | None = None
    heals: bool = False
    wait: float = 0.0


class Attempt:
    """One attempt at `target`, given up at `deadline` (seconds of the monotonic clock).

    Attributes:
        requests: HTTP requests made so far.
        final_url: where the redirects have led, in canonical form.
    """

    def __init__(self, target: Target, options: FetchOptions, connect_to: Mapping[str, str], deadline: float) -> None:
        self.target = target
        self.options = options
        self.connect_to = connect_to
        self.deadline = deadline
        self.requests = 0
        self.final_url = target.url

    def steps(self) -> Generator[Request | Target, Any, Outcome]:
        """Yields a `Request` and is sent its `Answer`, or a `Target` to resolve and is sent a `Resolved`."""
        target = self.target
        for hop in range(self.options.max_redirects + 1):
            self.final_url = target.url
            addresses: tuple[str, ...] = ()
            connect_to = self.connect_to.get(target.authority)
            if connect_to is None and target.address is None and not self._is_local(target):
                resolved: Resolved = yield target
                if resolved.error:
                    return Outcome("dns", resolved.error, heals=resolved.heals)
                addresses = resolved.addresses
            if connect_to is None and not self._may_connect(target, addresses):
                return Outcome("address_denied", target.host)
            seconds = self.deadline - time.monotonic()
            if seconds <= 0:
                return Outcome("timeout", heals=True)
            judge = _Judge(self.options)
            self.requests += 1
            answer: Answer = yield Request(target, addresses, connect_to, seconds, hop == 0, judge)
            if answer.error or judge.refused:
                error, detail = judge.refused or (answer.error, answer.detail)
                return Outcome(error, detail, heals=error in _HEALING)
            location = answer.header("location")
            if answer.status not in _REDIRECTS or not location:
                return _judged(answer)
            try:
                target = check_url(location, target)
            except UrlError as error:
                return Outcome(error.code, f"redirect: {error.detail}")
        return Outcome("too_many_redirects", f"more than {self.options.max_redirects}")

    def _is_local(self, target: Target) -> bool:
        return is_local_name(target.host) and not self.options.allow_private

    def _may_connect(self, target: Target, addresses: tuple[str, ...]) -> bool:
        """Whether every address passes; a name with one private address among public ones is an attack or a mistake."""
        if self._is_local(target):
            return False
        vetted = addresses if target.address is None else (target.address,)
        return all(is_public(address, self.options.allow_private) for address in vetted)


class _Judge:
    """Decides from status and headers what to do with a body, and remembers why it was refused."""

    def __init__(self, options: FetchOptions) -> None:
        self._options = options
        self.refused: tuple[str, str] | None = None

    def __call__(self, status: int, headers: Headers) -> Verdict:
        self.refused = self._opted_out(headers)
        if self.refused:
            return "stop"
        if status not in (200, 203):
            return "skip"
        declared = max((_number(value) for name, value in headers if name == "content-length"), default=0)
        if declared > self._options.max_bytes:
            self.refused = "too_large", f"more than {self._options.max_bytes} bytes"
            return "stop"
        return "read"

    def _opted_out(self, headers: Headers) -> tuple[str, str] | None:
        respect = self._options.respect
        if "x-robots-tag" in respect:
            directive = refusal([value for name, value in headers if name == "x-robots-tag"], ROBOT)
            if directive:
                return "opted_out", directive
        if "tdm-reservation" in respect and ("tdm-reservation", "1") in headers:
            return "opted_out", "tdm-reservation"
        return None


def _judged(answer: Answer) -> Outcome:
    """The outcome of a complete response that is not a redirect."""
    if answer.status == 204 or (answer.body is not None and not answer.body):
        return Outcome("empty")
    if answer.body is not None:
        return Outcome(body=answer.body)
    code = f"http_{answer.status}"
    heals = code in _HEALING or 500 <= answer.status <= 599
    return Outcome(code, heals=heals, wait=_retry_after(answer.header("retry-after")) if heals else 0.0)


def _number(value: str) -> int:
    """A header's non-negative integer, however long; 0 when it is none."""
    digits = value.strip().lstrip("0")[:18]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _retry_after(value: str | None) -> float:
    """Seconds that a ``Retry-After`` header (a number or a date) asks for; 0 when there is none or it is unreadable."""
    if not value or _number(value):
        return float(_number(value or ""))
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
