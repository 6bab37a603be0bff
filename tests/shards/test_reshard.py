import hashlib
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.errors import DataError
from curate.shards.reshard import ReshardPlan, finish_shards, plan_shards, unwritten, write_shard
from curate.shards.shard import Shard
from curate.shards.tar import TarReader, TarWriter
from curate.shards.uid import read_subset, stable_uid, to_records, write_subset

ROWS, INPUTS = 12, 5


def sample(shard: int, row: int) -> dict[str, bytes]:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shard, row, 0)).save(file, "PNG")
    return {"png": file.getvalue(), "txt": f"sample {shard} {row}".encode(), "json": b'{"x": %d}' % row}


def make_pool(folder: Path, failed: int = 3) -> list[Shard]:
    """Five shards of twelve rows; row 3 of each failed and is not in the tar."""
    shards = []
    for number in range(INPUTS):
        shard = Shard(f"{number:08d}", str(folder / f"{number:08d}.tar"), str(folder / f"{number:08d}.parquet"))
        keys = [f"{number:05d}{row:04d}" for row in range(ROWS)]
        with TarWriter(shard.tar) as tar:
            for row in range(ROWS):
                if row != failed:
                    tar.write(keys[row], sample(number, row))
        uids = [stable_uid(str(number), str(row)) for row in range(ROWS)]
        status = ["http_404" if row == failed else "success" for row in range(ROWS)]
        pq.write_table(pa.table({"uid": uids, "key": keys, "status": status}), shard.table)
        shards.append(shard)
    return shards


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> list[Shard]:
    return make_pool(tmp_path_factory.mktemp("pool"))


KEPT = [
    (np.array([0, 2, 5]), np.array([1, 3, 1])),
    (np.array([], np.int64), np.array([], np.int64)),
    (np.array([1]), np.array([2])),
    (np.array([0, 1, 2, 4]), np.array([1, 1, 1, 1])),
    (np.array([11]), np.array([1])),
]
COUNTS = [5, 0, 2, 4, 1]


def kept(index: int) -> tuple[np.ndarray, np.ndarray]:
    return KEPT[index]


def reshard(
    pool: list[Shard], out: Path, ks: list[int] | None = None, **options: int | bool
) -> tuple[ReshardPlan, list]:
    plan = plan_shards(COUNTS, 5, **options)  # type: ignore[arg-type]
    tables = {k: write_shard(plan, k, pool, kept, str(out)) for k in (ks or range(len(plan)))}
    finish_shards(plan, str(out))
    return plan, [tables[k] for k in range(len(plan))]


def test_pool_order_by_hand(pool: list[Shard], tmp_path: Path) -> None:
    plan, tables = reshard(pool, tmp_path, shuffle=False)
    assert plan.sizes() == {"00000000.tar": 5, "00000001.tar": 5, "00000002.tar": 2}
    table = pa.concat_tables(tables)
    expected = [(0, 0, 0), (0, 2, 0), (0, 2, 1), (0, 2, 2), (0, 5, 0), (2, 1, 0), (2, 1, 1)]
    expected += [(3, 0, 0), (3, 1, 0), (3, 2, 0), (3, 4, 0), (4, 11, 0)]
    assert list(zip(*(table[c].to_pylist() for c in ("shard", "row", "repeat")), strict=True)) == expected
    names = [name for k in range(3) for name in TarReader(str(tmp_path / f"{k:08d}.tar")).keys]
    assert names == [f"{stable_uid(str(s), str(r))}-{j}" for s, r, j in expected]


@pytest.mark.parametrize("shuffle", [False, True])
def test_payloads_are_unchanged_and_every_sample_is_there(pool: list[Shard], tmp_path: Path, shuffle: bool) -> None:
    plan, tables = reshard(pool, tmp_path, shuffle=shuffle, seed=3)
    found = Counter()
    for k, table in enumerate(tables):
        tar = TarReader(str(tmp_path / f"{k:08d}.tar")).require_whole()
        assert len(tar) == table.num_rows == plan.size(k)
        for key, row in zip(tar.keys, table.to_pylist(), strict=True):
            assert key == f"{row['uid']}-{row['repeat']}"
            assert {e: tar.read(key, e) for e in tar.extensions(key)} == sample(row["shard"], row["row"])
            found[row["shard"], row["row"]] += 1
    assert found == {
        (i, int(r)): int(t) for i, (rows, times) in enumerate(KEPT) for r, t in zip(rows, times, strict=True)
    }


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_bytes_depend_on_the_seed_only_not_on_order_of_work(pool: list[Shard], tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    reshard(pool, folders[0], seed=1)
    reshard(pool, folders[1], ks=[2, 0, 1], seed=1)
    reshard(pool, folders[2], seed=2)
    assert digests(folders[0]) == digests(folders[1])
    assert digests(folders[0]) != digests(folders[2])


def test_describing_files(pool: list[Shard], tmp_path: Path) -> None:
    plan, tables = reshard(pool, tmp_path, seed=1)
    uids = [u for table in tables for u in table["uid"].to_pylist()]
    write_subset(str(tmp_path / "subset.npy"), to_records(uids))
    finish_shards(plan, str(tmp_path), str(tmp_path / "subset.npy"))
    assert json.loads((tmp_path / "sizes.json").read_text()) == {
        "00000000.tar": 5,
        "00000001.tar": 5,
        "00000002.tar": 2,
    }
    assert json.loads((tmp_path / "00000002_stats.json").read_text()) == {"successes": 2}
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert (meta["output_shard_count"], meta["output_shard_format"]) == (3, "{:08d}.tar")
    assert len(read_subset(str(tmp_path / "sample_ids.npy"))) == 12


def test_trainers_read_it(pool: list[Shard], tmp_path: Path) -> None:
    """The way open_clip reads: brace pattern, sizes.json beside the first shard, image and txt of each sample."""
    reshard(pool, tmp_path, seed=1)
    size = sum(json.loads((tmp_path / "sizes.json").read_text()).values())
    pattern = str(tmp_path / "{00000000..00000002}.tar")
    data = webdataset.WebDataset(pattern, shardshuffle=False).decode("pilrgb").to_tuple("jpg;png;jpeg;webp", "txt")
    read = list(data)
    assert len(read) == size == 12
    for image, text in read:
        red, green, _ = image.getpixel((0, 0))
        assert text == f"sample {red} {green}"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=9).filter(sum),
    st.integers(1, 7),
    st.booleans(),
    st.integers(0, 5),
    st.integers(1, 4),
)
def test_every_ordinal_is_planned_once(counts: list[int], per: int, shuffle: bool, seed: int, window: int) -> None:
    plan = plan_shards(counts, per, shuffle=shuffle, seed=seed, window=window)
    taken: Counter[tuple[int, int]] = Counter()
    for k in range(len(plan)):
        slots = []
        for piece in plan.pieces(k):
            taken.update((piece.shard, int(o)) for o in piece.ordinals)
            slots += piece.slots.tolist()
            assert (np.diff(piece.slots) > 0).all()
        assert sorted(slots) == list(range(plan.size(k)))
    assert taken == {(i, o): 1 for i, count in enumerate(counts) for o in range(count)}
    assert sum(plan.sizes().values()) == sum(counts)


