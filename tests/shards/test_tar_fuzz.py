"""Tars that were damaged or forged: bounded work, no exception, and what came before the damage stays readable."""

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from curate.shards import tar_walk
from curate.shards.tar import TarReader, TarWriter
from curate.shards.tar_header import BLOCK, member_header, read_pax

Damage = Callable[[random.Random, bytearray], None]


def resign(raw: bytearray, at: int) -> None:
    """Make the checksum of the header at `at` right again."""
    raw[at + 148 : at + 156] = b" " * 8
    raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + BLOCK])


def member(name: bytes, data: bytes = b"", kind: bytes = b"0", size: bytes | None = None) -> bytes:
    """One forged member, checksum right."""
    header = bytearray(member_header(name, len(data)))
    header[156:157] = kind
    if size is not None:
        header[124:136] = size
    resign(header, 0)
    return bytes(header) + data + bytes(-len(data) % BLOCK)


def whole(samples: int, seed: int = 0) -> bytes:
    """A well-formed tar of `samples` samples of 1-3 members."""
    rng = random.Random(seed)
    raw = b""
    for i in range(samples):
        for extension in ("jpg", "json", "txt")[: rng.choice((3, 3, 3, 2, 1))]:
            raw += member(f"{i:09d}.{extension}".encode(), rng.randbytes(rng.randrange(1200)))
    return raw + bytes(2 * BLOCK)


def facts(path: Path) -> tuple:
    tar = TarReader(str(path))
    found = {key: {e: tar.read(key, e) for e in tar.extensions(key)} for key in tar.keys}
    assert dict(tar.samples()) == found
    return found, tar.torn, tar.passed_over


def both(path: Path, raw: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple:
    """What the fast walk finds, held to what the careful one finds."""
    path.write_bytes(raw)
    with monkeypatch.context() as patch:
        patch.setattr(tar_walk, "SHORT_RUN", 2)
        patch.setattr(tar_walk, "RUN", 16)
        fast = facts(path)
    with monkeypatch.context() as patch:
        patch.setattr(tar_walk, "SHORT_RUN", 1 << 60)
        careful = facts(path)
    assert fast == careful == facts(path)
    return fast


def flip(rng: random.Random, raw: bytearray) -> None:
    for _ in range(rng.randrange(1, 4)):
        raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)


def flip_header(rng: random.Random, raw: bytearray) -> None:
    at = rng.choice([i for i in range(0, len(raw), BLOCK) if raw[i + 257 : i + 262] == b"ustar"])
    raw[at + rng.randrange(BLOCK)] = rng.randrange(256)
    if rng.random() < 0.7:
        resign(raw, at)


def cut(rng: random.Random, raw: bytearray) -> None:
    del raw[rng.randrange(len(raw)) :]


def splice(rng: random.Random, raw: bytearray) -> None:
    start, other = sorted((rng.randrange(len(raw)), rng.randrange(len(raw))))
    piece = raw[start:other]
    at = rng.randrange(len(raw))
    raw[at : at + (len(piece) if rng.random() < 0.5 else 0)] = piece


@pytest.mark.parametrize("damage", [flip, flip_header, cut, splice], ids=lambda f: f.__name__)
def test_damage_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Damage) -> None:
    good = whole(25)
    sound, torn, _ = both(tmp_path / "good.tar", good, monkeypatch)
    assert torn is None
    assert len(sound) == 25
    for seed in range(150):
        rng = random.Random(seed)
        raw = bytearray(good)
        damage(rng, raw)
        found, torn, passed_over = both(tmp_path / "x.tar", bytes(raw), monkeypatch)
        same = next((i for i, (a, b) in enumerate(zip(good, raw, strict=False)) if a != b), min(len(good), len(raw)))
        at = 0
        for key, members in sound.items():
            at += sum(BLOCK + len(data) + -len(data) % BLOCK for data in members.values())
            if at <= same:
                assert found[key].items() >= members.items()
        assert torn or len(found) + sum(passed_over.values()) > 0


def test_random_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(50):
        raw = bytearray(random.Random(seed).randbytes(5000))
        found, torn, _ = both(tmp_path / "x.tar", bytes(raw), monkeypatch)
        assert (found, torn) == ({}, "not a tar")
        resign(raw, 0)
        raw[257:262] = b"ustar"
        resign(raw, 0)
        found, torn, _ = both(tmp_path / "x.tar", bytes(raw), monkeypatch)
        assert torn


