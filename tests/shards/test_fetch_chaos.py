"""Random webs of hosts that redirect to each other, complain, die, hang and forbid: every row ends."""

import random
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from curate.shards.web.fetch import ERRORS, Fetcher, FetchOptions

HOSTS = [f"h{i}.example" for i in range(8)]
DEAD, NAMELESS, SILENT = "dead.example", "nameless.example", "silent.example"


def site(respond: Callable[..., bytes], seed: int) -> Callable[[Any], Any]:
    """What any URL does: by its text and how often it was asked, never by time."""
    asked: dict[str, int] = {}

    def route(seen: Any) -> Any:
        where = seen.host + seen.path
        asked[where] = asked.get(where, 0) + 1
        dice = random.Random(f"{seed} {where} {asked[where]}")
        if seen.host == SILENT:
            return [9.0]
        if seen.path == "/robots.txt":
            return dice.choice(
                [[respond(404)], [respond(200, b"User-agent: *\nDisallow: /1")], [respond(500)], [0.05, None]]
            )
        kind = dice.random()
        if kind < 0.4:
            return [dice.random() * 0.02, respond(200, b"x" * dice.randrange(1, 40_000))]
        if kind < 0.65:
            to = dice.choice([*HOSTS, DEAD, NAMELESS, SILENT])
            return [respond(302, b"", ("Location", f"http://{to}/{dice.randrange(40)}"))]
        if kind < 0.75:
            return [respond(dice.choice([429, 503]), b"", ("Retry-After", dice.choice(["0", "1", "9999", "x"])))]
        if kind < 0.8:
            return [respond(500)]
        if kind < 0.85:
            return [None]
        if kind < 0.87:
            return [9.0]
        return [respond(404)]

    return route


@pytest.mark.parametrize("seed", range(2))
def test_every_row_ends(web, respond, seed: int) -> None:
    dice = random.Random(seed)
    route = site(respond, seed)
    for path in ["/robots.txt", *(f"/{i}" for i in range(40))]:
        web[path] = route
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = taken.getsockname()[1]
    connect_to = web.hosts(*HOSTS, SILENT) | {f"{DEAD}:80": f"127.0.0.1:{nobody}"}

    def resolve(name: str, port: int) -> list[str]:
        time.sleep(0.01)
        raise socket.gaierror(socket.EAI_AGAIN, "x")

    urls = [f"http://{dice.choice([*HOSTS, DEAD, NAMELESS])}/{dice.randrange(40)}" for _ in range(400)]
    options = FetchOptions(
        timeout=0.3,
        retries=dice.randrange(3),
        backoff=0.02,
        concurrency=dice.choice([1, 3, 16]) if seed else 2,
        per_host=dice.choice([1, 2, 8]) if seed else 1,
        per_host_rate=dice.choice([0, 300]),
        max_wait=0.5,
        host_patience=0.4,
        max_bytes_in_flight=50_000,
        respect=["robots.txt", "x-robots-tag"] if seed % 2 else [],
    )
    started = time.monotonic()
    with Fetcher(options, connect_to, resolve) as fetcher:
        found = list(fetcher.fetch(urls))
        assert fetcher.room.used == 0
        assert all(host.running == 0 for host in fetcher.hosts.values())
    assert time.monotonic() - started < 40
    assert sorted(f.index for f in found) == list(range(len(urls)))
    for fetched in found:
        assert fetched.error is None or fetched.error in ERRORS or fetched.error.startswith("http_")
        assert (fetched.body is None) == (fetched.error is not None)
