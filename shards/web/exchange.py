"""One curl handle and the response that it is receiving.

What never changes is set once, and of the rest only what differs from the handle's last request: a `setopt` costs a
microsecond. Headers that nobody reads are not kept, so a flood of them costs nothing.
"""

from __future__ import annotations

import errno
import functools
import socket
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import pycurl

from ...errors import CurateError
from .body import Body, Room
from .coding import ACCEPTED
from .request import WANTED, Answer, Request, Verdict

SKIPPED_BODY = 65_536  # bytes of an unwanted body that are read to keep its connection; more and it is closed

_BUFFER = 131_072  # bytes handed over at once; curl has one such buffer for all transfers

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
_HEADERS = ["Accept: image/jpeg,image/png,image/webp,image/*;q=0.8,*/*;q=0.5", f"Accept-Encoding: {ACCEPTED}"]

Method = TypeVar("Method", bound=Callable[..., Any])


class Owner(Protocol):
    """What an exchange needs of the `Transfers` that it belongs to."""

    escaped: BaseException | None
    room: Room
    user_agent: str
    ca: str | None
    connect_timeout: float
    opened: list[socket.socket]

    def may_open(self, address: str) -> bool: ...


def callback(method: Method) -> Method:
    """Bring what a callback raises (a bug, Ctrl-C) through curl's C code, which would print and forget it."""

    @functools.wraps(method)
    def guarded(self: Any, *arguments: Any) -> Any:
        try:
            return method(self, *arguments)
        except BaseException as error:  # noqa: BLE001  (raised again by `Transfers.wait`)
            self.owner.escaped = error
            return 0  # ends the transfer

    return guarded  # type: ignore[return-value]


