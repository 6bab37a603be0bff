"""What a web server's response headers say about use of its images.

``X-Robots-Tag`` is read the way search engines document it: several headers, several directives each, any case; a
leading ``name:`` limits what follows to that robot; some directives carry a value that itself may hold colons and
commas (``unavailable_after: Wed, 25 Jun 2025 15:00:00 GMT``). ``noai``, ``noimageai`` and ``noml`` are the
directives sites use against machine learning; ``noindex``, ``noimageindex`` and ``none`` count as well.
``tdm-reservation: 1`` is the W3C community group's TDM Reservation Protocol; ``tdm-policy``, which says where a licence
may be had, changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MOST_DATES = 16  # ``unavailable_after`` directives that are read in one response; reading a date is slow

OPT_OUT = frozenset({"noai", "noimageai", "noml", "noindex", "noimageindex", "none"})
_VALUED = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_SEPARATOR = re.compile("[,;]")
_ROBOT = re.compile(r"\*|[a-z_][a-z0-9_.-]*")


def refusal(values: Sequence[str], robot: str, now: datetime | None = None) -> str | None:
    """The first directive in ``X-Robots-Tag`` header `values` that asks `robot` not to use the image, or None.

    `robot` is our product name in lower case. A directive for another robot does not count; one for ``*`` does.
    ``unavailable_after`` counts once its date (RFC 822, 850 or ISO 8601) has passed at `now` (default: the clock).
    """
    dates = 0
    for value in values:
        ours = True  # until a robot's name says otherwise; a name holds up to the end of its header
        pieces = [piece.strip() for piece in _SEPARATOR.split(value.lower())]
        for i, piece in enumerate(pieces):
            name, colon, argument = piece.partition(":")
            name = name.strip()
            if colon and name not in _VALUED and name not in OPT_OUT and _ROBOT.fullmatch(name):
                ours = name in (robot, "*")
                name, colon, argument = argument.strip().partition(":")
                name = name.strip()
            if not ours:
                continue
            for word in name.split():  # a list without its commas is a list all the same
                if word in OPT_OUT:
                    return word
            if name == "unavailable_after" and colon and dates < MOST_DATES:
                dates += 1
                if _passed(argument, pieces[i + 1 : i + 2], now):
                    return name
    return None


def reserved(values: Sequence[str]) -> bool:
    """Whether ``tdm-reservation`` header `values` reserve the rights: one of them is 1."""
    return any(piece.strip(' \t"') == "1" for value in values for piece in value.split(","))


def _passed(argument: str, following: Sequence[str], now: datetime | None) -> bool:
    """Whether the date has passed; a date with a comma arrives in two pieces. An unreadable date has not."""
    for text in (argument, ", ".join([argument, *following])):
        date = _date(text.strip())
        if date is not None:
            return date <= (now or datetime.now(UTC))
    return False


def _date(text: str) -> datetime | None:
    for parse in (parsedate_to_datetime, lambda t: datetime.fromisoformat(t.upper())):
        try:
            date = parse(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return date if date.tzinfo else date.replace(tzinfo=UTC)
    return None
