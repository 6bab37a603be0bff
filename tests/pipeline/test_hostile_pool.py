"""A whole run over a web that does its worst: it ends, every row has its reason, and memory stays small."""

import io
import json
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from little_web import jpeg
from PIL import Image
from small_run import curate

pytestmark = pytest.mark.slow

LIMIT = 400_000_000  # bytes of memory of a worker, libraries included


def picture(mode: str, side: int, kind: str, **options: object) -> bytes:
    """One colour, as large as it gets."""
    file = io.BytesIO()
    Image.new(mode, (side, side), None if mode == "I;16" else 90).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def claims(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that claims to be huge."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def zeros(megabytes: int) -> bytes:
    """That many megabytes of nothing, packed with gzip."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()


def frames(count: int) -> bytes:
    file = io.BytesIO()
    pictures = [Image.new("P", (400, 400), i % 256) for i in range(count)]
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:])
    return file.getvalue()


def answer(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> list[bytes]:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return [("\r\n".join(lines) + "\r\n\r\n").encode() + body]


class HostileWeb:
    """A raw server; a script per path: pieces of bytes to send, and seconds to wait."""

    def __init__(self, port: int = 0) -> None:
        self.socket = socket.create_server(("127.0.0.1", port), backlog=256)
        self.port = self.socket.getsockname()[1]
        self.scripts: dict[str, list[bytes | float]] = {}
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rb") as file:
                line = file.readline()
                while file.readline().strip():
                    pass
                path = line.split()[1].decode().split("?")[0]
                for step in self.scripts.get(path, answer(b"", status="404 Not Found")):
                    if isinstance(step, bytes):
                        connection.sendall(step)
                    else:
                        time.sleep(step)
                if path == "/endless":
                    while True:
                        connection.sendall(bytes(1 << 20))
                if path == "/drip":
                    while True:
                        connection.sendall(b"x")
                        time.sleep(0.2)
        except (OSError, IndexError):
            pass


@pytest.fixture
def web():
    server = HostileWeb()
    yield server
    server.close()


def scripts(web: HostileWeb) -> tuple[dict[str, list[bytes | float]], dict[str, set[str]]]:
    """Path -> what the server does, and path -> the reasons that it may end with."""
    here = f"http://127.0.0.1:{web.port}"
    good = jpeg(1)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n"
    found: dict[str, tuple[list[bytes | float], set[str]]] = {
        "/good": (answer(good), {"success"}),
        "/endless": ([head + b"\r\n" + good], {"too_large"}),
        "/huge": ([head + b"Content-Length: 1000000000000\r\n\r\n" + good], {"too_large"}),
        "/drip": ([head + b"Content-Length: 100000\r\n\r\n"], {"timeout"}),
        "/silent": ([30.0], {"timeout"}),
        "/late": ([head, 30.0], {"timeout"}),
        "/short": (answer(good, length=len(good) + 50), {"incomplete_read"}),
        "/cut": (answer(good[:-60]), {"truncated"}),
        "/closed": ([], {"incomplete_read"}),
        "/garbage": ([b"\x00\xff nonsense\r\n\r\n"], {"bad_response", "incomplete_read"}),
        "/flood": ([b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200_000 + b"\r\n"], {"bad_response", "incomplete_read"}),
        "/loop": (answer(b"", f"Location: {here}/loop", status="302 Found"), {"too_many_redirects"}),
        "/file": (answer(b"", "Location: file:///etc/passwd", status="302 Found"), {"scheme_denied"}),
        "/gzip": (answer(zeros(300), "Content-Encoding: gzip"), {"too_large"}),
        "/optout": (answer(good, "X-Robots-Tag: unavailable_after: 25 Jun 2099 15:00:00 GMT, noai"), {"opted_out"}),
        "/html": (answer(b"<html>no</html>", "Content-Type: image/jpeg"), {"not_image"}),
        "/empty": (answer(b""), {"empty"}),
        "/gone": (answer(b"", status="410 Gone"), {"http_410"}),
        "/claims": (answer(claims(60_000, 60_000)), {"too_many_pixels"}),
        "/sliver": (answer(claims(20_000, 1)), {"too_many_pixels", "aspect", "truncated", "corrupt"}),
        "/frames": (answer(frames(600)), {"success", "animated"}),
    }
    kinds = [
        ("L", "PNG"),
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("I;16", "PNG"),
        ("RGB", "JPEG"),
        ("CMYK", "JPEG"),
        ("P", "GIF"),
    ]
    for mode, kind in kinds:  # just within the limit on pixels, and beyond it
        for side, name in ((7900, "in"), (12_000, "out")):
            allowed = {"success", "too_many_pixels", "too_much_memory"} if name == "in" else {"too_many_pixels"}
            found[f"/{kind}-{mode.replace(';', '')}-{name}"] = (answer(picture(mode, side, kind)), allowed)
    return {path: s for path, (s, _) in found.items()}, {path: allowed for path, (_, allowed) in found.items()}


def rows_of(folder: Path) -> list[dict]:
    tables = sorted((folder / "runs" / "hostile" / "shards").glob("*.parquet"))
    return [row for table in tables for row in pq.read_table(table).to_pylist()]


def test_it_ends_and_stays_small(web, tmp_path: Path) -> None:
    web.scripts, allowed = scripts(web)
    here = f"http://127.0.0.1:{web.port}"
    urls = [f"{here}{path}?{i}" for i in range(6) for path in web.scripts] + [
        f"http://127.0.0.1:1/{i}" for i in range(40)
    ]
    table = pa.table({"url": urls, "text": [f"row {i}" for i in range(len(urls))]})
    pq.write_table(table, tmp_path / "pool.parquet")
    config = {
        "name": "hostile",
        "workdir": str(tmp_path / "runs"),
        "pool": {
            "source": {"type": "urls", "path": str(tmp_path / "pool.parquet")},
            "image": {"size": 256, "resize": "keep_ratio", "only_if_bigger": False},
            "fetch": {"allow_private": True, "timeout": 6, "retries": 0, "concurrency": 64, "per_host": 64},
            "samples_per_shard": 150,
        },
        "cluster": {"address": "processes", "workers": 2},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    done = curate("run", str(path), "--until", "pool", timeout=150)
    assert done.returncode == 0, done.stderr

    rows = rows_of(tmp_path)
    assert [row["url"] for row in rows] == urls
    wrong = Counter()
    for row in rows:
        name = row["url"].removeprefix(here).split("?")[0]
        reason = (row["error_message"] or "success").split(":")[0]
        if reason not in allowed.get(name, {"refused"}):
            wrong[name, reason] += 1
    assert not wrong
    receipts = [json.loads(p.read_text()) for p in (tmp_path / "runs/artifacts").glob("ingest-*/parts/????????.json")]
    assert len(receipts) >= 2
    peak = max(receipt["peak_bytes"] for receipt in receipts)
    assert peak < LIMIT, f"{peak / 1e6:.0f} MB"


def test_a_server_that_dies_and_comes_back(tmp_path: Path) -> None:
    web = HostileWeb()
    port = web.port
    numbers = list(range(400))
    here = f"http://127.0.0.1:{port}"
    web.scripts = {f"/{n}.jpg": [0.05, *answer(jpeg(n))] for n in numbers}
    pq.write_table(
        pa.table({"url": [f"{here}/{n}.jpg" for n in numbers], "text": ["a picture"] * 400}), tmp_path / "pool.parquet"
    )
    config = {
        "name": "hostile",
        "workdir": str(tmp_path / "runs"),
        "pool": {
            "source": {"type": "urls", "path": str(tmp_path / "pool.parquet")},
            "image": {"size": 32},
            "fetch": {"allow_private": True, "timeout": 5, "retries": 3, "backoff": 0.5, "concurrency": 8},
            "samples_per_shard": 200,
        },
        "cluster": {"address": "processes", "workers": 2},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    revived: list[HostileWeb] = []

    def trouble() -> None:
        time.sleep(2.0)
        web.close()
        time.sleep(1.5)
        revived.append(HostileWeb(port))
        revived[0].scripts = web.scripts

    thread = threading.Thread(target=trouble)
    thread.start()
    first = curate("run", str(path), "--until", "pool", timeout=150)
    thread.join()
    assert first.returncode == 0, first.stderr
    again = curate("run", str(path), "--until", "pool", "--retry", "failed", timeout=150)
    assert again.returncode in (0, 1)  # 1: nothing had failed
    rows = rows_of(tmp_path)
    assert [row["status"] for row in rows] == ["success"] * 400
    revived[0].close()
