"""Which URLs may be asked for, and which addresses may be connected to. Pure: nothing here sends a packet.

A pool of URLs is hostile input: without a policy its author can make our workers read the cluster's own services
(`http://169.254.169.254/...`, `http://0x7f.1/`), by a name that resolves there or by a redirect. `check_url` turns
a web address as found in the wild into one canonical ASCII URI, the way browsers read it, or says why not;
`is_public` judges one address. The fetcher asks both on every hop, and again for the socket it really opens.

Price: names that only resolve inside a private network cannot be fetched unless they are named as exceptions.
Sources: RFC 3986 and 3987 (URI, IRI), the WHATWG URL standard (IPv4 forms), IANA special-purpose address registries.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL = 8192  # characters; servers refuse longer request lines

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_LONE_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SAFE = "!$&'()*+,;=:@/?[]~%-._"  # what a path or query may hold as it is

_DENIED_V4 = [
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared, behind carriers' NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local; cloud metadata services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
]
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_DENIED_V6 = [
    ipaddress.IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, withdrawn; embeds an IPv4 address
        "3fff::/20",  # documentation
    )
]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # how IPv6-only networks reach the IPv4 web: judge the IPv4 inside

_PRIVATE = [  # what `private=True` opens: an intranet, not metadata services or multicast
    ipaddress.ip_network(block)
    for block in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "::1/128",
        "fc00::/7",
    )
]
_METADATA = [  # clouds' metadata and host services outside the link-local range
    ipaddress.ip_network(block) for block in ("100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::/32", "fd20:ce::/32")
]


class UrlError(ValueError):
    """A URL that will not be fetched.

    Attributes:
        code: ``bad_url``, ``scheme_denied`` or ``address_denied``.
        detail: why, without user names or passwords.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


@dataclass(frozen=True)
class Target:
    """A URL in canonical form.

    Attributes:
        url: ASCII URI without user information and fragment: what is requested, logged and compared.
        scheme: ``http`` or ``https``.
        host: ASCII name without a trailing dot, or an address without brackets.
        port: 1-65535.
        address: the host as an address when it is one, however it was spelled.
        credentials: ``user:password`` to send to this host, or empty; never logged.
    """

    url: str
    scheme: str
    host: str
    port: int
    address: Address | None
    credentials: str = ""

    @property
    def authority(self) -> str:
        """``host:port``, as in the keys of `connect_to`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@functools.lru_cache(maxsize=8192)  # a pool's hosts come again and again, and it takes 10 microseconds
def is_public(address: Address | str, private: bool = False) -> bool:
    """Whether `address` is a global unicast address; with `private`, also loopback and private ranges.

    Link-local (metadata services), multicast, reserved and unspecified addresses are never allowed.
    """
    ip = ipaddress.ip_address(address) if isinstance(address, str) else address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(ip.ipv4_mapped, private)
        if ip in _NAT64:
            return is_public(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF), private)
        if ip.scope_id is not None:
            return False
        public = ip in _GLOBAL_V6 and not _within(ip, _DENIED_V6)
    else:
        public = not _within(ip, _DENIED_V4)
    return (public or (private and _within(ip, _PRIVATE))) and not _within(ip, _METADATA)


def _within(ip: Address, blocks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    return any(ip in block for block in blocks)  # an address of the other version is in no block


def is_local_name(host: str) -> bool:
    """Whether the name means this machine by itself (RFC 6761), whatever a resolver would say."""
    return host == "localhost" or host.endswith((".localhost", ".localdomain"))


def check_url(url: str | None, base: Target | None = None) -> Target:
    """Read `url` as a browser would and return its canonical form.

    `base` is the page that a redirect came from, against which a relative `url` is resolved. Non-ASCII characters
    and spaces are percent-encoded as UTF-8, what is encoded already stays, the fragment goes, and the host becomes
    ASCII (IDNA). Whether the address may be connected to is not judged here.

    Raises:
        UrlError: ``bad_url`` or ``scheme_denied``.
    """
    if not url or not (text := url.strip(" \t\r\n\f")):
        raise UrlError("bad_url", "empty")
    if len(text) > MAX_URL:
        raise UrlError("bad_url", f"{len(text)} characters long")
    if found := _CONTROL.search(text):
        raise UrlError("bad_url", f"control character {found.group()!r}")
    text = text.split("#", 1)[0]
    match = _SCHEME.fullmatch(text)
    if match:
        scheme, rest = match.group(1).lower(), match.group(2)
    elif base is not None:
        scheme, rest = base.scheme, _resolve(base, text)
    elif text.startswith("//"):
        scheme, rest = "http", text
    else:
        raise UrlError("bad_url", "no scheme")
    if scheme not in ("http", "https"):
        raise UrlError("scheme_denied", scheme[:32])
    rest, question, query = rest.partition("?")
    rest = rest.replace("\\", "/")
    if not rest.startswith("//"):
        raise UrlError("bad_url", "no host")
    authority, slash, path = rest.lstrip("/").partition("/")
    userinfo, _, hostport = authority.rpartition("@")
    host, port = _split_port(hostport, 443 if scheme == "https" else 80)
    host, address = _canonical_host(host)
    shown = f"[{host}]" if ":" in host else host
    if port != (443 if scheme == "https" else 80):
        shown += f":{port}"
    path = _remove_dots("/" + path) if slash else "/"
    canonical = f"{scheme}://{shown}{_encode(path)}" + (f"?{_encode(query)}" if question else "")
    if len(canonical) > MAX_URL:
        raise UrlError("bad_url", f"{len(canonical)} characters long once encoded")
    credentials = _credentials(userinfo)
    if base is not None and not match and (host, port) == (base.host, base.port):
        credentials = credentials or base.credentials
    return Target(canonical, scheme, host, port, address, credentials)


def _resolve(base: Target, reference: str) -> str:
    """`reference` (no scheme) seen from `base`, as ``//authority/path?query`` (RFC 3986 section 5.2)."""
    _, _, after = base.url.partition("://")
    if not reference:
        return f"//{after}"
    if reference[0] == "\\":
        reference = reference.replace("\\", "/", 2)
    if reference.startswith("//"):
        return reference
    before_query, _, _ = after.partition("?")
    authority, _, path = before_query.partition("/")
    if reference.startswith("/"):
        return f"//{authority}{reference}"
    if reference.startswith("?"):
        return f"//{before_query}{reference}"
    folder = path.rpartition("/")[0]
    return f"//{authority}/{folder}/{reference}" if folder else f"//{authority}/{reference}"


