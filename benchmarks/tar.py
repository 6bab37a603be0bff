"""Tars beside webdataset's, and the resharder beside DataComp's published rate.

    python benchmarks/tar.py [--json] [--samples 10000] [--rounds 7] [--folder DIR] [--quick]

Write and read: the same samples (33 KB jpg + json + txt), webdataset in an environment of its own, the two sides in
turn on one core each, CPU seconds (system time included), medians; files are in the page cache. Writing hands over
bytes, reading takes every member of every sample as bytes. The floor copies the same bytes from memory to memory.

Reshard: DataComp's measured shape, 20,000 samples of 28 KB in two img2dataset shards, 30 % kept, one process, from the
subset file to the finished folder; DataComp's own does 3,391 input samples/s on it.

With `--json` the last line printed is one JSON object: ``read_ratio`` and ``write_ratio`` (our samples/s over
webdataset's), ``reshard_samples_per_s`` (input samples per CPU second), ``reshard_samples_per_s_wall``,
``floor_samples_per_s`` and every rate behind them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WEBDATASET = ("webdataset==1.0.2", "numpy==2.4.6")
REFERENCE_RESHARD = 3_391  # input samples/s of DataComp's resharder, one worker
JPG, JSON, TXT = 33_000, 420, 60  # bytes; the jpg varies by a fifth

Samples = list[tuple[str, dict[str, bytes]]]


def make_samples(count: int, jpg: int = JPG, seed: int = 0) -> Samples:
    """The same payloads in every process."""
    rng, samples = random.Random(seed), []
    for i in range(count):
        image = rng.randbytes(jpg + rng.randrange(-jpg // 5, jpg // 5))
        samples.append((f"{i:012d}", {"jpg": image, "json": rng.randbytes(JSON), "txt": rng.randbytes(TXT)}))
    return samples


# One side, in its own process: commands come by line, CPU seconds go back by line.


def ours(samples: Samples) -> dict[str, Callable[[str], int]]:
    """What curate does for each command; returns bytes that were handled."""
    from curate.shards.tar import TarReader, TarWriter

    def write(path: str) -> int:
        with TarWriter(path) as tar:
            for key, members in samples:
                tar.write(key, members)
        return len(samples)

    def read(path: str) -> int:
        return sum(sum(map(len, members.values())) for _, members in TarReader(path).samples())

    def walk(path: str) -> int:
        return len(TarReader(path))

    def copy(path: str) -> int:
        total = 0
        for _, members in samples:
            for data in members.values():
                total += len(bytearray(data))
        return total

    return {"write": write, "read": read, "walk": walk, "copy": copy}


def theirs(samples: Samples) -> dict[str, Callable[[str], int]]:
    """What webdataset does for each command."""
    import webdataset

    def write(path: str) -> int:
        with webdataset.TarWriter(path, mtime=0) as tar:  # type: ignore[attr-defined]
            for key, members in samples:
                tar.write({"__key__": key, **members})
        return len(samples)

    def read(path: str) -> int:
        dataset = webdataset.WebDataset(path, shardshuffle=False)
        return sum(len(s["jpg"]) + len(s["json"]) + len(s["txt"]) for s in dataset)

    return {"write": write, "read": read}


def serve(side: str, count: int) -> None:
    """Answer commands ``name path`` with ``cpu-seconds result`` until the input ends."""
    commands = {"ours": ours, "theirs": theirs}[side](make_samples(count))
    print("ready", flush=True)
    for line in sys.stdin:
        name, path = line.split()
        started = time.process_time()
        result = commands[name](path)
        print(time.process_time() - started, result, flush=True)


class Side:
    """The process of one side."""

    def __init__(self, python: str, side: str, count: int) -> None:
        command = [python, os.path.abspath(__file__), "--side", side, "--samples", str(count)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._line()

    def __call__(self, name: str, path: Path) -> tuple[float, int]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name} {path}\n")
        self.process.stdin.flush()
        seconds, result = self._line().split()
        return float(seconds), int(result)

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a side of the benchmark ended with {self.process.wait()}")
        return line

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def compare(folder: Path, count: int, rounds: int) -> dict[str, float]:
    """Median CPU seconds of each command and side, taken in turn."""
    from peers import venv

    peer = Side(str(venv("webdataset", WEBDATASET)), "theirs", count)
    mine = Side(sys.executable, "ours", count)
    seconds: dict[str, list[float]] = {}
    expected: int | None = None
    for number in range(rounds + 1):  # the first warms both up
        turns = [(mine, "ours"), (peer, "theirs")]
        for side, who in turns if number % 2 else reversed(turns):
            path = folder / f"{who}.tar"
            path.unlink(missing_ok=True)
            took, _ = side("write", path)
            seconds.setdefault(f"write {who}", []).append(took)
            took, total = side("read", folder / "ours.tar" if (folder / "ours.tar").exists() else path)
            seconds.setdefault(f"read {who}", []).append(took)
            expected = expected or total
            if total != expected:
                raise SystemExit(f"{who} read {total} bytes, not {expected}")
        for name in ("walk", "copy"):
            seconds.setdefault(name, []).append(mine(name, folder / "ours.tar")[0])
    for side in (mine, peer):
        side.close()
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


# The resharder.


def make_pool(folder: Path, shards: int, rows: int) -> Path:
    """An img2dataset folder of DataComp's shape and a subset file of 30 % of its uids, at random."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.shards.tar import TarWriter
    from curate.shards.uid import to_records, write_subset

    rng = random.Random(1)
    pool, everything = folder / "pool", []
    pool.mkdir()
    for shard in range(shards):
        keys = [f"{shard * 10_000 + row:012d}" for row in range(rows)]
        uids = [rng.randbytes(16).hex() for _ in range(rows)]
        everything += uids
        with TarWriter(str(pool / f"{shard:08d}.tar")) as tar:
            for key, uid in zip(keys, uids, strict=True):
                fields = json.dumps({"uid": uid, "caption": "a caption " * 20}, indent=4).encode()
                tar.write(key, {"jpg": rng.randbytes(27_200), "json": fields, "txt": b"a caption " * 8})
        table = {"uid": uids, "caption": ["a caption " * 8] * rows, "key": keys, "status": ["success"] * rows}
        pq.write_table(pa.table(table), pool / f"{shard:08d}.parquet", row_group_size=100)
        (pool / f"{shard:08d}_stats.json").write_text(json.dumps({"count": rows, "successes": rows}))
    write_subset(str(folder / "subset.npy"), to_records(rng.sample(everything, len(everything) * 3 // 10)))
    return pool


def reshard(folder: Path, shards: int, rows: int, rounds: int) -> tuple[float, float]:
    """Median CPU and wall seconds of a whole reshard."""
    from rich.console import Console

    from curate.pipeline.commands.reshard import reshard_subset

    pool, took = make_pool(folder, shards, rows), []
    quiet = Console(quiet=True)
    for _ in range(rounds + 1):
        shutil.rmtree(folder / "out", ignore_errors=True)
        os.sync()  # what was written before is not ours to wait for
        cpu, wall = time.process_time(), time.perf_counter()
        reshard_subset(
            str(folder / "subset.npy"), str(pool), str(folder / "out"), 10_000, True, 0, 1, console=quiet, err=quiet
        )
        took.append((time.process_time() - cpu, time.perf_counter() - wall))
    return statistics.median(c for c, _ in took[1:]), statistics.median(w for _, w in took[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="a tenth of the size, three rounds")
    parser.add_argument("--samples", type=int, default=10_000, help="samples per tar")
    parser.add_argument("--rounds", type=int, default=7, help="repetitions; the median counts")
    parser.add_argument("--folder", help="where the tars are written; a temporary folder by default")
    parser.add_argument("--side", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve(options.side, options.samples)
        return
    count, rounds = (options.samples // 10, 3) if options.quick else (options.samples, options.rounds)
    with tempfile.TemporaryDirectory(prefix="curate-bench-", dir=options.folder) as name:
        seconds = compare(Path(name), count, rounds)
        cpu, wall = reshard(Path(name), 2, count, rounds)
    rate = {what: count / took for what, took in seconds.items()}
    figures: dict[str, Any] = {
        "read_ratio": round(rate["read ours"] / rate["read theirs"], 2),
        "write_ratio": round(rate["write ours"] / rate["write theirs"], 2),
        "reshard_samples_per_s": round(2 * count / cpu),
        "reshard_samples_per_s_wall": round(2 * count / wall),
        "reshard_ratio": round(2 * count / cpu / REFERENCE_RESHARD, 1),
        "floor_samples_per_s": round(rate["copy"]),
        "samples_per_s": {what.replace(" ", "_"): round(r) for what, r in rate.items()},
        "samples": count,
        "rounds": rounds,
    }
    print(f"{count:,} samples of {JPG // 1000} KB jpg + json + txt; CPU us per sample, median of {rounds}")
    print(f"  {'':8}{'curate':>10}{'webdataset':>12}{'ratio':>8}")
    for what in ("write", "read"):
        mine, other = (1e6 / rate[f"{what} {who}"] for who in ("ours", "theirs"))
        print(f"  {what:8}{mine:10.2f}{other:12.2f}{figures[f'{what}_ratio']:8.1f}")
    print(f"  {'walk':8}{1e6 / rate['walk']:10.2f}    headers only")
    print(f"  {'floor':8}{1e6 / rate['copy']:10.2f}    copying the same bytes in memory")
    print(
        f"reshard {2 * count:,} samples, 30 % kept: {figures['reshard_samples_per_s']:,}/s of CPU time, "
        f"{figures['reshard_samples_per_s_wall']:,}/s of wall time; DataComp's {REFERENCE_RESHARD:,}/s"
    )
    if options.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
