import io
import struct
import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import DataError
from curate.shards.tar import BLOCK, TarReader, TarWriter

Samples = dict[str, dict[str, bytes]]

KEYS = st.text(st.characters(exclude_characters="./\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
EXTENSIONS = st.sampled_from(["jpg", "json", "txt", "cls", "seg.png"])
SAMPLES = st.dictionaries(KEYS, st.dictionaries(EXTENSIONS, st.binary(max_size=1100), min_size=1), max_size=6)


def write(path: Path, samples: Samples) -> Path:
    with TarWriter(str(path)) as tar:
        for key, members in samples.items():
            tar.write(key, members)
    return path


def contents(tar: TarReader) -> Samples:
    return {key: {e: tar.read(key, e) or b"" for e in tar.extensions(key)} for key in tar.keys}


def signed(raw: bytearray, at: int = 0) -> bytearray:
    """The archive with the checksum of the header at `at` made right."""
    raw[at + 148 : at + 156] = b" " * 8
    raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + BLOCK])
    return raw


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tars")


@given(SAMPLES)
def test_what_is_written_is_read_by_us_and_by_tarfile(folder: Path, samples: Samples) -> None:
    path = write(folder / "a.tar", samples)
    reader = TarReader(str(path)).require_whole()
    assert contents(reader) == samples
    assert reader.keys == list(samples)
    view = reader.view()
    for extension in ("jpg", "txt"):
        for key, (offset, size) in reader.spans(extension).items():
            assert bytes(view[offset : offset + size]) == samples[key][extension]
    with tarfile.open(path) as archive:
        names = [f"{key}.{extension}" for key, members in samples.items() for extension in sorted(members)]
        assert archive.getnames() == names
        for member in archive:
            key, _, extension = member.name.partition(".")
            file = archive.extractfile(member)
            assert file is not None
            assert file.read() == samples[key][extension]
            assert (member.uname, member.gname, member.uid, member.mtime, member.mode) == ("bigdata",) * 2 + (
                0,
                0,
                0o444,
            )


FOLDERS = st.lists(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1), max_size=3)
LONG_KEYS = st.tuples(
    FOLDERS.filter(lambda f: f[:1] != ["."]),
    st.text(st.characters(exclude_characters="./\0", exclude_categories=["Cs"]), min_size=1, max_size=300),
).map(lambda parts: "/".join([*parts[0], parts[1]]))
ANY_EXTENSIONS = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=120
).filter(lambda e: e == e.lower() == e.lower().lower())


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        LONG_KEYS, st.dictionaries(ANY_EXTENSIONS, st.binary(max_size=600), min_size=1, max_size=3), max_size=4
    )
)
def test_names_of_any_length(folder: Path, samples: Samples) -> None:
    """Split at a slash or in a pax header: never an error, and tarfile and webdataset find the same names."""
    path = write(folder / "long.tar", samples)
    reader = TarReader(str(path)).require_whole()
    assert contents(reader) == dict(reader.samples()) == samples
    names = [f"{key}.{extension}" for key, members in samples.items() for extension in sorted(members)]
    with tarfile.open(path) as archive:
        assert archive.getnames() == [name.rstrip("/") for name in names]
        assert [m.size for m in archive] == [len(m[e]) for m in samples.values() for e in sorted(m)]


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("k" * 96, 1), ("d" * 150 + "/" + "k" * 90, 1), ("d" * 156 + "/k", 3), ("k" * 97, 3), ("ü" * 60, 3)],
)
def test_long_names_by_hand(tmp_path: Path, name: str, blocks: int) -> None:
    """100 bytes fit in the header, 255 split at a slash; else a pax header and its record come first."""
    path = write(tmp_path / "a.tar", {name: {"jpg": b""}})
    assert path.stat().st_size == (blocks + 2) * BLOCK
    assert TarReader(str(path)).keys == [name]
    found = [s["__key__"] for s in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)]
    assert found == [name]


