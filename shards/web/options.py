"""How images are fetched: the options, in a file of their own so that the fetcher's parts need not know each other."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ... import __version__
from ...registry import Options

ROBOT = "curate"
"""Our product token: the name under which robots.txt and X-Robots-Tag may address us."""

Respected = Literal["x-robots-tag", "tdm-reservation", "robots.txt"]


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
    per_host_rate: float = Field(
        default=0.0, ge=0, description="Most requests per second to one host and port in one worker; 0 = no limit."
    )
    max_wait: float = Field(
        default=60.0,
        ge=0,
        description="Seconds a host that answers 429 or 503 may have its URLs wait: longest single pause, and all "
        "pauses together before it counts as down; each image that arrives earns one second back.",
    )
    host_patience: float = Field(
        default=5.0,
        ge=0,
        description="Seconds of nothing but failed connections after which a host counts as down, and its other URLs "
        "fail untried; a shard may have to wait that long for a dead host.",
    )
    max_bytes: int = Field(default=20_000_000, ge=1, description="Largest body accepted, in bytes, after decoding.")
    max_bytes_in_flight: int = Field(
        default=64_000_000,
        ge=0,
        description="Bytes of bodies held in memory by one worker; what exceeds it goes through temporary files.",
    )
    max_redirects: int = Field(default=5, ge=0, description="Redirects followed for one URL.")
    allow_private: bool = Field(default=False, description="Also fetch from loopback and private addresses.")
    respect: list[Respected] = Field(
        default_factory=lambda: ["x-robots-tag"],
        description="Opt-outs that are obeyed: response headers, and robots.txt (one more request per host).",
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

    def budget(self) -> float:
        """Seconds for one URL: its attempts and the waits between them."""
        return self.timeout * (self.retries + 1)
