"""A worker's memory stays bounded, whatever all of its servers send at once: measured in a process of its own."""

import gzip
import itertools
import json
import subprocess
import sys
import zlib
from typing import Any

import pyarrow as pa

LIMIT = 400_000_000
SLOTS = 64
MAX_BYTES = 8_000_000  # all slots together: 512 MB

CHILD = """
import json, sys, time
from collections import Counter
import pyarrow  # as in a worker
import numpy
from curate.shards.web.fetch import Fetcher, FetchOptions

given = json.load(sys.stdin)
codes, size, slow = Counter(), 0, given.pop("slow", 0.0)
with Fetcher(FetchOptions(**given["options"]), given["connect_to"]) as fetcher:
    for fetched in fetcher.fetch(given["urls"]):
        codes[fetched.error or "ok"] += 1
        size += len(fetched.body or b"")
        time.sleep(slow)
    left = fetcher.room.used
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"codes": codes, "bytes": size, "left": left, "peak": int(peak.split()[1]) * 1024}))
"""


def measure(web, paths: list[str], slow: float = 0.0, **options: Any) -> dict[str, Any]:
    hosts = [f"h{i % SLOTS}.example" for i in range(len(paths))]
    given = {
        "urls": [f"http://{host}{path}" for host, path in zip(hosts, paths, strict=True)],
        "connect_to": web.hosts(*hosts),
        "options": {"concurrency": SLOTS, "retries": 0, "timeout": 60, "max_bytes": MAX_BYTES, **options},
        "slow": slow,
    }
    child = [sys.executable, "-c", CHILD]
    done = subprocess.run(child, input=json.dumps(given), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_endless_bodies_in_every_slot(web) -> None:
    chunk = b"\xff" * 262_144
    web["/x"] = lambda seen: itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(chunk, 400))
    found = measure(web, ["/x"] * SLOTS)
    assert found["codes"] == {"too_large": SLOTS}
    assert found["peak"] < LIMIT
    assert found["left"] == 0


def test_the_largest_bodies_allowed_all_at_once_and_a_slow_caller(web) -> None:
    """Every server sends all but the last byte, and that one only when all others have come as far."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {MAX_BYTES}\r\n\r\n".encode()
    body = bytes(MAX_BYTES - 1)
    there = []

    def together(seen):
        yield head + body
        there.append(1)
        while len(there) < SLOTS:
            yield 0.05
        yield b"x"

    web["/x"] = together
    found = measure(web, ["/x"] * SLOTS, slow=0.01)
    assert found["codes"] == {"ok": SLOTS}
    assert found["bytes"] == SLOTS * MAX_BYTES
    assert found["peak"] < LIMIT


def test_bombs_of_every_coding(web, respond) -> None:
    zeros = bytes(60_000_000)
    deflate = zlib.compressobj(9)
    bombs = {
        "gzip": gzip.compress(zeros, 9),
        "deflate": deflate.compress(zeros) + deflate.flush(),
        "br": pa.compress(zeros, codec="brotli", asbytes=True),
        "zstd": pa.compress(zeros, codec="zstd", asbytes=True),
        "gzip, gzip": gzip.compress(gzip.compress(zeros, 9), 9),
    }
    del zeros
    assert max(map(len, bombs.values())) < 250_000
    paths = []
    for i, (name, bomb) in enumerate(bombs.items()):
        web[f"/{i}"] = respond(200, bomb, ("Content-Encoding", name))
        paths += [f"/{i}"] * 13
    found = measure(web, [f"{path}" for path in paths])
    assert found["codes"] == {"too_large": len(paths)}
    assert found["peak"] < LIMIT


def test_single_bytes_and_floods_of_headers(web) -> None:
    """Chunks of one byte each must not cost an object each, nor do headers that nobody asked for."""
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n"
    short = b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * 70_000 + b"Content-Length: 1\r\n\r\nx"
    long = b"HTTP/1.1 200 OK\r\nx-robots-tag: " + b"a," * 40_000 + b"\r\n" * 2 + b"x"
    for path, response in (("/chunks", chunks), ("/short", short), ("/long", long)):
        web[path] = [response, None]
    found = measure(web, ["/chunks"] * 8 + ["/short"] * 28 + ["/long"] * 28)
    assert sum(found["codes"].values()) == 64
    assert set(found["codes"]) <= {"ok", "bad_response"}
    assert found["peak"] < LIMIT
