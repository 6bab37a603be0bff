import ipaddress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.shards.web.address import MAX_URL, UrlError, check_url, is_local_name, is_public
from curate.shards.web.optout import refusal

LOOPBACK = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "0177.0.0.1",
    "0177.0.0.01",
    "0x7f.0.0.1",
    "0x7F000001",
    "2130706433",
    "017700000001",
    "127.0.0.1.",
    "%31%32%37.0.0.1",
    "１２７.0.0.1",
    "127。0。0。1",
]


NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "100.100.100.200",
    "168.63.129.16",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "100::1",
    "5f00::1",
    "fec0::1",
    "4000::1",
]

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.0.1",
    "172.32.0.1",
    "192.0.1.1",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("host", LOOPBACK)
def test_every_spelling_of_an_ipv4_address_is_that_address(host: str) -> None:
    target = check_url(f"http://{host}/x")
    assert target.address == ipaddress.IPv4Address("127.0.0.1")
    assert target.url == "http://127.0.0.1/x"
    assert not is_public(target.address)


@pytest.mark.parametrize(
    "address",
    NOT_PUBLIC,
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    PUBLIC,
)
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)
    assert is_public(address, private=True)


def test_private_opens_an_intranet_and_no_metadata_service() -> None:
    for address in ("127.0.0.1", "10.1.2.3", "192.168.0.1", "172.20.0.1", "::1", "fd12::1", "::ffff:127.0.0.1"):
        assert is_public(address, private=True)
    for address in ("169.254.169.254", "0.0.0.0", "224.0.0.1", "100.100.100.200", "168.63.129.16", "fd00:ec2::254"):
        assert not is_public(address, private=True)
    assert not is_public("fe80::1%eth0", private=True)


@given(st.ip_addresses(v=4))
def test_never_public_where_python_says_private(address: ipaddress.IPv4Address) -> None:
    if address.is_private or address.is_multicast or address.is_reserved or address.is_loopback:
        assert not is_public(address)
    assert is_public(ipaddress.IPv6Address(f"::ffff:{address}")) == is_public(address)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://Example.COM", "http://example.com/"),
        ("HTTPS://example.com:443/a", "https://example.com/a"),
        ("http://example.com:80", "http://example.com/"),
        ("http://example.com:8080/", "http://example.com:8080/"),
        ("  http://example.com/a\n", "http://example.com/a"),
        ("//example.com/a", "http://example.com/a"),
        ("http://example.com/a b/ü?q=ä b#frag", "http://example.com/a%20b/%C3%BC?q=%C3%A4%20b"),
        ("http://example.com/%20%C3%BC?x=%41", "http://example.com/%20%C3%BC?x=%41"),
        ("http://example.com/100%/x%zz", "http://example.com/100%25/x%25zz"),
        ("http://example.com/a/./b/../c/..", "http://example.com/a/"),
        ("http://example.com/../../etc", "http://example.com/etc"),
        ("http://example.com/a//b", "http://example.com/a//b"),
        ("http://example.com?x=/../y", "http://example.com/?x=/../y"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://日本語.jp/絵.png", "http://xn--wgv71a119e.jp/%E7%B5%B5.png"),
        ("http://user:pa%20ss@example.com/x", "http://example.com/x"),
        ("http://example.com\\@other.example/x", "http://example.com/@other.example/x"),
        ("http://good.example@evil.example/x", "http://evil.example/x"),
        ("http://evil.example#@good.example/x", "http://evil.example/"),
        ("http://evil.example?@good.example/x", "http://evil.example/?@good.example/x"),
        ("http://[2606:4700::1111]:8080/x", "http://[2606:4700::1111]:8080/x"),
        ("http://[::ffff:1.2.3.4]/", "http://[::ffff:102:304]/"),
        ("http://a_b.example/x|y[1]", "http://a_b.example/x%7Cy[1]"),
        ('http://example.com/"<>^`{}', "http://example.com/%22%3C%3E%5E%60%7B%7D"),
    ],
)
def test_urls_are_normalised(url: str, expected: str) -> None:
    target = check_url(url)
    assert target.url == expected
    assert check_url(target.url).url == expected


