import contextlib
import gzip
import itertools
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from curate.shards.web.address import check_url
from curate.shards.web.fetch import Fetched, Fetcher, FetchOptions

QUICK: dict[str, Any] = {"backoff": 0.01, "timeout": 5.0}
BODY = bytes(range(256)) * 300


def fetch(urls: list[str | None], connect_to: dict[str, str] | None = None, **options: Any) -> list[Fetched]:
    """Outcomes in the order of `urls`."""
    resolve = options.pop("resolve", None)
    extra = {"resolve": resolve} if resolve else {}
    with Fetcher(FetchOptions(**{**QUICK, **options}), connect_to, **extra) as fetcher:
        found = list(fetcher.fetch(urls))
    assert sorted(f.index for f in found) == list(range(len(urls)))
    return sorted(found, key=lambda f: f.index)


@pytest.fixture
def one(web) -> Callable[..., Fetched]:
    """Fetch one path of the host `a.example` that the test's server plays."""

    def run(path: str, **options: Any) -> Fetched:
        return fetch([f"http://a.example{path}"], web.hosts("a.example", "b.example"), **options)[0]

    return run


def test_a_body_comes_whole_and_we_say_who_we_are(web, one, respond) -> None:
    web["/x"] = respond(200, BODY, ("Content-Type", "text/plain"))
    found = one("/x", contact="https://example.org/bot")
    assert found == Fetched(0, "http://a.example/x", BODY, None, "", "http://a.example/x", 1)
    headers = web.seen[0].headers
    assert headers["user-agent"].startswith("curate/")
    assert headers["user-agent"].endswith("; https://example.org/bot)")
    assert "image/*" in headers["accept"]
    assert headers["host"] == "a.example"
    assert not {"referer", "cookie", "authorization"} & set(headers)


def test_connections_are_reused(web, respond) -> None:
    for i in range(50):
        web[f"/{i}"] = respond(200, BODY) if i % 2 else respond(404, b"gone")
    found = fetch([f"http://a.example/{i}" for i in range(50)], web.hosts("a.example"), concurrency=4)
    assert [f.error for f in found] == ["http_404", None] * 25
    assert web.connections <= 4


def test_duplicates_are_requested_once_and_every_row_is_filled(web, respond) -> None:
    web["/x"] = respond(200, b"x")
    web["/y"] = respond(404)
    urls = ["http://a.example/x", "http://a.example/y", "HTTP://A.example:80/x#top", "http://a.example/y", None]
    found = fetch(urls, web.hosts("a.example"))
    assert [f.body for f in found] == [b"x", None, b"x", None, None]
    assert [f.error for f in found] == [None, "http_404", None, "http_404", "bad_url"]
    assert [f.url for f in found[:4]] == urls[:4]
    assert web.hits == {"/x": 1, "/y": 1}
    assert sum(f.requests for f in found) == 2


# --- redirects


def test_redirects_absolute_relative_and_to_another_host(web, one, respond) -> None:
    web["/1/a"] = respond(301, b"moved", ("Location", "b c"))
    web["/1/b%20c"] = respond(302, b"", ("location", "//b.example/d"))
    web["/d"] = respond(307, b"x" * 300_000, ("Location", "http://a.example/ü?q#f"))
    web["/%C3%BC?q"] = respond(200, b"here")
    found = one("/1/a")
    assert (found.body, found.requests) == (b"here", 4)
    assert found.final_url == "http://a.example/%C3%BC?q"


def test_cookies_live_for_one_chain(web, one, respond) -> None:
    def door(seen):
        if "cookie" in seen.headers:
            yield respond(200, b"in")
        else:
            yield respond(302, b"", ("Location", "/door"), ("Set-Cookie", "key=1; Path=/"))

    web["/door"] = door
    web["/other"] = respond(200, b"other")
    with Fetcher(FetchOptions(**QUICK, concurrency=1), web.hosts("a.example")) as fetcher:
        assert next(fetcher.fetch(["http://a.example/door"])).body == b"in"
        assert next(fetcher.fetch(["http://a.example/other"])).body == b"other"
    assert "cookie" not in web.seen[-1].headers


