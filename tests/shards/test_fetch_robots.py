"""robots.txt: the parser against RFC 9309's own examples and against a slow, plain matcher; then the fetcher."""

import itertools
import re
import socket
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.shards.web.fetch import Fetched, Fetcher, FetchOptions
from curate.shards.web.robots import LONGEST_DELAY, MAX_BYTES, Robots, parse_robots

# --- the file


def allows(text: str, path: str, robot: str = "curate") -> bool:
    return parse_robots(text.encode(), robot).allows(path)


RFC = """
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
"""


@pytest.mark.parametrize(
    ("robot", "path", "allowed"),
    [
        ("curate", "/x.gif", False),
        ("curate", "/x.gif?a", True),
        ("curate", "/example/x", False),
        ("curate", "/publications/x", True),
        ("curate", "/", True),
        ("foobot", "/x", False),
        ("FooBot", "/example/page.html", True),
        ("foobot", "/example/allowed.gif", True),
        ("foobot", "/example/", False),
        ("barbot", "/example/page.html", False),
        ("bazbot", "/example/page.html", False),
        ("bazbot", "/example/x.gif", True),
        ("quxbot", "/example/x.gif", True),
        ("foobot", "/robots.txt", True),
    ],
)
def test_the_rfcs_example(robot: str, path: str, allowed: bool) -> None:
    assert allows(RFC, path, robot) is allowed


@pytest.mark.parametrize(
    ("rules", "path", "allowed"),
    [
        ("Disallow: /a\nAllow: /a/b", "/a/b/c", True),
        ("Allow: /a/b\nDisallow: /a", "/a/c", False),
        ("Disallow: /a\nAllow: /a", "/a", True),  # a tie: allow
        ("Allow: /p\nDisallow: /", "/page", True),
        ("Allow: /folder\nDisallow: /folder", "/folder/page", True),
        ("Allow: /page\nDisallow: /*.htm", "/page.htm", False),
        ("Allow: /$\nDisallow: /", "/", True),
        ("Allow: /$\nDisallow: /", "/page.htm", False),
        ("Disallow:", "/x", True),
        ("Disallow: /", "/x", False),
        ("Disallow: /a*c*e$", "/abcde", False),
        ("Disallow: /a*c*e$", "/abcdef", True),
        ("Disallow: /a*ee$", "/aeee", False),
        ("Disallow: /a*ee$", "/ae", True),
        ("Disallow: *", "/x", False),
        ("Disallow: /fish*", "/fishheads/yummy.html", False),
        ("Disallow: /fish*.php", "/fish/heads.php?x", False),
        ("Disallow: /fish", "/Fish", True),
        ("Disallow: fish", "/fish", True),  # no path
        ("Disallow: /foo/bar?baz=https%3A%2F%2Ffoo.bar", "/foo/bar?baz=https%3A%2F%2Ffoo.bar", False),
        ("Disallow: /foo/bar/ツ", "/foo/bar/%E3%83%84", False),
        ("Disallow: /foo/bar/%E3%83%84", "/foo/bar/%e3%83%84", False),
        ("Disallow: /foo/bar/%62%61%7A", "/foo/bar/baz", False),
        ("Disallow: /a%2Fb", "/a/b", True),
        ("Disallow: /file-with-a-%2A.html", "/file-with-a-*.html", False),
        ("Disallow: /file-with-a-%2A.html", "/file-with-a-x.html", True),
        ("Disallow: /foo-%24", "/foo-$", False),
        ("Disallow: /a # /b", "/b", True),
        ("disALLOW :  /a  ", "/a", False),
        ("Sitemap: https://h/x\nDisallow: /a", "/a", False),
        ("Disallow /a", "/a", True),
    ],
)
def test_rules(rules: str, path: str, allowed: bool) -> None:
    assert allows(f"User-agent: *\n{rules}\n", path) is allowed


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("", True),
        ("Disallow: /", True),  # belongs to no group
        ("User-agent: curate\nDisallow: /a\n\nUser-agent: CURATE\nDisallow: /x", False),  # groups merge
        ("User-agent: *\nDisallow: /\n\nUser-agent: curate\nAllow: /", True),
        ("User-agent: *\nDisallow: /\n\nUser-agent: curate\n", True),
        ("User-agent: curate/2.0 (x)\nDisallow: /", False),
        ("User-agent: curatebot\nDisallow: /", True),
        ("User-agent: cur\nDisallow: /", True),
        ("User-agent: other\nUser-agent: *\nDisallow: /", False),
        ("User-agent: other\nCrawl-delay: 1\nUser-agent: curate\nDisallow: /", False),
        ("User-agent: other\nDisallow: /\nUser-agent: curate\nDisallow: /y", True),
        ("\ufeffUser-agent: *\rDisallow: /", False),
        ("<html>User-agent: *\nDisallow: /", True),
    ],
)
def test_groups(text: str, allowed: bool) -> None:
    assert allows(text, "/x") is allowed


