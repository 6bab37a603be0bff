"""One server with a route per misbehaviour: each URL alone, and all of them thrown at one fetcher at once."""

import gzip
import itertools
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from curate.shards.web.fetch import ERRORS, Fetcher, FetchOptions

BODY = bytes(range(256)) * 100
QUICK: dict[str, Any] = {"timeout": 0.8, "retries": 1, "backoff": 0.01, "max_bytes": 100_000, "max_wait": 1.0}
RESPECT = ["x-robots-tag", "tdm-reservation"]


def in_turn(*scripts: Any) -> Callable[[Any], Any]:
    """One script after another; the last one for ever."""
    turns = iter(scripts)
    last: list[Any] = []

    def route(seen: Any) -> Any:
        last[:] = [next(turns, last[0] if last else None)]
        return last[0]

    return route


def br(data: bytes) -> bytes:
    return pa.compress(data, "brotli", asbytes=True)


def lines(*text: str, body: bytes = b"") -> bytes:
    return "\r\n".join((*text, "", "")).encode("latin-1") + body


def routes(respond: Callable[..., bytes]) -> dict[str, tuple[Any, str | None]]:
    """Path -> (what the server does, the code expected)."""
    ok = "HTTP/1.1 200 OK"
    trailer = b"5\r\nhello\r\n0\r\nX-Robots-Tag: noai\r\n\r\n"
    zeros = bytes(5_000_000)
    endless = lambda seen: itertools.chain([lines(ok)], itertools.repeat(b"x" * 65_536, 500))  # noqa: E731
    return {
        "good": ([respond(200, BODY)], None),
        "html-called-jpeg": ([respond(200, b"<html>", ("Content-Type", "image/jpeg"))], None),
        "jpeg-called-html": ([respond(200, BODY, ("Content-Type", "text/html"))], None),
        "non-authoritative": ([respond(203, BODY)], None),
        "no-length": ([lines(ok, body=BODY), None], None),
        "http-1.0": ([lines("HTTP/1.0 200 OK", body=BODY), None], None),
        "chunked": ([lines(ok, "Transfer-Encoding: chunked", body=trailer)], None),
        "endless": (endless, "too_large"),
        "endless-404": (
            lambda seen: itertools.chain([lines("HTTP/1.1 404 No")], itertools.repeat(b"x" * 65_536, 500)),
            "http_404",
        ),
        "endless-redirect": (
            lambda seen: itertools.chain(
                [lines("HTTP/1.1 302 No", "Location: /good")], itertools.repeat(b"x" * 65_536, 500)
            ),
            None,
        ),
        "drip": ([lines(ok, "Content-Length: 1000"), *([0.05, b"x"] * 200)], "timeout"),
        "drip-headers": ([f"{ok}\r\n".encode(), *([0.05, b"A: b\r\n"] * 200)], "timeout"),
        "silent": ([20.0], "timeout"),
        "silent-body": ([lines(ok, "Content-Length: 5"), 20.0], "timeout"),
        "no-answer": ([None], "incomplete_read"),
        "short": ([lines(ok, "Content-Length: 100", body=b"short"), None], "incomplete_read"),
        "short-chunk": ([lines(ok, "Transfer-Encoding: chunked", body=b"ff\r\nshort"), None], "incomplete_read"),
        "long": ([lines(ok, "Content-Length: 5", body=b"hello and more")], None),
        "huge-length": ([lines(ok, "Content-Length: 1000000000000", body=b"x"), 20.0], "too_large"),
        "absurd-length": ([lines(ok, "Content-Length: " + "9" * 400, body=b"x"), None], "too_large"),
        "negative-length": ([lines(ok, "Content-Length: -5", body=b"x"), None], "bad_response"),
        "no-body": ([lines(ok, "Content-Length: 0")], "empty"),
        "no-content": ([lines("HTTP/1.1 204 No Content")], "empty"),
        "garbage": ([b"\x00\xff garbage\r\n\r\n", None], "bad_response"),
        "garbage-status": ([b"HTTP/1.1 abc\r\n\r\n", None], "bad_response"),
        "http-9": ([b"HTTP/9.9 200 OK\r\n\r\nx", None], "bad_response"),
        "not-http": ([b"SSH-2.0-OpenSSH_9.2\r\n", None], "bad_response"),
        "nul": ([lines(ok, "X: a\0b", "Content-Length: 1", body=b"x")], "bad_response"),
        "long-header": ([lines(ok, "X: " + "a" * 400_000, body=b"x"), None], "bad_response"),
        "many-headers": ([lines(ok, *["X: y"] * 90_000, body=b"x"), None], "bad_response"),
        "interim": ([lines("HTTP/1.1 100 Continue"), lines("HTTP/1.1 103 Early"), respond(200, BODY)], None),
        "endless-interim": (
            lambda seen: itertools.repeat(lines("HTTP/1.1 103 Early", "Link: </x>"), 100_000),
            "bad_response",
        ),
        "switching": ([lines("HTTP/1.1 101 Switching", "Upgrade: x"), 20.0], "timeout"),
        "self-loop": ([respond(302, b"", ("Location", "self-loop"))], "too_many_redirects"),
        "to-file": ([respond(302, b"", ("Location", "file:///etc/passwd"))], "scheme_denied"),
        "to-loopback": ([respond(302, b"", ("Location", "http://0x7f.1/good"))], "address_denied"),
        "to-name": ([respond(302, b"", ("Location", "http://inside.example/good"))], "address_denied"),
        "to-nowhere": ([respond(301, b"", ("Location", "http://nosuch.example/good"))], "dns"),
        "to-nonsense": ([respond(301, b"", ("Location", "http://[::1/"))], "bad_url"),
        "to-plain-on-443": ([respond(301, b"", ("Location", "https://plain.example/good"))], "tls"),
        "to-tls-on-80": ([respond(301, b"", ("Location", "http://tls.example/good"))], "incomplete_read"),
        "to-self-signed": ([respond(301, b"", ("Location", "https://signed.example/good"))], "tls"),
        "to-refused": ([respond(301, b"", ("Location", "http://closed.example/good"))], "refused"),
        "to-credentials": ([respond(301, b"", ("Location", "http://me:secret@a.example/good"))], None),
        "to-bad-credentials": ([respond(301, b"", ("Location", "http://me:secret@a.example:99999/"))], "bad_url"),
        "no-location": ([respond(302, b"x")], "http_302"),
        "choices": ([respond(300, BODY)], "http_300"),
        "not-found": ([respond(404, BODY)], "http_404"),
        "gone": ([respond(410, BODY)], "http_410"),
        "partial": ([respond(206, BODY)], "http_206"),
        "teapot": ([respond(418, BODY)], "http_418"),
        "broken": ([respond(500, BODY)], "http_500"),
        "heals": (in_turn([respond(500)], [respond(200, BODY)]), None),
        "heals-after-closing": (in_turn([None], [respond(200, BODY)]), None),
        "status-999": ([respond(999, BODY)], "http_999"),
        "gzip": ([respond(200, gzip.compress(BODY), ("Content-Encoding", "gzip"))], None),
        "br": ([respond(200, br(BODY), ("Content-Encoding", "br"))], None),
        "zstd": ([respond(200, pa.compress(BODY, "zstd", asbytes=True), ("Content-Encoding", "ZSTD"))], None),
        "gzip-bomb": ([respond(200, gzip.compress(zeros), ("Content-Encoding", "gzip"))], "too_large"),
        "br-bomb": (
            [respond(200, pa.compress(zeros, "brotli", asbytes=True), ("Content-Encoding", "br"))],
            "too_large",
        ),
        "not-gzip": ([respond(200, BODY, ("Content-Encoding", "gzip"))], "bad_response"),
        "half-gzip": ([respond(200, gzip.compress(BODY)[:-20], ("Content-Encoding", "gzip"))], "bad_response"),
        "empty-gzip": ([respond(200, gzip.compress(b""), ("Content-Encoding", "gzip"))], "empty"),
        "unknown-coding": ([respond(200, BODY, ("Content-Encoding", "compress"))], "unknown_coding"),
        "transfer-gzip": ([lines(ok, "Transfer-Encoding: gzip", body=b"x"), None], "bad_response"),
        "noai": ([respond(200, BODY, ("x-robots-TAG", "googlebot: all"), ("X-Robots-Tag", "NoAI"))], "opted_out"),
        "noai-404": ([respond(404, BODY, ("X-Robots-Tag", "none"))], "opted_out"),
        "noai-elsewhere": ([respond(200, BODY, ("X-Robots-Tag", "otherbot: noai"))], None),
        "noai-endless": (
            lambda seen: itertools.chain([lines(ok, "X-Robots-Tag: noai")], itertools.repeat(b"x" * 65_536, 500)),
            "opted_out",
        ),
        "tdm": ([respond(200, BODY, ("TDM-Reservation", " 1 "), ("tdm-policy", "https://p.example/"))], "opted_out"),
        "tdm-0": ([respond(200, BODY, ("TDM-Reservation", "0"))], None),
    }


