"""Content codings of bodies: gzip, deflate, br, zstd; decoded here and not in curl, so that bombs are harmless.

curl would hold one decoder per transfer, and a Brotli or Zstandard decoder takes as much memory as its input asks for,
up to 16 and 128 MB. Here bodies are kept as they were sent, and decoded one at a time when the caller takes them, in
small steps that end at the cap. Which codings work does not depend on how libcurl was built.

Price: a body that is coded is held twice for a moment, and what it decodes to is known only at the end.
Sources: RFC 9110 section 8.4.1, RFC 1950-1952, RFC 7932, RFC 8878; RFC 9659 for the window of Zstandard.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterator

ACCEPTED = "gzip, deflate, br, zstd"
"""For the ``Accept-Encoding`` header."""

_STEP = 262_144  # bytes decoded at once
_MOST_CODINGS = 3
_MOST_MEMBERS = 64  # of a gzip file; one is usual
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW = 8 << 20  # what RFC 9659 allows on the web


class CodingError(ValueError):
    """A body that is not decoded.

    Attributes:
        code: ``unknown_coding``, ``too_large`` or ``bad_response``.
        detail: why.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


def codings(header: str) -> list[str]:
    """The codings that a ``Content-Encoding`` header names, in the order in which they were applied.

    Raises:
        CodingError: one of them is not known, or there are too many.
    """
    named = [name.strip().lower() for name in header.split(",")]
    found = [name.removeprefix("x-") for name in named if name not in ("", "identity", "none")]
    for name in found:
        if name not in _DECODERS:
            raise CodingError("unknown_coding", name[:32])
    if len(found) > _MOST_CODINGS:
        raise CodingError("bad_response", f"{len(found)} content codings")
    return found


def decode(data: bytes, names: list[str], limit: int) -> bytes:
    """Undo codings, the last one first.

    Args:
        data: the body as it was sent.
        names: as `codings` gives them.
        limit: most bytes that any step may give.

    Raises:
        CodingError: ``bad_response`` if the data is not in its coding, ``too_large`` beyond `limit`.
    """
    for name in reversed(names):
        decoded = bytearray()
        try:
            for piece in _DECODERS[name](data):
                decoded += piece
                if len(decoded) > limit:
                    raise CodingError("too_large", f"more than {limit} bytes")
        except (zlib.error, OSError, EOFError) as error:
            raise CodingError("bad_response", f"not valid {name}") from error
        data = bytes(decoded)
    return data


def _gzip(data: bytes) -> Iterator[bytes]:
    """Members one after another; what follows the last one and is none is ignored, as browsers do."""
    rest = memoryview(data)
    for _ in range(_MOST_MEMBERS):
        rest = rest[(yield from _inflate(rest, 31)) :]
        if rest[:2] != b"\x1f\x8b":
            return
    raise EOFError


def _deflate(data: bytes) -> Iterator[bytes]:
    """zlib's format, as the standard says, or the raw one, as some servers send."""
    wrapped = len(data) > 1 and data[0] & 15 == 8 and (data[0] << 8 | data[1]) % 31 == 0
    yield from _inflate(memoryview(data), 15 if wrapped else -15)


def _inflate(data: memoryview, form: int) -> Generator[bytes, None, int]:
    """Decode one stream, with zlib's `wbits` as its `form`; returns how many bytes it had."""
    stream = zlib.decompressobj(form)
    for start in range(0, len(data), _STEP):
        piece: bytes | memoryview = data[start : start + _STEP]
        end = start + len(piece)
        while True:
            out = stream.decompress(piece, _STEP)
            if out:
                yield out
            if stream.eof:
                return end - len(stream.unused_data)
            piece = stream.unconsumed_tail
            if not piece and len(out) < _STEP:
                break
    raise EOFError


def _arrow(name: str) -> Callable[[bytes], Iterator[bytes]]:
    def decoder(data: bytes) -> Iterator[bytes]:
        import pyarrow as pa

        if name == "zstd":
            _check_zstd(data)
        with pa.CompressedInputStream(pa.BufferReader(data), name) as stream:
            while piece := stream.read(_STEP):
                yield piece

    return decoder


def _check_zstd(data: bytes) -> None:
    """Refuse a first frame that wants more memory than the web's limit (its header is 2-14 bytes after the magic)."""
    if len(data) < 6 or data[:4] != _ZSTD_MAGIC or data[4] & 0x20:
        return  # no frame, which the decoder will say; or a single segment, whose window is the content itself
    exponent, mantissa = data[5] >> 3, data[5] & 7
    window = (1 << (10 + exponent)) // 8 * (8 + mantissa)
    if window > _ZSTD_WINDOW:
        raise CodingError("bad_response", f"zstd window of {window} bytes")


_DECODERS: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "gzip": _gzip,
    "deflate": _deflate,
    "br": _arrow("brotli"),
    "zstd": _arrow("zstd"),
}