@pytest.mark.parametrize(
    "size",
    [
        b"77777777777\0",
        b"\x80" + (2**62).to_bytes(11, "big"),
        b"\x80" + (2**88 - 1).to_bytes(11, "big"),
        b"\xff" * 12,  # negative, base 256
        b"-0000000001\0",
        b"0000_000001\0",
        b"0o000000001\0",
        b"zzzzzzzzzzz\0",
        bytes(12),
        b" " * 12,
    ],
)
def test_sizes_that_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: bytes) -> None:
    raw = whole(20)[: -2 * BLOCK] + member(b"evil.jpg", b"abc", size=size) + whole(3, 1)
    found, torn, _ = both(tmp_path / "x.tar", raw, monkeypatch)
    assert list(found) == [f"{i:09d}" for i in range(20)]
    assert torn
    assert " at byte " in torn


def test_a_size_in_base_256_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = member(b"a.jpg", b"abc", size=b"\x80" + (3).to_bytes(11, "big")) + member(b"b.jpg", b"z") + bytes(2 * BLOCK)
    assert both(tmp_path / "x.tar", raw, monkeypatch)[:2] == ({"a": {"jpg": b"abc"}, "b": {"jpg": b"z"}}, None)


def test_what_is_no_file_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = b"".join(
        [
            member(b"a.jpg", b"first"),
            member(b"b.jpg", kind=b"1"),
            member(b"c.jpg", kind=b"2", size=b"00000001000\0"),  # a link has no payload, whatever it says
            member(b"d.jpg", kind=b"3"),
            member(b"e.jpg", kind=b"4"),
            member(b"f.jpg", kind=b"5"),
            member(b"g.jpg", kind=b"6"),
            member(b"h.jpg", b"x" * 700, kind=b"Z"),
            member(b"a.jpg", b"second"),
            member(b"noextension", b"x"),
            member(b".hidden", b"x"),
            member(b"folder/.x", b"x"),
            member(b"../../etc/passwd.jpg", b"x"),
            member(b"/abs.jpg", b"x"),
            member(b"\xff\xfe.jpg", b"x"),
            member(b"\xff\xfd.jpg", b"y"),
            bytes(2 * BLOCK),
        ]
    )
    found, torn, passed_over = both(tmp_path / "x.tar", raw, monkeypatch)
    assert torn is None
    assert list(found) == ["a", "../../etc/passwd", "/abs", "\\xff\\xfe", "\\xff\\xfd"]
    assert found["a"] == {"jpg": b"first"}
    assert passed_over == {"link": 2, "device": 3, "folder": 1, "unknown": 1, "duplicate": 1, "unnamed": 3}


def test_sparse_files_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = bytearray(member(b"old.jpg", b"x" * 600, kind=b"S"))
    old[482] = 1  # one more block of the map follows
    resign(old, 0)
    old[BLOCK:BLOCK] = bytes(BLOCK)
    record = b"22 GNU.sparse.major=1\n"
    raw = bytes(old) + member(b"pax", record, kind=b"x") + member(b"new.jpg", b"map") + member(b"a.jpg", b"x")
    found, torn, passed_over = both(tmp_path / "x.tar", raw + bytes(2 * BLOCK), monkeypatch)
    assert (found, torn, passed_over) == ({"a": {"jpg": b"x"}}, None, {"sparse": 2})


def test_extension_headers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = member(b"bomb", b"20 path=" + b"x" * (1 << 17), kind=b"x")
    many = member(b"many", b"6 a=b\n" * 10_000, kind=b"x") * 20
    lies = member(b"lies", b"99999999999999999999 path=y\n", kind=b"x") + member(b"lies", b"0 path=y\n", kind=b"x")
    long = member(b"long", b"n" * 300 + b".jpg\0", kind=b"L")
    sizes = [member(b"s", b"15 size=-00001\n", kind=b"x"), member(b"s", b"12 size=700\n", kind=b"x")]
    raw = bomb + many + lies + member(b"a.jpg", b"1") + long + member(b"b.jpg", b"2")
    found, torn, passed_over = both(tmp_path / "x.tar", raw + bytes(2 * BLOCK), monkeypatch)
    assert (list(found), torn, passed_over) == (["a", "n" * 300], None, {"long_header": 1})
    found, torn, _ = both(tmp_path / "x.tar", raw + sizes[0] + member(b"c.jpg", b"3") + bytes(2 * BLOCK), monkeypatch)
    assert list(found) == ["a", "n" * 300]
    assert "bad size" in (torn or "")
    given = sizes[1] + member(b"c.jpg", b"3" * 700, size=b"00000000000\0")  # the header before says the size
    found, torn, _ = both(tmp_path / "x.tar", raw + given + bytes(2 * BLOCK), monkeypatch)
    assert found["c"] == {"jpg": b"3" * 700}
    assert torn is None
    endless = member(b"x", b"", kind=b"g") * 3000  # ends in nothing
    assert "no end-of-archive" in str(both(tmp_path / "x.tar", endless, monkeypatch)[1])


