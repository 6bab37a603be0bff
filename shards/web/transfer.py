"""Many HTTP requests at once in one thread: libcurl's multi interface on an epoll loop.

One `Transfers` keeps `concurrency` curl handles, their connections, TLS sessions and the parsed CA bundle for as long
as it lives, so a request costs about 0.1 ms of CPU. It knows nothing of retries, redirects or opt-outs: it sends one
request, asks a judge what to do when the headers are in, and hands back one `Answer`. It is the last guard of the
address policy: every socket is opened by us, and only to addresses that pass.

Price: proxies set in the environment are ignored, because a proxy would connect wherever it likes.
"""

from __future__ import annotations

import os
import selectors
import socket
import ssl
import time
from typing import Any

import pycurl

from .address import is_public
from .body import Room
from .exchange import Exchange, callback
from .request import Answer, Request


class Transfers:
    """Sends up to `concurrency` requests at once; not thread-safe but for `wake`."""

    def __init__(
        self, concurrency: int, connect_timeout: float, room: Room, user_agent: str, allow_private: bool
    ) -> None:
        self.room = room
        self.connect_timeout = connect_timeout
        self._allow_private = allow_private
        self.user_agent = user_agent
        self.ca = _ca_bundle()
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._timer: float | None = None
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, concurrency)
        self.owner = self
        self.escaped: BaseException | None = None
        self.opened: list[socket.socket] = []  # curl works on copies of them
        self._idle: list[Exchange] = []
        self._busy: dict[pycurl.Curl, tuple[Exchange, Any]] = {}

    def handle(self) -> Exchange:
        """A curl handle for one chain of redirects; give it back with `release`."""
        return self._idle.pop() if self._idle else Exchange(self)

    def release(self, handle: Exchange) -> None:
        """Take back a handle; a request still running on it is dropped."""
        if self._busy.pop(handle.curl, None) is not None:
            self._multi.remove_handle(handle.curl)
        handle.drop()
        self._idle.append(handle)

    def start(self, handle: Exchange, request: Request, seconds: float, tag: Any) -> None:
        """Send `request` with `seconds` from now to its last byte; a later `wait` returns it with `tag`."""
        handle.prepare(request, seconds)
        self._busy[handle.curl] = (handle, tag)
        self._multi.add_handle(handle.curl)

    def wait(self, seconds: float) -> list[tuple[Any, Answer]]:
        """Move bytes for at most `seconds` (0 = only what is there already); returns the answers that are complete."""
        now = time.monotonic()
        if self._timer is not None:
            seconds = min(seconds, self._timer - now)
        for key, events in self._selector.select(max(0.0, seconds)):
            if key.fileobj is self._wake_in:
                self._drain()
            else:
                mask = (pycurl.CSELECT_IN if events & selectors.EVENT_READ else 0) | (
                    pycurl.CSELECT_OUT if events & selectors.EVENT_WRITE else 0
                )
                self._multi.socket_action(key.fd, mask)
        if self._timer is not None and self._timer <= time.monotonic():
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        while self.opened:
            self.opened.pop().close()
        if self.escaped is not None:
            escaped, self.escaped = self.escaped, None
            raise escaped
        return self._collect()

    def wake(self) -> None:
        """Make a `wait` in progress return; may be called from any thread."""
        try:
            self._wake_out.send(b"\0")
        except (BlockingIOError, OSError):
            pass  # it is full, so it wakes anyway; or it is closed, so nobody waits

    def close(self) -> None:
        """Drop everything, running requests included."""
        for handle, _ in list(self._busy.values()):
            self.release(handle)
        for handle in self._idle:
            handle.curl.close()
        self._multi.close()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _collect(self) -> list[tuple[Any, Answer]]:
        finished: list[tuple[Any, Answer]] = []
        more = 1
        while more:
            more, done, failed = self._multi.info_read()
            for curl, code, message in [*((curl, 0, "") for curl in done), *failed]:
                handle, tag = self._busy.pop(curl)
                self._multi.remove_handle(curl)
                finished.append((tag, handle.answer(code, message)))
        return finished

    def _drain(self) -> None:
        try:
            while self._wake_in.recv(4096):
                pass
        except BlockingIOError:
            pass

    @callback
    def _watch(self, what: int, fd: int, _multi: object, _data: object) -> None:
        watched = fd in self._selector.get_map()
        if what == pycurl.POLL_REMOVE:
            if watched:
                self._selector.unregister(fd)
            return
        events = (selectors.EVENT_READ if what & pycurl.POLL_IN else 0) | (
            selectors.EVENT_WRITE if what & pycurl.POLL_OUT else 0
        )
        if watched:
            self._selector.modify(fd, events)
        else:
            self._selector.register(fd, events)

    @callback
    def _set_timer(self, milliseconds: int) -> None:
        self._timer = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def may_open(self, address: str) -> bool:
        """Whether a socket may be opened to a literal `address`."""
        return is_public(address, self._allow_private)


def _ca_bundle() -> str | None:
    """File of trusted certificates: the environment's, the system's, or the one that comes with certifi."""
    for name in ("CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        if os.environ.get(name):
            return os.environ[name]
    found = ssl.get_default_verify_paths().cafile
    if found:
        return found
    try:
        import certifi
    except ImportError:
        return None
    return certifi.where()
