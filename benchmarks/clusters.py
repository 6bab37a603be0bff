"""What clustering costs beside faiss alone, and what selection costs beyond assignment, on files.

    python benchmarks/clusters.py [--json] [--rows N] [--clusters K] [--dimensions D] [--folder F]

The pool is generated (blobs of unequal size, unit rows, float16) and lies in shards of 10,000 rows as the pipeline
keeps them; everything runs through the pipeline's own pool, in one process with one thread, and is timed in seconds of
CPU. ``kmeans_ratio``: training and assignment here, over faiss alone (read the same files, normalise, train on as many
rows, search the index). ``clusters_s_per_million``: `concept_clusters` from centroids to decisions, less reading and
assigning, and without the writing of decisions, which every filter does. Balancing filters are timed on the same rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from curate.filters.base import Filter, Part, Pool
from curate.filters.centroids import write_centroids
from curate.filters.concept_clusters import ConceptClusters
from curate.filters.hierarchical_sampling import HierarchicalSampling
from curate.filters.kmeans import fit_centroids
from curate.filters.metadata_balance import MetadataBalance
from curate.filters.nearest import assign, unit
from curate.filters.source_balance import SourceBalance
from curate.filters.top_k_per_class import TopKPerClass
from curate.pipeline.artifact import Artifact
from curate.pipeline.columns import ColumnStore
from curate.pipeline.decisions import write_decision
from curate.pipeline.filter_pool import StagePool, Survivors
from curate.pipeline.stage import Work
from curate.shards.shard import Shard

T = TypeVar("T")
SHARD_ROWS = 10_000
COLUMN = "e.image"


class OneProcess(Work):
    """Work without an engine."""

    def __init__(self, folder: Path) -> None:
        self.artifact, self.inputs = Artifact(str(folder)), {}

    def map(self, function: Any, parts: Any, resources: Any = None) -> dict[str, dict[str, Any]]:
        raise NotImplementedError

    def map_bundles(self, function: Any, parts: Any, weights: Any, most: int, resources: Any = None) -> Any:
        raise NotImplementedError

    def gpus(self) -> int:
        return 0

    def gather(self, function: Callable[..., T], arguments: list[tuple[Any, ...]]) -> list[T]:
        return [function(*a) for a in arguments]


def generate(folder: Path, rows: int, d: int) -> ColumnStore:
    """A pool on disk: embeddings, and the small columns that balancing reads."""
    (folder / "shards").mkdir(parents=True)
    (folder / "e").mkdir()
    centres = np.random.default_rng(0).standard_normal((1000, d)).astype(np.float32)
    size = 1 / np.arange(1, 1001)
    shards = []
    for number, start in enumerate(range(0, rows, SHARD_ROWS)):
        n = min(SHARD_ROWS, rows - start)
        rng = np.random.default_rng([1, number])
        which = rng.choice(1000, n, p=size / size.sum())
        points = centres[which] + rng.standard_normal((n, d), np.float32)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        np.save(folder / "e" / f"{number:08d}.image.npy", points.astype(np.float16))
        raw = rng.bytes(16 * n).hex()
        lists = np.minimum(rng.zipf(1.3, 6 * n), 400_000).astype(np.int32)
        offsets = np.arange(0, 6 * n + 1, 6, dtype=np.int32)
        table = pa.table(
            {
                "uid": [raw[i : i + 32] for i in range(0, 32 * n, 32)],
                "status": ["success"] * n,
                "source": rng.choice(["web", "books", "news"], n, p=[0.9, 0.07, 0.03]).tolist(),
                "class": [f"class {c}" for c in which.tolist()],
                "class_probability": rng.random(n, np.float32),
                "m_entries": pa.ListArray.from_arrays(pa.array(offsets), pa.array(lists)),
            }
        )
        path = folder / "shards" / f"{number:08d}.parquet"
        pq.write_table(table, path)
        shards.append(Shard(f"{number:08d}", str(path.with_suffix(".tar")), str(path)))
    return ColumnStore(tuple(shards), {}, {"e": str(folder / "e")})


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """The result, and CPU seconds."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def faiss_alone(paths: list[Path], k: int, sample: int, iterations: int) -> tuple[np.ndarray, float, float]:
    """Spherical k-means with faiss and nothing else: the centroids, seconds to train, seconds to assign."""
    import faiss

    def read(path: Path, most: int | None = None) -> np.ndarray:
        rows = np.load(path, mmap_mode="r")[:most].astype(np.float32)
        faiss.normalize_L2(rows)
        return rows

    def train() -> Any:
        share = -(-sample // len(paths))
        points = np.concatenate([read(path, share) for path in paths])[:sample]
        model = faiss.Kmeans(
            points.shape[1],
            k,
            niter=iterations,
            seed=1,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=len(points),
        )
        model.train(points)
        return model

    def search(model: Any) -> None:
        for path in paths:
            model.index.search(read(path), 1)

    model, training = timed(train)
    _, assigning = timed(lambda: search(model))
    return model.centroids, training, assigning


def _assign(part: Part, centroids: np.ndarray) -> int:
    rows, _ = unit(part.array(COLUMN))
    return len(assign(rows, centroids)[0])


def decide_all(chosen: Filter, pool: Pool, store: ColumnStore, out: Path) -> tuple[float, float]:
    """CPU seconds to fit and decide for every part, and to write the decisions down."""
    state, deciding = timed(lambda: chosen.fit(pool))
    out.mkdir()
    writing = 0.0
    for index in range(len(store.shards)):
        part, times = Survivors(store, None).part(index)
        decision, seconds = timed(lambda p=part: chosen.decide(p, state))
        deciding += seconds
        writing += timed(lambda p=part, d=decision, t=times: write_decision(str(out), p, d, t))[1]
    return deciding, writing


def measure(folder: Path, rows: int, k: int, d: int) -> dict[str, Any]:
    """All figures."""
    import faiss

    threadpool_limits(1)  # a worker has one core
    faiss.omp_set_num_threads(1)
    store = generate(folder, rows, d)
    survivors = Survivors(store, None)
    paths = [folder / "e" / f"{shard.name}.image.npy" for shard in store.shards]
    runs = iter(range(100))

    def pool() -> StagePool:
        return StagePool(OneProcess(folder / f"work{next(runs)}"), survivors, 0)

    sample = min(rows, 256 * k)
    found, faiss_train, faiss_assign = faiss_alone(paths, k, sample, 100)
    del found
    centroids, ours_train = timed(lambda: fit_centroids(pool(), COLUMN, k, 100, 256))
    _, ours_assign = timed(lambda: pool().map(_assign, centroids.vectors))
    write_centroids(str(folder / "c.npy"), centroids.vectors)
    chosen = ConceptClusters(encoder="e", centroids=str(folder / "c.npy"), keep=0.5)
    selection, writing = decide_all(chosen, pool(), store, folder / "concepts")
    others: dict[str, Filter] = {
        "metadata_balance": MetadataBalance(by="m", target=200),
        "metadata_balance_samples": MetadataBalance(by="m", samples=rows // 2),
        "source_balance": SourceBalance(by="source"),
        "top_k_per_class": TopKPerClass(classes_of="class", per_class=100),
        "hierarchical_sampling": HierarchicalSampling(
            encoder="e", centroids=str(folder / "c.npy"), levels=[max(2, k // 10)], keep=0.3
        ),
    }
    balancing = {}
    for name, filter_ in others.items():
        seconds, _ = decide_all(filter_, pool(), store, folder / name)
        if name == "hierarchical_sampling":
            seconds -= ours_assign
        balancing[f"{name}_s_per_million"] = round(seconds / rows * 1e6, 2)
    return {
        "rows": rows,
        "clusters": k,
        "dimensions": d,
        "faiss": faiss.__version__,
        "faiss_train_s": round(faiss_train, 2),
        "faiss_assign_s": round(faiss_assign, 2),
        "train_s": round(ours_train, 2),
        "assign_s": round(ours_assign, 2),
        "kmeans_ratio": round((ours_train + ours_assign) / (faiss_train + faiss_assign), 3),
        "clusters_s_per_million": round((selection - ours_assign) / rows * 1e6, 3),
        "decision_files_s_per_million": round(writing / rows * 1e6, 3),
        **balancing,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--clusters", type=int, default=500)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--folder", help="where the pool is generated; 1 GB for 1 M rows of 512 dimensions")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures = measure(Path(folder), options.rows, options.clusters, options.dimensions)
    if options.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name:34} {value}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
