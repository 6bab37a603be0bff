"""Make the demo's web: pictures, links and captions with planted faults, and apart from them the truth.

`build` fills a folder with five files, a pure function of the options and the seed:

* ``pool.parquet``, ``trusted.parquet``: uid, url, text, site. All that the run may see.
* ``truth.parquet``: what is really behind every row (`TRUTH_SCHEMA`). Only the report may see it.
* ``web.tar``: the files of all hosts (``tar xf`` gives one folder per host); ``routes.parquet``: what each address
  answers, lies included. Only the server (`serve`) reads these two.
"""

from __future__ import annotations

import hashlib

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
from .plan import make_plan
from .routes import MAIN, Route, Web, content_type, publish

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
        ("fetch", pa.string()),  # ok, redirect, or a key of plan.BROKEN
        ("readable", pa.bool_()),  # whether fetching gives a picture
        ("shape", pa.string()),  # normal, tiny (under 24 px), strip (aspect above 3)
        ("group_exact", pa.int32()),  # first row of the split with the same bytes; -1 = not readable
        (
            "group_near",
            pa.int32(),
        ),  # first readable row with the same rendering, at any size and quality; -1 = not readable
        ("good", pa.bool_()),  # a readable picture with a right English sentence
    ]
)

TINY = 24
"""Pixels: a side below is that of a tiny picture; no other copy of a rendering is so small."""

_SITES = ("gallery", "school", "shop", "blog")
_PICTURE, _COPY, _CAPTION, _PLAN, _TRUSTED = range(5)  # names of the streams of random numbers


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
    size = int(rng.integers(12, 17)) if shape == "tiny" else digits.random_size(rng)
    picture = digits.render(digits.scans().images[scan], rng, size)
    if shape == "strip":
        wide = int(size * (3.2 + 2 * rng.random()))
        left = int(wide * rng.random())
        picture = np.pad(picture, ((0, 0), (left, wide - left), (0, 0)), mode="edge")
    return picture


def _shape(picture: np.ndarray) -> str:
    short, long = sorted(picture.shape[:2])
    return "tiny" if short < TINY else "strip" if long > 3 * short else "normal"


def _first_file(picture: np.ndarray, rng: np.random.Generator) -> tuple[str, bytes]:
    form = ("jpg", "jpg", "jpg", "png", "webp")[int(rng.integers(5))]
    return form, digits.encode(picture, form, int(rng.integers(84, 96)))


def _rescaled(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The rendering again: smaller, larger or of the same size."""
    height, width = picture.shape[:2]
    scale = (0.75 + 0.15 * rng.random(), 1.0, 1.2 + 0.25 * rng.random())[int(rng.integers(3))]
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def _coarse_file(picture: np.ndarray, rng: np.random.Generator) -> tuple[str, bytes]:
    form = ("jpg", "webp")[int(rng.integers(2))]
    return form, digits.encode(picture, form, int(rng.integers(45, 78)))


def _pool(web: Web, options: WebOptions, seed: int) -> tuple[pa.Table, pa.Table]:
    """The pool's rows and their truth."""
    plan, labels = make_plan(options, random(seed, _PLAN)), digits.scans().labels
    rows, truth, contents = [], [], []
    for row, (picture, copy, scan) in enumerate(zip(plan.picture, plan.copy, plan.scan, strict=True)):
        fetch, kind, digit = str(plan.fetch[row]), str(plan.caption[row]), int(labels[scan])
        rng = random(seed, _PICTURE, int(picture))
        drawn = _draw(int(scan), str(plan.shape[row]), rng)
        if copy:
            rng = random(seed, _COPY, int(copy))
            drawn = _rescaled(drawn, rng)
        form, data = _coarse_file(drawn, rng) if copy else _first_file(drawn, rng)
        if fetch == "oversized":
            form = "png"
        rng = random(seed, _CAPTION, row)
        text, said, language = _caption(rng, kind, digit)
        site = _SITES[int(rng.integers(len(_SITES)))]
        url = publish(web, row, site, fetch, form, data, rng)
        uid, readable = stable_uid(url, text), fetch in ("ok", "redirect")
        rows.append((uid, url, text, site))
        contents.append((hashlib.sha256(data).digest(), int(picture)) if readable else None)
        good = readable and kind == "correct"
        truth.append(
            [uid, "pool", row, url, scan, digit, kind, said, language, fetch, readable, _shape(drawn), -1, -1, good]
        )
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


def _trusted(web: Web, options: WebOptions, seed: int) -> tuple[pa.Table, pa.Table]:
    """The trusted rows and their truth: right English sentences, working links, every picture its own."""
    scans, labels = digits.split()["trusted"], digits.scans().labels
    rounds = [random(seed, _TRUSTED).permutation(scans) for _ in range(-(-options.trusted_rows // len(scans)))]
    rows, truth = [], []
    for row, scan in enumerate(np.concatenate(rounds)[: options.trusted_rows]):
        rng, digit = random(seed, _TRUSTED, 1 + row), int(labels[scan])
        form, data = _first_file(_draw(int(scan), "normal", rng), rng)
        text, said, language = _caption(rng, "correct", digit)
        url = f"http://{MAIN}/trusted/t{row:06d}.{form}"
        web.serve(Route(MAIN, f"/trusted/t{row:06d}.{form}", content_type=content_type(form, 0)), data)
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
    web = Web()
    pool, pool_truth = _pool(web, options, seed)
    trusted, trusted_truth = _trusted(web, options, seed)
    with storage.publishing(storage.join(out, "web.tar")) as path, TarWriter(path) as tar:
        for key, form, data in web.files:
            tar.write(key, {form: data})
    routes = pa.Table.from_pylist([vars(route) for route in web.routes])
    tables = {
        "routes": routes,
        "pool": pool,
        "trusted": trusted,
        "truth": pa.concat_tables([pool_truth, trusted_truth]),
    }
    for name, table in tables.items():
        with storage.publishing(storage.join(out, f"{name}.parquet")) as path:
            pq.write_table(table, path)
