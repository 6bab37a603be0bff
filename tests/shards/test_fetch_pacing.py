"""Dead, dying and complaining hosts: `Host` by itself with a made-up clock, then real servers."""

import itertools
import socket
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.shards.web.fetch import Fetched, Fetcher, FetchOptions
from curate.shards.web.pacing import SUSPECT, Host
from curate.shards.web.resolver import Resolver

# --- one host, with a clock of our own


def test_places_halve_and_come_back_slowly() -> None:
    host = Host(FetchOptions(per_host=8, backoff=1.0))
    assert host.free(0.0) == 8
    host.complained("http_429", 0.0, started=0.0, now=1.0)
    host.complained("http_429", 0.0, started=0.5, now=1.1)  # of the same crowd
    assert (host.free(1.5), host.delay(1.5)) == (0, pytest.approx(0.5))
    assert host.free(2.0) == 4
    for _ in range(4):
        host.answered(3.0)
    assert host.free(2.0) == 4
    host.answered(3.0)
    assert host.free(2.0) == 5
    for _ in range(100):
        host.answered(3.0)
    assert host.free(2.0) == 8


def test_pauses_are_what_is_asked_for_up_to_the_limit() -> None:
    host = Host(FetchOptions(max_wait=60, backoff=0.5))
    host.complained("http_429", 7.0, 0.0, 1.0)
    assert host.delay(1.0) == 7.0
    host.complained("http_503", 3600.0, 2.0, 3.0)
    assert host.delay(3.0) is None  # 7 + 55 seconds are more than 60 in all
    host = Host(FetchOptions(max_wait=60, backoff=0.5))
    host.complained("http_503", 3600.0, 0.0, 1.0)
    assert host.delay(1.0) == 60.0
    for _ in range(60):
        host.gave()
    host.complained("http_503", 3600.0, 62.0, 63.0)
    assert host.delay(63.0) == 60.0


def test_a_host_is_suspected_then_tried_then_down_and_may_come_back() -> None:
    o = FetchOptions(host_patience=10, backoff=0.5, per_host=16)
    host = Host(o)
    for _ in range(SUSPECT - 1):
        host.failed("refused", 0.0, 0.0)
    assert host.delay(0.0) == 0.0
    host.failed("refused", 0.0, 0.0)
    assert (host.delay(0.0), host.delay(0.5), host.free(0.5)) == (0.5, 0.0, 1)
    host.enter(0.5)
    assert host.delay(0.6) == float("inf")  # one try at a time
    host.leave()
    host.failed("refused", 0.5, 0.5)
    assert host.delay(0.5) == 1.0
    host.failed("timeout", 9.0, 10.1)
    assert (host.delay(10.1), host.last) == (None, "timeout")
    assert host.delay(20.2) == 0.0  # one more try
    host.failed("refused", 20.2, 20.2)
    assert host.delay(20.3) is None
    host.answered(20.3)
    assert host.free(20.4) == 16


@given(st.lists(st.sampled_from(["fail", "ok", "image", "busy", "asked"]), max_size=60), st.floats(0, 5))
def test_a_host_always_lets_something_through_or_says_that_it_is_down(events: list[str], step: float) -> None:
    o = FetchOptions(max_wait=20, host_patience=5, per_host=4)
    host, now = Host(o), 0.0
    for event in events:
        now += step
        if event == "fail":
            host.failed("refused", now, now)
        elif event in ("busy", "asked"):
            host.complained("http_429", 99.0 if event == "asked" else 0.0, now, now)
        else:
            host.answered(now)
            if event == "image":
                host.gave()
        delay = host.delay(now)
        assert delay is None or 0 <= delay <= o.max_wait + 1e-6
        if delay is not None:
            assert host.free(now + delay + 1e-6) >= 1 or delay == 0


# --- servers


def fetch(urls: list[str], connect_to: dict[str, str] | None = None, resolve: Any = None, **options: Any):
    quick = {"backoff": 0.05, "timeout": 2.0, **options}
    extra = {"resolve": resolve} if resolve else {}
    with Fetcher(FetchOptions(**quick), connect_to, **extra) as fetcher:
        found: list[Fetched] = list(fetcher.fetch(urls))
    assert sorted(f.index for f in found) == list(range(len(urls)))
    return sorted(found, key=lambda f: f.index)


@pytest.fixture
def nobody():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return port