def test_crawl_delay_is_read_and_bounded() -> None:
    def delay(text: str) -> float:
        return parse_robots(text.encode(), "curate").delay

    assert delay("User-agent: *\nCrawl-delay: 2.5") == 2.5
    assert delay("User-agent: *\nCrawl-delay: 86400") == LONGEST_DELAY
    assert delay("User-agent: *\nCrawl-delay: 9\n\nUser-agent: curate\nCrawl-delay: 1") == 1
    for nonsense in ("-1", "soon", "nan", "inf", ""):
        assert delay(f"User-agent: *\nCrawl-delay: {nonsense}") in (0.0, LONGEST_DELAY)


def test_what_is_beyond_the_limit_does_not_count() -> None:
    text = b"User-agent: *\nAllow: /\n" + b"#" * MAX_BYTES + b"\nDisallow: /x\n"
    assert parse_robots(text, "curate").allows("/x")


def slow_allows(rules: list[tuple[str, bool]], path: str) -> bool:
    """The longest matching pattern by regular expressions."""
    best = (-1, True)
    for pattern, allowed in rules:
        anchored = pattern.endswith("$")
        body = ".*".join(re.escape(p) for p in pattern.removesuffix("$").split("*"))
        if re.match(body + ("$" if anchored else ""), path, re.DOTALL):
            best = max(best, (len(pattern), allowed))
    return best[1]


PATTERN = st.text(alphabet="/ab*", max_size=8).map(lambda t: "/" + t)
RULES = st.lists(st.tuples(st.one_of(PATTERN, PATTERN.map(lambda t: t + "$")), st.booleans()), max_size=8)


@given(RULES, st.text(alphabet="/ab", max_size=12))
def test_as_regular_expressions_would(rules: list[tuple[str, bool]], rest: str) -> None:
    assert Robots(rules).allows("/" + rest) == slow_allows(rules, "/" + rest)


@given(st.binary(max_size=300), st.text(max_size=30))
def test_any_bytes_are_a_file(data: bytes, path: str) -> None:
    parse_robots(b"User-agent: *\nDisallow: " + data, "curate").allows("/" + path.encode("ascii", "ignore").decode())


def test_a_hostile_pattern_takes_no_time() -> None:
    robots = parse_robots(b"User-agent: *\nDisallow: /" + b"a*" * 2000 + b"b$", "curate")
    started = time.process_time()
    assert robots.allows("/" + "a" * 8000)
    assert time.process_time() - started < 1


# --- the fetcher

OPTIONS: dict[str, Any] = {"backoff": 0.01, "timeout": 2.0, "respect": ["robots.txt"], "retries": 1, "max_wait": 1.0}


def fetch(urls: list[str], connect_to: dict[str, str], **options: Any) -> list[Fetched]:
    def resolve(name: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "x")

    with Fetcher(FetchOptions(**{**OPTIONS, **options}), connect_to, resolve) as fetcher:
        return sorted(fetcher.fetch(urls), key=lambda f: f.index)


def test_robots_txt_is_asked_once_per_site_and_obeyed(web, respond) -> None:
    web["/robots.txt"] = [0.1, respond(200, b"User-agent: *\nDisallow: /private\n")]
    urls = []
    for i in range(20):
        web[f"/public/{i}"] = web[f"/private/{i}"] = respond(200, b"x")
        urls += [f"http://{h}.example/{p}/{i}" for h in "ab" for p in ("public", "private")]
    found = fetch(urls, web.hosts("a.example", "b.example"), concurrency=4)
    for fetched in found:
        private = "/private/" in fetched.url
        assert (fetched.error, fetched.detail, fetched.requests) == (
            ("opted_out", "robots.txt", 0) if private else (None, "", 1)
        )
    assert web.hits["/robots.txt"] == 2
    assert not any(path.startswith("/private") for path in web.hits)


