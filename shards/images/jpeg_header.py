"""The header of a JPEG: a walk over its markers up to the first scan, 15 microseconds.

Besides the size it finds what decoding will cost. A progressive file, or one whose channels come in scans of their own,
is decoded in memory as a whole whatever the size asked for; and each scan passes over all pixels, so that a few
kilobytes of empty scans could keep a processor busy for minutes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from .error import ImageError
from .header import MAX_PROFILE, Header

_MAX_SEGMENTS = 10_000
_MAX_SCANS = 200  # common files have 1 to 14
_MAX_PASSES = 1_000_000_000  # scans x pixels: seconds
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # start-of-frame markers
_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})  # markers without a length
_START, _END, _ADOBE = 0xDA, 0xD9, 0xEE  # of scan, of image, Adobe's segment with the colour space
_FILL = re.compile(rb"\xff+")
_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")  # in a scan: neither a stuffed byte nor a restart
_PADDED = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_FEW = 16  # stray bytes at the end that may have any value


def _segments(body: bytes) -> Iterator[tuple[int, int, int]]:
    """``(marker, start, end)`` of the data of every segment up to the first scan, whose start comes last."""
    at, end = 2, len(body)
    for _ in range(_MAX_SEGMENTS):
        if at + 4 > end:
            break
        if body[at] != 0xFF:
            at = body.find(b"\xff", at)  # stray bytes between segments: decoders pass over them
            if at < 0:
                break
            continue
        marker = body[at + 1]
        if marker == 0xFF:
            fill = _FILL.match(body, at)
            at = fill.end() - 1 if fill else end
            continue
        if marker in _ALONE:
            at += 2
            continue
        if marker in (_START, _END):
            yield marker, at + 4, at + 4
            return
        length = (body[at + 2] << 8) + body[at + 3]
        if length < 2:
            raise ImageError("corrupt", "JPEG segment length")
        yield marker, at + 4, at + 2 + length
        at += 2 + length
    else:
        raise ImageError("corrupt", f"more than {_MAX_SEGMENTS} segments")
    raise ImageError("truncated", "JPEG header")


def read_jpeg(body: bytes) -> Header:
    """Size, cost, EXIF block and colour profile of the JPEG in `body`.

    Raises:
        ImageError: ``truncated``, ``corrupt`` or ``unsupported``.
    """
    frame: tuple[int, int, int, int] | None = None
    marker = start = kind = 0
    exif, sampling, chunks = b"", b"", {}
    for marker, start, stop in _segments(body):
        if marker == 0xE1:
            if not exif and body[start : start + 6] == b"Exif\0\0":
                exif = body[start:stop]
        elif marker == 0xE2:
            if body[start : start + 12] == b"ICC_PROFILE\0" and start + 14 <= len(body):
                chunks[body[start + 12]] = body[start + 14 : stop]
        elif marker in _FRAMES:
            if start + 6 > len(body):
                raise ImageError("truncated", "JPEG header")
            if frame is not None:
                raise ImageError("corrupt", "JPEG with two frames")
            kind, frame = marker, struct.unpack_from(">BHHB", body, start)
            sampling = body[start + 6 : stop]
    if frame is None or marker == _END:
        raise ImageError("corrupt", "JPEG without a frame")
    precision, height, width, components = frame
    if kind not in (_BASELINE, _EXTENDED, _PROGRESSIVE):
        raise ImageError("unsupported", f"{'arithmetic' if kind > 0xC8 else 'lossless or hierarchical'} JPEG")
    if precision != 8:
        raise ImageError("unsupported", f"JPEG of {precision} bits")
    if width < 1 or height < 1 or not 1 <= components <= 4 or len(sampling) < 3 * components:
        raise ImageError("corrupt", f"JPEG header, {width}x{height}")
    header = Header("jpeg", width, height, components, exif=exif, plain=components == 3)
    if chunks:
        profile = b"".join(chunks[i] for i in sorted(chunks))
        header.profile = profile if len(profile) <= MAX_PROFILE else b""
    if kind == _PROGRESSIVE or (start < len(body) and body[start] < components):
        header.buffered = 2 * _samples(sampling, components)
        _judge_scans(body, start - 4, width * height)
    return header


def _samples(sampling: bytes, components: int) -> float:
    """Samples per pixel over all channels: 3 for 4:4:4, 1.5 for 4:2:0."""
    factors = [(sampling[3 * i + 1] >> 4, sampling[3 * i + 1] & 15) for i in range(components)]
    if not all(1 <= h <= 4 and 1 <= v <= 4 for h, v in factors):
        raise ImageError("corrupt", "JPEG sampling factors")
    most = max(h for h, _ in factors) * max(v for _, v in factors)
    return sum(h * v for h, v in factors) / most


def _judge_scans(body: bytes, at: int, pixels: int) -> None:
    """Refuse files that pass over their pixels absurdly often; `at` is the first scan."""
    most = min(_MAX_SCANS, max(_MAX_PASSES // pixels, 1))
    if body.count(b"\xff\xda", at) <= most:
        return
    scans = 0  # some may be in what follows the picture, such as a second one: count exactly
    for _ in range(_MAX_SEGMENTS):
        if at + 4 > len(body) or body[at + 1] == _END:
            return
        scans += body[at + 1] == _START
        if scans > most:
            break
        found = _MARKER.search(body, at + 2 + int.from_bytes(body[at + 2 : at + 4], "big"))
        if found is None:
            return
        at = found.start()
    raise ImageError("corrupt", f"more than {most} scans or {_MAX_SEGMENTS} segments")


def without_blemish(body: bytes, complaint: str) -> bytes | None:
    """The file without what libjpeg-turbo complains about, if that is outside of the coded picture; else None.

    Every viewer shows such files whole, and they are common: padding before the end marker, a badly numbered colour
    profile, stray bytes between segments. What comes back is decoded as strictly as any other file.
    """
    padded = _PADDED.search(complaint)
    if padded and int(padded[2], 16) == _END:
        end, count = body.rfind(b"\xff\xd9"), int(padded[1])
        padding = body[max(0, end - count) : max(0, end)]
        if end >= count and (count <= _FEW or not padding.strip(b"\0\xff")):
            return body[: end - count] + b"\xff\xd9"
        return None
    if padded or "ICC marker" in complaint or "JFIF revision" in complaint:
        segments = list(_segments(body))
        kept = [s for s in segments[:-1] if not 0xE0 <= s[0] <= 0xFE or s[0] == _ADOBE]
        jfif = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" if any(s[0] == 0xE0 for s in segments) else b""
        parts = [body[start - 4 : stop] for _, start, stop in kept]
        return b"".join([b"\xff\xd8", jfif, *parts, body[segments[-1][1] - 4 :]])
    return None
