"""Who gets which fault: deals pictures, copies, captions and links to the rows of the demo's pool.

Shares are exact: a kind of fault gets its share of the rows, rounded, and chance decides only which rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from . import digits
from .options import WebOptions

BROKEN = {
    "not_found": 30, "refused": 20, "truncated": 15, "mislabelled": 12, "opted_out": 10,
    "cut_off": 5, "server_error": 5, "redirect_loop": 1, "oversized": 1, "private": 1,
}  # fmt: skip
"""How a link gives no picture -> its part among broken links.

``truncated`` is a file that was cut where it lies, ``cut_off`` an answer that stops before its Content-Length,
``mislabelled`` a page of HTML called image/jpeg, ``oversized`` 400 million pixels in 50 kB, ``private`` an address
inside a network, ``opted_out`` a picture with ``X-Robots-Tag: noai``.
"""


def apportion(total: int, parts: Mapping[str, float]) -> dict[str, int]:
    """Divide `total` by the weights `parts`, exactly: at least one each while it lasts, then by largest remainder."""
    one = int(total >= len(parts))
    rest = total - one * len(parts)
    shares = {name: rest * weight / sum(parts.values()) for name, weight in parts.items()}
    counts = {name: one + int(share) for name, share in shares.items()}
    by_remainder = sorted(parts, key=lambda name: int(shares[name]) - shares[name])
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def _deal(rng: np.random.Generator, n: int, counts: Mapping[str, int], rest: str) -> np.ndarray:
    """``(n,)`` names in random order: each of `counts` as often as it says, all others `rest`."""
    named = np.repeat(list(counts), list(counts.values()))
    return rng.permutation(np.concatenate([named, np.repeat([rest], n - len(named))]).astype(object))


@dataclass(frozen=True)
class Plan:
    """Which row shows, says and answers what, ``(n,)`` each.

    `picture` numbers the renderings; `copy` is 0 for the first file of one, "exact" copies share the number of the file
    that they copy, "near" copies have numbers of their own.
    """

    picture: np.ndarray
    copy: np.ndarray
    scan: np.ndarray
    shape: np.ndarray
    caption: np.ndarray
    fetch: np.ndarray


def make_plan(options: WebOptions, rng: np.random.Generator) -> Plan:
    """Deal pictures, copies, captions and links to the pool's rows."""
    n = options.rows
    exact, near = round(n * options.exact_copies), round(n * options.near_copies)
    pictures = n - exact - near
    scans = digits.split()["pool"]
    rounds = [rng.permutation(scans) for _ in range(-(-pictures // len(scans)))]
    scan_of = np.concatenate(rounds)[:pictures]  # every scan as often as any other, give or take one
    odd = round(pictures * options.odd_shapes)
    shape_of = _deal(rng, pictures, {"tiny": odd - odd // 2, "strip": odd // 2}, "normal")

    # Few pictures are copied, some of them often: as on the web.
    loved = [rng.choice(pictures, max(1, count // 3), replace=False) for count in (exact, near)]
    exact_of, near_of = (few[rng.integers(len(few), size=c)] for few, c in zip(loved, (exact, near), strict=True))
    picture = np.concatenate([np.arange(pictures), exact_of, near_of])
    copy = np.concatenate([np.zeros(pictures + exact, np.int64), 1 + np.arange(near)])

    spoilt = {"foreign": options.foreign, "boilerplate": options.boilerplate, "short": options.short}
    counts = {kind: round(n * share) for kind, share in spoilt.items()}
    counts["wrong"] = round((n - sum(counts.values())) * options.wrong_captions)
    broken = apportion(round(n * options.broken_links), BROKEN)
    redirects = {"redirect": min(round(n * options.redirects), n - sum(broken.values()))}
    order = rng.permutation(n)
    return Plan(
        picture=picture[order],
        copy=copy[order],
        scan=scan_of[picture[order]],
        shape=shape_of[picture[order]],
        caption=_deal(rng, n, counts, "correct"),
        fetch=_deal(rng, n, broken | redirects, "ok"),
    )
