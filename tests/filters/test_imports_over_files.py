"""Imports over files and receipts give what they give in memory, also after a kill."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.filters import uid_join, vector_ranges
from curate.filters.embedding_imports import NpyEmbeddings
from curate.filters.memory import MemoryContext, MemoryPool
from curate.filters.scorers import import_scores
from curate.filters.scorers.import_scores import ImportScores
from curate.pipeline.artifact import Artifact
from curate.pipeline.columns import ColumnStore
from curate.pipeline.filter_pool import StagePool, Survivors
from curate.pipeline.stage import Task
from curate.shards.shard import Shard
from curate.shards.uid import stable_uid

N = 300


class Killed(Exception):
    pass


class Here:
    """Work in this process, with receipts; dies after so many parts."""

    def __init__(self, folder: Path, parts: int = 1 << 30) -> None:
        self.artifact, self.inputs, self.left = Artifact(str(folder)), {}, parts
        self.receipts: dict[str, dict] = {}

    def map(self, function, parts, resources=None):
        for name, arguments in parts.items():
            if name not in self.receipts:
                if self.left == 0:
                    raise Killed
                self.left -= 1
                task = Task(name, self.artifact.data, self.artifact.scratch(name))
                self.receipts[name] = json.loads(json.dumps(function(task, *arguments), allow_nan=False))
        return {name: self.receipts[name] for name in parts}

    def gather(self, function, arguments):
        return [function(*a) for a in arguments]


@dataclass
class Context:
    work: Here
    columns: ColumnStore
    seed: int = 0

    @property
    def scratch(self):
        return self.work.artifact.scratch("score")

    @property
    def pool(self):
        return StagePool(cast(Any, self.work), Survivors(self.columns, None), self.seed)

    def map(self, function, parts):
        return self.work.map(function, parts)

    def call(self, function, *arguments):
        return function(*arguments)


@pytest.fixture
def setting(tmp_path, monkeypatch):
    """``(rows, store, files)``: a pool with failed rows and repeated uids over four shards, one of them empty."""
    for module, name, value in (
        (uid_join, "ROWS_PER_BUCKET", 60),
        (import_scores, "ROWS_PER_RANGE", 70),
        (vector_ranges, "ROWS_PER_RANGE", 70),
    ):
        monkeypatch.setattr(module, name, value)
    rng = np.random.default_rng(0)
    ids = [stable_uid(str(i)) for i in rng.integers(0, 400, N)]
    status = np.where(rng.random(N) < 0.1, "failed_to_download", "success")
    table = pa.table({"uid": ids, "status": status})
    shards = []
    for i, (start, stop) in enumerate([(0, 120), (120, 120), (120, 230), (230, N)]):
        path = tmp_path / f"{i}.parquet"
        pq.write_table(table.slice(start, stop - start), path)
        shards.append(Shard(f"{i:08d}", "", str(path)))
    listed = rng.permutation(500)[:250]
    values = {"uid": [stable_uid(str(i)) for i in listed], "s": [f"value {i}" for i in listed], "n": listed / 7}
    pq.write_table(pa.table(values), tmp_path / "scores.parquet")
    np.save(tmp_path / "v.npy", rng.standard_normal((250, 4)).astype(np.float16))
    np.save(tmp_path / "u.npy", np.array(values["uid"]))
    return table, ColumnStore(tuple(shards)), tmp_path


def values_of(scorer, state, store):
    tables = [pa.table(scorer.score(store.part(i), "x", state)) for i in range(len(store.shards))]
    return pa.concat_tables(tables)


def test_scores_over_files_killed_at_any_point(setting):
    table, store, folder = setting
    scorer = ImportScores(path=str(folder / "scores.parquet"), column="s", columns=["n"])
    usable = np.asarray(table["status"]) == "success"
    memory = MemoryPool.of([table.filter(pa.array(usable))])
    truth = memory.score("x", scorer, MemoryContext(folder=str(folder / "memory"))).members[0].table
    facts = scorer.describe(scorer.fit(MemoryContext(folder=str(folder / "memory")).of(memory)))

    work = Here(folder / "stage", parts=0)
    kills = 0
    while True:
        try:
            state = scorer.fit(Context(work, store))
            break
        except Killed:
            kills, work.left = kills + 1, 1
    assert kills >= 8
    found = values_of(scorer, state, store)
    assert found.filter(pa.array(usable)).to_pydict() == truth.select(["x", "x_n"]).to_pydict()
    assert found["x"].filter(pa.array(~usable)).null_count == (~usable).sum()
    assert scorer.describe(state) == facts
    assert facts["matched"] + facts["unmatched"] == usable.sum()
    assert 0 < facts["matched"] < usable.sum()
    straight = scorer.fit(Context(Here(folder / "straight"), store))
    assert values_of(scorer, straight, store).equals(found)


def test_embeddings_over_files(setting):
    table, store, folder = setting
    options = NpyEmbeddings(image=str(folder / "v.npy"), uids=str(folder / "u.npy"))
    state = options.fit(Context(Here(folder / "stage"), store))
    found = np.concatenate([options.arrays(store.part(i), state)["image"] for i in range(len(store.shards))])
    usable = np.asarray(table["status"]) == "success"
    memory = MemoryPool.of([table.filter(pa.array(usable))])
    same = options.fit(MemoryContext(folder=str(folder / "memory")).of(memory))
    np.testing.assert_array_equal(found[usable], options.arrays(memory.members[0], same)["image"])
    assert np.isnan(found[~usable]).all()
    assert options.describe(state) == options.describe(same)
