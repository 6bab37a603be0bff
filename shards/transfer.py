"""Many HTTP requests at once in one thread: libcurl's multi interface on an epoll loop.

One `Transfers` keeps `concurrency` curl handles, their connections, TLS sessions and the parsed CA bundle for as long
as it lives, so a request costs about 0.1 ms of CPU. It knows nothing of retries, redirects or opt-outs: it sends one
request, asks a judge what to do when the headers are in, and hands back one `Answer`. It is the last guard of the
address policy: every socket is opened by us, and only to addresses that pass.

Price: proxies set in the environment are ignored, because a proxy would connect wherever it likes.
"""

from __future__ import annotations

import functools
import os
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pycurl

from .address import is_public
from .request import Answer, Headers, Request, Verdict

SKIPPED_BODY = 65_536  # bytes of an unwanted body that are read to keep its connection; more and it is closed

_REFUSED = {pycurl.E_COULDNT_CONNECT}
_TIMEOUT = {pycurl.E_OPERATION_TIMEDOUT}
_INCOMPLETE = {pycurl.E_PARTIAL_FILE, pycurl.E_RECV_ERROR, pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR}
_TLS = {
    pycurl.E_SSL_CONNECT_ERROR,
    pycurl.E_PEER_FAILED_VERIFICATION,
    pycurl.E_SSL_CERTPROBLEM,
    pycurl.E_SSL_CIPHER,
    pycurl.E_SSL_CACERT_BADFILE,
    pycurl.E_SSL_ISSUER_ERROR,
    pycurl.E_SSL_INVALIDCERTSTATUS,
    pycurl.E_USE_SSL_FAILED,
}


Method = TypeVar("Method", bound=Callable[..., Any])


def _callback(method: Method) -> Method:
    """Bring what a callback raises (a bug, Ctrl-C) through curl's C code, which would print and forget it."""

    @functools.wraps(method)
    def guarded(self: Any, *arguments: Any) -> Any:
        try:
            return method(self, *arguments)
        except BaseException as error:  # noqa: BLE001  (raised again by `Transfers.wait`)
            self.owner.escaped = error
            return 0  # ends the transfer

    return guarded  # type: ignore[return-value]


class Transfers:
    """Sends up to `concurrency` requests at once; not thread-safe but for `wake`."""

    def __init__(
        self, concurrency: int, connect_timeout: float, max_bytes: int, user_agent: str, allow_private: bool
    ) -> None:
        self._max_bytes = max_bytes
        self._connect_timeout = connect_timeout
        self._allow_private = allow_private
        self._user_agent = user_agent
        self._ca = _ca_bundle()
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
        self._idle: list[_Handle] = []
        self._busy: dict[pycurl.Curl, tuple[_Handle, Any]] = {}

    def handle(self) -> _Handle:
        """A curl handle for one chain of redirects; give it back with `release`."""
        return self._idle.pop() if self._idle else _Handle(self)

    def release(self, handle: _Handle) -> None:
        """Take back a handle; a request still running on it is dropped."""
        if self._busy.pop(handle.curl, None) is not None:
            self._multi.remove_handle(handle.curl)
        handle.reset()
        self._idle.append(handle)

    def start(self, handle: _Handle, request: Request, tag: Any) -> None:
        """Send `request`; a later `wait` returns it with `tag`."""
        handle.prepare(request)
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

    @_callback
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

    @_callback
    def _set_timer(self, milliseconds: int) -> None:
        self._timer = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def may_open(self, address: str) -> bool:
        """Whether a socket may be opened to a literal `address`."""
        return is_public(address, self._allow_private)


