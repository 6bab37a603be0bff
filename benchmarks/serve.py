"""The web of the ingest benchmarks: one process on loopback that serves images from memory, over http and https.

    python benchmarks/serve.py IMAGES.npz PORTS.json [--close]

It shares the machine with what is measured, so it does next to nothing per request: the whole answer is ready, the path
is found by its last part, `epoll` and one `send` do the rest (about 0.05 ms of CPU for a request over http on a
connection of its own). It keeps connections alive for clients that let it, as web servers do: urllib asks for
``Connection: close`` and gets one connection per image, libcurl reuses its own. With ``--close`` every answer ends its
connection, whoever asks.

Images are ``/<anything>/<number>.jpg``; what comes before the number makes URLs distinct. The certificates are made on
the spot: an authority of our own and a leaf for 127.0.0.1 (P-256). With the ports comes the path of a bundle to trust:
the machine's usual authorities and ours, because to read a hundred of them is part of what https costs.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import json
import os
import select
import signal
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import certifi
import numpy as np

HEAD = "HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {size}\r\nConnection: {connection}\r\n\r\n"
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
SEND_BUFFER = 1 << 20  # an image fits, so that one call sends it
LARGEST_REQUEST = 16_384


def make_certificates(folder: Path) -> tuple[Path, Path]:
    """Files: a bundle of the usual authorities and ours, and a leaf with its key, for 127.0.0.1 and localhost."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)

    def builder(subject: str, issuer: str, key: Any) -> x509.CertificateBuilder:
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in (subject, issuer)]
        return (
            x509.CertificateBuilder(names[1], names[0], key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )

    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = (
        builder("benchmark authority", "benchmark authority", root)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(x509.KeyUsage(True, False, False, False, False, True, True, False, False), True)
        .sign(root, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        builder("127.0.0.1", "benchmark authority", leaf)
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False)
        .sign(root, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    trusted, own = folder / "authority.pem", folder / "leaf.pem"
    usual = Path(ssl.get_default_verify_paths().openssl_cafile)
    bundle = usual if usual.exists() else Path(certifi.where())
    trusted.write_bytes(bundle.read_bytes() + authority.public_bytes(pem))
    key = leaf.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    own.write_bytes(key + certificate.public_bytes(pem))
    return trusted, own


class Connection:
    """One client, and what of its request and of our answer is still to come."""

    __slots__ = ("closing", "left", "request", "socket")

    def __init__(self, client: socket.socket) -> None:
        self.socket = client
        self.request = b""
        self.left: memoryview | None = None
        self.closing = False


class Server:
    """Answers from memory on one listening socket per scheme, in one thread."""

    def __init__(self, images: list[bytes], close: bool) -> None:
        self._kept = [HEAD.format(size=len(i), connection="keep-alive").encode() + i for i in images]
        self._closed = [HEAD.format(size=len(i), connection="close").encode() + i for i in images]
        self._close = close
        self._epoll = select.epoll()
        self._listening: dict[int, tuple[socket.socket, ssl.SSLContext | None]] = {}
        self._clients: dict[int, Connection] = {}
        self.requests = self.connections = 0

    def listen(self, context: ssl.SSLContext | None) -> int:
        """Open a port, for https if there is a `context`; returns its number."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # accepted sockets inherit it
        listener.bind(("127.0.0.1", 0))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)  # accepted once its request is there
        listener.listen(1024)
        listener.setblocking(False)
        self._listening[listener.fileno()] = (listener, context)
        self._epoll.register(listener.fileno(), select.EPOLLIN)
        return listener.getsockname()[1]

    def run(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                if fd in self._listening:
                    self._accept(*self._listening[fd])
                elif fd in self._clients:
                    self._advance(self._clients[fd])

    def _accept(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                return
            self.connections += 1
            client.setblocking(False)
            if context is not None:
                client = context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)
            connection = Connection(client)
            self._clients[client.fileno()] = connection
            self._epoll.register(client.fileno(), select.EPOLLIN)
            self._advance(connection)

    def _advance(self, connection: Connection) -> None:
        """Read and answer as far as it goes without waiting."""
        try:
            while True:
                if connection.left is not None:
                    connection.left = connection.left[connection.socket.send(connection.left) :]
                    if connection.left:
                        continue
                    connection.left = None
                    if connection.closing:
                        return self._drop(connection)
                    self._epoll.modify(connection.socket.fileno(), select.EPOLLIN)
                data = connection.socket.recv(LARGEST_REQUEST)
                connection.request += data
                if not data or len(connection.request) > LARGEST_REQUEST:
                    return self._drop(connection)
                if connection.request.endswith(b"\r\n\r\n"):
                    self._answer(connection)
        except (BlockingIOError, ssl.SSLWantReadError):
            if connection.left is not None:
                self._epoll.modify(connection.socket.fileno(), select.EPOLLOUT)
        except ssl.SSLWantWriteError:
            self._epoll.modify(connection.socket.fileno(), select.EPOLLOUT)
        except OSError:
            self._drop(connection)

    def _answer(self, connection: Connection) -> None:
        request, connection.request = connection.request, b""
        self.requests += 1
        connection.closing = self._close or b"\r\nConnection: close" in request
        name = request[: request.find(b" HTTP/")].rpartition(b"/")[2].removesuffix(b".jpg")
        known = name.isdigit() and int(name) < len(self._kept)
        connection.closing |= not known
        answers = self._closed if connection.closing else self._kept
        connection.left = memoryview(answers[int(name)] if known else MISSING)

    def _drop(self, connection: Connection) -> None:
        del self._clients[connection.socket.fileno()]
        self._epoll.unregister(connection.socket.fileno())
        connection.socket.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="as written by photographs.py")
    parser.add_argument("ports", type=Path, help="JSON file to write when ready")
    parser.add_argument("--close", action="store_true", help="end the connection after every answer")
    options = parser.parse_args()
    with np.load(options.images) as stored:
        data, ends = stored["data"].tobytes(), stored["ends"].tolist()
    images = [data[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    del data
    server = Server(images, options.close)
    trusted, own = make_certificates(options.ports.parent)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own)
    told = {"http": server.listen(None), "https": server.listen(context), "authority": str(trusted), "pid": os.getpid()}

    def stop(*_: object) -> None:
        print(json.dumps({"requests": server.requests, "connections": server.connections}), flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    temporary = options.ports.with_suffix(".new")
    temporary.write_text(json.dumps(told))
    temporary.replace(options.ports)
    server.run()


if __name__ == "__main__":
    main()