class Exchange:
    """A curl handle for one request after another."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self._pins = self._connect_to = self._credentials = ""
        self._milliseconds = 0
        self._anew = False
        self.reset()
        self.curl = curl = pycurl.Curl()
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER)
        curl.setopt(pycurl.HTTPHEADER, _HEADERS)  # and no ACCEPT_ENCODING: bodies stay as they are sent (`coding`)
        curl.setopt(pycurl.USERAGENT, owner.user_agent)
        curl.setopt(pycurl.COOKIEFILE, "")  # keep cookies in memory
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, max(1, int(owner.connect_timeout * 1000)))
        if owner.ca:
            curl.setopt(pycurl.CAINFO, owner.ca)
        curl.setopt(pycurl.WRITEFUNCTION, self._write)
        curl.setopt(pycurl.HEADERFUNCTION, self._header)
        curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open)

    def reset(self) -> None:
        """Forget the response."""
        self._request: Request | None = None
        self._body: Body | None = None
        self._size = 0
        self._verdict: Verdict | None = None
        self._answer = Answer()
        self._denied = False

    def drop(self) -> None:
        """Forget the response and what it holds."""
        if self._body is not None:
            self._body.drop()
        self.reset()

    def prepare(self, request: Request, seconds: float) -> None:
        """Set up the handle for `request`, which ends after `seconds`."""
        self.reset()
        self._request = request
        curl, target = self.curl, request.target
        curl.setopt(pycurl.URL, target.url)
        self._limit(seconds)
        connect_to = request.connect_to or ""
        if connect_to != self._connect_to:
            curl.setopt(pycurl.CONNECT_TO, [f"::{connect_to}"] if connect_to else [])
            self._connect_to = connect_to
        pins = ""
        if request.addresses:
            pins = f"{target.host}:{target.port}:" + ",".join(f"[{a}]" if ":" in a else a for a in request.addresses)
        if pins != self._pins:
            curl.setopt(pycurl.RESOLVE, [pins] if pins else [])
            self._pins = pins
        if target.credentials != self._credentials:
            if target.credentials:
                curl.setopt(pycurl.USERPWD, target.credentials)
            else:
                curl.unsetopt(pycurl.USERPWD)
            self._credentials = target.credentials
        if request.fresh:
            curl.setopt(pycurl.COOKIELIST, "ALL")
        if request.anew != self._anew:
            curl.setopt(pycurl.FRESH_CONNECT, int(request.anew))
            self._anew = request.anew

    def extend(self, seconds: float) -> None:
        """Give the request `seconds` more."""
        self._limit(self._milliseconds / 1000 + seconds)

    def _limit(self, seconds: float) -> None:
        self._milliseconds = max(1, int(seconds * 1000))
        self.curl.setopt(pycurl.TIMEOUT_MS, self._milliseconds)

    def answer(self, code: int, message: str) -> Answer:
        """The finished response, curl's result `code` translated."""
        answer, request, body = self._answer, self._request, self._body
        self._body = None
        if self._denied:
            answer.error, answer.detail = "address_denied", "the socket's address is not public"
        elif self._verdict in ("skip", "stop"):
            pass  # the status says it all, however the unwanted body ended
        elif self._verdict == "read" and (code == 0 or (answer.error is None and self._cut)):
            answer.body, body = body or Body(self.owner.room), None
        elif answer.error is None:
            answer.error, answer.detail = _explain(code, message)
            nothing = code in _INCOMPLETE and answer.status == 0
            answer.stale = nothing and self.curl.getinfo(pycurl.NUM_CONNECTS) == 0
        if body is not None:
            body.drop()
        assert request is not None
        return answer

    @property
    def _cut(self) -> bool:
        """Whether the body was longer than wanted, and its start was enough."""
        request = self._request
        return request is not None and not request.whole and self._size > request.max_bytes

    @callback
    def _header(self, line: bytes) -> int:
        """Take one header line; the empty one ends the block, and it is judged before any of the body comes."""
        answer = self._answer
        if self._verdict is not None:
            pass  # a trailer, after the body
        elif line.startswith(b"HTTP/"):
            status = line.split(None, 2)[1:2]
            answer.status = int(status[0]) if status and status[0].isdigit() else 0
            answer.headers = []
        elif line == b"\r\n" or line == b"\n":
            if not 100 <= answer.status < 200:  # after an interim response the real one comes
                assert self._request is not None
                self._verdict = self._request.judge(answer.status, answer.headers)
                if self._verdict == "stop":
                    return 0
        else:
            name, colon, value = line.partition(b":")
            known = name.strip().lower().decode("latin-1")
            if colon and known in WANTED:
                answer.headers.append((known, _text(value.strip())))
        return len(line)

    @callback
    def _write(self, data: bytes) -> int:
        verdict, request = self._verdict, self._request
        assert request is not None
        self._size += len(data)
        if verdict == "read":
            if self._body is None:
                self._body = Body(self.owner.room)
            if self._size <= request.max_bytes:
                self._body.add(data)
                return len(data)
            if not request.whole:
                self._body.add(data[: request.max_bytes - self._body.size])
                return 0
            self._answer.error, self._answer.detail = "too_large", f"more than {request.max_bytes} bytes"
            self._body.drop()
        elif verdict == "skip" and self._size <= SKIPPED_BODY:
            return len(data)
        return 0  # ends the transfer and closes its connection

    @callback
    def _open(self, _purpose: int, address: Any) -> socket.socket | int:
        family, kind, protocol, where = address
        request = self._request
        exempt = request is not None and request.connect_to is not None
        if not exempt and not (family in (socket.AF_INET, socket.AF_INET6) and self.owner.may_open(str(where[0]))):
            self._denied = True
            return pycurl.SOCKET_BAD
        try:
            opened = socket.socket(family, kind, protocol)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                return pycurl.SOCKET_BAD  # no IPv6 here, for example: curl goes on to the next address
            raise CurateError(
                "no more files can be opened: raise the limit (ulimit -n) or lower fetch.concurrency"
            ) from error
        self.owner.opened.append(opened)
        return opened


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


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
