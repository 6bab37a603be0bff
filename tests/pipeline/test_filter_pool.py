"""The pool over files decides exactly as the pool in memory, whatever the sharding."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.filters.base import Decision
from curate.filters.concept_clusters import ConceptClusters
from curate.filters.exact_dedup import ExactDedup
from curate.filters.memory import MemoryPool, run_filters
from curate.filters.near_dedup import NearDedup
from curate.filters.random import Random
from curate.filters.semantic_dedup import SemanticDedup
from curate.filters.top_fraction import TopFraction
from curate.pipeline.artifact import Artifact
from curate.pipeline.columns import ColumnStore
from curate.pipeline.decisions import read_decision, write_decision
from curate.pipeline.filter_pool import StagePool, Survivors
from curate.pipeline.reporting.truth import surplus
from curate.pipeline.stage import Work
from curate.shards.shard import Shard
from curate.shards.uid import stable_uid

FILTERS = [
    TopFraction(by="score", keep=0.6),
    ExactDedup(on=["caption"]),
    NearDedup(hash="hash", radius=3),
    NearDedup(hash="hash", radius=2, groups="connected"),
    SemanticDedup(encoder="e", clusters=5, epsilon=0.2),
    ConceptClusters(encoder="e", clusters=4, keep=0.7),
    Random(fraction=0.5),
]


class HereAndNow(Work):
    """Work without an engine."""

    def __init__(self, folder: Path) -> None:
        self.artifact, self.inputs = Artifact(str(folder)), {}

    def map(self, function, parts, resources=None):
        raise AssertionError("filters that fit have no parts of their own")

    def map_bundles(self, function, parts, weights, most, resources=None):
        raise AssertionError("filters do not look at pictures")

    def gpus(self):
        return 0

    def gather(self, function, arguments):
        return [function(*a) for a in arguments]


def pool_of(n: int) -> tuple[pa.Table, np.ndarray]:
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(6, 8))
    embeddings = (centres[rng.integers(6, size=n)] + 0.3 * rng.normal(size=(n, 8))).astype(np.float16)
    embeddings[rng.random(n) < 0.03] = np.nan
    scores = rng.integers(0, 40, n).astype(np.float32) / 40  # many ties
    table = pa.table(
        {
            "uid": [stable_uid(str(i)) for i in range(n)],
            "caption": [f"caption {rng.integers(n // 2)}" for _ in range(n)],
            "status": ["success"] * n,
            "score": scores,
            "hash": rng.integers(2**40, size=n // 3, dtype=np.uint64)[rng.integers(n // 3, size=n)]
            ^ (np.uint64(1) << rng.integers(64, size=n, dtype=np.uint64)),
        }
    )
    return table, embeddings


@pytest.mark.parametrize("cuts", [[0, 300], [0, 90, 91, 300], [0, 0, 150, 300]])
def test_files_and_memory_agree(tmp_path, cuts):
    table, embeddings = pool_of(300)
    memory = MemoryPool.of([table], [{"e.image": embeddings}], seed=5)
    expected = run_filters(memory, FILTERS)

    shards = []
    for i, (start, stop) in enumerate(itertools.pairwise(cuts)):
        name = f"{i:08d}"
        pq.write_table(table.slice(start, stop - start), tmp_path / f"{name}.parquet")
        np.save(tmp_path / f"{name}.image.npy", embeddings[start:stop])
        shards.append(Shard(name, "", str(tmp_path / f"{name}.parquet")))
    store = ColumnStore(tuple(shards), {}, {"e": str(tmp_path)})
    previous = None
    for step, chosen in enumerate(FILTERS):
        survivors = Survivors(store, previous)
        state = chosen.fit(StagePool(HereAndNow(tmp_path / f"work{step}"), survivors, seed=5))
        out = str(tmp_path / f"decisions{step}")
        counts = []
        for i in range(len(shards)):
            part, times = survivors.part(i)
            counts.append(write_decision(out, part, chosen.decide(part, state), times))
        totals = {k: sum(c[k] for c in counts) for k in ("entered", "kept")}
        assert totals == {"entered": expected.steps[step].entered, "kept": expected.steps[step].kept}
        assert chosen.describe(state) == expected.steps[step].facts
        previous = out
    kept = []
    for shard in shards:
        decision = read_decision(previous, shard.name)
        rows = decision["row"].to_numpy()[decision["keep"].to_numpy()]
        kept += shard.read_table(["uid"])["uid"].take(pa.array(rows)).to_pylist()
    fates = expected.fates[0]
    assert sorted(kept) == sorted(fates["uid"].filter(fates["kept"]).to_pylist())
    assert 0 < len(kept) < 100


def test_a_part_that_loses_nothing_has_a_decision_too(tmp_path):
    table, _ = pool_of(5)
    pq.write_table(table, tmp_path / "p.parquet")
    part = ColumnStore((Shard("p", "", str(tmp_path / "p.parquet")),)).part(0)
    counts = write_decision(str(tmp_path / "d"), part, Decision(np.ones(5, bool), np.zeros(5), "x"), np.ones(5, int))
    assert counts == {"entered": 5, "kept": 5, "samples": 5, "reasons": {}}
    assert read_decision(str(tmp_path / "d"), "p")["reason"].to_numpy().tolist() == [None] * 5
    keep, codes = np.arange(5) % 2 == 0, np.array(list("abcde"), object)
    some = Decision(keep, np.zeros(5), codes)
    counts = write_decision(str(tmp_path / "s"), part, some, np.ones(5, int))
    assert counts["reasons"] == {"b": 1, "d": 1}
    assert read_decision(str(tmp_path / "s"), "p")["reason"].to_numpy().tolist() == [None, "b", None, "d", None]


def test_of_every_group_of_copies_all_but_one_are_too_many():
    groups = np.array([0, 0, 0, 1, 1, 2, -1, -1])
    dropped = np.array([True, False, False, False, False, True, True, False])
    # group 0: the dropped one and one more; group 1: one of two; a group of one, and rows of no group: none
    assert surplus(groups, dropped).tolist() == [True, False, True, False, True, False, False, False]
    everything = np.ones(8, bool)
    assert surplus(groups, everything).sum() == 3
