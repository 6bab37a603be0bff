"""The walk over a tar's headers: where every member of every sample lies, as columns.

Headers form a chain: only a member's size tells where the next header is. So Python does nothing but follow the sizes,
and NumPy judges the visited headers some thousand at a time (type, magic, digits, checksum) and cuts their names into
keys and extensions. Whatever is not a plain header in a long run of plain ones is read carefully, one by one. Only
header pages are touched: payloads stay on the disk.

Price: two readings of one format. The careful one alone defines what a file means; a test holds the fast one to it.
"""

from __future__ import annotations

import mmap
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from .tar_header import (
    BLOCK,
    MAX_EXTENSION,
    REGULAR,
    Extension,
    is_header,
    name_of,
    read_pax,
    size_of,
    split_name,
    text,
)

RUN = 4096  # headers judged together: 2 MB
RUN_BYTES = 64 << 20  # of the file that a run spans: its pages are let go after it
SHORT_RUN = 48  # fewer than this are read carefully: NumPy's calls cost more
MAX_TAILS = 16  # different extensions in a run that are looked for column by column
_ZEROS = bytes(BLOCK)
_MAGIC = np.frombuffer(b"ustar", np.uint8)
_WEIGHTS = (8.0 ** np.arange(10, -1, -1)).astype(np.float64)
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_NO_PAYLOAD = {b"1": "link", b"2": "link", b"3": "device", b"4": "device", b"5": "folder", b"6": "device"}


@dataclass(frozen=True)
class Members:
    """Members of a tar by sample, as columns; those of sample `i` are ``first[i]:first[i + 1]``.

    Attributes:
        names: ``n`` sample keys in file order: a list, or an Arrow column that becomes one when it is needed.
        first: ``(n + 1,) int64``.
        kind: ``(m,) int32`` into `extensions`.
        offset: ``(m,) int64``, bytes from the start of the tar to the payload.
        size: ``(m,) int64``, bytes of the payload.
        extensions: lower-case, in order of appearance.
    """

    names: Any
    first: np.ndarray
    kind: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    extensions: list[str]

    def __len__(self) -> int:
        return len(self.first) - 1

    @cached_property
    def keys(self) -> list[str]:
        """Sample keys in file order."""
        return self.names if isinstance(self.names, list) else self.names.to_pylist()

    @cached_property
    def number(self) -> dict[str, int]:
        """``key -> i``."""
        return {key: i for i, key in enumerate(self.keys)}

    def located(self, *extensions: str) -> tuple[np.ndarray, np.ndarray]:
        """Offset and size, ``(n,) int64`` each, of the first of `extensions` that each sample has; -1 = none."""
        offset, size = np.full((2, len(self)), -1, np.int64)
        owner = np.repeat(np.arange(len(self)), np.diff(self.first))
        for extension in reversed(extensions):
            if extension in self.extensions:
                found = np.flatnonzero(self.kind == self.extensions.index(extension))
                offset[owner[found]], size[owner[found]] = self.offset[found], self.size[found]
        return offset, size


@dataclass
class Walk:
    """What a walk found.

    Attributes:
        members: the regular members.
        torn: None, or what is wrong and at which byte; everything before it is in `members`.
        passed_over: members that are not used, by reason: ``link``, ``folder``, ``device``, ``sparse``, ``unnamed``
            (no key or no extension), ``duplicate``, ``long_header``, ``unknown``.
    """

    members: Members
    torn: str | None
    passed_over: Counter[str] = field(default_factory=Counter)


def walk(data: mmap.mmap | bytes) -> Walk:
    """Walk a whole tar. Never raises for its content."""
    return _Walker(data).walk()