def test_a_loop_ends_and_is_not_tried_again(web, one, respond) -> None:
    web["/a"] = respond(302, b"", ("Location", "/b"))
    web["/b"] = respond(302, b"", ("Location", "/a"))
    found = one("/a", max_redirects=5)
    assert (found.error, found.requests, len(web.seen)) == ("too_many_redirects", 6, 6)


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("file:///etc/passwd", "scheme_denied"),
        ("data:image/png;base64,AAAA", "scheme_denied"),
        ("http://127.0.0.1:{port}/secret", "address_denied"),
        ("http://0x7f.1:{port}/secret", "address_denied"),
        ("http://[::ffff:127.0.0.1]:{port}/secret", "address_denied"),
        ("http://localhost:{port}/secret", "address_denied"),
        ("http://169.254.169.254/latest/meta-data", "address_denied"),
        ("http://inside.example:{port}/secret", "address_denied"),
        ("http://h:x/", "bad_url"),
    ],
)
def test_a_redirect_is_vetted_like_any_url(web, one, respond, location: str, code: str) -> None:
    web["/secret"] = respond(200, b"secret")
    web["/x"] = respond(302, b"", ("Location", location.format(port=web.port)))
    found = one("/x", resolve=lambda host, port: ["127.0.0.1"])
    assert (found.error, found.body) == (code, None)
    assert web.hits == {"/x": 1}


def test_a_redirect_without_a_location_is_its_status(web, one, respond) -> None:
    web["/x"] = respond(302, b"image")
    assert one("/x").error == "http_302"


# --- statuses and retries


@pytest.mark.parametrize(
    ("status", "body", "error", "requests"),
    [
        (404, b"image", "http_404", 1),
        (410, b"image", "http_410", 1),
        (300, b"image", "http_300", 1),
        (206, b"image", "http_206", 1),
        (204, b"", "empty", 1),
        (200, b"", "empty", 1),
        (500, b"image", "http_500", 3),
        (503, b"", "http_503", 3),
        (429, b"", "http_429", 3),
        (999, b"no", "http_999", 1),
    ],
)
def test_statuses(web, one, respond, status: int, body: bytes, error: str, requests: int) -> None:
    web["/x"] = respond(status, body)
    found = one("/x")
    assert (found.error, found.body, found.requests) == (error, None, requests)
    assert web.hits["/x"] == requests


def in_turn(*scripts: Any) -> Callable[[Any], Any]:
    turns = iter(scripts)
    return lambda seen: next(turns)


def test_what_heals_is_tried_again(web, one, respond) -> None:
    web["/x"] = in_turn([respond(503)], [respond(200, b"x" * 9)[:-1], None], [respond(200, b"at last")])
    found = one("/x")
    assert (found.body, found.requests) == (b"at last", 3)


def test_retry_after_is_waited_for(web, one, respond) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)
    web["/seconds"] = in_turn([respond(429, b"", ("Retry-After", "1"))], [respond(200, b"ok")])
    web["/date"] = in_turn([respond(503, b"", ("Retry-After", later))], [respond(200, b"ok")])
    found = fetch([f"http://a.example/{p}" for p in ("seconds", "date")], web.hosts("a.example"))
    assert [f.body for f in found] == [b"ok", b"ok"]
    for path in ("/seconds", "/date"):
        first, second = (seen.at for seen in web.seen if seen.path == path)
        assert second - first >= 0.99


def test_retry_after_the_deadline_is_not_waited_for(web, one, respond) -> None:
    web["/x"] = respond(429, b"", ("Retry-After", "3600"))
    started = time.monotonic()
    found = one("/x")
    assert (found.error, found.requests) == ("http_429", 1)
    assert time.monotonic() - started < 2


