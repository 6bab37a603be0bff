"""What every address of the demo's web answers: how a row's file, or its fault, is put on the web."""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass, field

import numpy as np

MAIN, MIRROR, REDIRECTOR, OPTED_OUT, DEAD = "digits.test", "mirror.test", "go.test", "optout.test", "dead.test"
HOSTS = (MAIN, MIRROR, REDIRECTOR, OPTED_OUT)
"""Hosts that answer; `DEAD` refuses every connection. ``.test`` is reserved: no such host exists outside."""

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
class Web:
    """What is being built: routes, and bodies as (sample key, extension, bytes)."""

    files: list[tuple[str, str, bytes]] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)

    def serve(self, route: Route, data: bytes) -> None:
        """Answer `route` with a file, which lies in the tar where its address says."""
        path, _, extension = route.path.rpartition(".")
        route.key = route.host + path
        self.files.append((route.key, extension, data))
        self.routes.append(route)


@functools.cache
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


def content_type(form: str, row: int) -> str:
    """The right type; every fortieth file is called something else, as happens."""
    if row % 40 == 7:
        return "application/octet-stream"
    return f"image/{'jpeg' if form == 'jpg' or row % 40 == 19 else form}"


def publish(web: Web, row: int, site: str, fetch: str, form: str, data: bytes, rng: np.random.Generator) -> str:
    """Put one row's file, or its fault, on the web; returns the address."""
    name, path = f"{row:06d}", f"/{site}/{row:06d}.{form}"
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
        web.routes.append(Route(host, path, status=302, location=f"/{site}/again/{name}.{form}"))
        web.routes.append(Route(host, f"/{site}/again/{name}.{form}", status=302, location=path))
        return f"http://{host}{path}"

    claimed = content_type(form, row)
    if fetch == "mislabelled":
        data, claimed = _ERROR_PAGE + b"<!-- %d -->" % row, "image/jpeg"
    elif fetch == "oversized":
        data = _bomb()
    elif fetch == "truncated":
        data = data[: len(data) * 7 // 10]
    missing = 0
    if fetch == "cut_off":
        missing = len(data) // 3
        data = data[:-missing]
    robots = "noai, noimageai" if fetch == "opted_out" else ""
    web.serve(Route(host, path, content_type=claimed, robots=robots, missing=missing), data)
    if fetch != "redirect":
        return f"http://{host}{path}"
    if row % 3 == 0:  # within the host, relative
        web.routes.append(Route(host, f"/old/{name}.{form}", status=301, location=path))
        return f"http://{host}/old/{name}.{form}"
    target = f"http://{host}{path}"
    if row % 3 == 1:  # two hops
        web.routes.append(Route(REDIRECTOR, f"/hop/{name}", status=307, location=target))
        target = f"http://{REDIRECTOR}/hop/{name}"
    web.routes.append(Route(REDIRECTOR, f"/{name}", status=302, location=target))
    return f"http://{REDIRECTOR}/{name}"
