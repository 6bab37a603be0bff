"""robots.txt, read as RFC 9309 says: which paths of a site a robot may ask for.

The standard library's parser is older than the standard: it takes the first matching rule instead of the longest, knows
no ``*`` and ``$``, and takes any substring of a robot's name. Here: groups for the same robot are merged, names are
compared without case and whole, the longest matching pattern decides and ``Allow`` wins a tie, paths and patterns are
compared with their percent-encoding evened out. Pure: fetching is the fetcher's business.

``Crawl-delay`` is not in the RFC but common; it is kept, up to `LONGEST_DELAY`, as the time between two requests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote_from_bytes, unquote_to_bytes

MAX_BYTES = 512_000  # what is beyond the first 500 KiB does not count (RFC 9309 section 2.5)
MAX_REDIRECTS = 5  # section 2.3.1.2
LONGEST_DELAY = 5.0  # seconds; a longer Crawl-delay counts as this

_TOKEN = re.compile(r"[A-Za-z_-]+")
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_KEEP = "!#$%&'()*+,/:;=?@[]~"


class Robots:
    """The rules of one site for one robot.

    Attributes:
        delay: seconds between two requests that the site asks for; 0 when it does not.
    """

    def __init__(self, rules: list[tuple[str, bool]], delay: float = 0.0) -> None:
        """`rules`: ``(pattern, allowed)`` in any order."""
        self.delay = delay
        self._plain: dict[str, bool] = {}  # patterns without wildcards are looked up, not tried one by one
        wild: dict[str, bool] = {}
        for pattern, allowed in rules:
            even = _even(pattern)
            where = wild if "*" in even or even.endswith("$") else self._plain
            where[even] = where.get(even, False) or allowed
        self._lengths = sorted({len(pattern) for pattern in self._plain}, reverse=True)
        self._wild = sorted(wild.items(), key=lambda rule: (-len(rule[0]), not rule[1]))

    def allows(self, path: str) -> bool:
        """Whether `path` (with its query, as in a canonical URL) may be asked for."""
        if path.split("?", 1)[0] == "/robots.txt":
            return True
        even = _even(path).replace("*", "%2A").replace("$", "%24")
        longest, allowed = -1, True
        for length in self._lengths:
            found = self._plain.get(even[:length]) if length <= len(even) else None
            if found is not None:
                longest, allowed = length, found
                break
        for pattern, permits in self._wild:
            if len(pattern) < longest:
                break
            if _matches(pattern, even):
                return permits if len(pattern) > longest else permits or allowed
        return allowed


def parse_robots(data: bytes, robot: str) -> Robots:
    """The rules for `robot` (a product token): its own groups, or else those for ``*``."""
    own: list[tuple[str, bool]] = []
    any_: list[tuple[str, bool]] = []
    delays = {"own": 0.0, "*": 0.0}
    named = False
    current: set[str] = set()
    agents_end = True  # a user-agent line now starts a new group
    for key, value in _lines(data):
        if key == "user-agent":
            if agents_end:
                current, agents_end = set(), False
            token = _TOKEN.match(value)
            if value.startswith("*"):
                current.add("*")
            elif token and token.group().lower() == robot.lower():
                current.add("own")
                named = True
        elif key in ("allow", "disallow"):
            agents_end = True
            if value:  # an empty pattern is no rule
                for rules in (own,) * ("own" in current) + (any_,) * ("*" in current):
                    rules.append((value, key == "allow"))
        elif key == "crawl-delay":  # no record of the RFC's, so it ends no list of robots
            for name in current:
                delays[name] = max(delays[name], _delay(value))
    return Robots(own, delays["own"]) if named else Robots(any_, delays["*"])


def _lines(data: bytes) -> Iterator[tuple[str, str]]:
    text = data[:MAX_BYTES].removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    for line in re.split(r"[\r\n]+", text):
        key, colon, value = line.partition("#")[0].partition(":")
        if colon:
            yield key.strip().lower(), value.strip()


def _delay(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        return 0.0
    return min(seconds, LONGEST_DELAY) if seconds > 0 else 0.0


def _even(text: str) -> str:
    """One spelling for paths that mean the same: encoded where they must be, and nowhere else."""
    if text.isascii() and "%" not in text and text.isprintable() and not set(text) & set(' "<>\\^`{|}'):
        return text
    spelled = quote_from_bytes(text.encode("utf-8", "surrogateescape"), safe=_KEEP)

    def one(found: re.Match[str]) -> str:
        byte = unquote_to_bytes(found.group())
        return byte.decode() if byte[0] in _UNRESERVED else found.group().upper()

    return _ENCODED.sub(one, spelled)


def _matches(pattern: str, path: str) -> bool:
    """Whether `pattern`, with ``*`` for any text and a final ``$`` for the end, matches the start of `path`."""
    to_end = pattern.endswith("$")
    first, *rest = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    if not rest:
        return not to_end or at == len(path)
    for piece in rest[:-1] if to_end else rest:  # the leftmost place is always good enough
        at = path.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return not to_end or (path.endswith(rest[-1]) and len(path) - len(rest[-1]) >= at)
