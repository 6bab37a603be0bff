"""Exact and perceptual dedup of hashes, over files, as the pipeline does it; and the triangle of semantic dedup.

    python benchmarks/dedup.py [--json] [--rows N] [--part-rows N] [--radius R] [--groups earlier|connected]
                               [--triangle N,N,...] [--folder PATH]

The pool is generated: rows with a uid, a 64-bit perceptual hash and the SHA-256 of a file. A quarter of the rows are
copies: one in ten has the very file of another row (and so its hash), one in ten a hash that differs in 1 to 4 bits,
one in twenty the same hash from another file; copies follow a long tail, so that some pictures have thousands, and one
row in a thousand is one blank picture. Both filters run over the real `StagePool` (files, shuffles) in this process, on
one core: `hash_dedup_s` is the sum of their CPU seconds, wall seconds and the peak of resident memory stand beside it.
The triangle's `gemm_fraction` is its n^2 d flop over its time, as a share of what a plain product of its tiles' shape
reaches on this core, measured in turns.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from curate.filters.base import Filter
from curate.filters.exact_dedup import ExactDedup
from curate.filters.hamming import plan
from curate.filters.near_dedup import NearDedup
from curate.filters.semantic_dedup import TILE_COLUMNS, TILE_ROWS, largest_earlier_similarity
from curate.pipeline.artifact import Artifact
from curate.pipeline.columns import ColumnStore
from curate.pipeline.decisions import write_decision
from curate.pipeline.filter_pool import StagePool, Survivors
from curate.pipeline.stage import Work
from curate.shards.shard import Shard


class HereAndNow(Work):
    """Work without an engine, in this process."""

    def __init__(self, folder: Path) -> None:
        self.artifact, self.inputs = Artifact(str(folder)), {}

    def map(self, function, parts, resources=None):
        raise AssertionError("no filter measured here has parts of its own")

    def map_bundles(self, function, parts, weights, most, resources=None):
        raise AssertionError("no filter measured here looks at pictures")

    def gpus(self) -> int:
        return 0

    def gather(self, function, arguments):
        return [function(*a) for a in arguments]


def hexadecimal(words: np.ndarray) -> pa.Array:
    """Rows of ``(n, w) uint64`` as text of 16 w digits."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    octets = np.ascontiguousarray(words).view(np.uint8)
    text = np.empty((len(words), 2 * octets.shape[1]), np.uint8)
    text[:, 0::2], text[:, 1::2] = digits[octets >> 4], digits[octets & 15]
    offsets = np.arange(len(words) + 1, dtype=np.int32) * text.shape[1]
    return pa.StringArray.from_buffers(len(words), pa.py_buffer(offsets), pa.py_buffer(text.ravel()))


