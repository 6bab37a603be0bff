"""Where rows begin and end in csv, tsv, txt and JSON files, and what is in them.

One pass over a file finds the row ends (`cut`), so that later any range of rows is found by its byte offsets. The rules
are exact and the same in both directions; a row that breaks them is None, never a shifted or merged neighbour's:

csv: fields between commas; one that starts with ``"`` ends with the next single ``"`` and may hold commas, newlines and
``""`` for ``"``; elsewhere quotes are ordinary. tsv: fields between tabs, quotes are ordinary. txt: the line. JSON: one
object per line, or one array of objects. Lines end with LF or CR LF; empty ones are passed over.

Price: csv blocks with quotes and JSON arrays are walked by a regular expression, about a microsecond a row; all else
goes at memory speed.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np

from ...errors import DataError

Format = Literal["csv", "tsv", "txt", "lines", "array"]
"""``lines`` and ``array`` are the two forms of JSON."""

MAX_ROW = 16 << 20  # bytes; a longer row is taken for a damaged file
MAX_QUOTED = 1 << 20  # bytes of a csv row with newlines in quotes; a longer one is taken for an unbalanced quote
_BLOCK = 4 << 20
_FIELD = rb'(?:"[^"]*+(?:""[^"]*+)*+"[^,\n]*+|[^",\n][^,\n]*+|)'
_CSV_ROW = re.compile(_FIELD + rb"(?:," + _FIELD + rb")*+\n")
_CSV_LAST = re.compile(_FIELD + rb"(?:," + _FIELD + rb")*+(?:\n|\Z)")
_CSV_FIELD = re.compile(r'(?:"([^"]*+(?:""[^"]*+)*+)"|((?!")[^,]*+))(,|\Z)')
_JSON_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[{}"]', re.DOTALL)
_BETWEEN = b" \t\r\n,[]"  # around the objects of an array


@dataclass(frozen=True)
class Block:
    """A run of whole rows.

    Attributes:
        offset: of its first byte in the file.
        data: its bytes; row i is ``data[ends[i - 1]:ends[i]]``, empty lines before it included.
        ends: ``(rows,) int64``.
    """

    offset: int
    data: bytes
    ends: np.ndarray

    def rows(self) -> Iterator[bytes]:
        """The rows' bytes."""
        start = 0
        for end in self.ends.tolist():
            yield self.data[start:end]
            start = end


def sniff(file: IO[bytes], form: Literal["csv", "tsv", "txt", "json"], path: str) -> tuple[Format, int]:
    """The format of a file just opened, and the offset of its first byte after any byte order mark.

    Raises:
        DataError: it is UTF-16.
    """
    start = file.read(4096)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path}: is UTF-16; convert it to UTF-8")
    offset = 3 if start.startswith(b"\xef\xbb\xbf") else 0
    if form == "json":
        return ("array" if start[offset:].lstrip()[:1] == b"[" else "lines"), offset
    return form, offset


def cut(file: IO[bytes], form: Format, path: str, offset: int = 0) -> Iterator[Block]:
    """Blocks of whole rows of a file that is read from its position `offset` to its end.

    Raises:
        DataError: a row is too long, a quote is never closed, or an array is cut off.
    """
    find = {"csv": _csv_ends, "array": _object_ends}.get(form) or _line_ends(form)
    carry, rows, ended = b"", 0, False
    while not ended:
        read = file.read(_BLOCK)
        ended = not read
        data = carry + read if carry else read
        ends = find(data, ended)
        last = int(ends[-1]) if len(ends) else 0
        _check_length(data, ends, rows, form, path)
        if len(ends):
            yield Block(offset, data[:last], ends)
        carry, offset, rows = data[last:], offset + last, rows + len(ends)
    if form == "csv" and carry.strip(b"\r\n"):
        raise DataError(f"{path}: row {rows} opens a quote that is never closed")
    if form == "array" and carry.strip(_BETWEEN):
        raise DataError(f"{path}: object {rows} of the array is cut off, or something stands after the array")


def split(data: bytes, form: Format, path: str) -> list[bytes]:
    """The rows of a range of a file that begins and ends where rows do."""
    return [row for block in cut(io.BytesIO(data), form, path) for row in block.rows()]


