"""`curate reshard`: a subset file and a folder of shards in, new shards out; killed, repeated, refused."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from curate.errors import ConfigError, CurateError, DataError
from curate.pipeline.commands.reshard import reshard_subset
from curate.pipeline.lock import locked
from curate.shards.tar import TarReader, TarWriter
from curate.shards.uid import read_subset, stable_uid, to_records, to_text, write_subset

SHARDS, ROWS = 5, 40


def uid(shard: int, row: int) -> str:
    """Row 39 of every shard has the same uid as row 0 of the next."""
    return stable_uid(str(shard + 1), "0") if row == ROWS - 1 else stable_uid(str(shard), str(row))


def payload(shard: int, row: int) -> dict[str, bytes]:
    data = random.Random(shard * 1000 + row).randbytes(200 + 61 * row)
    return {"jpg": data, "txt": f"{shard} {row}".encode(), "json": json.dumps({"uid": uid(shard, row)}).encode()}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    for shard in range(SHARDS):
        stem = str(folder / f"{shard + (shard > 2):05d}")  # no shard 3
        with TarWriter(f"{stem}.tar") as tar:
            for row in range(ROWS):
                tar.write(f"{shard:05d}{row:04d}", payload(shard, row))
        keys = [f"{shard:05d}{row:04d}" for row in range(ROWS)]
        if shard != 1:
            pq.write_table(pa.table({"uid": [uid(shard, r) for r in range(ROWS)], "key": keys}), f"{stem}.parquet")
        if shard != 4:
            Path(f"{stem}_stats.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def wanted() -> Counter[str]:
    found = Counter({uid(s, r): 1 + (r % 11 == 0) + 2 * (r == 0) for s in range(SHARDS) for r in range(0, ROWS, 3)})
    return found + Counter({"0" * 32: 1, "f" * 32: 3})


@pytest.fixture(scope="module")
def subset(tmp_path_factory: pytest.TempPathFactory, wanted: Counter[str]) -> str:
    path = str(tmp_path_factory.mktemp("subset") / "s.npy")
    write_subset(path, to_records(wanted.elements()))
    return path


def reshard(subset: str, pool: Path | str, out: Path | str, **changes: object) -> str:
    options: dict = {"samples_per_shard": 25, "shuffle": True, "seed": 0, "workers": 1} | changes
    console, err = Console(record=True, quiet=False, file=open(os.devnull, "w")), Console(quiet=True)  # noqa: SIM115
    reshard_subset(subset, str(pool), str(out), console=console, err=err, **options)
    return console.export_text()


def digests(folder: Path) -> dict[str, str]:
    """Of everything but the notes and the paths in meta.json."""
    names = [p for p in sorted(folder.iterdir()) if p.is_file() and p.name != "meta.json"]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in names}


@pytest.fixture(scope="module")
def reference(pool: Path, subset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "out"
    reshard(subset, pool, out)
    return out


def test_what_is_written_and_what_is_told(pool: Path, subset: str, wanted: Counter[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = reshard(subset, pool, out)
    there = Counter({u: n for u, n in wanted.items() if u not in ("0" * 32, "f" * 32)})
    names = [key for path in sorted(out.glob("*.tar")) for key in TarReader(str(path)).require_whole().keys]
    assert sorted(names) == sorted(f"{u}-{j}" for u, n in there.items() for j in range(n))
    sources = {uid(s, r): [payload(s, r)] for s in range(SHARDS) for r in range(ROWS)}
    for s in range(SHARDS):
        sources[uid(s, ROWS - 1)].append(payload(s, ROWS - 1))
    for path in out.glob("*.tar"):
        for key, sample in TarReader(str(path)).samples():
            assert sample in sources[key.rpartition("-")[0]]
    assert to_text(read_subset(str(out / "missing_uids.npy"))) == ["0" * 32, "f" * 32]
    assert f"missing: 2 of {len(wanted)} uids" in told
    assert "gaps: no shard with number 3;" in told
    assert "no statistics: 00005" in told
    total = there.total()
    assert f"{total} samples in {-(-total // 25)} shards, of 200 in 5; {total - len(there)} of them repeats" in told
    meta = json.loads((out / "meta.json").read_text())
    assert meta["subset_file"] == subset
    assert meta["samples_per_shard"] == "25"
    assert (meta["processed_count"], meta["output_count"]) == (200, total)
    assert (out / "sample_ids.npy").read_bytes() == Path(subset).read_bytes()
    assert sorted(p.name for p in (out / ".reshard").iterdir()) == [".lock", "settings.json", "summary.json"]


def test_rows_that_share_a_uid_take_turns(pool: Path, tmp_path: Path) -> None:
    """Row 39 of shard 0 and row 0 of shard 1 have one uid: three copies are two of the first and one of the second."""
    shared = uid(1, 0)
    write_subset(str(tmp_path / "s.npy"), to_records([shared] * 3))
    reshard(str(tmp_path / "s.npy"), pool, tmp_path / "out", shuffle=False)
    found = dict(TarReader(str(tmp_path / "out" / "00000000.tar")).samples())
    assert found == {f"{shared}-{j}": payload(*place) for j, place in enumerate([(0, 39), (0, 39), (1, 0)])}
    write_subset(str(tmp_path / "s1.npy"), to_records([shared]))
    reshard(str(tmp_path / "s1.npy"), pool, tmp_path / "out1")
    assert dict(TarReader(str(tmp_path / "out1" / "00000000.tar")).samples()) == {f"{shared}-0": payload(0, 39)}


def test_workers_and_repetition_change_nothing(pool: Path, subset: str, reference: Path, tmp_path: Path) -> None:
    reshard(subset, pool, tmp_path / "out", workers=2)
    assert digests(tmp_path / "out") == digests(reference)
    before = {p: p.stat().st_mtime_ns for p in reference.iterdir()}
    assert "finished already" in reshard(subset, pool, reference)
    assert {p: p.stat().st_mtime_ns for p in reference.iterdir()} == before
    reshard(subset, pool, tmp_path / "other", seed=1)
    assert digests(tmp_path / "other") != digests(reference)


def test_a_half_done_folder_is_finished(pool: Path, subset: str, reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    reshard(subset, pool, out)
    for name in ("sizes.json", "meta.json", "00000001_stats.json", "00000002.tar"):
        (out / name).unlink()
    (out / "00000001.tar").write_bytes(b"torn")
    kept = (out / "00000000.tar").stat().st_mtime_ns
    reshard(subset, pool, out)
    assert digests(out) == digests(reference)
    assert (out / "00000000.tar").stat().st_mtime_ns == kept


def test_killed_at_any_moment(pool: Path, subset: str, reference: Path, tmp_path: Path) -> None:
    out, rng = tmp_path / "out", random.Random(0)
    command = [sys.executable, "-m", "curate.pipeline.cli", "reshard", subset, str(pool), str(out)]
    command += ["--samples-per-shard", "25", "--workers", "1"]
    for _ in range(20):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not (out / ".reshard").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.random() * 0.15)
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0 or (out / "sizes.json").exists():
            break
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(reference)  # and nothing that was begun is left behind


def test_object_stores_in_and_out(pool: Path, subset: str, reference: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.put(str(pool), "/reshard/pool", recursive=True)
    fs.put_file(subset, "/reshard/s.npy")
    told = reshard("memory://reshard/s.npy", "memory://reshard/pool", "memory://reshard/out", workers=4)
    assert "memory://reshard/out" in told
    found = {}
    for path in fs.ls("/reshard/out", detail=False):
        name = path.rsplit("/", 1)[-1]
        if fs.isfile(path) and name != "meta.json":
            found[name] = hashlib.sha256(fs.cat_file(path)).hexdigest()
    assert found == digests(reference)
    assert "finished already" in reshard("memory://reshard/s.npy", "memory://reshard/pool", "memory://reshard/out")
    fs.rm("/reshard", recursive=True)


def test_what_is_refused(pool: Path, subset: str, reference: Path, tmp_path: Path) -> None:
    write_subset(str(tmp_path / "other.npy"), to_records([uid(0, 1)]))
    cases: list[tuple[dict, str]] = [
        ({"subset": str(tmp_path / "other.npy")}, "another subset"),
        ({"samples_per_shard": 10, "seed": 3}, "another samples per shard and another seed"),
        ({"shuffle": False}, "another shuffle"),
        ({"subset": str(tmp_path / "none.npy")}, "no such subset file"),
        ({"pool": tmp_path}, r"no \.tar file"),
        ({"pool": tmp_path / "none"}, "nothing is there"),
        ({"samples_per_shard": 0}, "at least 1"),
    ]
    for changes, message in cases:
        with pytest.raises(ConfigError, match=message):
            reshard(**({"subset": subset, "pool": pool, "out": reference} | changes))
    stale = tmp_path / "stale"
    stale.mkdir()
    (stale / "00000000.tar").write_bytes(b"")
    with pytest.raises(ConfigError, match="did not write"):
        reshard(subset, pool, stale)
    with locked(str(reference / ".reshard"), "another"), pytest.raises(CurateError, match="in use by process"):
        reshard(subset, pool, reference)
    write_subset(str(tmp_path / "nothing.npy"), to_records(["1" * 32]))
    with pytest.raises(DataError, match="none of the 1 uids"):
        reshard(str(tmp_path / "nothing.npy"), pool, tmp_path / "empty")
    assert len(np.load(tmp_path / "empty" / "missing_uids.npy")) == 1
    np.save(tmp_path / "unsorted.npy", to_records(["2", "1"]))
    with pytest.raises(DataError, match="not sorted"):
        reshard(str(tmp_path / "unsorted.npy"), pool, tmp_path / "unsorted")


def test_the_command_line(pool: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "curate.pipeline.cli", "reshard", str(tmp_path / "none.npy"), str(pool), "out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "no such subset file" in done.stderr
    told = subprocess.run([*command[:4], "--help"], capture_output=True, text=True).stdout
    assert all(option in told for option in ("--samples-per-shard", "--no-shuffle", "--seed", "--workers"))