def test_pax_records_by_hand() -> None:
    assert read_pax(b"14 path=a.jpg\n").name == "a.jpg"
    assert read_pax("15 path=\u00fc.jpg\n".encode()).name == "\u00fc.jpg"
    assert read_pax(b"12 size=700\n14 path=a.jpg\n").size == 700
    for broken in (b"", b"x", b"14", b"14 path", b"3 a", b"-5 a=b\n", b"99 a=b\n", b"1 \n", b"2 \n"):
        assert read_pax(broken).name is None


@pytest.mark.parametrize(
    ("pack", "name"),
    [
        (gzip.compress, "gzip"),
        (bz2.compress, "bzip2"),
        (lzma.compress, "xz"),
        (lambda raw: b"\x28\xb5\x2f\xfd" + raw, "zstd"),
    ],
)
def test_compressed_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes], name: str
) -> None:
    found, torn, _ = both(tmp_path / "x.tar", pack(whole(3)), monkeypatch)
    assert not found
    assert torn == f"compressed with {name}; decompress it first"


def test_a_payload_that_looks_like_headers_is_a_payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = b"".join(member(f"{i:05d}.jpg".encode(), whole(2, i)) for i in range(60)) + bytes(2 * BLOCK)
    found, torn, _ = both(tmp_path / "x.tar", raw, monkeypatch)
    assert torn is None
    assert found == {f"{i:05d}": {"jpg": whole(2, i)} for i in range(60)}


def test_many_different_extensions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = b"".join(member(b"key.%d" % i, b"x") for i in range(300)) + bytes(2 * BLOCK)
    found, torn, _ = both(tmp_path / "x.tar", raw, monkeypatch)
    assert torn is None
    assert len(found["key"]) == 300


def test_the_walk_agrees_with_tarfile(tmp_path: Path) -> None:
    """Large shards of every format, read by the fast walk, member by member as Python's tarfile sees them."""
    for number, kind in enumerate((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        rng = random.Random(number)
        path = tmp_path / f"{number}.tar"
        with tarfile.open(path, "w", format=kind) as archive:
            for i in range(3000):
                name = f"{'f' * rng.choice((0, 0, 0, 60))}{i:07d}.{rng.choice(('jpg', 'txt', 'x.png'))}"
                info = tarfile.TarInfo(f"{'d' * 70}/{name}" if rng.random() < 0.02 else name)
                info.size = rng.randrange(1500)
                info.mtime = rng.choice((0, 1.5)) if kind == tarfile.PAX_FORMAT else 0
                archive.addfile(info, io.BytesIO(rng.randbytes(info.size)))
        tar = TarReader(str(path)).require_whole()
        with tarfile.open(path) as archive:
            expected = [(m.name, m.offset_data, m.size) for m in archive]
        members = tar.members
        owner = np.repeat(np.arange(len(members)), np.diff(members.first))
        names = [f"{tar.keys[o]}.{members.extensions[k]}" for o, k in zip(owner, members.kind, strict=True)]
        assert list(zip(names, members.offset.tolist(), members.size.tolist(), strict=True)) == expected


def test_a_writer_that_is_interrupted_leaves_a_torn_tar(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    writer = TarWriter(str(path))
    for i in range(1000):
        writer.write(f"{i:05d}", {"jpg": struct.pack("I", i) * 3000})
    reader = TarReader(str(path))  # as a killed process leaves it: reserved space must not look like the end
    assert reader.torn
    assert all(reader.read(key, "jpg") == struct.pack("I", int(key)) * 3000 for key in reader.keys)
    writer.close()
    assert len(TarReader(str(path)).require_whole()) == 1000