# --- deadlines


def test_a_silent_server_and_a_dripping_one_end_by_the_deadline(web) -> None:
    web["/silent"] = [60.0]
    web["/headers"] = itertools.chain([b"HTTP/1.1 200 OK\r\n"], *([b"X-A: b\r\n", 0.1] for _ in range(100)))
    drip = [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", *([0.1, b"x"] * 100)]
    web["/drip"] = drip
    started = time.monotonic()
    urls = [f"http://a.example/{p}" for p in ("silent", "headers", "drip")]
    found = fetch(urls, web.hosts("a.example"), timeout=0.6, retries=1)
    assert [f.error for f in found] == ["timeout"] * 3
    assert [f.requests for f in found] == [2] * 3
    assert time.monotonic() - started < 0.6 * 2 + 1.0


def test_the_deadline_is_over_all_redirects(web, one, respond) -> None:
    for i in range(5):
        web[f"/{i}"] = [0.3, respond(302, b"", ("Location", f"/{i + 1}"))]
    started = time.monotonic()
    assert one("/0", timeout=0.7, retries=0).error == "timeout"
    assert time.monotonic() - started < 1.2


def test_a_hanging_host_does_not_hold_up_the_others(web, respond) -> None:
    web["/hang"] = [60.0]
    urls: list[str | None] = [f"http://a.example/hang?{i}" for i in range(20)]
    for i in range(20):
        web.routes[f"/hang?{i}"] = web.routes["/hang"]
        web[f"/good{i}"] = respond(200, b"ok")
        urls.append(f"http://b.example/good{i}")
    started = time.monotonic()
    options = FetchOptions(timeout=1.0, retries=0, concurrency=8, per_host=4)
    with Fetcher(options, web.hosts("a.example", "b.example")) as fetcher:
        found = fetcher.fetch(urls)
        assert all(next(found).body == b"ok" for _ in range(20))
        assert time.monotonic() - started < 0.9


def test_per_host_and_overall_limits(web, respond) -> None:
    running: list[int] = []
    most = 0

    def slow(seen):
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        yield 0.03
        running.pop()
        yield respond(200, b"x")

    urls: list[str | None] = []
    for i in range(24):
        web[f"/{i}"] = slow
        urls += [f"http://a.example/{i}", f"http://b.example/{i}"]
    assert all(f.body for f in fetch(urls[::2], web.hosts("a.example", "b.example"), per_host=3))
    assert most == 3
    most = 0
    assert all(f.body for f in fetch(urls, web.hosts("a.example", "b.example"), per_host=3, concurrency=4))
    assert most == 4


# --- sizes and codings


def test_an_endless_body_is_cut(web, one) -> None:
    chunk = b"x" * 65_536
    web["/x"] = lambda seen: itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(chunk, 2000))
    found = one("/x", max_bytes=1_000_000)
    assert (found.error, found.requests) == ("too_large", 1)
    assert web.sent < 20_000_000