class _Handle:
    """One curl handle and the response that it is receiving."""

    def __init__(self, owner: Transfers) -> None:
        self.owner = owner
        self.reset()
        self.curl = curl = pycurl.Curl()
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.ACCEPT_ENCODING, "")  # whatever this libcurl decodes: gzip, deflate, br, ...
        curl.setopt(pycurl.HTTPHEADER, ["Accept: image/jpeg,image/png,image/webp,image/*;q=0.8,*/*;q=0.5"])
        curl.setopt(pycurl.USERAGENT, owner._user_agent)
        curl.setopt(pycurl.COOKIEFILE, "")  # keep cookies in memory
        if owner._ca:
            curl.setopt(pycurl.CAINFO, owner._ca)
        curl.setopt(pycurl.WRITEFUNCTION, self._write)
        curl.setopt(pycurl.HEADERFUNCTION, self._header)
        curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open)

    def reset(self) -> None:
        """Forget the response."""
        self._request: Request | None = None
        self._raw: list[bytes] = []
        self._chunks: list[bytes] = []
        self._size = 0
        self._verdict: Verdict | None = None
        self._answer = Answer()
        self._denied = False

    def prepare(self, request: Request) -> None:
        """Set up the handle for `request`."""
        self.reset()
        self._request = request
        curl, target = self.curl, request.target
        curl.setopt(pycurl.URL, target.url)
        curl.setopt(pycurl.TIMEOUT_MS, max(1, int(request.seconds * 1000)))
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(min(request.seconds, self.owner._connect_timeout) * 1000)))
        curl.setopt(pycurl.CONNECT_TO, [f"::{request.connect_to}"] if request.connect_to else [])
        pins = ",".join(f"[{a}]" if ":" in a else a for a in request.addresses)
        curl.setopt(pycurl.RESOLVE, [f"{target.host}:{target.port}:{pins}"] if pins else [])
        if target.credentials:
            curl.setopt(pycurl.USERPWD, target.credentials)
        else:
            curl.unsetopt(pycurl.USERPWD)
        if request.fresh:
            curl.setopt(pycurl.COOKIELIST, "ALL")

    def answer(self, code: int, message: str) -> Answer:
        """The finished response, curl's result `code` translated."""
        answer = self._answer
        if self._denied:
            answer.error, answer.detail = "address_denied", "the socket's address is not public"
        elif self._verdict in ("skip", "stop"):
            pass  # the status says it all, however the unwanted body ended
        elif code == 0 and self._verdict == "read":
            answer.body = b"".join(self._chunks)
        elif answer.error is None:
            answer.error, answer.detail = _explain(code, message)
        self._chunks = []
        return answer

    @_callback
    def _header(self, line: bytes) -> int:
        """Take one header line; the empty one ends the block, and it is judged before any of the body comes."""
        if line.startswith(b"HTTP/"):
            self._raw = []
        if line.strip():
            self._raw.append(line)
        elif self._verdict is None and self._judge() == "stop":
            return 0
        return len(line)

    def _judge(self) -> Verdict | None:
        """The verdict on the headers; None for an interim response, after which the real one comes."""
        assert self._request is not None
        answer = self._answer
        answer.status, answer.headers = _parse(self._raw)
        if not 100 <= answer.status < 200:
            self._verdict = self._request.judge(answer.status, answer.headers)
        return self._verdict

    @_callback
    def _write(self, data: bytes) -> int:
        verdict = self._verdict
        self._size += len(data)
        if verdict == "read":
            if self._size <= self.owner._max_bytes:
                self._chunks.append(data)
                return len(data)
            self._answer.error, self._answer.detail = "too_large", f"more than {self.owner._max_bytes} bytes"
            self._chunks = []
        elif verdict == "skip" and self._size <= SKIPPED_BODY:
            return len(data)
        return 0  # ends the transfer and closes its connection

    @_callback
    def _open(self, _purpose: int, address: Any) -> socket.socket | int:
        family, kind, protocol, where = address
        request = self._request
        exempt = request is not None and request.connect_to is not None
        if not exempt and not (family in (socket.AF_INET, socket.AF_INET6) and self.owner.may_open(str(where[0]))):
            self._denied = True
            return pycurl.SOCKET_BAD
        return socket.socket(family, kind, protocol)


def _explain(code: int, message: str) -> tuple[str, str]:
    """curl's result as a reason code and a detail that is the same on every run (curl's own text holds timings)."""
    if code in _TIMEOUT:
        return "timeout", ""
    if code in _REFUSED:
        return "refused", ""
    if code in _INCOMPLETE:
        return "incomplete_read", "the connection closed early"
    if code in _TLS:
        return "tls", message
    return "bad_response", message


def _parse(lines: Sequence[bytes]) -> tuple[int, Headers]:
    """Status line and header lines -> status and headers."""
    status = lines[0].split(None, 2)[1:2] if lines else []
    headers: Headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers.append((name.strip().lower().decode("latin-1"), _text(value.strip())))
    return int(status[0]) if status and status[0].isdigit() else 0, headers


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


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
