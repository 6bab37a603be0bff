import errno
import os
import subprocess
import threading
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.errors import StorageError
from curate.shards import storage


@pytest.fixture(params=["local", "memory"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "new" / "folder")
    fsspec.filesystem("memory").store.clear()
    return "memory://bucket/folder"


def test_a_file_appears_whole_or_not_at_all(base: str) -> None:
    path = storage.join(base, "a.bin")

    def fail() -> None:
        with storage.publishing(path) as temporary:
            Path(temporary).write_bytes(b"half")
            assert not storage.exists(path)
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        fail()
    assert not storage.exists(path)
    assert storage.list_names(base) == []
    if storage.is_local(base):
        assert os.listdir(base) == []
    storage.write_bytes(path, b"whole")
    with pytest.raises(RuntimeError, match="killed"):
        fail_again(path)
    assert storage.read_bytes(path) == b"whole"


def fail_again(path: str) -> None:
    with storage.publishing(path) as temporary:
        Path(temporary).write_bytes(b"half")
        raise RuntimeError("killed")


def test_reading_and_listing(base: str) -> None:
    assert storage.list_names(base) == []
    storage.write_json(storage.join(base, "b.json"), {"ü": [1, None]})
    storage.write_bytes(storage.join(base, "a.bin"), b"a" * 10)
    assert storage.list_names(base) == ["a.bin", "b.json"]
    assert storage.read_json(storage.join(base, "b.json")) == {"ü": [1, None]}
    assert Path(storage.local(storage.join(base, "a.bin"))).read_bytes() == b"a" * 10
    assert storage.size(storage.join(base, "a.bin")) == 10
    expected = [storage.join(base, name) for name in ("a.bin", "b.json")]
    strip = [path.removeprefix("memory://").lstrip("/") for path in expected]
    for pattern in (base, storage.join(base, "*")):
        assert [p.removeprefix("memory://").lstrip("/") for p in storage.expand(pattern)] == strip
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(storage.join(base, "nan.json"), float("nan"))
    assert not storage.exists(storage.join(base, "nan.json"))


def test_a_replaced_object_is_not_read_from_the_cache() -> None:
    path = "memory://bucket/cached"
    storage.write_bytes(path, b"one")
    assert Path(storage.local(path)).read_bytes() == b"one"
    storage.write_bytes(path, b"other")
    assert Path(storage.local(path)).read_bytes() == b"other"


def test_many_writers_of_one_file_leave_one_whole_file(tmp_path: Path) -> None:
    path = str(tmp_path / "same")
    threads = [threading.Thread(target=storage.write_bytes, args=(path, bytes([i]) * 100_000)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = Path(path).read_bytes()
    assert len(data) == 100_000
    assert len(set(data)) == 1
    assert os.listdir(tmp_path) == ["same"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_refusing_disk_is_explained(tmp_path: Path, code: int) -> None:
    def refuse() -> None:
        with storage.publishing(str(tmp_path / "x")):
            raise OSError(code, os.strerror(code))

    with pytest.raises(StorageError, match="cannot write"):
        refuse()
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_explained_by_every_writer(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        storage.write_bytes(str(disk / "kept"), b"done before")
        values = np.ones(1_000_000)
        writers = {
            "bytes": lambda path: Path(path).write_bytes(values.tobytes()),
            "numpy": lambda path: values.tofile(path),
            "parquet": lambda path: pq.write_table(pa.table({"x": np.random.default_rng(0).random(1_000_000)}), path),
        }
        for name, write in writers.items():
            with (
                pytest.raises(StorageError, match="the disk is full; free some space"),
                storage.publishing(str(disk / name)) as path,
            ):
                write(path)
            assert storage.list_names(str(disk)) == ["kept"], name
            assert len(os.listdir(disk)) == 1, name
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_leftovers_of_a_killed_writer_are_hidden_and_removed(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in (".tmp-1-a", "deep/.tmp-2-b", "kept"):
        (tmp_path / name).write_bytes(b"")
    assert storage.list_names(str(tmp_path)) == ["deep", "kept"]
    assert storage.expand(str(tmp_path)) == [str(tmp_path / "kept")]
    assert storage.remove_temporaries(str(tmp_path)) == 2
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["deep", "kept"]


def test_identity_follows_content_and_names_and_nothing_else(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_bytes(b"x" * 200_000)
    one, two = (storage.identity(str(tmp_path / folder)) for folder in ("one", "two"))
    assert one == two
    os.utime(tmp_path / "one" / "a", (0, 0))
    assert storage.identity(str(tmp_path / "one")) == one
    (tmp_path / "one" / "a").write_bytes(b"x" * 199_999 + b"y")
    assert storage.identity(str(tmp_path / "one")) != one
    (tmp_path / "two" / "a").rename(tmp_path / "two" / "b")
    assert storage.identity(str(tmp_path / "two")) != two
    with pytest.raises(FileNotFoundError):
        storage.identity(str(tmp_path / "none"))
