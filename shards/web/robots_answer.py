"""What the answer to a request for robots.txt means for its site (RFC 9309 section 2.3.1)."""

from __future__ import annotations

from .attempt import Outcome
from .coding import CodingError, decode
from .options import ROBOT
from .robots import MAX_BYTES, Robots, parse_robots

_NONE = frozenset({"empty", "too_many_redirects"})
_PASSED_ON = frozenset({"dns", "refused", "timeout", "incomplete_read", "tls", "address_denied"})
"""Failures that an image there would meet as well: they are told as they are."""


def rules(outcome: Outcome) -> Robots | Outcome:
    """The site's rules for us: a file that does not exist (4xx) forbids nothing, one that cannot be had forbids all.

    The latter is an `Outcome` with an error, for now: another run may have more luck. 429 is no absence.
    """
    error, detail = outcome.error or "", outcome.detail
    if outcome.body is not None:
        try:
            return parse_robots(decode(outcome.body.take(), list(outcome.codings), MAX_BYTES), ROBOT)
        except CodingError as failure:
            error = failure.code
    if error in _NONE or (error.startswith("http_4") and error != "http_429"):
        return Robots([])
    if error in _PASSED_ON:
        return Outcome(error, f"robots.txt: {detail}" if detail else "robots.txt")
    return Outcome("robots_unreachable", error)
