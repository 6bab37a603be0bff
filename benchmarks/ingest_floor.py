"""Where our CPU goes in ingest, beside the floor: what the same work costs when nothing else is done.

The floor is a loop over the bare libraries on this machine: libcurl from the same server, simplejpeg at twice the
target or more, the SIMD Catmull-Rom resize, simplejpeg's encoder, SHA-256, and one plain write. Ours is one worker's
work, here and now: one part of the job ingested, with a clock around the functions of each step. The clocks themselves
cost about a microsecond per call; what no clock covers is *the rest*.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import photographs
import pyarrow.parquet as pq
from ingest_sides import HERE, Server, write_urls

ROWS = 500
ROUNDS = 3


class Clocks:
    """CPU seconds by step; time inside a nested step counts for the inner one only."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._now: list[str] = []
        self._since = 0.0

    def _switch(self) -> None:
        now = time.process_time()
        if self._now:
            self.seconds[self._now[-1]] += now - self._since
        self._since = now

    def enter(self, step: str) -> None:
        self._switch()
        self._now.append(step)

    def leave(self) -> None:
        self._switch()
        self._now.pop()

    def around(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            self.enter(step)
            try:
                return function(*arguments, **named)
            finally:
                self.leave()

        return timed

    def each(self, step: str, function: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        """Around every ``next`` of the generator that `function` makes."""

        def timed(*arguments: Any, **named: Any) -> Iterator[Any]:
            iterator = function(*arguments, **named)
            while True:
                self.enter(step)
                try:
                    value = next(iterator, self)
                finally:
                    self.leave()
                if value is self:
                    return
                yield value

        return timed


STEPS = {
    "header": ["images.header.read_header", "images.pixels.read_exif"],
    "decode": ["images.pixels.decode"],
    "resize": ["images.pixels.resize_pillow", "images.pixels.set_right"],
    "encode": ["images.pixels.encode"],
    "hash": ["ingest.hashlib.sha256"],
    "journal": ["journal.Journal.append", "journal.Journal.read", "journal.Journal.seal"],
    "tar": ["tar.TarWriter.write"],
    "json": ["row_table.sample_json"],
    "table": ["row_table.build", "row_table.write"],
}


def profile(urls: Path, folder: Path, in_flight: int) -> dict[str, float]:
    """CPU milliseconds per image of each step of `ingest_rows`."""
    from curate.pipeline.stage import Task
    from curate.shards.images.image import ImageOptions
    from curate.shards.sources.base import IngestOptions, Slot
    from curate.shards.sources.urls import UrlsSource
    from curate.shards.web import fetch
    from curate.shards.web.fetch import FetchOptions

    clocks = Clocks()
    source = UrlsSource(path=str(urls))
    part = source.parts(None, ROWS)[0]
    options = IngestOptions(
        image=ImageOptions(size=256, resize="keep_ratio", only_if_bigger=False),
        fetch=FetchOptions(concurrency=in_flight, per_host=in_flight, allow_private=True),
        samples_per_shard=ROWS,
    )
    task = Task("00000000", str(folder), str(folder / "scratch"), str(folder / "progress"))
    told = clocks.around("progress", task.progress)
    slot = Slot(0, task.part, task.out, task.scratch, progress=told)
    with mock.patch.object(fetch.Fetcher, "fetch", clocks.each("http", fetch.Fetcher.fetch)):
        patches = []
        for step, names in STEPS.items():
            for name in names:
                place, _, last = name.rpartition(".")
                owner: Any = pkgutil.resolve_name(f"curate.shards.{place}")
                patches.append(mock.patch.object(owner, last, clocks.around(step, getattr(owner, last))))
        for patch in patches:
            patch.start()
        try:
            clocks.enter("the rest")
            done = source.ingest(part, slot, options)
            clocks.leave()
        finally:
            for patch in patches:
                patch.stop()
    assert done.stats["successes"] == done.stats["rows"] == ROWS, done.stats
    return {step: 1000 * seconds / ROWS for step, seconds in clocks.seconds.items()}


def bare(bodies: list[bytes], urls: list[str], in_flight: int) -> dict[str, float]:
    """CPU milliseconds per image of the libraries alone."""
    import simplejpeg
    from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions, Resizer
    from PIL import Image

    clocks = Clocks()
    resizer, filtered = Resizer(), ResizeOptions(ResizeAlg.convolution(FilterType.catmull_rom), use_alpha=False)
    buffer = np.empty(1 << 23, np.uint8)
    clocks.enter("http")
    _fetch_all(urls, in_flight)
    clocks.leave()
    with open(os.devnull, "wb", buffering=0) as sink:
        for body in bodies:
            clocks.enter("header")
            height, width, *_ = simplejpeg.decode_jpeg_header(body)
            clocks.leave()
            clocks.enter("decode")
            side = min(height, width)
            less = next(f for f in (8, 4, 2, 1) if f == 1 or -(-side // f) >= 512)
            small = {} if less == 1 else {"min_height": -(-height // less), "min_width": -(-width // less)}
            pixels = simplejpeg.decode_jpeg(body, "RGBX", fastupsample=True, min_factor=2, buffer=buffer, **small)
            clocks.leave()
            clocks.enter("resize")
            target = Image.new("CMYK", (round(width * 256 / side), round(height * 256 / side)))
            size = (pixels.shape[1], pixels.shape[0])
            resizer.resize_pil(Image.frombuffer("CMYK", size, pixels, "raw", "CMYK", 0, 1), target, filtered)
            clocks.leave()
            clocks.enter("encode")
            stored = simplejpeg.encode_jpeg(np.asarray(target), 95, "RGBX", "420")
            clocks.leave()
            clocks.enter("hash")
            hashlib.sha256(body).hexdigest()
            clocks.leave()
            clocks.enter("tar")
            sink.write(stored)
            clocks.leave()
    return {step: 1000 * seconds / len(bodies) for step, seconds in clocks.seconds.items()}


def _fetch_all(urls: list[str], in_flight: int) -> None:
    """libcurl's multi interface as its manual shows it, and nothing around it."""
    import pycurl

    multi, waiting, busy = pycurl.CurlMulti(), iter(urls), 0
    idle = [pycurl.Curl() for _ in range(in_flight)]
    while True:
        while idle and (url := next(waiting, None)) is not None:
            curl = idle.pop()
            curl.setopt(pycurl.URL, url)
            curl.setopt(pycurl.WRITEDATA, io.BytesIO())
            if os.environ.get("SSL_CERT_FILE"):
                curl.setopt(pycurl.CAINFO, os.environ["SSL_CERT_FILE"])
            multi.add_handle(curl)
            busy += 1
        if not busy:
            return
        multi.perform()
        more = 1
        while more:
            more, done, failed = multi.info_read()
            assert not failed, failed
            for curl in done:
                multi.remove_handle(curl)
                idle.append(curl)
                busy -= 1
        if busy:
            multi.select(1.0)


def start_up(folder: Path, server: Server) -> float:
    """CPU seconds of a `curate run` over two shards of one image: process tree, planning and imports."""
    from ingest_sides import Job, measure

    folder.mkdir(parents=True)
    urls = folder / "two.parquet"
    write_urls(urls, "http", server.ports["http"], 2, 2)
    job = Job(urls, 2, 1, 2, 32, server.authority)
    return min(measure("curate", job, folder / f"run-{i}", server, Path()).cpu for i in range(ROUNDS))


def table(server: Server, images: Path, folder: Path, in_flight: int) -> dict[str, Any]:
    """Measure both in processes of their own, print them side by side; returns the figures."""
    started = start_up(folder / "start", server)
    urls = folder / "urls.parquet"
    write_urls(urls, "http", server.ports["http"], ROWS, ROWS)
    command = [sys.executable, str(HERE / "ingest_floor.py"), str(images), str(urls), str(folder), str(in_flight)]
    rounds = [json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout) for _ in range(ROUNDS)]
    ours, floor = ({s: min(r[i].get(s, 0.0) for r in rounds) for s in rounds[0][i]} for i in (0, 1))
    print(f"\nwhere our CPU goes: ms per image, one worker, http, least of {ROUNDS} runs of {ROWS} images")
    print(f"  {'':12}{'curate':>10}{'floor':>10}")
    for step in dict.fromkeys(["http", *STEPS, "progress", "the rest"]):
        print(f"  {step:12}{ours.get(step, 0):10.3f}" + (f"{floor[step]:10.3f}" if step in floor else ""))
    print(f"  {'sum':12}{sum(ours.values()):10.3f}{sum(floor.values()):10.3f}")
    each = ", ".join(f"{1000 * started / rows:.2f} ms per image of {rows:,}" for rows in (2000, 10_000))
    print(f"  start-up of the command: {started:.2f} CPU-s ({each})")
    rounded = [{step: round(v, 4) for step, v in d.items()} for d in (ours, floor)]
    return {"curate_ms": rounded[0], "floor_ms": rounded[1], "start_up_cpu_s": round(started, 3)}


def main() -> None:
    images, urls, folder = (Path(argument) for argument in sys.argv[1:4])
    in_flight = int(sys.argv[4])
    links = pq.read_table(urls)["url"].to_pylist()
    bodies = photographs.load(images)[: len(links)]
    with tempfile.TemporaryDirectory(dir=folder) as new:
        profile(urls, Path(new) / "warm", in_flight)
        print(json.dumps([profile(urls, Path(new) / "out", in_flight), bare(bodies, links, in_flight)]))


if __name__ == "__main__":
    main()