@pytest.mark.parametrize(
    "url",
    [
        None,
        "",
        "   ",
        "example.org",
        "/relative/path",
        "http://",
        "http:///",
        "http:/example.com",
        "http://exa mple.com/",
        "http://example.com:0/",
        "http://example.com:65536/",
        "http://example.com:8o/",
        "http://example.com/a\r\nHost: evil",
        "http://example.com/a\nb",
        "http://example.com/\0",
        "http://exam\tple.com/",
        "http://[::1/",
        "http://[::1]x/",
        "http://[fe80::1%25eth0]/",
        "http://[zz]/",
        "http://1.2.3.4.5/",
        "http://256.1.1.1/",
        "http://1.2.3.0x1ff/",
        "http://08.0.0.1/",
        "http://foo.1/",
        "http://4294967296/",
        "http://..example/",
        "http://%00.example/",
        "http://ex%2Fample/",
        "http://user:a%0d%0ab@example.com/",
        "http://" + "a" * 64 + ".example/",
        "http://example.com/" + "a" * MAX_URL,
        "http://example.com/" + "ü" * (MAX_URL // 3),
        "http://example.com/\ud800",
    ],
)
def test_bad_urls(url: str | None) -> None:
    with pytest.raises(UrlError) as caught:
        check_url(url)
    assert caught.value.code == "bad_url"


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "data:image/png;base64,AA", "ftp://h/x", "gopher://h/", "javascript:x", "h:80/x"]
)
def test_other_schemes_are_denied(url: str) -> None:
    with pytest.raises(UrlError) as caught:
        check_url(url)
    assert caught.value.code == "scheme_denied"


def test_credentials_go_to_their_host_only_and_are_in_no_text() -> None:
    target = check_url("http://user:s%20cret@example.com/a")
    assert target.credentials == "user:s cret"
    assert "cret" not in target.url
    assert check_url("b", target).credentials == "user:s cret"
    assert check_url("http://example.com/b", target).credentials == ""
    assert check_url("//other.example/b", target).credentials == ""
    with pytest.raises(UrlError) as caught:
        check_url("http://user:secret@example.com:99999/")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("x", "http://h.example:8080/a/x"),
        ("/x?y", "http://h.example:8080/x?y"),
        ("?y", "http://h.example:8080/a/b?y"),
        ("", None),
        ("#z", "http://h.example:8080/a/b?q"),
        ("../../x", "http://h.example:8080/x"),
        ("//o.example/x", "http://o.example/x"),
        ("\\\\o.example/x", "http://o.example/x"),
        ("https://o.example", "https://o.example/"),
        ("x y/ü", "http://h.example:8080/a/x%20y/%C3%BC"),
    ],
)
def test_redirects_are_resolved_against_their_page(reference: str, expected: str | None) -> None:
    base = check_url("http://h.example:8080/a/b?q")
    if expected is None:
        with pytest.raises(UrlError):
            check_url(reference, base)
    else:
        assert check_url(reference, base).url == expected


@given(st.text(max_size=60), st.sampled_from(["", "http://", "https://h.example/", "http://h.example?", "//"]))
def test_any_text_gives_a_plain_ascii_url_or_a_reason(text: str, start: str) -> None:
    try:
        target = check_url(start + text)
    except UrlError as error:
        code = error.code
    else:
        code = ""
    assert code in ("bad_url", "scheme_denied", "")
    if code:
        return
    assert target.url.isascii()
    assert target.url.isprintable()
    assert " " not in target.url
    again = check_url(target.url)
    assert (again.url, again.host, again.port, again.address) == (target.url, target.host, target.port, target.address)