def source_of(rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What each row is: the number of its picture, and in what it is a copy (0 new, 1 file, 2 hash, 3 near hash)."""
    rng = np.random.default_rng((seed, int(rows[0])))
    kind = rng.choice(4, len(rows), p=[0.75, 0.1, 0.05, 0.1])
    older = np.floor((rows + 1) * rng.random(len(rows)) ** 3).astype(np.int64)  # low numbers have most copies
    picture = np.where(kind == 0, rows, older)
    blank = rng.random(len(rows)) < 0.001
    return np.where(blank, 0, picture), np.where(blank, 1, kind)


def mixed(values: np.ndarray, salt: int) -> np.ndarray:
    """Words that look drawn at random, from numbers."""
    z = values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt * 0xD1B54A32D192ED03 % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return z


def write_pool(folder: Path, rows: int, part_rows: int, seed: int) -> ColumnStore:
    """Row tables with `uid` and `sha256`, and a score `phash`."""
    shards = []
    (folder / "phash").mkdir(parents=True)
    for number, start in enumerate(range(0, rows, part_rows)):
        at = np.arange(start, min(start + part_rows, rows))
        picture, kind = source_of(at, seed)
        hashes = mixed(picture, 1)
        rng = np.random.default_rng((seed, start, 1))
        bits = rng.integers(1, 5, len(at))
        for flip in range(4):
            some = (kind == 3) & (flip < bits)
            hashes[some] ^= np.uint64(1) << rng.integers(0, 64, int(some.sum())).astype(np.uint64)
        file = np.where(kind <= 1, picture, at + rows)
        name = f"{number:08d}"
        uid = np.stack([mixed(at, 2), mixed(at, 3)], axis=1)
        sha = np.stack([mixed(file, salt) for salt in (4, 5, 6, 7)], axis=1)
        table = pa.table({"uid": hexadecimal(uid), "sha256": hexadecimal(sha), "status": ["success"] * len(at)})
        pq.write_table(table, folder / f"{name}.parquet")
        pq.write_table(pa.table({"phash": hashes}), folder / "phash" / f"{name}.parquet")
        shards.append(Shard(name, "", str(folder / f"{name}.parquet")))
    return ColumnStore(tuple(shards), {"phash": str(folder / "phash")})


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(store: ColumnStore, chosen: Filter, work: Path) -> dict[str, Any]:
    """One filter over the pool, decisions written."""
    cpu, wall = time.process_time(), time.monotonic()
    survivors = Survivors(store, None)
    state = chosen.fit_in(_Alone(StagePool(HereAndNow(work / "stage"), survivors, seed=0)))  # type: ignore[arg-type]
    fitted = time.process_time()
    kept = 0
    for index in range(len(store.shards)):
        part, times = survivors.part(index)
        kept += write_decision(str(work / "decisions"), part, chosen.decide(part, state), times)["kept"]
    scratch = sum(f.stat().st_size for f in work.rglob("*") if f.is_file())
    return {
        "cpu_s": time.process_time() - cpu,
        "fit_cpu_s": fitted - cpu,
        "wall_s": time.monotonic() - wall,
        "peak_mb": peak_mb(),
        "scratch_mb": scratch / 2**20,
        "kept": kept,
        "facts": chosen.describe(state),
    }


class _Alone:
    """A context that has a pool and nothing else."""

    def __init__(self, pool: StagePool) -> None:
        self.pool = pool


def triangle(n: int, d: int = 512, rounds: int = 3) -> dict[str, float]:
    """The rate of `largest_earlier_similarity` beside that of plain products of the same tiles."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n, d), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    a, b = rows[:TILE_ROWS], rows[:TILE_COLUMNS]
    out = np.empty((len(a), len(b)), np.float32)
    ours, plain = [], []
    product = 2 * out.size * d
    repeats = max(1, int(2e10 / product))
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(repeats):
            np.matmul(a, b.T, out=out)
        plain.append(repeats * product / (time.process_time() - start))
        start = time.process_time()
        largest_earlier_similarity(rows)
        ours.append(n * n * d / (time.process_time() - start))
    fraction = statistics.median(o / p for o, p in zip(ours, plain, strict=True))
    return {
        "n": n,
        "gflops": statistics.median(ours) / 1e9,
        "gemm_gflops": statistics.median(plain) / 1e9,
        "gemm_fraction": fraction,
    }


def extrapolation(found: dict[str, Any], rows: int, radius: int) -> list[str]:
    """Lines that say what 10^9 rows cost, and how that follows from what was measured."""
    goal = 10**9
    exact, near = found["exact"], found["near"]
    sorts, goal_sorts = len(plan(rows, radius).masks()), len(plan(goal, radius).masks())
    lines = [f"10^9 rows, from {rows:,} measured on one core:"]
    hours = exact["cpu_s"] / rows * goal / 3600
    lines.append(f"  exact: {exact['cpu_s'] / rows * 1e6:.2f} us a row x 10^9 = {hours:.1f} core-hours")
    per_row = near["cpu_s"] / rows * 1e6
    more = (goal_sorts - sorts) * 0.1
    hours = (per_row + more) * 1e-6 * goal / 3600
    lines.append(
        f"  near, r = {radius}: {per_row:.2f} us a row + {goal_sorts} - {sorts} more sorts at about 0.1 us "
        f"= {per_row + more:.2f} us x 10^9 = {hours:.1f} core-hours"
    )
    disk = near["scratch_mb"] / rows * goal / 2**20
    lines.append(f"  disk: {near['scratch_mb'] * 2**20 / rows:.0f} bytes a row left in scratch = {disk:.2f} TB")
    lines.append("  memory: a worker holds one bucket: 10^6 rows x about 200 bytes = 200 MB, whatever the pool")
    lines.append(
        "  not in it: a shuffle opens parts x buckets files; 10^5 parts x 10^3 buckets are 10^8 openings, at 0.4 ms "
        "11 core-hours each time, unless parts are larger than 10^4 rows"
    )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--part-rows", type=int, default=10_000)
    parser.add_argument("--radius", type=int, default=4)
    parser.add_argument("--groups", choices=["earlier", "connected"], default="earlier")
    parser.add_argument("--triangle", default="20000", help="rows of the triangles, d = 512; empty = none")
    parser.add_argument("--folder", default=None, help="where the files go; default: the temporary folder")
    arguments = parser.parse_args()
    threadpool_limits(1)  # a worker has one core
    found: dict[str, Any] = {"rows": arguments.rows}
    folder = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        store = write_pool(folder / "pool", arguments.rows, arguments.part_rows, seed=0)
        found["before_mb"] = peak_mb()
        found["exact"] = run(store, ExactDedup(on=["image"]), folder / "exact")
        near = NearDedup(hash="phash", radius=arguments.radius, groups=arguments.groups)
        found["near"] = run(store, near, folder / "near")
    finally:
        shutil.rmtree(folder)
    found["hash_dedup_s"] = found["exact"]["cpu_s"] + found["near"]["cpu_s"]
    found["hash_dedup_peak_mb"] = peak_mb()
    found["triangles"] = [triangle(int(n)) for n in arguments.triangle.split(",") if n]
    for name in ("exact", "near"):
        line = found[name]
        print(
            f"{name}: {line['cpu_s']:.1f} CPU s ({line['fit_cpu_s']:.1f} to fit), {line['wall_s']:.1f} s, "
            f"peak {line['peak_mb']:.0f} MB, kept {line['kept']:,} of {arguments.rows:,}"
        )
    print("\n".join(extrapolation(found, arguments.rows, arguments.radius)))
    for line in found["triangles"]:
        print(
            f"triangle of {line['n']:,} x 512: {line['gflops']:.1f} GFLOP/s, plain product {line['gemm_gflops']:.1f}, "
            f"gemm_fraction {line['gemm_fraction']:.3f}"
        )
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