def test_a_declared_size_is_believed(web, one) -> None:
    web["/x"] = [b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", 30.0]
    started = time.monotonic()
    assert one("/x").error == "too_large"
    assert time.monotonic() - started < 2


def test_the_limit_is_inclusive(web, one, respond) -> None:
    web["/x"] = respond(200, b"x" * 1000)
    assert one("/x", max_bytes=1000).body == b"x" * 1000
    assert one("/x", max_bytes=999).error == "too_large"


def test_a_short_body_is_incomplete(web, one) -> None:
    web["/short"] = [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", None]
    web["/chunks"] = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n", None]
    web["/nothing"] = [None]
    for path in ("/short", "/chunks", "/nothing"):
        found = one(path)
        assert (found.error, found.body, found.requests) == ("incomplete_read", None, 3)


def test_a_404_with_a_broken_body_is_a_404(web, one) -> None:
    web["/x"] = [b"HTTP/1.1 404 x\r\nContent-Length: 100\r\n\r\nshort", None]
    assert one("/x").error == "http_404"


def test_content_codings_are_decoded(web, one, respond) -> None:
    web["/gzip"] = respond(200, gzip.compress(BODY), ("Content-Encoding", "gzip"))
    web["/deflate"] = respond(200, zlib.compress(BODY), ("Content-Encoding", "deflate"))
    web["/wrong"] = respond(200, BODY, ("Content-Encoding", "gzip"))
    assert one("/gzip").body == BODY
    assert one("/deflate").body == BODY
    assert one("/wrong").error == "bad_response"


def test_a_gzip_bomb_is_cut_at_its_decoded_size(web, one, respond) -> None:
    bomb = gzip.compress(bytes(100_000_000), 9)
    assert len(bomb) < 200_000
    web["/x"] = respond(200, bomb, ("Content-Encoding", "gzip"))
    assert one("/x", max_bytes=1_000_000).error == "too_large"


@pytest.mark.parametrize(
    "response",
    [
        b"garbage\r\n\r\n",
        b"HTTP/9.9.9 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 400_000 + b"\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999999\r\n\r\nx",
    ],
)
def test_garbage_is_a_bad_response_or_too_large(web, one, response: bytes) -> None:
    web["/x"] = [response, None]
    assert one("/x").error in ("bad_response", "too_large")


def test_an_interim_response_is_passed_over(web, one, respond) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nX-Robots-Tag: noai\r\nLink: x\r\n\r\n"
    web["/x"] = [early, respond(200, b"ok")]
    assert one("/x").body == b"ok"


# --- opting out


@pytest.mark.parametrize(
    ("headers", "out"),
    [
        ([("X-Robots-Tag", "noai")], True),
        ([("x-robots-tag", "nofollow, NoImageAI")], True),
        ([("X-Robots-Tag", "nofollow"), ("X-ROBOTS-TAG", "none")], True),
        ([("X-Robots-Tag", "unavailable_after: 25 Jun 2050 15:00:00 PST, noml")], True),
        ([("X-Robots-Tag", "googlebot: noindex")], False),
        ([("X-Robots-Tag", "all")], False),
        ([("tdm-reservation", "1")], False),
    ],
)
def test_opt_out_is_obeyed_at_once(web, one, respond, headers: list[tuple[str, str]], out: bool) -> None:
    web["/x"] = respond(200, b"image", *headers)
    found = one("/x")
    assert (found.error, found.body, found.requests) == (("opted_out", None, 1) if out else (None, b"image", 1))


def test_opt_out_is_an_option_and_counts_on_any_hop(web, one, respond) -> None:
    web["/x"] = respond(302, b"", ("Location", "/y"), ("X-Robots-Tag", "noai"))
    web["/y"] = respond(200, b"image", ("tdm-reservation", "1"))
    assert (one("/x").error, one("/x").requests) == ("opted_out", 1)
    assert one("/x", respect=[]).body == b"image"
    assert one("/y", respect=["tdm-reservation"]).error == "opted_out"


def test_opting_out_needs_no_body(web, one) -> None:
    web["/x"] = [b"HTTP/1.1 200 OK\r\nX-Robots-Tag: noai\r\nContent-Length: 5\r\n\r\n", 30.0]
    started = time.monotonic()
    assert one("/x").error == "opted_out"
    assert time.monotonic() - started < 2


def test_the_body_of_an_opted_out_image_is_not_read(web, one) -> None:
    web["/x"] = lambda seen: itertools.chain(
        [b"HTTP/1.1 200 OK\r\nX-Robots-Tag: noai\r\n\r\n"], itertools.repeat(b"x" * 65_536, 1000)
    )
    assert one("/x").error == "opted_out"
    assert web.sent < 20_000_000


# --- addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "0177.1", "2130706433", "[::1]", "localhost", "a.localhost", "inside"])
def test_private_addresses_are_not_connected_to(web, respond, host: str) -> None:
    web["/x"] = respond(200, b"secret")
    url = f"http://{host}:{web.port}/x"
    found = fetch([url], resolve=lambda name, port: ["127.0.0.1"])[0]
    assert (found.error, found.requests) == ("address_denied", 0)
    assert web.connections == 0


def test_private_addresses_can_be_allowed(web, respond) -> None:
    web["/x"] = respond(200, b"intranet")
    urls = [f"http://{host}:{web.port}/x" for host in ("127.0.0.1", "inside.example")]
    found = fetch(urls, resolve=lambda name, port: ["127.0.0.1"], allow_private=True)
    assert [f.body for f in found] == [b"intranet"] * 2
    assert web.seen[-1].headers["host"] in (f"127.0.0.1:{web.port}", f"inside.example:{web.port}")


def test_one_private_answer_among_public_ones_is_enough_to_refuse(web) -> None:
    for answers in (["93.184.216.34", "127.0.0.1"], ["2606:4700::1111", "::ffff:10.0.0.1"]):
        found = fetch([f"http://mixed.example:{web.port}/"], resolve=lambda name, port, a=answers: a)[0]
        assert found.error == "address_denied"


def test_a_name_is_resolved_once_so_that_it_cannot_change_its_mind(web, respond) -> None:
    asked: list[str] = []

    def rebinding(name: str, port: int) -> list[str]:
        asked.append(name)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    for i in range(5):
        web[f"/{i}"] = respond(200, b"x")
    urls = [f"http://name.example:{web.port}/{i}" for i in range(5)]
    found = fetch(urls, resolve=rebinding, allow_private=True)
    assert [f.body for f in found] == [b"x"] * 5
    assert asked == ["name.example"]


def test_the_socket_itself_is_guarded(web, respond) -> None:
    """Even if a private address slipped through vetting, no socket would be opened to it."""
    from curate.shards.web.body import Room
    from curate.shards.web.request import Request
    from curate.shards.web.transfer import Transfers

    transfers = Transfers(1, 5.0, Room(1000), "test", allow_private=False)
    target = check_url(f"http://name.example:{web.port}/x")
    handle = transfers.handle()
    transfers.start(handle, Request(target, ["127.0.0.1"], None, True, lambda *_: "read", 1000), 5.0, "tag")
    answers = []
    while not answers:
        answers = transfers.wait(1.0)
    transfers.close()
    assert [(tag, answer.error) for tag, answer in answers] == [("tag", "address_denied")]
    assert web.connections == 0


def test_credentials_are_sent_and_not_shown(web, respond) -> None:
    web["/x"] = respond(302, b"", ("Location", "http://b.example/y"))
    web["/y"] = respond(200, b"ok")
    found = fetch(["http://user:p%20w@a.example/x"], web.hosts("a.example", "b.example"))[0]
    assert found.body == b"ok"
    assert web.seen[0].headers["authorization"] == "Basic dXNlcjpwIHc="
    assert "authorization" not in web.seen[1].headers
    assert found.final_url == "http://b.example/y"


def test_environment_proxies_are_ignored(web, one, respond, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    web["/x"] = respond(200, b"ok")
    assert one("/x").body == b"ok"


def test_names_that_do_not_resolve() -> None:
    import socket

    asked: list[str] = []

    def resolve(name: str, port: int) -> list[str]:
        asked.append(name)
        if name == "slow.example":
            time.sleep(1.5)
        raise socket.gaierror(socket.EAI_AGAIN if name == "again.example" else socket.EAI_NONAME, "x")

    urls = [f"http://{name}.example/" for name in ("gone", "again", "slow")] + ["http://gone.example/2"]
    found = fetch(urls, resolve=resolve, timeout=0.5, retries=1)
    assert [(f.error, f.requests) for f in found] == [("dns", 0)] * 4
    assert (asked.count("gone.example"), asked.count("again.example")) == (1, 2)


def test_nobody_listens(web) -> None:
    port = web.port
    web.close()
    found = fetch(["http://a.example/"], {"a.example:80": f"127.0.0.1:{port}"})[0]
    assert (found.error, found.detail, found.requests) == ("refused", "", 3)


def test_bad_urls_are_rows_too() -> None:
    urls: list[str | None] = [None, "", "file:///etc/passwd", "http://h/\r\nX: y", "http://" + "a" * 9000, "no scheme"]
    found = fetch(urls)
    assert [f.error for f in found] == ["bad_url", "bad_url", "scheme_denied", "bad_url", "bad_url", "bad_url"]
    assert {f.requests for f in found} == {0}


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for a.example, with its key."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("a.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def test_tls_is_verified(make_web, web, respond, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    secure = make_web(tls=context)
    secure["/x"] = respond(200, b"ok")
    routes = {f"{name}.example:443": f"127.0.0.1:{secure.port}" for name in "ab"}
    routes["c.example:443"] = f"127.0.0.1:{web.port}"
    assert fetch(["https://a.example/x"], routes)[0].error == "tls"
    monkeypatch.setenv("CURL_CA_BUNDLE", str(certificate))
    found = fetch(["https://a.example/x", "https://b.example/x", "https://c.example/x"], routes, retries=0)
    assert [f.error for f in found] == [None, "tls", "tls"]
    assert found[0].body == b"ok"
    assert "certificate" in fetch(["https://b.example/x"], routes)[0].detail


# --- the iterator


def test_no_more_bodies_than_places_are_held_for_a_slow_caller(web, respond) -> None:
    for i in range(30):
        web[f"/{i}"] = respond(200, b"x")
    with Fetcher(FetchOptions(concurrency=4), web.hosts("a.example")) as fetcher:
        for taken, _ in enumerate(fetcher.fetch(f"http://a.example/{i}" for i in range(30)), 1):
            assert len(web.seen) <= taken + 4
            time.sleep(0.005)
    assert len(web.seen) == 30


def test_leaving_early_leaves_a_usable_fetcher(web, respond) -> None:
    for i in range(20):
        web[f"/{i}"] = [0.05, respond(200, b"x" * 1000)]
    with Fetcher(FetchOptions(concurrency=8), web.hosts("a.example")) as fetcher:
        some = fetcher.fetch([f"http://a.example/{i}" for i in range(20)])
        next(some)
        some.close()  # type: ignore[attr-defined]
        assert next(fetcher.fetch(["http://a.example/3"])).body == b"x" * 1000


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_what_is_raised_inside_curl_is_not_lost(
    web, one, respond, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise error

    monkeypatch.setattr("curate.shards.web.attempt.refusal", interrupt)
    web["/x"] = respond(200, b"x", ("X-Robots-Tag", "all"))
    with pytest.raises(error):
        one("/x")


def test_nothing_to_fetch() -> None:
    assert fetch([]) == []


def test_options_are_checked() -> None:
    for wrong in (
        {"timeout": 0},
        {"user_agent": "a\r\nX: y"},
        {"contact": "ü"},
        {"respect": ["robots"]},
        {"connect": 1},
    ):
        with pytest.raises(ValidationError):
            FetchOptions(**wrong)  # type: ignore[arg-type]


def test_connections_that_the_server_closed_meanwhile_cost_no_url(respond) -> None:
    """A server that resets a connection as the next request comes never answered it; another connection does."""
    server = socket.create_server(("127.0.0.1", 0), backlog=64)
    answer = respond(200, b"x" * 100)

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            connection.sendall(answer)
            connection.recv(1)  # the next request
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    options = FetchOptions(retries=0, timeout=5, concurrency=8, per_host=8)
    with Fetcher(options, {"a.example:80": f"127.0.0.1:{server.getsockname()[1]}"}) as fetcher:
        found = list(fetcher.fetch([f"http://a.example/{i}" for i in range(64)]))
    server.close()
    assert [f.error for f in found] == [None] * 64
