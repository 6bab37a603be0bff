"""A real web server on loopback whose every byte and pause a test decides."""

import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pytest


@dataclass
class Seen:
    """One request as it arrived."""

    path: str
    host: str
    headers: dict[str, str]
    at: float
    connection: int


Script = Iterable[bytes | float | None]
"""What a route sends: bytes, pauses in seconds, and None = close the connection now."""


def http(status: int | str = 200, body: bytes = b"", *headers: tuple[str, str], length: bool = True) -> bytes:
    """A whole response."""
    lines = [f"HTTP/1.1 {status} x" if isinstance(status, int) else status]
    lines += [f"{name}: {value}" for name, value in headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


@dataclass
class Web:
    """Routes by path; anything else is 404."""

    routes: dict[str, Callable[[Seen], Script]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    sent: int = 0
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self.socket.getsockname()[1]
        self.stopping = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        if not self.stopping.is_set():
            self.stopping.set()
            self.socket.shutdown(socket.SHUT_RDWR)  # ends the thread that waits in accept
            self.socket.close()

    def __setitem__(self, path: str, script: bytes | Script | Callable[[Seen], Script]) -> None:
        if isinstance(script, bytes):
            self.routes[path] = lambda seen: [script]
        elif callable(script):
            self.routes[path] = script
        else:
            steps = list(script)
            self.routes[path] = lambda seen: steps

    @property
    def hits(self) -> Counter[str]:
        return Counter(seen.path for seen in self.seen)

    def hosts(self, *names: str) -> dict[str, str]:
        """`connect_to` overrides that bring these hosts here."""
        return {f"{name}:80": f"127.0.0.1:{self.port}" for name in names}

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            file = connection.makefile("rb")
            while (line := file.readline()).startswith(b"GET "):
                path = line.split()[1].decode("latin-1")
                headers = {}
                while (raw := file.readline().strip()) != b"":
                    name, _, value = raw.partition(b":")
                    headers[name.strip().lower().decode()] = value.strip().decode("latin-1")
                seen = Seen(path, headers.get("host", ""), headers, time.monotonic(), number)
                self.seen.append(seen)
                route = self.routes.get(path, lambda seen: [http(404, b"nothing here")])
                for step in route(seen):
                    if step is None:
                        return
                    if isinstance(step, bytes):
                        connection.sendall(step)
                        self.sent += len(step)
                    elif self.stopping.wait(step):
                        return
        except (OSError, ssl.SSLError):
            pass
        finally:
            connection.close()


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


@pytest.fixture
def make_web() -> Iterator[Callable[..., Web]]:
    made: list[Web] = []

    def make(**options: object) -> Web:
        made.append(Web(**options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def respond() -> Callable[..., bytes]:
    """`http`, as a fixture, because tests cannot import each other."""
    return http