def test_a_dead_host_fails_whole_and_the_others_do_not_wait(web, nobody, respond) -> None:
    urls = []
    for i in range(300):
        web[f"/{i}"] = respond(200, b"x")
        urls += [f"http://dead.example/{i}", f"http://a.example/{i}"]
    connect_to = {"dead.example:80": f"127.0.0.1:{nobody}", **web.hosts("a.example")}
    started = time.monotonic()
    found = fetch(urls, connect_to, host_patience=1.0)
    assert time.monotonic() - started < 5
    dead, alive = found[::2], found[1::2]
    assert all(f.body == b"x" for f in alive)
    assert {(f.error, f.detail) for f in dead} == {("refused", "")}  # tried or not
    assert sum(f.requests == 0 for f in dead) > 250
    assert sum(f.requests for f in dead) < 50


def test_a_silent_host_does_not_cost_each_of_its_urls_a_timeout(web) -> None:
    for i in range(200):
        web[f"/{i}"] = [30.0]
    started = time.monotonic()
    urls = [f"http://a.example/{i}" for i in range(200)]
    found = fetch(urls, web.hosts("a.example"), timeout=0.4, retries=2, host_patience=1.0)
    assert time.monotonic() - started < 5
    assert {f.error for f in found} == {"timeout"}
    assert len(web.seen) < 40


