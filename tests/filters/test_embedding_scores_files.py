"""Scores over embeddings in files, with everything that goes to a worker pickled, equal those in memory bit for bit."""

import itertools
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.filters.memory import MemoryContext, MemoryPool
from curate.filters.scorers.norm_sim import NormSim
from curate.filters.scorers.s_clip_loss import SClipLoss
from curate.pipeline.artifact import Artifact
from curate.pipeline.columns import ColumnStore
from curate.pipeline.filter_pool import StagePool, Survivors
from curate.shards.shard import Shard
from curate.shards.uid import stable_uid

N, D = 230, 8


class Pickling:
    """What a pool needs of a stage's work: calls whose function and arguments go through pickle, as to a worker."""

    def __init__(self, folder: Path) -> None:
        self.artifact = Artifact(str(folder))

    def gather(self, function, arguments):
        calls = pickle.loads(pickle.dumps((function, arguments)))
        return pickle.loads(pickle.dumps([calls[0](*a) for a in calls[1]]))


class FileContext:
    """`base.Context` over files; the pool is its own target set."""

    seed = 5

    def __init__(self, folder: Path, columns: ColumnStore) -> None:
        self.work, self.columns = Pickling(folder), columns
        self.pool = StagePool(self.work, Survivors(columns, None), self.seed)

    def target(self, name: str) -> StagePool:
        return self.pool

    def target_columns(self, name: str) -> ColumnStore:
        return self.columns

    def call(self, function, *arguments):
        return self.work.gather(function, [arguments])[0]


def rows(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = rng.standard_normal((N, D)) + 0.3
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize("cuts", [[0, N], [0, 7, 7, 100, N]])
def test_files_and_memory_agree(tmp_path, cuts):
    image, text = rows(0), rows(1)
    lost = np.arange(N) % 9 == 4  # downloads that failed: in the tables, without embeddings
    image[lost], text[lost] = np.nan, np.nan
    status = np.where(lost, "failed_to_download", "success").tolist()
    table = pa.table({"uid": [stable_uid(str(i)) for i in range(N)], "status": status})
    shards = []
    for i, (start, stop) in enumerate(itertools.pairwise(cuts)):
        name = f"{i:08d}"
        pq.write_table(table.slice(start, stop - start), tmp_path / f"{name}.parquet")
        for modality, values in (("image", image), ("text", text)):
            np.save(tmp_path / f"{name}.{modality}.npy", values[start:stop])
        shards.append(Shard(name, "", str(tmp_path / f"{name}.parquet")))
    store = ColumnStore(tuple(shards), {}, {"e": str(tmp_path)})
    memory = MemoryPool.of([table], [{"e.image": image, "e.text": text}], seed=FileContext.seed)
    for place, scorer in enumerate(
        (
            SClipLoss(encoder="e", temperature=0.02, batch_size=64, permutations=2),
            SClipLoss(encoder="e", temperature=0.02),
            NormSim(encoder="e", target="own"),
            NormSim(encoder="e", target="own", p=2),
        )
    ):
        state = scorer.fit(FileContext(tmp_path / f"work{place}", store))
        sent = pickle.dumps((scorer, state))
        assert len(sent) < 20_000  # nothing pool-sized
        again, state = pickle.loads(sent)
        found = np.concatenate([again.score(store.part(i), "s", state)["s"] for i in range(len(shards))])
        expected = memory.score("s", scorer, MemoryContext(targets={"own": memory})).members[0].array("s")
        np.testing.assert_array_equal(found, expected)
        assert (np.isnan(found) == lost).all()