def test_local_names() -> None:
    assert is_local_name("localhost")
    assert is_local_name("a.localhost")
    assert not is_local_name("localhost.example")


NOW = datetime(2024, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (["noai"], "noai"),
        (["NoAI"], "noai"),
        (["nofollow, NOIMAGEAI"], "noimageai"),
        (["nofollow", "noindex"], "noindex"),
        (["noimageindex"], "noimageindex"),
        (["noml"], "noml"),
        (["none"], "none"),
        (["all"], None),
        (["nofollow, noarchive"], None),
        ([], None),
        (["noaim"], None),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], "noai"),
        (["unavailable_after: Tue, 25 Jun 2030 15:00:00 GMT, noml"], "noml"),
        (["unavailable_after: Tuesday, 25-Jun-30 15:00:00 UTC, none"], "none"),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST"], "unavailable_after"),
        (["unavailable_after: Fri, 25 Jun 2010 15:00:00 GMT"], "unavailable_after"),
        (["unavailable_after: 2024-05-31"], "unavailable_after"),
        (["unavailable_after: 2024-06-02T00:00:00Z"], None),
        (["unavailable_after: soon"], None),
        (["googlebot: noai"], None),
        (["googlebot: nofollow, noindex"], None),
        (["googlebot: noindex", "noai"], "noai"),
        (["curate: noai"], "noai"),
        (["Curate: NoAI"], "noai"),
        (["*: noai"], "noai"),
        (["otherbot: noindex, curate: none"], "none"),
        (["otherbot: unavailable_after: 25 Jun 2010 15:00:00 PST"], None),
        (["max-snippet: 10, noai"], "noai"),
        (["max-image-preview: none"], None),
    ],
)
def test_robots_tag(headers: list[str], expected: str | None) -> None:
    assert refusal(headers, "curate", NOW) == expected


@given(st.lists(st.text(max_size=80), max_size=3))
def test_robots_tag_of_any_text_does_not_raise(headers: list[str]) -> None:
    refusal(headers, "curate")


@given(st.ip_addresses(v=4))
def test_no_ipv6_address_smuggles_an_ipv4_one(address: ipaddress.IPv4Address) -> None:
    """Whatever way an IPv4 address is written into an IPv6 one, the outcome is at most as good as its own."""
    number = int(address)
    embedded = [
        0xFFFF << 32 | number,  # mapped
        number,  # compatible
        0xFFFF << 48 | number,  # translated (RFC 2765)
        0x2002 << 112 | number << 80,  # 6to4
        0x20010000 << 96 | (number ^ 0xFFFFFFFF),  # Teredo client
        0x20010000 << 96 | number << 64,  # Teredo server
        0x0064FF9B << 96 | number,  # NAT64
        0x0064FF9B0001 << 80 | number,  # NAT64, local
    ]
    for value in embedded:
        ip = ipaddress.IPv6Address(value)
        for private in (False, True):
            assert not is_public(ip, private) or is_public(address, private) or ip == ipaddress.IPv6Address("::1")


@given(st.ip_addresses(v=6))
def test_never_public_where_python_says_not_global(address: ipaddress.IPv6Address) -> None:
    if not address.is_global and address.ipv4_mapped is None:
        assert not is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com@127.0.0.1/",
        "http://example.com:80@127.0.0.1/",
        "http://127.0.0.1:80@127.0.0.1/",
        "http://example.com%40@127.0.0.1/",
        "http:\\\\127.0.0.1\\x",
        "http:////127.0.0.1/",
        "http://127.0.0.1\\@example.com/",
        "http://127.0.0.1?@example.com/",
        "http://127.0.0.1#@example.com/",
        "http://①②⑦.0.0.1/",
        "http://127.0.0.1%2e/",
        "http://0x7f.0x0.0x0.0x1/",
        "http://0177.0x0.1/",
    ],
)
def test_no_spelling_hides_the_host(url: str) -> None:
    assert check_url(url).host == "127.0.0.1"