def test_windows_bound_what_an_output_shard_opens() -> None:
    plan = plan_shards([10] * 100, 20, seed=0, window=5)
    assert max(len(plan.pieces(k)) for k in range(len(plan))) <= 10  # at most two windows meet in it
    spread = [piece.shard for piece in plan.pieces(0)]
    assert max(spread) - min(spread) > 10  # the windows themselves are mixed


def test_rows_that_share_a_uid_get_names_of_their_own(tmp_path: Path) -> None:
    shard = make_pool(tmp_path)[0]
    table = shard.read_table()
    same = pa.array([stable_uid("same")] * ROWS)
    pq.write_table(table.set_column(0, "uid", same), shard.table)
    out = tmp_path / "out"
    plan = plan_shards([4], 10, shuffle=False)
    written = write_shard(plan, 0, [shard], lambda _: (np.array([0, 1, 2]), np.array([2, 1, 1])), str(out))
    assert written["repeat"].to_pylist() == [0, 1, 2, 3]
    assert len(TarReader(str(out / "00000000.tar"))) == 4


def test_indices_change_nothing(pool: list[Shard], tmp_path: Path) -> None:
    indexed = [replace(s, index=str(tmp_path / f"{s.name}.index.arrow")) for s in pool]
    reshard(pool, tmp_path / "walked", seed=1)
    reshard(indexed, tmp_path / "indexed", seed=1)
    reshard(indexed, tmp_path / "again", seed=1)
    assert len(list(tmp_path.glob("*.index.arrow"))) == 4  # one shard gives nothing, so it is not opened
    assert digests(tmp_path / "walked") == digests(tmp_path / "indexed") == digests(tmp_path / "again")


def test_the_number_of_the_first_copy_may_be_given(pool: list[Shard], tmp_path: Path) -> None:
    plan = plan_shards([3], 10, shuffle=False)
    answer = np.array([0, 2]), np.array([1, 2]), np.array([4, 0])
    table = write_shard(plan, 0, pool, lambda _: answer, str(tmp_path))
    assert table["repeat"].to_pylist() == [4, 0, 1]
    assert TarReader(str(tmp_path / "00000000.tar")).keys == [
        f"{stable_uid('0', str(row))}-{j}" for row, j in ((0, 4), (2, 0), (2, 1))
    ]


def test_what_is_left_to_write(pool: list[Shard], tmp_path: Path) -> None:
    plan = plan_shards(COUNTS, 5)
    assert unwritten(plan, str(tmp_path / "none")) == [0, 1, 2]
    write_shard(plan, 1, pool, kept, str(tmp_path))
    assert unwritten(plan, str(tmp_path)) == [0, 2]
    (tmp_path / "00000001_stats.json").unlink()  # the last that is written of a shard
    assert unwritten(plan, str(tmp_path)) == [0, 1, 2]


def test_clear_errors(pool: list[Shard], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="keeps no sample"):
        plan_shards([0, 0])
    one = plan_shards([1], shuffle=False)
    cases = [
        ((np.array([3]), np.array([1])), "has no image"),
        ((np.array([50]), np.array([1])), "has 12 rows"),
        ((np.array([1]), np.array([2])), "gives 2 samples, but the plan was made for 1"),
    ]
    for answer, message in cases:
        with pytest.raises(DataError, match=message):
            write_shard(one, 0, pool, lambda _, a=answer: a, str(tmp_path))
    torn = Shard("x", str(tmp_path / "torn.tar"), pool[0].table)
    Path(torn.tar).write_bytes(Path(pool[0].tar).read_bytes()[:3000])
    with pytest.raises(DataError, match="has no sample 000000011"):
        write_shard(one, 0, [torn], lambda _: (np.array([11]), np.array([1])), str(tmp_path))
    assert not (tmp_path / "00000000.tar").exists()