class _Walker:
    def __init__(self, data: mmap.mmap | bytes) -> None:
        self.data, self.end = data, len(data)
        blocks = self.end // BLOCK
        self.blocks = np.frombuffer(data, np.uint8, blocks * BLOCK).reshape(blocks, BLOCK)
        self.torn: str | None = None
        self.passed_over: Counter[str] = Counter()
        self.next: Extension | None = None  # what a header said about the member after it
        self.numbers: dict[str, int] = {}
        self.kinds: dict[str, int] = {}
        self.tails: dict[bytes, int] = {}  # the rest of a name field after the key -> kind
        self.owner: list[np.ndarray] = []
        self.columns: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.slow: list[tuple[int, int, int, int]] = []  # owner, kind, offset, size of members read carefully

    def walk(self) -> Walk:
        at: int | None = 0
        while at is not None:
            run, after = self._follow(at)
            good = self._judge(run) if len(run) >= SHORT_RUN else 0
            if isinstance(self.data, mmap.mmap) and self.end > RUN_BYTES:
                self.data.madvise(mmap.MADV_DONTNEED)  # a page fault maps the payload pages around a header, too
            if good == len(run) and good:
                at = after
                continue
            at = run[good] if run else at
            for _ in range(max(1, len(run) - good)):
                at = self._step(at)
                if at is None:
                    break
        return Walk(self._members(), self.torn, self.passed_over)

    def _follow(self, at: int) -> tuple[list[int], int]:
        """Offsets of up to `RUN` headers that look plain, and where the next one would be."""
        data, last, run = self.data, self.end - BLOCK, []
        if self.next is not None:
            return run, at
        append, zero = run.append, REGULAR[0]
        last = min(last, at + RUN_BYTES)
        try:
            while at <= last and data[at + 156] == zero and len(run) < RUN:
                size = int(data[at + 124 : at + 135], 8)
                after = (at + size + BLOCK + BLOCK - 1) & -BLOCK
                if size < 0 or at + BLOCK + size > self.end:
                    break
                append(at)
                at = after
        except ValueError:  # no digits: the careful reader says what it is
            pass
        return run, at

    def _judge(self, run: list[int]) -> int:
        """Take in the longest plain beginning of the run; returns its length."""
        offsets = np.array(run, np.int64)
        headers = self.blocks[offsets // BLOCK]
        digits = headers[:, 124:135] - np.uint8(48)  # wraps below "0"
        stated = headers[:, 148:154] - np.uint8(48)
        total = headers.sum(1, dtype=np.uint32) - headers[:, 148:156].sum(1, dtype=np.uint32) + np.uint32(8 * 32)
        plain = (digits < 8).all(1) & (stated < 8).all(1) & (headers[:, 257:262] == _MAGIC).all(1)
        plain &= (headers[:, 135] == 0) & (headers[:, 345] == 0) & (headers[:, 154] == 0)
        plain &= stated.astype(np.float64) @ _WEIGHTS[5:] == total
        good = len(run) if plain.all() else int(np.argmin(plain))
        if good:
            sizes = (digits[:good].astype(np.float64) @ _WEIGHTS).astype(np.int64)
            self._name(headers[:good, :100], offsets[:good] + BLOCK, sizes)
        return good

    def _name(self, names: np.ndarray, offset: np.ndarray, size: np.ndarray) -> None:
        """Take in regular members by their ``(m, 100)`` name fields."""
        dot = int(np.argmax(names[0] == 46))
        keys, rest = names[:, :dot], names[:, dot:]
        uniform = dot > 0 and (rest[:, 0] == 46).all() and ((keys > 32) & (keys < 127)).all()
        if not uniform or (keys == 46).any() or (names == 47).any():
            for name, start, length in zip(names, offset.tolist(), size.tolist(), strict=True):
                self._take(text(name.tobytes().split(b"\0", 1)[0]), start, length)
            return
        kind = np.full(len(names), -1, np.int32)
        for _ in range(MAX_TAILS):
            tail = rest[int(np.argmax(kind < 0))]
            kind[(rest == tail).all(1)] = self._kind_of_tail(tail.tobytes())
            if (kind >= 0).all():
                break
        else:  # hardly two members alike
            for row in np.flatnonzero(kind < 0).tolist():
                kind[row] = self._kind_of_tail(rest[row].tobytes())
        begins = np.flatnonzero(np.append(True, (keys[1:] != keys[:-1]).any(1)))
        joined = keys[begins].tobytes().decode("ascii")
        numbers = self.numbers
        number = [numbers.setdefault(joined[i : i + dot], len(numbers)) for i in range(0, len(joined), dot)]
        lengths = np.diff(np.append(begins, len(names)))
        self._flush()
        self.owner.append(np.repeat(np.array(number, np.int64), lengths))
        self.columns.append((kind, offset, size))

    def _kind_of_tail(self, tail: bytes) -> int:
        """The kind for what follows the key in a name field, dot included."""
        if tail not in self.tails:
            extension = text(tail[1:].split(b"\0", 1)[0]).lower()
            self.tails[tail] = self.kinds.setdefault(extension, len(self.kinds))
        return self.tails[tail]

    def _take(self, name: str, offset: int, size: int) -> None:
        """Take in one regular member."""
        named = split_name(name)
        if named is None:
            self.passed_over["unnamed"] += 1
            return
        key, extension = named
        owner = self.numbers.setdefault(key, len(self.numbers))
        self.slow.append((owner, self.kinds.setdefault(extension, len(self.kinds)), offset, size))

    def _flush(self) -> None:
        if self.slow:
            owner, kind, offset, size = np.array(self.slow, np.int64).T
            self.owner.append(owner)
            self.columns.append((kind.astype(np.int32), offset, size))
            self.slow = []

    def _step(self, at: int) -> int | None:
        """Read one header carefully; returns where the next one is, or None at the end or a tear."""
        header = self.data[at : at + BLOCK]
        if len(header) < BLOCK:
            self.torn = self._no_tar() if at == 0 else f"no end-of-archive mark in {self.end} bytes"
            return None
        if header == _ZEROS:
            return None
        if not is_header(header):
            self.torn = (self._no_tar() if at == 0 else None) or f"bad header at byte {at}"
            return None
        said, self.next = self.next or Extension(), None
        kind = header[156:157]
        size = size_of(header) if said.size is None else said.size
        if size is None or size < 0:
            self.torn = f"bad size at byte {at}"
            return None
        if kind in _NO_PAYLOAD:  # whatever the size field says, nothing follows
            self.passed_over[_NO_PAYLOAD[kind]] += 1
            return at + BLOCK
        start = at + BLOCK
        if kind == b"S":  # GNU: maps of holes may follow the header
            more = header[482]
            while more and start + BLOCK <= self.end:
                more = self.data[start + 504]
                start += BLOCK
        if start + size > self.end:
            self.torn = f"truncated at byte {at} ({start + size - self.end} bytes missing)"
            return None
        if kind in (b"x", b"X", b"L", b"K", b"g"):
            self.next = self._extension(kind, said, start, size)
        elif kind == b"S" or said.sparse:
            self.passed_over["sparse"] += 1
        elif kind in (b"0", b"\0", b"7"):
            self._take(said.name or name_of(header), start, size)
        else:
            self.passed_over["unknown"] += 1
        return (start + size + BLOCK - 1) & -BLOCK

    def _extension(self, kind: bytes, said: Extension, start: int, size: int) -> Extension:
        """What is known of the next member after an extension header; several may come before one member."""
        if kind in (b"g", b"K"):  # for all members, or a link's target: nothing that is used
            return said
        if size > MAX_EXTENSION:
            self.passed_over["long_header"] += 1
            return said
        body = self.data[start : start + size]
        if kind == b"L":
            return Extension(text(body.split(b"\0", 1)[0]), said.size, said.sparse)
        new = read_pax(body)
        size_said = new.size if new.size is not None else said.size
        return Extension(new.name or said.name, size_said, new.sparse or said.sparse)

    def _no_tar(self) -> str:
        """What a file is that does not begin with a header."""
        for magic, name in _COMPRESSED.items():
            if self.data[: len(magic)] == magic:
                return f"compressed with {name}; decompress it first"
        return "not a tar" if self.end else "empty file"

    def _members(self) -> Members:
        """The columns, sorted by sample; of members with one name the first counts."""
        self._flush()
        n = len(self.numbers)
        owner = np.concatenate([np.empty(0, np.int64), *self.owner])
        kind = np.concatenate([np.empty(0, np.int32), *(c[0] for c in self.columns)])
        offset = np.concatenate([np.empty(0, np.int64), *(c[1] for c in self.columns)])
        size = np.concatenate([np.empty(0, np.int64), *(c[2] for c in self.columns)])
        if (owner[1:] < owner[:-1]).any():  # members of a sample that are not neighbours
            order = np.argsort(owner, kind="stable")
            owner, kind, offset, size = owner[order], kind[order], offset[order], size[order]
        names = owner * max(len(self.kinds), 1) + kind
        if (names[1:] <= names[:-1]).any():
            _, first = np.unique(names, return_index=True)
            if len(first) < len(names):
                self.passed_over["duplicate"] += len(names) - len(first)
                keep = np.sort(first)
                owner, kind, offset, size = owner[keep], kind[keep], offset[keep], size[keep]
        first = np.searchsorted(owner, np.arange(n + 1))
        return Members(list(self.numbers), first, kind, offset, size, list(self.kinds))