def _check_length(data: bytes, ends: np.ndarray, rows: int, form: Format, path: str) -> None:
    lengths = np.diff(ends, prepend=0)
    rest = len(data) - (int(ends[-1]) if len(ends) else 0)
    long = [*np.flatnonzero(lengths > MAX_ROW).tolist(), *([len(ends)] if rest > MAX_ROW else [])]
    if long:
        raise DataError(f"{path}: row {rows + long[0]} is longer than {MAX_ROW >> 20} MiB")
    if form != "csv":
        return
    suspects = np.flatnonzero(lengths > MAX_QUOTED).tolist()
    quoted = [i for i in suspects if b"\n" in data[int(ends[i] - lengths[i]) : int(ends[i])].strip(b"\r\n")]
    if not quoted and rest > MAX_QUOTED and b"\n" in data[len(data) - rest :].strip(b"\r\n"):
        quoted = [len(ends)]
    if quoted:
        raise DataError(
            f"{path}: row {rows + quoted[0]} has a quoted field that goes on for more than {MAX_QUOTED >> 20} MiB; "
            "is its quote ever closed?"
        )


def _line_ends(form: Format) -> Callable[[bytes, bool], np.ndarray]:
    blank = np.zeros(256, bool)
    blank[[ord(c) for c in ("\r\n" if form in ("csv", "tsv") else " \t\r\n\v\f")]] = True

    def find(data: bytes, ended: bool) -> np.ndarray:
        view = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(view == 10) + 1
        if ended and len(data) and (not len(ends) or ends[-1] < len(data)):
            ends = np.append(ends, len(data))
        if not len(ends):
            return ends
        starts = np.concatenate([[0], ends[:-1]])
        full = (ends - starts > 8) & (view[starts] > 32)  # plainly not empty; the few others are looked at
        for i in np.flatnonzero(~full).tolist():
            full[i] = not blank[view[starts[i] : ends[i]]].all()
        return ends[full]

    return find


def _csv_ends(data: bytes, ended: bool) -> np.ndarray:
    if b'"' not in data:
        return _plain_lines(data, ended)
    row = _CSV_LAST if ended else _CSV_ROW
    ends, at = [], 0
    while at < len(data) and (found := row.match(data, at)):
        if found.end() == at:
            break
        if data[at : min(found.end(), at + 3)] not in (b"\n", b"\r\n", b"\r"):
            ends.append(found.end())
        at = found.end()
    return np.array(ends, np.int64)


def _object_ends(data: bytes, ended: bool) -> np.ndarray:
    ends, depth = [], 0
    for token in _JSON_TOKEN.finditer(data):
        kind = token[0]
        if kind == b"{":
            depth += 1
        elif kind == b"}":
            depth -= 1
            if depth == 0:
                ends.append(token.end())
        elif kind == b'"':  # a string that does not end here
            break
    return np.array(ends, np.int64)


_plain_lines = _line_ends("csv")


def fields(row: bytes, form: str) -> list[str] | None:
    """The fields of a row of csv, tsv or txt; None when it is no UTF-8 or its quotes are wrong."""
    try:
        text = row.decode()
    except UnicodeDecodeError:
        return None
    if form == "txt":
        return [text.strip()]
    text = text.lstrip("\r\n").removesuffix("\n").removesuffix("\r")
    if form == "tsv":
        return text.split("\t")
    return text.split(",") if '"' not in text else _quoted_fields(text)


def _quoted_fields(text: str) -> list[str] | None:
    found, at = [], 0
    while field := _CSV_FIELD.match(text, at):
        quoted, plain, after = field.groups()
        found.append(quoted.replace('""', '"') if quoted is not None else plain)
        if not after:
            return found
        at = field.end()
    return None


def json_object(row: bytes) -> dict[str, Any] | None:
    """The object in a row of JSON; None when there is none, or it holds text that is no Unicode."""
    try:
        value = json.loads(row.strip(_BETWEEN))
        if b"\\ud" in row or b"\\uD" in row:
            json.dumps(value, ensure_ascii=False).encode()  # raises for half a surrogate pair
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
