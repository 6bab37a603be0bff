"""Make the demo's web: pictures, links and captions with planted faults, and apart from them the truth.

`build` fills a folder with five files, a pure function of the options and the seed:

* ``pool.parquet``, ``trusted.parquet``: uid, url, text, site. All that the run may see.
* ``truth.parquet``: what is really behind every row (`TRUTH_SCHEMA`). Only the report may see it.
* ``web.tar``: the files of all hosts (``tar xf`` gives one folder per host); ``routes.parquet``: what each address
  answers, lies included. Only the server (`serve`) reads these two.

Shares are exact: a kind of fault gets its share of the rows, rounded, and chance decides only which rows.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from .. import storage
from ..tar import TarWriter
from ..uid import stable_uid
from . import captions, digits
from .digits import random
from .options import WebOptions

MAIN, MIRROR, REDIRECTOR, OPTED_OUT, DEAD = "digits.test", "mirror.test", "go.test", "optout.test", "dead.test"
HOSTS = (MAIN, MIRROR, REDIRECTOR, OPTED_OUT)
"""Hosts that answer; `DEAD` refuses every connection. ``.test`` is reserved: no such host exists outside."""

BROKEN = {
    "not_found": 30, "refused": 20, "truncated": 15, "mislabelled": 12, "opted_out": 10,
    "cut_off": 5, "server_error": 5, "redirect_loop": 1, "oversized": 1, "private": 1,
}  # fmt: skip
"""How a link gives no picture -> its part among broken links. ``truncated`` is a file that was cut where it lies,
``cut_off`` an answer that stops before its Content-Length, ``oversized`` 400 million pixels in 50 kB, ``mislabelled`` a page
of HTML called image/jpeg, ``private`` an address inside a network, ``opted_out`` a picture with ``X-Robots-Tag: noai``."""

TRUTH_SCHEMA = pa.schema(
    [
        ("uid", pa.string()),
        ("split", pa.string()),  # pool, trusted
        ("row", pa.int32()),  # row number in the split's parquet
        ("url", pa.string()),
        ("scan", pa.int16()),  # number of the scan that the picture shows
        ("digit", pa.int8()),  # digit that the picture shows, or would show if the link worked
        ("caption", pa.string()),  # correct, wrong, foreign, boilerplate, short
        ("said", pa.int8()),  # digit that the caption names; -1 = none
        ("language", pa.string()),  # of the caption; empty for boilerplate
        ("fetch", pa.string()),  # ok, redirect, or a key of BROKEN
        ("readable", pa.bool_()),  # whether fetching gives a picture
        ("shape", pa.string()),  # normal, tiny (under 20 px), strip (aspect 4 and more)
        ("group_exact", pa.int32()),  # first row of the split with the same bytes; -1 = not readable
        ("group_near", pa.int32()),  # first readable row with the same rendering, at any size and quality; -1 = not readable
        ("good", pa.bool_()),  # a readable picture with a right English sentence
    ]
)

_SITES = ("gallery", "school", "shop", "blog")
_PICTURE, _COPY, _CAPTION, _PLAN, _TRUSTED = range(5)  # names of the streams of random numbers
_ERROR_PAGE = b"<!doctype html><title>Gone</title><p>The picture that you are looking for has moved.</p>"


@dataclass
class Route:
    """What one address answers.

    Attributes:
        host: the Host header's name.
        path: from the slash on.
        key: sample key of its body in ``web.tar``; empty = a short page.
        status: HTTP status.
        content_type: as claimed.
        location: where a redirect leads.
        robots: X-Robots-Tag.
        missing: bytes that Content-Length claims beyond the body.
    """

    host: str
    path: str
    key: str = ""
    status: int = 200
    content_type: str = "text/html"
    location: str = ""
    robots: str = ""
    missing: int = 0


@dataclass
class _Web:
    """What is being built: bodies by member name without extension, routes, and rows of truth."""

    files: list[tuple[str, str, bytes]] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)


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
class _Plan:
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


def _plan(options: WebOptions, seed: int) -> _Plan:
    rng, n = random(seed, _PLAN), options.rows
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
    return _Plan(
        picture=picture[order],
        copy=copy[order],
        scan=scan_of[picture[order]],
        shape=shape_of[picture[order]],
        caption=_deal(rng, n, counts, "correct"),
        fetch=_deal(rng, n, broken | redirects, "ok"),
    )


def _caption(rng: np.random.Generator, kind: str, digit: int) -> tuple[str, int, str]:
    """Text, the digit it names (-1 = none) and its language."""
    if kind == "foreign":
        text, language = captions.foreign(rng, digit)
        return text, digit, language
    if kind == "boilerplate":
        return captions.boilerplate(rng), -1, ""
    if kind == "short":
        return captions.short(rng, digit), digit, "en"
    said = digit if kind == "correct" else (digit + 1 + int(rng.integers(9))) % 10
    return captions.sentence(rng, said), said, "en"


def _draw(scan: int, shape: str, rng: np.random.Generator) -> np.ndarray:
    """One rendering, ``(h, w, 3) uint8``."""
    size = int(rng.integers(12, 20)) if shape == "tiny" else digits.random_size(rng)
    picture = digits.render(digits.scans().images[scan], rng, size)
    if shape == "strip":
        wide = int(size * (3.2 + 2 * rng.random()))
        left = int(wide * rng.random())
        picture = np.pad(picture, ((0, 0), (left, wide - left), (0, 0)), mode="edge")
    return picture


def _first_file(picture: np.ndarray, rng: np.random.Generator) -> tuple[str, bytes]:
    form = ("jpg", "jpg", "jpg", "png", "webp")[int(rng.integers(5))]
    return form, digits.encode(picture, form, int(rng.integers(84, 96)))


def _near_file(picture: np.ndarray, rng: np.random.Generator) -> tuple[str, bytes]:
    """The rendering again: smaller, larger or just coarser."""
    height, width = picture.shape[:2]
    scale = (0.65 + 0.25 * rng.random(), 1.0, 1.25 + 0.35 * rng.random())[int(rng.integers(3))]
    size = (max(12, round(width * scale)), max(12, round(height * scale)))
    again = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
    form = ("jpg", "webp")[int(rng.integers(2))]
    return form, digits.encode(again, form, int(rng.integers(45, 78)))


def _bomb() -> bytes:
    """A valid 1-bit PNG of 20,000 x 20,000 pixels, all white, in about 50 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    side = 20_000
    squeeze = zlib.compressobj(9)
    row = b"\0" + b"\xff" * (side // 8)
    body = b"".join(squeeze.compress(row * 100) for _ in range(side // 100)) + squeeze.flush()
    head = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _content_type(form: str, row: int) -> str:
    """The right type; every fortieth file is called something else, as happens."""
    if row % 40 == 7:
        return "application/octet-stream"
    return f"image/{'jpeg' if form == 'jpg' or row % 40 == 19 else form}"


def _publish(web: _Web, row: int, site: str, fetch: str, form: str, data: bytes, rng: np.random.Generator) -> str:
    """Put one row's file, or its fault, on the web; returns the address."""
    key, path = f"{row:06d}", f"/{site}/{row:06d}.{form}"
    host = {"opted_out": OPTED_OUT, "refused": DEAD}.get(fetch, MAIN if rng.random() < 0.7 else MIRROR)
    if fetch == "refused":
        return f"http://{host}{path}"
    if fetch == "private":
        return f"http://{('10.0.0.7', '192.168.1.20', '127.0.0.1')[row % 3]}{path}"
    if fetch == "not_found":
        web.routes.append(Route(host, path, status=404))
        return f"http://{host}{path}"
    if fetch == "server_error":
        web.routes.append(Route(host, path, status=500))
        return f"http://{host}{path}"
    if fetch == "redirect_loop":
        web.routes.append(Route(host, path, status=302, location=f"/{site}/again/{key}.{form}"))
        web.routes.append(Route(host, f"/{site}/again/{key}.{form}", status=302, location=path))
        return f"http://{host}{path}"

    content_type = _content_type(form, row)
    if fetch == "mislabelled":
        data, content_type = _ERROR_PAGE + b"<!-- %d -->" % row, "image/jpeg"
    elif fetch == "oversized":
        data = _bomb()
    elif fetch == "truncated":
        data = data[: len(data) * 7 // 10]
    missing = 0
    if fetch == "cut_off":
        missing = len(data) // 3
        data = data[:-missing]
    robots = "noai, noimageai" if fetch == "opted_out" else ""
    web.files.append((f"{host}/{site}/{key}", form, data))
    web.routes.append(Route(host, path, key, 200, content_type, robots=robots, missing=missing))
    if fetch != "redirect":
        return f"http://{host}{path}"
    if row % 3 == 0:  # within the host, relative
        web.routes.append(Route(host, f"/old/{key}.{form}", status=301, location=path))
        return f"http://{host}/old/{key}.{form}"
    target = f"http://{host}{path}"
    if row % 3 == 1:  # two hops
        web.routes.append(Route(REDIRECTOR, f"/hop/{key}", status=307, location=target))
        target = f"http://{REDIRECTOR}/hop/{key}"
    web.routes.append(Route(REDIRECTOR, f"/{key}", status=302, location=target))
    return f"http://{REDIRECTOR}/{key}"


def _pool(web: _Web, options: WebOptions, seed: int) -> tuple[pa.Table, pa.Table]:
    """The pool's rows and their truth."""
    plan, labels = _plan(options, seed), digits.scans().labels
    rows, truth, contents = [], [], []
    for row, (picture, copy, scan) in enumerate(zip(plan.picture, plan.copy, plan.scan, strict=True)):
        fetch, kind, shape, digit = str(plan.fetch[row]), str(plan.caption[row]), str(plan.shape[row]), int(labels[scan])
        rng = random(seed, _PICTURE, int(picture))
        drawn = _draw(int(scan), shape, rng)
        form, data = _near_file(drawn, random(seed, _COPY, int(copy))) if copy else _first_file(drawn, rng)
        if fetch == "oversized":
            form = "png"
        rng = random(seed, _CAPTION, row)
        text, said, language = _caption(rng, kind, digit)
        site = _SITES[int(rng.integers(len(_SITES)))]
        url = _publish(web, row, site, fetch, form, data, rng)
        uid, readable = stable_uid(url, text), fetch in ("ok", "redirect")
        rows.append((uid, url, text, site))
        contents.append((hashlib.sha256(data).digest(), int(picture)) if readable else None)
        good = readable and kind == "correct"
        truth.append([uid, "pool", row, url, scan, digit, kind, said, language, fetch, readable, shape, -1, -1, good])
    _group(truth, contents)
    return _table(rows), _truth_table(truth)


def _group(truth: list[list], contents: list[tuple[bytes, int] | None]) -> None:
    """Fill ``group_exact`` and ``group_near`` from each row's (digest, rendering)."""
    exact, near = TRUTH_SCHEMA.get_field_index("group_exact"), TRUTH_SCHEMA.get_field_index("group_near")
    first_bytes: dict[bytes, int] = {}
    first_picture: dict[int, int] = {}
    for row, content in enumerate(contents):
        if content is not None:
            truth[row][exact] = first_bytes.setdefault(content[0], row)
            truth[row][near] = first_picture.setdefault(content[1], row)


def _trusted(web: _Web, options: WebOptions, seed: int) -> tuple[pa.Table, pa.Table]:
    """The trusted rows and their truth: right English sentences, working links, every picture its own."""
    scans, labels = digits.split()["trusted"], digits.scans().labels
    rounds = [random(seed, _TRUSTED).permutation(scans) for _ in range(-(-options.trusted_rows // len(scans)))]
    rows, truth = [], []
    for row, scan in enumerate(np.concatenate(rounds)[: options.trusted_rows]):
        rng, digit = random(seed, _TRUSTED, 1 + row), int(labels[scan])
        form, data = _first_file(_draw(int(scan), "normal", rng), rng)
        text, said, language = _caption(rng, "correct", digit)
        url = f"http://{MAIN}/trusted/t{row:06d}.{form}"
        web.files.append((f"{MAIN}/trusted/t{row:06d}", form, data))
        web.routes.append(Route(MAIN, f"/trusted/t{row:06d}.{form}", f"t{row:06d}", 200, _content_type(form, 0)))
        uid = stable_uid(url, text)
        rows.append((uid, url, text, "trusted"))
        truth.append(
            [uid, "trusted", row, url, scan, digit, "correct", said, language, "ok", True, "normal", row, row, True]
        )
    return _table(rows), _truth_table(truth)


def _table(rows: list[tuple[str, str, str, str]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    return pa.table({name: pa.array(c, pa.string()) for name, c in zip(("uid", "url", "text", "site"), columns)})  # noqa: B905


def _truth_table(truth: list[list]) -> pa.Table:
    columns = zip(*truth, strict=True)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, TRUTH_SCHEMA, strict=True)], schema=TRUTH_SCHEMA)


def build(out: str, seed: int, options: WebOptions) -> None:
    """Write the web, the two pools and the truth into folder `out`; the same arguments give the same bytes."""
    web = _Web()
    pool, pool_truth = _pool(web, options, seed)
    trusted, trusted_truth = _trusted(web, options, seed)
    with storage.publishing(storage.join(out, "web.tar")) as path, TarWriter(path) as tar:
        for name, form, data in web.files:
            tar.write(name, {form: data})
    routes = pa.Table.from_pylist([vars(route) for route in web.routes])
    tables = {"routes": routes, "pool": pool, "trusted": trusted, "truth": pa.concat_tables([pool_truth, trusted_truth])}
    for name, table in tables.items():
        with storage.publishing(storage.join(out, f"{name}.parquet")) as path:
            pq.write_table(table, path)
