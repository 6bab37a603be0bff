"""What `Batch` moves about: jobs, and the sites where they wait."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from .address import Target
from .attempt import Attempt, Outcome
from .pacing import Host
from .request import Request

if TYPE_CHECKING:
    from .exchange import Exchange


class Job:
    """One distinct URL and how far it has come; or, with an `origin`, one site's robots.txt."""

    __slots__ = (
        *("asking", "attempt", "attempts", "begun", "deadline", "granted", "handle", "last", "left", "origin"),
        *("parked", "places", "request", "requests", "site", "spent", "started", "steps", "target"),
    )

    def __init__(self, target: Target, origin: str = "") -> None:
        self.target = target
        self.origin = origin
        self.places: list[tuple[int, str]] = []  # (index, url as given)
        self.attempts = self.requests = 0
        self.spent = 0.0  # seconds of attempts and of waits between them so far
        self.granted = self.left = self.deadline = self.started = 0.0  # of this attempt
        self.attempt: Attempt | None = None
        self.steps: Generator[Any, Any, Outcome]
        self.begun = False  # an attempt is under way
        self.request: Request | None = None  # to be sent when there is a place
        self.handle: Exchange | None = None  # while it is in flight
        self.site: Site | None = None  # where it holds a place
        self.asking: str | None = None  # the name that it waits for, in flight
        self.parked = False  # waits outside for a name or robots.txt
        self.last: Outcome | None = None  # of the attempt before


class Site:
    """A host and the jobs that wait for it."""

    __slots__ = ("alarm", "hops", "host", "queue")

    def __init__(self, host: Host) -> None:
        self.host = host
        self.hops: deque[Job] = deque()  # in flight, or robots.txt: first in line
        self.queue: deque[Job] = deque()
        self.alarm = math.inf  # when it is looked at again