@pytest.fixture
def certificate(tmp_path):
    pytest.importorskip("cryptography")
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "signed.example")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(1)).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path / "both.pem"
    path.write_bytes(private + made.public_bytes(pem))
    return path


@pytest.fixture
def nobody():
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return port


@pytest.fixture
def wild(web, make_web, respond, certificate, nobody) -> tuple[dict[str, str | None], dict[str, str]]:
    """All routes on one server, with their codes, and where hosts really are."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    secure = make_web(tls=context)
    expected = {}
    for name, (script, code) in routes(respond).items():
        web[f"/{name}"] = script
        expected[name] = code
    connect_to = web.hosts("a.example", *(f"{name}.example" for name in expected))
    connect_to |= {
        "plain.example:443": f"127.0.0.1:{web.port}",
        "tls.example:80": f"127.0.0.1:{secure.port}",
        "signed.example:443": f"127.0.0.1:{secure.port}",
        "closed.example:80": f"127.0.0.1:{nobody}",
    }
    return expected, connect_to


def resolve(name: str, port: int) -> list[str]:
    if name == "inside.example":
        return ["93.184.216.34", "10.0.0.1"]
    raise socket.gaierror(socket.EAI_NONAME, "x")


def known(code: str | None) -> bool:
    return code is None or code in ERRORS or (code.startswith("http_") and code[5:].isdigit())


def test_all_at_once(wild, web) -> None:
    """Every row has its one outcome, twice the same, in bounded time, on a host of its own and all on one."""
    expected, connect_to = wild
    urls = [f"http://{name}.example/{name}" for name in expected]
    started = time.monotonic()
    options = FetchOptions(**QUICK, concurrency=32, respect=RESPECT, max_bytes_in_flight=200_000)
    with Fetcher(options, connect_to, resolve) as fetcher:
        found = {f.index: f for f in fetcher.fetch(urls)}
        assert fetcher.room.used == 0
    assert time.monotonic() - started < 15
    assert {name: found[i].error for i, name in enumerate(expected)} == expected
    assert all(known(f.error) for f in found.values())
    assert all((f.body is None) == (f.error is not None) for f in found.values())
    assert not any("secret" in f"{f.detail} {f.final_url}" for f in found.values())
    hits = web.hits
    assert hits["/silent"] == 2  # and not more: one attempt, one retry
    for once in ("noai", "noai-404", "noai-endless", "tdm", "not-found", "gone", "unknown-coding", "endless"):
        assert hits[f"/{once}"] == 1, once
    assert hits["/self-loop"] == options.max_redirects + 1


def test_all_on_one_host(wild, web) -> None:
    """The same, where one host misbehaves in every way: nothing of it brings the host down."""
    expected, connect_to = wild
    urls = [f"http://a.example/{name}" for name in expected]
    options = FetchOptions(**QUICK, concurrency=64, per_host=64, respect=RESPECT)
    with Fetcher(options, connect_to, resolve) as fetcher:
        found = {f.index: f.error for f in fetcher.fetch(urls)}
    assert {name: found[i] for i, name in enumerate(expected)} == expected
