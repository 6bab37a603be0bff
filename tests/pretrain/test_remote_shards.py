"""Training from shards on object stores: ranges instead of whole tars, bounded memory, retries."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import DataError, StorageError
from curate.pretrain.data import remote_shards
from curate.pretrain.data.dataset import SubsetDataset
from curate.pretrain.data.loader import Loader
from curate.pretrain.data.remote_shards import RemoteCache, ranges
from curate.pretrain.data.tokenizer import WordTokenizer
from curate.shards.shard import Shard
from curate.shards.tar_index import TarIndex, index_path


class Server(BaseHTTPRequestHandler):
    """Files of a folder, with ranges; the first requests may fail."""

    folder: Path
    log: list[tuple[str, str]]
    failures = 0

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        cls = type(self)
        path, wanted = cls.folder / self.path.lstrip("/"), self.headers.get("Range", "")
        if not path.is_file():
            self.send_error(404)
            return
        if self.command == "GET":
            cls.log.append((path.name, wanted))
            if cls.failures:
                cls.failures -= 1
                self.send_error(503)
                return
        data, size = path.read_bytes(), path.stat().st_size
        if wanted:
            first, last = (int(v) for v in wanted.removeprefix("bytes=").split("-"))
            data = data[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def web(squares, tmp_path, monkeypatch):
    """The squares behind an HTTP server on loopback, with indexes; its handler class."""
    monkeypatch.setattr(remote_shards, "_SHARED", [RemoteCache(pause_s=0.01)])
    for shard in squares:
        for path in (shard.tar, shard.table):
            (tmp_path / Path(path).name).write_bytes(Path(path).read_bytes())
        TarIndex.build(shard.open(), shard.table).save(index_path(str(tmp_path / Path(shard.tar).name)))
    handler = type("Handler", (Server,), {"folder": tmp_path, "log": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    handler.url = f"http://127.0.0.1:{server.server_port}"
    yield handler
    server.shutdown()
    thread.join()


def shards(base: str, squares) -> list[Shard]:
    return [Shard(s.name, f"{base}/{Path(s.tar).name}", f"{base}/{Path(s.table).name}") for s in squares]


def test_ranges_are_read_instead_of_whole_tars(web, squares, monkeypatch):
    monkeypatch.setattr(remote_shards, "RANGE_BYTES", 50_000)
    dataset = SubsetDataset(shards(web.url, squares))
    assert not [wanted for name, wanted in web.log if name.endswith(".tar") and not wanted]
    web.log.clear()
    local = SubsetDataset(squares)
    loaders = [
        Loader(d, WordTokenizer(8, 1 << 16), (32, 32), 16, 96, 0, threads=threads, cache_mb=0)
        for d, threads in ((local, 0), (dataset, 2))
    ]
    for a, b in zip(*(loader.batches() for loader in loaders), strict=True):
        assert np.array_equal(a.images, b.images)
        assert a.texts == b.texts
    asked = [wanted for _, wanted in web.log]
    assert all(asked)
    assert len(asked) == len(set(asked)) < 40  # each range once, many samples in each


def test_without_an_index_the_tar_is_downloaded_once_and_not_kept(squares, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(remote_shards, "_SHARED", [])
    memory = fsspec.filesystem("memory")
    for shard in squares:
        for path in (shard.tar, shard.table):
            memory.pipe_file(f"/pool/{Path(path).name}", Path(path).read_bytes())
    pool = shards("memory://pool", squares)
    dataset, local = SubsetDataset(pool), SubsetDataset(squares)
    assert [dataset.image(i) for i in range(96)] == [local.image(i) for i in range(96)]
    assert dataset.identity() == local.identity()
    assert memory.exists("/pool/00000000.index.arrow")
    assert not list(tmp_path.glob("curate-tar-*"))


def test_failed_reads_are_tried_again(web, squares):
    dataset = SubsetDataset(shards(web.url, squares))
    web.failures = 3
    assert dataset.image(5) == SubsetDataset(squares).image(5)
    web.failures = 100
    with pytest.raises(StorageError, match=r"cannot read bytes .* tried 5 times"):
        dataset.image(80)
    web.failures = 0
    assert dataset.image(80) == SubsetDataset(squares).image(80)


def test_another_tar_of_the_same_size_is_noticed(web, squares):
    dataset = SubsetDataset(shards(web.url, squares))
    path = web.folder / "00000000.tar"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(DataError, match=r"no member of \d+ bytes at byte 512; index it again"):
        dataset.image(0)


def test_an_index_of_another_tar_is_made_again(web, squares):
    (web.folder / "00000000.tar").write_bytes((web.folder / "00000001.tar").read_bytes())
    with pytest.raises(DataError, match="lacks 60 of 60 selected samples"):
        SubsetDataset(shards(web.url, squares))


def test_the_cache_is_bounded_and_threads_fetch_a_range_once():
    memory = fsspec.filesystem("memory")
    data = np.random.default_rng(0).bytes(100_000)
    memory.pipe_file("/cache/blob", data)
    cache = RemoteCache(limit=30_000)
    at = np.random.default_rng(1).integers(0, 100, 400).tolist()
    for i in at:
        start = i * 1000 // 10_000 * 10_000
        assert (
            cache.read("memory://cache/blob", start, start + 10_000, i * 1000, 1000) == data[i * 1000 : i * 1000 + 1000]
        )
        assert cache._used <= 30_000
    assert cache.requests > 10
    whole = RemoteCache()
    threads = [threading.Thread(target=whole.read, args=("memory://cache/blob", 0, 100_000, 7, 9)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (whole.requests, whole.fetched_bytes) == (1, 100_000)


@given(
    spans=st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 400)), min_size=1, max_size=40),
    most=st.integers(1, 3000),
    gap=st.integers(0, 300),
)
def test_ranges_cover_their_spans(spans, most, gap):
    begin = np.array([b for b, _ in spans])
    end = begin + np.array([size for _, size in spans])
    number, starts, stops = ranges(begin, end, most, gap)
    assert (starts[number] <= begin).all()
    assert (stops[number] >= end).all()
    for r in range(len(starts)):
        mine = np.flatnonzero(number == r)
        assert starts[r] == begin[mine].min()
        assert stops[r] == end[mine].max()
        assert stops[r] - starts[r] <= most or begin[mine].max() <= starts[r] + most
