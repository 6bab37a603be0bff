import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import DataError
from curate.shards.shard import Shard
from curate.shards.tar import TarReader, TarWriter
from curate.shards.tar_index import IndexedTar, RemoteTar, TarIndex, index_path, key_hash, open_indexed
from curate.shards.uid import stable_uid, to_text

N = 60
Samples = dict[str, dict[str, bytes]]


def sample(i: int) -> dict[str, bytes]:
    members = {"jpg": b"%d" % i * (i % 7 * 100), "txt": f"caption {i}".encode()}
    return members if i % 5 else {**members, "json": b"{}"}


def make(folder: Path, name: str = "00000000") -> Shard:
    """A shard whose table is in another order than its tar, and has two rows more."""
    shard = Shard(name, str(folder / f"{name}.tar"), str(folder / f"{name}.parquet"))
    with TarWriter(shard.tar) as tar:
        for i in range(N):
            tar.write(f"{i:05d}", sample(i))
    keys = ["failed", *(f"{i:05d}" for i in reversed(range(N))), "failed too"]
    uids = [stable_uid(str(int(key) // 2) if key.isdigit() else key) for key in keys]  # every uid twice
    pq.write_table(pa.table({"uid": uids, "key": keys, "status": ["success"] * len(keys)}), shard.table)
    return shard


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return make(tmp_path)


def contents(tar: TarReader) -> Samples:
    return {key: {e: tar.read(key, e) or b"" for e in tar.extensions(key)} for key in tar.keys}


def test_an_indexed_tar_is_the_tar(shard: Shard) -> None:
    walked = shard.open()
    path = index_path(shard.tar)
    assert path.endswith("00000000.index.arrow")
    for _ in range(2):  # made, then used
        tar = open_indexed(shard.tar, path, shard.table)
        assert contents(tar) == dict(tar.samples()) == contents(walked) == {f"{i:05d}": sample(i) for i in range(N)}
        assert len(tar) == N
        assert "00003" in tar
        assert "x" not in tar
        assert tar.read("x", "jpg") is None
        assert tar.spans("json", "txt") == walked.spans("json", "txt")
        assert (tar.torn, tar.passed_over) == (None, {})
    assert isinstance(Shard(shard.name, shard.tar, shard.table, path).open(), IndexedTar)
    assert type(shard.open()) is TarReader


def test_by_key_by_uid_and_by_row(shard: Shard, tmp_path: Path) -> None:
    TarIndex.build(shard.open(), shard.table).save(str(tmp_path / "i"))
    index = TarIndex.open(str(tmp_path / "i"))
    tar = IndexedTar(shard.tar, Path(shard.tar).read_bytes(), index)
    for i in range(N):
        assert index.find(f"{i:05d}") == i
        assert index.find_uid(stable_uid(str(i // 2))) == [i // 2 * 2, i // 2 * 2 + 1]
        assert index.find_row(N - i) == i
        assert tar.read_at(i, "txt") == f"caption {i}".encode()
    assert index.uids is not None
    assert to_text(index.uids) == [stable_uid(str(i // 2)) for i in range(N)]
    assert index.find("00060") is index.find_row(0) is index.find_row(N + 1) is index.find_row(-1) is None
    assert index.find_row(10**6) is None
    assert index.find_uid("f" * 32) == []
    assert len(index) == N


def test_an_index_without_a_table(shard: Shard) -> None:
    index = TarIndex.build(shard.open())
    assert index.uids is None
    assert index.find_uid(stable_uid("1")) == []
    assert index.find_row(0) is None
    assert index.find("00001") == 1
    other = str(Path(shard.table).with_name("no_uid.parquet"))
    pq.write_table(pq.read_table(shard.table).drop_columns("uid"), other)
    index = TarIndex.build(shard.open(), other)
    assert index.uids is None
    assert index.find_row(1) == N - 1


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(1024))


def change_the_end(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-1025] ^= 1
    path.write_bytes(raw)


def change_a_header(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[108] ^= 1  # the owner of the first member
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    path.write_bytes(raw)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9000])


@pytest.mark.parametrize("change", [grow, change_the_end, change_a_header, truncate], ids=lambda f: f.__name__)
def test_a_stale_index_is_made_again(shard: Shard, change) -> None:
    path = index_path(shard.tar)
    first = open_indexed(shard.tar, path, shard.table).index.facts
    before = Path(path).read_bytes()
    assert open_indexed(shard.tar, path, shard.table).index.facts == first
    change(Path(shard.tar))
    again = open_indexed(shard.tar, path, shard.table)
    walked = TarReader(shard.tar)
    assert contents(again) == contents(walked)
    assert again.torn == walked.torn
    assert Path(path).read_bytes() != before


def test_another_table_other_uids(shard: Shard) -> None:
    path = index_path(shard.tar)
    assert open_indexed(shard.tar, path, shard.table).index.find_uid(stable_uid("1")) == [2, 3]
    table = pq.read_table(shard.table)
    pq.write_table(table.set_column(0, "uid", pa.array([f"{i:032x}" for i in range(len(table))])), shard.table)
    again = open_indexed(shard.tar, path, shard.table)
    assert again.index.find_uid("1") == [N - 1]


@pytest.mark.parametrize("content", [b"", b"ARROW1\0\0" + bytes(100), b"x" * 5000])
def test_what_is_no_index_is_replaced(shard: Shard, content: bytes) -> None:
    path = Path(index_path(shard.tar))
    path.write_bytes(content)
    with pytest.raises(DataError, match="not an index"):
        TarIndex.open(str(path))
    assert len(open_indexed(shard.tar, str(path))) == N
    assert len(TarIndex.open(str(path))) == N


def test_indices_are_reproducible_and_not_json(shard: Shard, tmp_path: Path) -> None:
    for name in "ab":
        TarIndex.build(shard.open(), shard.table).save(str(tmp_path / name))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    open_indexed(shard.tar, index_path(shard.tar), shard.table)
    assert not list(tmp_path.glob("*.json"))
    assert len(list(tmp_path.glob("*.tar"))) == len(list(tmp_path.glob("*.parquet"))) == 1


def test_where_no_index_can_be_kept(shard: Shard, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for _ in range(2):
        tar = open_indexed(shard.tar, str(tmp_path / "file" / "a.index.arrow"), shard.table)
        assert contents(tar) == contents(shard.open())
        assert tar.index.find_uid(stable_uid("1")) == [2, 3]


def test_torn_and_empty_tars(tmp_path: Path) -> None:
    shard = make(tmp_path)
    (tmp_path / "torn.tar").write_bytes(Path(shard.tar).read_bytes()[:20_000])
    (tmp_path / "empty.tar").write_bytes(b"")
    with TarWriter(str(tmp_path / "none.tar")):
        pass
    for name in ("torn", "empty", "none"):
        path = str(tmp_path / f"{name}.tar")
        walked = TarReader(path)
        for _ in range(2):
            tar = open_indexed(path, index_path(path))
            assert (contents(tar), tar.torn) == (contents(walked), walked.torn)
            assert tar.read("x", "jpg") is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("abc/é", min_size=1, max_size=4).filter(lambda k: k[-1] != "/"), unique=True, max_size=30))
def test_any_keys(tmp_path_factory: pytest.TempPathFactory, keys: list[str]) -> None:
    folder = tmp_path_factory.mktemp("keys")
    with TarWriter(str(folder / "a.tar")) as tar:
        for key in keys:
            tar.write(key, {"txt": key.encode()})
    index = TarIndex.build(TarReader(str(folder / "a.tar")))
    assert [index.find(key) for key in keys] == list(range(len(keys)))


def test_keys_whose_hashes_collide(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.shards.tar_index.key_hash", lambda key: len(key))
    index = TarIndex.build(shard.open())
    assert [index.find(f"{i:05d}") for i in range(N)] == list(range(N))
    assert index.find("99999") is None
    monkeypatch.undo()
    assert key_hash("000000010003") == 12355886417662280540


class _Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and understands ``Range``."""

    seen: list[str]

    def do_GET(self) -> None:
        body = Path(self.translate_path(self.path)).read_bytes()
        asked = self.headers.get("Range", "")
        self.seen.append(asked)
        if asked:
            start, stop = asked.removeprefix("bytes=").split("-")
            part = body[int(start) : int(stop) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop}/{len(body)}")
        else:
            part = body
            self.send_response(200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    _Ranges.seen = []
    handler = functools.partial(_Ranges, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", _Ranges.seen
    server.shutdown()
    server.server_close()


def test_one_member_over_http_is_one_range(shard: Shard, served: tuple[str, list[str]]) -> None:
    url, seen = served
    tar = RemoteTar(f"{url}/00000000.tar", TarIndex.build(shard.open(), shard.table))
    seen.clear()
    assert tar.read("00013", "png", "jpg") == sample(13)["jpg"]
    assert len(seen) == 1
    start, stop = map(int, seen[0].removeprefix("bytes=").split("-"))
    assert stop - start + 1 == 512 + len(sample(13)["jpg"])
    place = tar.index.find_uid(stable_uid("20"))[1]
    assert tar.read_at(place, "txt") == b"caption 41"
    assert tar.read("nothing", "jpg") is tar.read("00001", "json") is None


def test_a_remote_tar_that_changed(shard: Shard) -> None:
    fs = fsspec.filesystem("memory")
    raw = Path(shard.tar).read_bytes()
    index = TarIndex.build(shard.open())
    fs.pipe("/changed/a.tar", raw)
    tar = RemoteTar("memory://changed/a.tar", index)
    assert tar.read("00001", "txt") == b"caption 1"
    fs.pipe("/changed/a.tar", raw[512:] + bytes(512))
    with pytest.raises(DataError, match="index it again"):
        tar.read("00001", "txt")
    fs.pipe("/changed/a.tar", raw[:-512])
    with pytest.raises(DataError, match="its index is of"):
        RemoteTar("memory://changed/a.tar", index)
    fs.rm("/changed", recursive=True)


def test_offsets_are_where_the_payloads_lie(shard: Shard) -> None:
    index = TarIndex.build(shard.open(), shard.table)
    offset, size = index.walk.members.located("jpg")
    data = np.frombuffer(Path(shard.tar).read_bytes(), np.uint8)
    for i in range(N):
        assert data[offset[i] : offset[i] + size[i]].tobytes() == sample(i)["jpg"]
    json_offset, _ = index.walk.members.located("json")
    assert ((json_offset >= 0) == (np.arange(N) % 5 == 0)).all()