def _remove_dots(path: str) -> str:
    """Resolve ``.`` and ``..`` segments; a path never climbs above its root."""
    if "/." not in path and "/%2" not in path:
        return path
    segments: list[str] = []
    parts = path.split("/")[1:]
    for i, part in enumerate(parts):
        plain = part.replace("%2e", ".").replace("%2E", ".")
        if plain == "..":
            if segments:
                segments.pop()
        elif plain != ".":
            segments.append(part)
        if plain in (".", "..") and i == len(parts) - 1:
            segments.append("")
    return "/" + "/".join(segments)


def _encode(text: str) -> str:
    try:
        return quote(_LONE_PERCENT.sub("%25", text), safe=_SAFE)
    except UnicodeEncodeError as error:
        raise UrlError("bad_url", "half of a surrogate pair") from error


def _credentials(userinfo: str) -> str:
    if not userinfo:
        return ""
    decoded = unquote_to_bytes(userinfo).decode("utf-8", "replace")
    if _CONTROL.search(decoded):
        raise UrlError("bad_url", "control character in the user information")
    return decoded


def _split_port(hostport: str, default: int) -> tuple[str, int]:
    if hostport.startswith("["):
        host, bracket, port = hostport.partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise UrlError("bad_url", "unbalanced brackets in the host")
        host, port = host + "]", port[1:]
    else:
        host, _, port = hostport.partition(":")
    if not port:
        return host, default
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise UrlError("bad_url", "port is not a number from 1 to 65535")
    return host, int(port)


@functools.lru_cache(maxsize=8192)
def _canonical_host(host: str) -> tuple[str, Address | None]:
    """ASCII host and, when it is an address in any spelling, that address."""
    if host.startswith("["):
        try:
            ip = ipaddress.IPv6Address(host[1:-1])
        except ValueError as error:
            raise UrlError("bad_url", "bad IPv6 address") from error
        if ip.scope_id is not None:
            raise UrlError("bad_url", "IPv6 address with a zone")
        return str(ip), ip
    try:
        name = unquote_to_bytes(host).decode() if "%" in host else host
    except UnicodeDecodeError as error:
        raise UrlError("bad_url", "host is not UTF-8") from error
    name = name.lower() if name.isascii() else _idna(name)
    name = name.removesuffix(".")
    labels = name.split(".")
    if not name or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UrlError("bad_url", "bad host name" if name else "no host")
    if labels[-1].isdigit() or re.fullmatch(r"0x[0-9a-f]*", labels[-1]):
        address = _ipv4(labels)
        return str(address), address
    return name, None


def _idna(name: str) -> str:
    import idna

    try:
        return idna.encode(name, uts46=True, transitional=False).decode()
    except (idna.IDNAError, UnicodeError) as error:
        raise UrlError("bad_url", "host name is not valid IDNA") from error


def _ipv4(labels: list[str]) -> ipaddress.IPv4Address:
    """The address that ``127.1``, ``0177.0.0.1``, ``0x7f000001`` or ``2130706433`` means to a browser."""
    numbers = []
    for label in labels:
        try:
            if label.startswith("0x"):
                numbers.append(int(label[2:] or "0", 16))
            elif label.startswith("0"):
                numbers.append(int(label, 8))
            else:
                numbers.append(int(label))
        except ValueError as error:
            raise UrlError("bad_url", "bad IPv4 address") from error
    *first, last = numbers
    if len(numbers) > 4 or any(n > 255 for n in first) or last >= 256 ** (5 - len(numbers)):
        raise UrlError("bad_url", "bad IPv4 address")
    value = last + sum(n << (8 * (3 - i)) for i, n in enumerate(first))
    return ipaddress.IPv4Address(value)
