"""One tar header: its bytes for a member that we write, and its meaning in a file that anyone wrote.

USTAR holds names of 100 bytes, or 255 split at a slash; longer ones get a POSIX (pax) header before them. What is read
is never trusted: every field is checked, every length is bounded, and no name ever becomes a path.
Source: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import adler32

BLOCK = 512
MAX_EXTENSION = 1 << 16  # bytes of a long-name or pax header that are read; longer ones are passed over
REGULAR = b"0\x007"
MAX_OCTAL = 8**11  # bytes; larger members need a pax size

_TAIL = (b"ustar\x0000" + b"bigdata".ljust(32, b"\0") + b"bigdata".ljust(32, b"\0") + b"0000000\x000000000\x00").ljust(
    255, b"\0"
)
_BODY = {kind: kind + bytes(100) + _TAIL for kind in (b"0", b"x")}
_BODY_SUM = {kind: sum(body) + 8 * 32 - 1 for kind, body in _BODY.items()}


def plain_end(after: bytes) -> bytes:
    """What follows a name of ``100 - len(after)`` bytes in the header, up to the size: `after` and the fixed fields."""
    return after + b"0000444\x000000000\x000000000\x00"


def plain_header(before: bytes, name: bytes, end: bytes, size: int, kind: bytes = b"0") -> bytes:
    """`before` and the 512 bytes of a header: a name, its `plain_end`, the size and the checksum."""
    head = b"%b%b%011o\x0000000000000\x00" % (name, end, size)
    # Adler-32's low half is 1 + the sum of the bytes (below 65,521 here): the checksum at the speed of C.
    return b"%b%b%06o\x00 %b" % (before, head, (adler32(head) & 0xFFFF) + _BODY_SUM[kind], _BODY[kind])


def member_header(name: bytes, size: int) -> bytes:
    """Header, or headers, of a regular member of any name and size.

    Raises:
        ValueError: the name is empty or holds a NUL byte.
    """
    if not name or b"\0" in name:
        raise ValueError(f"a member cannot be named {name!r}")
    records = []
    prefix = b""
    if len(name) > 100:
        cut = name.find(b"/", len(name) - 101)
        if 0 < cut <= 155 and cut + 1 < len(name):
            prefix, name = name[:cut], name[cut + 1 :]
        else:
            records.append((b"path", name))
            name = name[-100:]
    if size >= MAX_OCTAL:
        records.append((b"size", b"%d" % size))
        size = 0
    before = b""
    if records:
        data = b"".join(_record(key, value) for key, value in records)
        before = plain_header(b"", b"", plain_end(b"././@PaxHeader".ljust(100, b"\0")), len(data), b"x")
        before += data + bytes(-len(data) % BLOCK)
    header = plain_header(b"", b"", plain_end(name.ljust(100, b"\0")), size)
    if prefix:
        header = header[:345] + prefix + header[345 + len(prefix) :]
        header = b"%b%06o\x00 %b" % (header[:148], sum(header[:148]) + sum(header[156:]) + 8 * 32, header[156:])
    return before + header


def _record(key: bytes, value: bytes) -> bytes:
    """A pax record ``"<length> key=value\\n"`` whose length counts itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) > len(str(rest)):
        length += 1
    return b"%d %b=%b\n" % (length, key, value)


def is_header(header: bytes) -> bool:
    """Whether a block is a header: the checksum is right (tarfile's rule: as unsigned or as signed bytes)."""
    if len(header) < BLOCK or header[257:262] != b"ustar":
        return False
    stated = octal(header[148:156])
    if stated is None:
        return False
    rest = header[:148] + header[156:]
    unsigned = sum(rest) + 8 * 32
    return stated in (unsigned, unsigned - 256 * sum(b > 127 for b in rest))


def octal(field: bytes) -> int | None:
    """A number field: octal digits padded with blanks or NULs, or None."""
    digits = field.split(b"\0", 1)[0].strip(b" ")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else None


def size_of(header: bytes) -> int | None:
    """Member size in bytes; None when the field is neither octal digits nor a positive number in GNU's base 256."""
    if header[124] & 0x80:
        return int.from_bytes(header[125:136], "big") if header[124] == 0x80 else None
    return octal(header[124:136])


def name_of(header: bytes) -> str:
    """Member name; bytes that are not UTF-8 become ``\\xNN``."""
    name = header[:100].split(b"\0", 1)[0]
    if header[345] and header[262] == 0:  # POSIX splits names of more than 100 bytes; GNU uses these bytes otherwise
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    return text(name)


def text(name: bytes) -> str:
    """Name bytes as text that any table can hold: distinct bytes stay distinct."""
    return name.decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Extension:
    """What a pax header, or GNU's long-name header, says about the member after it.

    Attributes:
        name: its name, if given.
        size: its size in bytes, if given; -1 when what is given is no number.
        sparse: whether its payload is a sparse file's map and not its bytes.
    """

    name: str | None = None
    size: int | None = None
    sparse: bool = False


def read_pax(data: bytes) -> Extension:
    """Meaning of the records of a pax header; reading ends at the first malformed record."""
    name: str | None = None
    size: int | None = None
    sparse = False
    at = 0
    while at < len(data):
        blank = data.find(b" ", at, at + 8)
        digits = data[at:blank] if blank > at else b""
        length = int(digits) if digits.isdigit() else 0
        if length <= len(digits) + 1 or at + length > len(data):
            break
        key, _, value = data[blank + 1 : at + length - 1].partition(b"=")
        if key == b"path" and b"\0" not in value:
            name = text(value)
        elif key == b"size":
            size = int(value) if value.isdigit() and len(value) < 20 else -1
        elif key.startswith(b"GNU.sparse."):
            sparse = True
        at += length
    return Extension(name, size, sparse)


def split_name(name: str) -> tuple[str, str] | None:
    """Sample key and lower-case extension of a member name, or None: up to, and after, the base name's first dot.

    webdataset's rule; a leading ``./`` is not part of the key.
    """
    name = name.removeprefix("./")
    start = name.rfind("/") + 1
    dot = name.find(".", start)
    return (name[:dot], name[dot + 1 :].lower()) if dot > start else None