def test_without_the_option_nobody_asks(web, respond) -> None:
    web["/x"] = respond(200, b"x")
    assert fetch(["http://a.example/x"], web.hosts("a.example"), respect=[])[0].body == b"x"
    assert web.hits == {"/x": 1}


@pytest.mark.parametrize(
    ("script", "error", "detail"),
    [
        (lambda r: [r(404, b"no")], None, ""),
        (lambda r: [r(403, b"no")], None, ""),
        (lambda r: [r(200, b"")], None, ""),
        (lambda r: [r(204)], None, ""),
        (lambda r: [r(302, b"", ("Location", "/robots.txt"))], None, ""),  # more than five redirects
        (lambda r: [r(302, b"", ("Location", "/real"))], "opted_out", "robots.txt"),
        (lambda r: [r(500, b"User-agent: *\nAllow: /")], "robots_unreachable", "http_500"),
        (lambda r: [r(503)], "robots_unreachable", "http_503"),
        (lambda r: [r(429, b"", ("Retry-After", "3600"))], "robots_unreachable", "http_429"),
        (lambda r: [b"garbage\r\n\r\n", None], "robots_unreachable", "bad_response"),
        (lambda r: [9.0], "timeout", "robots.txt"),
        (lambda r: [None], "incomplete_read", "robots.txt: the connection closed early"),
        (lambda r: [r(302, b"", ("Location", "http://127.0.0.1/x"))], "address_denied", "robots.txt: 127.0.0.1"),
        (lambda r: [r(302, b"", ("Location", "http://gone.example/x"))], "dns", "robots.txt: no such name"),
        (lambda r: [r(200, b"User-agent: *\nDisallow: /\n" + b"#" * 900_000)], "opted_out", "robots.txt"),
    ],
)
def test_what_becomes_of_a_site_by_its_robots_txt(web, respond, script: Any, error: str | None, detail: str) -> None:
    web["/robots.txt"] = script(respond)
    web["/real"] = respond(200, b"User-agent: curate\nDisallow: /")
    web["/x"] = respond(200, b"x")
    found = fetch(["http://a.example/x", "http://a.example/x?2"], web.hosts("a.example"), timeout=0.5)
    assert (found[0].error, found[0].detail) == (error, detail)
    assert found[0].requests == (0 if error else 1)
    assert web.hits["/robots.txt"] <= 6


def test_a_redirect_is_asked_about_too(web, make_web, respond) -> None:
    other = make_web()
    other["/robots.txt"] = respond(200, b"User-agent: *\nDisallow: /secret")
    other["/secret"] = other["/open"] = respond(200, b"x")
    for path in ("secret", "open"):
        web[f"/{path}"] = respond(302, b"", ("Location", f"http://b.example/{path}"))
    where = web.hosts("a.example") | other.hosts("b.example")
    found = fetch(["http://a.example/secret", "http://a.example/open"], where, concurrency=1)
    assert [f.error for f in found] == ["opted_out", None]
    assert other.hits == {"/robots.txt": 1, "/open": 1}


def test_many_slow_sites_do_not_hold_up_the_others(web, respond) -> None:
    """Redirects of all places to sites whose robots.txt is slow: no deadlock, and the places are not the limit."""
    web["/x"] = respond(200, b"x")
    hosts = [f"h{i}.example" for i in range(12)]
    web["/robots.txt"] = [0.2, respond(404)]
    web["/go"] = lambda seen: [respond(302, b"", ("Location", f"http://to-{seen.host}/x"))]
    where = web.hosts(*hosts, *(f"to-{host}" for host in hosts))
    found = fetch([f"http://{host}/go" for host in hosts], where, concurrency=2)
    assert [f.body for f in found] == [b"x"] * 12


def test_crawl_delay_sets_the_pace(web, respond) -> None:
    web["/robots.txt"] = respond(200, b"User-agent: *\nCrawl-delay: 0.15")
    for i in range(4):
        web[f"/{i}"] = respond(200, b"x")
    assert all(f.body for f in fetch([f"http://a.example/{i}" for i in range(4)], web.hosts("a.example")))
    times = [seen.at for seen in web.seen if seen.path != "/robots.txt"]
    assert all(b - a > 0.13 for a, b in itertools.pairwise(times))