def test_empty_and_foreign_buffers(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with TarWriter(str(path)) as tar:
        tar.write("empty", {})
        tar.write("a", {"jpg": b"", "txt": memoryview(b"text")})
        for i in range(2000):  # more buffers than the kernel takes at once
            tar.write(f"{i:04d}", {"cls": b"%d" % i})
    reader = TarReader(str(path)).require_whole()
    assert len(reader) == 2001
    assert (reader.read("a", "jpg"), reader.read("a", "txt"), reader.read("1999", "cls")) == (b"", b"text", b"1999")
    with pytest.raises(ValueError, match="extension"), TarWriter(str(path)) as tar:
        tar.write("a", {"j/pg": b""})


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    samples: Samples = {f"{i:012d}": {"txt": b"t" * i, "jpg": b"j" * i, "json": b"{}"} for i in range(20)}
    backwards = {key: dict(reversed(members.items())) for key, members in samples.items()}
    one, two = write(tmp_path / "1", samples), write(tmp_path / "2", backwards)
    assert one.read_bytes() == two.read_bytes()
    assert len(one.read_bytes()) % BLOCK == 0
    assert one.read_bytes()[-2 * BLOCK :] == bytes(2 * BLOCK)


def test_webdataset_reads_it(tmp_path: Path) -> None:
    samples: Samples = {f"{i:012d}": {"jpg": bytes([i]) * 700, "txt": f"caption {i}".encode()} for i in range(10)}
    path = write(tmp_path / "00000000.tar", samples)
    dataset = webdataset.WebDataset(str(path), shardshuffle=False)
    found = {s["__key__"]: {"jpg": s["jpg"], "txt": s["txt"]} for s in dataset}
    assert found == samples


def test_a_torn_tar_keeps_every_sample_before_the_tear(tmp_path: Path) -> None:
    samples: Samples = {f"{i}": {"jpg": bytes([i]) * (300 + 200 * i), "txt": b"caption"} for i in range(4)}
    whole = write(tmp_path / "whole.tar", samples).read_bytes()
    ends: dict[int, int] = {}  # number of samples -> bytes needed
    at = 0
    for number, members in enumerate(samples.values(), 1):
        at += sum(BLOCK + len(data) + -len(data) % BLOCK for data in members.values())
        ends[number] = at
    path = tmp_path / "torn.tar"
    for cut in [*range(0, len(whole), 61 * 3), *range(len(whole) - 2 * BLOCK - 3, len(whole))]:
        path.write_bytes(whole[:cut])
        reader = TarReader(str(path))
        complete = max((n for n, end in ends.items() if end <= cut), default=0)
        good = {key: samples[key] for key in list(samples)[:complete]}
        found = contents(reader)
        assert {key: found.get(key) for key in good} == good
        for key, members in found.items():  # a part of the sample in the tear may be there, but never other bytes
            assert all(samples[key][extension] == data for extension, data in members.items())
        if cut < at + BLOCK:
            assert reader.torn
            with pytest.raises(DataError, match=r"torn\.tar"):
                reader.require_whole()
        else:
            assert reader.torn is None


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_others(tmp_path: Path, kind: int) -> None:
    long, deep = "k" * 90 + ".x" * 20, "/".join(["folder" * 5] * 4)
    names = ["./a.jpg", "./a.TXT", "b/a.jpg", "b/a.seg.png", "c.jpg", f"{deep}/d.jpg"]
    if kind != tarfile.USTAR_FORMAT:
        names += [f"{long}.jpg", "ü.jpg", "last.jpg"]
    path = tmp_path / "other.tar"
    with tarfile.open(path, "w", format=kind) as archive:
        for name in ["b", "link", *names]:
            info = tarfile.TarInfo(name)
            if name == "b":
                info.type = tarfile.DIRTYPE
            elif name == "link":
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                info.size = len(name.encode())
            archive.addfile(info, io.BytesIO(name.encode()))
    reader = TarReader(str(path)).require_whole()
    found = contents(reader)
    assert found["a"] == {"jpg": b"./a.jpg", "txt": b"./a.TXT"}
    assert found["b/a"] == {"jpg": b"b/a.jpg", "seg.png": b"b/a.seg.png"}
    assert found["c"] == {"jpg": b"c.jpg"}
    assert found[f"{deep}/d"] == {"jpg": f"{deep}/d.jpg".encode()}
    assert "link" not in reader
    if kind != tarfile.USTAR_FORMAT:
        assert found["k" * 90] == {f"{'x.' * 20}jpg": f"{long}.jpg".encode()}
        assert found["ü"] == {"jpg": "ü.jpg".encode()}
        assert found["last"] == {"jpg": b"last.jpg"}
    keys = {s["__key__"].removeprefix("./") for s in webdataset.WebDataset(str(path), shardshuffle=False)}
    assert keys == set(reader.keys)


@pytest.mark.parametrize("name", ["../../etc/passwd.jpg", "/etc/passwd.jpg", ".hidden", "noextension", ""])
def test_hostile_names_are_only_keys(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("placeholder.jpg")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    raw = bytearray(path.read_bytes())
    raw[:100] = name.encode().ljust(100, b"\0")
    path.write_bytes(signed(raw))
    reader = TarReader(str(path))
    assert len(reader) == (1 if name.endswith(".jpg") else 0)


def test_hostile_sizes_and_duplicates(tmp_path: Path) -> None:
    good = write(tmp_path / "a.tar", {"a": {"jpg": b"first"}, "b": {"jpg": b"x"}}).read_bytes()
    path = tmp_path / "x.tar"
    for field in (b"77777777777\0", b"zzzzzzzzzzz\0", b"\x80" + struct.pack(">Q", 2**60).rjust(11, b"\0")):
        raw = bytearray(good)
        raw[2 * BLOCK + 124 : 2 * BLOCK + 136] = field
        path.write_bytes(signed(raw, 2 * BLOCK))
        reader = TarReader(str(path))
        assert reader.keys == ["a"]
        assert reader.torn
    path.write_bytes(good[: 2 * BLOCK] + good[: 2 * BLOCK].replace(b"first", b"other") + good[2 * BLOCK :])
    assert TarReader(str(path)).read("a", "jpg") == b"first"


def test_what_is_no_tar(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    for data in (b"", b"hello", b"\x1f\x8b" + bytes(1000), b"<html>" * 200):
        path.write_bytes(data)
        reader = TarReader(str(path))
        assert len(reader) == 0
        assert reader.torn
    assert TarReader(str(path)).read("nothing", "jpg") is None


def test_a_failed_write_leaves_no_closing_mark(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"

    def fail() -> None:
        with TarWriter(str(path)) as tar:
            tar.write("a", {"jpg": b"x"})
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert TarReader(str(path)).torn


@pytest.mark.parametrize("key", ["", "a.b", "a/", "a\0b", "a/.b"])
def test_keys_that_no_reader_gives_back_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="sample key"), TarWriter(str(tmp_path / "x.tar")) as tar:
        tar.write(key, {"jpg": b"x"})
