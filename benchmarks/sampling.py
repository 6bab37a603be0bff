"""What draws with repeats and set-level selection cost: CPU seconds and memory, on generated rows.

    python benchmarks/sampling.py [--json] [--rows N] [--parts N] [--skip-reference]

``scs_s``: Soft Cap Sampling of N from N rows (scores normal, batches of 100,000), the whole filter: weights, transport
to one worker, draw, counting. ``scs_draw_s``: the draw alone. ``scs_reference_s``: the published loop (softmax and
top-b of Gumbel keys over all rows, each batch) for a few batches, times the number of batches. ``hcs_s``,
``weighted_s``: the same for Hard Cap and weighted sampling. ``submodular_us_per_pick``: stochastic greedy with exact
gains, 32 features a row, a fifth of 200,000 rows kept. Memory is of a fresh process per figure, above what it held
before.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from curate.filters.arrivals import Weights
from curate.filters.base import Filter
from curate.filters.hard_cap_sampling import HardCapSampling
from curate.filters.memory import MemoryPart, MemoryPool
from curate.filters.soft_cap import soft_cap
from curate.filters.soft_cap_sampling import SoftCapSampling
from curate.filters.weighted_sampling import WeightedSampling
from curate.shards.uid import RECORD

BATCH = 100_000


def scores(rows: int) -> np.ndarray:
    """``(rows,) float32``, normal."""
    return np.random.default_rng(1).standard_normal(rows).astype(np.float32)


def pool_of(rows: int, parts: int) -> MemoryPool:
    """`parts` parts of random uids and normal scores."""
    rng, values = np.random.default_rng(0), scores(rows)
    members = []
    for i, (start, stop) in enumerate(zip(*_bounds(rows, parts), strict=True)):
        text = rng.bytes(16 * (stop - start)).hex()
        offsets = np.arange(0, 32 * (stop - start) + 1, 32, dtype=np.int64)
        uid = pa.LargeStringArray.from_buffers(stop - start, pa.py_buffer(offsets), pa.py_buffer(text.encode()))
        members.append(MemoryPart(f"{i:08d}", i, pa.table({"uid": uid, "score": values[start:stop]})))
    return MemoryPool(members)


def _bounds(rows: int, parts: int) -> tuple[list[int], list[int]]:
    bounds = np.linspace(0, rows, parts + 1).astype(int).tolist()
    return bounds[:-1], bounds[1:]


def _peak() -> float:
    """Most memory that this process ever held, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def whole_filter(rows: int, parts: int, chosen: Filter) -> dict[str, float]:
    """Seconds of CPU and MB of `fit` and `decide` over a pool."""
    pool = pool_of(rows, parts)
    before, start = _peak(), time.process_time()
    state = chosen.fit(pool)
    drawn = sum(int(np.sum(chosen.decide(part, state).times)) for part in pool.members)
    assert drawn == rows or isinstance(chosen, WeightedSampling)
    return {"s": time.process_time() - start, "mb": _peak() - before}


def draw_alone(rows: int) -> dict[str, float]:
    """The draw over arrays."""
    values, hashes = scores(rows), np.random.default_rng(2).integers(0, 2**64, rows, np.uint64, endpoint=False)
    before, start = _peak(), time.process_time()
    soft_cap(hashes, values, Weights("score"), rows, min(BATCH, rows // 10), 0.15)
    return {"s": time.process_time() - start, "mb": _peak() - before}


def reference(rows: int, batches: int = 3) -> dict[str, float]:
    """The published loop's cost for all batches, from a few of them."""
    s, rng = scores(rows).astype(np.float64), np.random.default_rng(3)
    batch = min(BATCH, rows // 10)
    before, start = _peak(), time.process_time()
    for _ in range(batches):
        p = np.exp(s - s.max())
        p /= p.sum()
        keys = np.log(p) + rng.gumbel(size=rows)
        s[np.argpartition(-keys, batch)[:batch]] -= 0.15
    return {"s": (time.process_time() - start) / batches * rows / batch, "mb": _peak() - before}


def greedy(rows: int = 200_000, active: int = 32, features: int = 4096) -> dict[str, float]:
    """Microseconds per pick of the greedy selection (key ``s``), and MB."""
    from curate.filters.coverage import Coverage, stochastic_greedy

    rng = np.random.default_rng(4)
    codes = np.sort(rng.integers(0, features, (rows, active), dtype=np.int32), axis=1)
    weights = rng.random(features)
    before, start = _peak(), time.process_time()
    stochastic_greedy(Coverage(codes, weights), rows // 5, 0.1, np.random.default_rng(5))
    return {"s": (time.process_time() - start) / (rows // 5) * 1e6, "mb": _peak() - before}


def fresh(function: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Call in a process of its own, so that peaks do not mix."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--parts", type=int, default=100)
    parser.add_argument("--skip-reference", action="store_true")
    options = parser.parse_args()
    n, parts = options.rows, options.parts
    batch = min(BATCH, n // 10)
    measured = {
        "scs": fresh(whole_filter, n, parts, SoftCapSampling(by="score", total=n, batch=batch)),
        "scs_draw": fresh(draw_alone, n),
        "hcs": fresh(whole_filter, n, parts, HardCapSampling(by="score", total=n)),
        "weighted": fresh(whole_filter, n, parts, WeightedSampling(by="score", temperature=1.0, fraction=0.2)),
        "submodular_pick": fresh(greedy),
    }
    if not options.skip_reference:
        measured["scs_reference"] = fresh(reference, n)
    result: dict[str, Any] = {"rows": n, "uid_bytes": RECORD.itemsize}
    for name, found in measured.items():
        result[f"{name}_s" if name != "submodular_pick" else "submodular_us_per_pick"] = round(found["s"], 2)
        result[f"{name}_peak_mb"] = round(found["mb"])
    if options.json:
        json.dump(result, sys.stdout)
        sys.stdout.write("\n")
        return
    for name, value in result.items():
        sys.stdout.write(f"{name:28} {value}\n")


if __name__ == "__main__":
    main()