def test_a_host_that_comes_back_loses_nothing(web, make_web, respond) -> None:
    """Dead at first; after a second somebody listens there again, and only those who tried have lost anything."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    came = []

    def come_back() -> None:
        server = socket.create_server(("127.0.0.1", port), backlog=64)
        came.append(server)
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            connection.recv(65_536)
            connection.sendall(respond(200, b"back", ("Connection", "close")))
            connection.close()

    timer = threading.Timer(1.0, come_back)
    timer.daemon = True
    timer.start()
    try:
        urls = [f"http://a.example/{i}" for i in range(100)]
        found = fetch(urls, {"a.example:80": f"127.0.0.1:{port}"}, host_patience=20.0, retries=3, backoff=0.1)
    finally:
        timer.cancel()
        for server in came:
            server.shutdown(socket.SHUT_RDWR)
            server.close()
    assert [f.body for f in found] == [b"back"] * 100


def test_a_down_host_is_tried_again_by_a_later_fetch(web, nobody, respond) -> None:
    web["/x"] = respond(200, b"x")
    options = FetchOptions(host_patience=0.2, retries=0, backoff=0.01, timeout=2.0)
    connect_to = {"a.example:80": f"127.0.0.1:{nobody}"}
    with Fetcher(options, connect_to) as fetcher:
        urls = [f"http://a.example/x?{i}" for i in range(40)]
        assert 0 in {f.requests for f in fetcher.fetch(urls)}
        fetcher.connect_to.update(web.hosts("a.example"))
        untried = next(fetcher.fetch(["http://a.example/x"]))
        assert (untried.error, untried.requests) == ("refused", 0)
        time.sleep(1.1)
        assert next(fetcher.fetch(["http://a.example/x"])).body == b"x"


def test_a_redirect_to_a_dead_host_is_its_failure(web, nobody, respond) -> None:
    for i in range(60):
        web[f"/{i}"] = respond(302, b"", ("Location", f"http://dead.example/{i}"))
        web[f"/ok{i}"] = respond(200, b"x")
    connect_to = {"dead.example:80": f"127.0.0.1:{nobody}", **web.hosts("a.example")}
    urls = [f"http://a.example/{kind}{i}" for i in range(60) for kind in ("", "ok")]
    found = fetch(urls, connect_to, host_patience=0.5, concurrency=16)
    assert {f.error for f in found[::2]} == {"refused"}
    assert [f.body for f in found[1::2]] == [b"x"] * 60
    assert found[-2].final_url == "http://dead.example/59"


def test_a_pause_is_the_hosts_and_not_the_urls(web, make_web, respond) -> None:
    """After a 429 nobody asks that host until Retry-After has passed; another host goes on."""
    other = make_web()
    turns = iter([respond(429, b"", ("Retry-After", "1"))])
    for i in range(30):
        web[f"/{i}"] = lambda seen: [0.02, next(turns, respond(200, b"x"))]
        other[f"/{i}"] = lambda seen: [0.02, respond(200, b"x")]
    urls = [f"http://{host}.example/{i}" for i in range(30) for host in "ab"]
    where = web.hosts("a.example") | other.hosts("b.example")
    found = fetch(urls, where, per_host=4, concurrency=8)
    assert all(f.body == b"x" for f in found)
    times = sorted(seen.at for seen in web.seen)
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert max(gaps) > 0.9
    before = gaps.index(max(gaps)) + 1
    assert before <= 2 * 4
    assert max(seen.at for seen in other.seen) - times[0] < 0.9


def test_after_a_429_fewer_at_once(web, respond) -> None:
    running, most, told = [], [], []

    def route(seen):
        running.append(1)
        most.append(len(running))
        yield 0.05
        running.pop()
        if told:
            yield respond(200, b"x")
        else:
            told.append(len(most))
            yield respond(429)

    for i in range(40):
        web[f"/{i}"] = route
    found = fetch([f"http://a.example/{i}" for i in range(40)], web.hosts("a.example"), per_host=8)
    assert all(f.body for f in found)
    assert max(most) == 8
    again = most.index(1, 8)  # the first one after the pause
    assert max(most[again : again + 8]) <= 6


def test_a_host_that_only_complains_ends(web, respond) -> None:
    for i in range(100):
        web[f"/{i}"] = respond(503, b"", ("Retry-After", "1"))
    started = time.monotonic()
    found = fetch([f"http://a.example/{i}" for i in range(100)], web.hosts("a.example"), max_wait=1.5)
    assert time.monotonic() - started < 6
    assert {f.error for f in found} == {"http_503"}
    assert len(web.seen) < 40


def test_a_rate_per_host(web, respond) -> None:
    for i in range(10):
        web[f"/{i}"] = respond(200, b"x")
    urls = [f"http://{host}.example/{i}" for i in range(10) for host in "ab"]
    started = time.monotonic()
    found = fetch(urls, web.hosts("a.example", "b.example"), per_host_rate=20)
    spent = time.monotonic() - started
    assert all(f.body for f in found)
    assert 0.42 < spent < 0.9  # nine pauses of 50 ms, both hosts at once
    for host in "ab":
        times = [seen.at for seen in web.seen if seen.host == f"{host}.example"]
        assert all(b - a > 0.03 for a, b in itertools.pairwise(times))


def test_a_long_absence_of_the_caller_is_not_the_servers_fault(web, respond) -> None:
    for i in range(8):
        web[f"/{i}"] = [0.2, respond(200, b"x" * 1000)]
    web["/first"] = respond(200, b"x")
    urls = ["http://a.example/first", *(f"http://a.example/{i}" for i in range(8))]
    with Fetcher(FetchOptions(timeout=1.0, retries=0), web.hosts("a.example")) as fetcher:
        found = []
        for fetched in fetcher.fetch(urls):
            found.append(fetched.error)
            if len(found) == 1:
                time.sleep(1.6)
    assert found == [None] * 9


# --- names


def test_names_that_hang_do_not_hold_up_the_others(web, respond) -> None:
    release = threading.Event()

    def resolve(name: str, port: int) -> list[str]:
        if name.startswith("hung"):
            release.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "x")
        time.sleep(0.02)
        return ["127.0.0.1"]

    web["/x"] = respond(200, b"x")
    hung = [f"http://hung{i}.example:{web.port}/{j}" for i in range(100) for j in range(3)]
    good = [f"http://good{i}.example:{web.port}/x" for i in range(100)]
    started = time.monotonic()
    options = FetchOptions(timeout=1.0, retries=1, backoff=0.05, allow_private=True, concurrency=16)
    try:
        with Fetcher(options, resolve=resolve) as fetcher:
            done = {}
            for fetched in fetcher.fetch(hung + good):
                done[fetched.index] = (fetched.error, time.monotonic() - started)
    finally:
        release.set()
    assert [done[i][0] for i in range(300)] == ["dns"] * 300
    assert [done[i][0] for i in range(300, 400)] == [None] * 100
    assert max(done[i][1] for i in range(300, 400)) < 4
    assert time.monotonic() - started < 8


def test_a_slow_resolver_is_asked_for_many_names_at_once(web, respond) -> None:
    def resolve(name: str, port: int) -> list[str]:
        time.sleep(0.2)
        return ["127.0.0.1"]

    web["/x"] = respond(200, b"x")
    started = time.monotonic()
    urls = [f"http://h{i}.example:{web.port}/x" for i in range(200)]
    found = fetch(urls, resolve=resolve, allow_private=True, concurrency=8)
    assert all(f.body for f in found)
    assert time.monotonic() - started < 4  # one after another: 40 s; eight at once: 5 s


def test_a_name_given_up_is_known_again_when_its_answer_comes() -> None:
    go, woken = threading.Event(), threading.Event()

    def resolve(name: str, port: int) -> list[str]:
        go.wait(10)
        return ["192.0.2.1"]

    resolver = Resolver(resolve, 0.1, woken.set)
    assert resolver.known("h", 80) is None
    time.sleep(0.2)
    [(name, answer)] = resolver.answers()
    assert (name, answer.addresses, answer.heals) == ("h", (), True)
    assert resolver.known("h", 80) == answer
    go.set()
    assert woken.wait(5)
    assert resolver.answers()[0][1].addresses == ("192.0.2.1",)
    assert resolver.known("h", 80).addresses == ("192.0.2.1",)  # type: ignore[union-attr]
    resolver.close()
