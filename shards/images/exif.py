"""EXIF metadata of an image, read by hand so that hostile bytes cost nothing and cannot raise.

Keys are img2dataset's: ``"Image Make"``, ``"EXIF FNumber"``, ``"GPS GPSLatitude"``; values are text. Maker notes,
user comments, thumbnails and anything longer than 256 characters are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from PIL.ExifTags import GPSTAGS, TAGS

_MAX_ENTRIES = 256  # per directory
_MAX_DIRECTORIES = 4
_MAX_TEXT = 256  # characters per value
_ORIENTATION = 0x0112
_DIRECTORIES = {0x8769: ("EXIF", TAGS), 0x8825: ("GPS", GPSTAGS)}
_SKIPPED = {0x927C, 0x9286, 0x02BC, 0xC4A5}  # maker note, user comment, XMP, print image matching
_WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}  # bytes per value of a type
_FORMATS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d"}  # 2 text, 5 and 10 fractions, 7 opaque


def read_exif(raw: bytes) -> tuple[int, dict[str, str]]:
    """Orientation (1-8; 1 when there is none) and the fields of an EXIF block, with or without its ``Exif`` prefix.

    What cannot be read is left out.
    """
    raw = raw.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(raw[:4])
    if order is None or len(raw) < 8:
        return 1, {}
    fields: dict[str, str] = {}
    orientation = 1
    pending = [(struct.unpack_from(order + "I", raw, 4)[0], "Image", TAGS)]
    seen: set[int] = set()
    while pending and len(seen) < _MAX_DIRECTORIES:
        offset, group, names = pending.pop(0)
        if offset in seen:
            continue
        seen.add(offset)
        for tag, kind, values in _entries(raw, order, offset):
            if group == "Image" and tag in _DIRECTORIES and values and isinstance(values[0], int):
                pending.append((values[0], *_DIRECTORIES[tag]))
                continue
            if group == "Image" and tag == _ORIENTATION and len(values) == 1 and values[0] in range(1, 9):
                orientation = int(values[0])
            text = _text(kind, values)
            if text and tag not in _SKIPPED:
                fields[f"{group} {names.get(tag, f'Tag 0x{tag:04X}')}"] = text
    return orientation, fields


def _entries(raw: bytes, order: str, offset: int) -> Iterator[tuple[int, int, list]]:
    """``(tag, type, values)`` of the readable entries of one directory."""
    if offset + 2 > len(raw):
        return
    count = min(struct.unpack_from(order + "H", raw, offset)[0], _MAX_ENTRIES)
    for i in range(count):
        at = offset + 2 + 12 * i
        if at + 12 > len(raw):
            return
        tag, kind, length = struct.unpack_from(order + "HHI", raw, at)
        width = _WIDTHS.get(kind)
        if width is None or length > _MAX_TEXT:
            continue
        start = at + 8 if width * length <= 4 else struct.unpack_from(order + "I", raw, at + 8)[0]
        data = raw[start : start + width * length]
        if len(data) < width * length:
            continue
        if kind in (2, 7):
            yield tag, kind, [data]
        elif kind in (5, 10):
            numbers = struct.unpack(f"{order}{2 * length}{'I' if kind == 5 else 'i'}", data)
            yield tag, kind, list(zip(numbers[::2], numbers[1::2], strict=True))
        else:
            yield tag, kind, list(struct.unpack(f"{order}{length}{_FORMATS[kind]}", data))


def _text(kind: int, values: list) -> str:
    if not values:
        return ""
    if kind in (2, 7):
        text = values[0].split(b"\0", 1)[0].decode("utf-8", "replace").strip()
        return text if text.isprintable() and "\ufffd" not in text else ""
    if kind in (5, 10):
        values = [a if b == 1 else f"{a}/{b}" for a, b in values]
    text = str(values[0]) if len(values) == 1 else f"[{', '.join(map(str, values))}]"
    return text if len(text) <= _MAX_TEXT else ""
