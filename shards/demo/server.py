"""The demo's web server: real HTTP/1.1 on loopback, faults included, for the folder that `web.build` wrote.

One thread runs an asyncio loop; bodies are slices of the mapped ``web.tar``. Only addresses in ``routes.parquet`` are
answered, by exact match of host and path, and no request ever becomes a file name. The Host header chooses the site, so
one port plays all hosts; who fetches sends their connections here (`online`). About 40 us of CPU per request.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow.parquet as pq

from .. import storage
from ..tar import TarReader
from .routes import DEAD, HOSTS, Route

ALIVE = "/.well-known/alive"
"""Path that answers 204 on every host: whether the server still runs."""

_REASONS = {200: "OK", 204: "No Content", 301: "Moved Permanently", 302: "Found", 307: "Temporary Redirect"}
_REASONS |= {400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error"}
_MAX_HEAD = 16_384  # bytes of a request's head
_PAGE = "<!doctype html><title>{status}</title><h1>{status} {reason}</h1>"


class _Site:
    """What every address answers, with the bodies mapped."""

    def __init__(self, folder: str) -> None:
        tar = TarReader(storage.join(folder, "web.tar")).require_whole()
        rows = pq.read_table(storage.local(storage.join(folder, "routes.parquet"))).to_pylist()
        self._routes = {(route.host, route.path): route for route in (Route(**row) for row in rows)}
        self._view = tar.view()
        self._spans = tar.spans("jpg", "png", "webp")

    def answer(self, host: str, path: str) -> tuple[bytes, bytes, bool]:
        """Head, body, and whether the connection must end after them."""
        if path == ALIVE:
            return _head(204, 0), b"", False
        route = self._routes.get((host, path)) or Route(host, path, status=404)
        if route.key:
            offset, size = self._spans[route.key]
            body = self._view[offset : offset + size].tobytes()
        else:
            body = _PAGE.format(status=route.status, reason=_REASONS[route.status]).encode()
        more = {"Content-Type": route.content_type, "Location": route.location, "X-Robots-Tag": route.robots}
        return _head(route.status, len(body) + route.missing, more), body, route.missing > 0


def _head(status: int, length: int, more: dict[str, str] | None = None) -> bytes:
    fields = "".join(f"{name}: {value}\r\n" for name, value in (more or {}).items() if value)
    size = "" if status == 204 else f"Content-Length: {length}\r\n"
    return f"HTTP/1.1 {status} {_REASONS[status]}\r\n{fields}{size}\r\n".encode("latin-1")


class _Connection(asyncio.Protocol):
    """One client: requests in, answers out in the same order, until either side ends it."""

    def __init__(self, site: _Site, open_connections: set[asyncio.Transport]) -> None:
        self._site, self._open, self._buffer = site, open_connections, bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while not self._transport.is_closing() and (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._buffer[:end]).decode("latin-1")
            del self._buffer[: end + 4]
            self._respond(head)
        if len(self._buffer) > _MAX_HEAD:
            self._refuse(400)

    def _refuse(self, status: int) -> None:
        self._transport.write(_head(status, 0))
        self._transport.close()

    def _respond(self, request: str) -> None:
        line, *lines = request.split("\r\n")
        try:
            method, target, version = line.split(" ")
        except ValueError:
            return self._refuse(400)
        if method not in ("GET", "HEAD"):
            return self._refuse(405)
        fields = {name.strip().lower(): value.strip() for name, _, value in (entry.partition(":") for entry in lines)}
        host = fields.get("host", "").rsplit(":", 1)[0].lower()
        head, body, last = self._site.answer(host, target.partition("?")[0])
        self._transport.write(head if method == "HEAD" else head + body)
        if last or version != "HTTP/1.1" or fields.get("connection", "").lower() == "close":
            self._transport.close()


@contextmanager
def serve(folder: str) -> Iterator[int]:
    """Serve the web in `folder` on 127.0.0.1 while the block lasts; yields the port.

    Raises:
        DataError: ``web.tar`` is torn.
    """
    site, loop = _Site(folder), asyncio.new_event_loop()
    connections: set[asyncio.Transport] = set()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)

    async def run(stopped: asyncio.Event) -> None:
        server = await loop.create_server(lambda: _Connection(site, connections), sock=listener)
        await stopped.wait()
        server.close()
        for transport in list(connections):
            transport.abort()
        await server.wait_closed()

    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(run(stop)), name="demo-web", daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port on 127.0.0.1 that refuses connections and that nobody else gets while the block lasts."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening
        yield held.getsockname()[1]


@contextmanager
def online(folder: str) -> Iterator[dict[str, str]]:
    """Serve `folder`; yields where connections to each host must go, as ``host:80 -> 127.0.0.1:port``."""
    with serve(folder) as port, refusing_port() as refusing:
        yield {f"{host}:80": f"127.0.0.1:{port}" for host in HOSTS} | {f"{DEAD}:80": f"127.0.0.1:{refusing}"}
