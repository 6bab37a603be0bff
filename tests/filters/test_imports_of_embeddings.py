import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import ConfigError, DataError
from curate.filters import uid_join, vector_ranges
from curate.filters.embedding_imports import (
    EMBEDDING_IMPORTS,
    ClipRetrievalEmbeddings,
    DatacompEmbeddings,
    NpyEmbeddings,
    ParquetEmbeddings,
)
from curate.filters.memory import MemoryContext
from curate.shards.uid import stable_uid, to_records


def uid(i: int) -> str:
    return stable_uid(str(i))


def unit(rng: np.random.Generator, n: int, d: int, dtype=np.float16) -> np.ndarray:
    v = rng.standard_normal((n, d))
    return (v / np.linalg.norm(v, axis=1, keepdims=True)).astype(dtype)


def imported(pool, options, folder):
    """``({modality: (rows of the pool, d)}, counts, facts)``."""
    state = options.fit(MemoryContext(folder=str(folder)).of(pool))
    state = pickle.loads(pickle.dumps(state))
    read = [options.read(part, state) for part in pool.members]
    arrays = {m: np.concatenate([a[m] for a, _ in read]) for m in options.modalities()}
    counts = {k: sum(c[k] for _, c in read) for k in read[0][1]}
    for part, (found, _) in zip(pool.members, read, strict=True):
        for m, values in options.arrays(part, state).items():
            assert values.dtype == np.float16
            np.testing.assert_array_equal(values, found[m])
    return arrays, counts, options.describe(state)


def write_datacomp(folder, rng, compress=False, files=(40, 25)):
    """uids and vectors of a small DataComp folder."""
    folder.mkdir(parents=True, exist_ok=True)
    truth, start = {}, 0
    for f, n in enumerate(files):
        ids = [uid(start + i) for i in range(n)]
        arrays = {f"{arch}_{side}": unit(rng, n, d) for arch, d in (("b32", 8), ("l14", 12)) for side in ("img", "txt")}
        pq.write_table(pa.table({"uid": ids, "text": ["x"] * n}), folder / f"{f:04d}.parquet")
        (np.savez_compressed if compress else np.savez)(folder / f"{f:04d}.npz", dedup=np.zeros(n), **arrays)
        truth |= {u: {k: v[i] for k, v in arrays.items()} for i, u in enumerate(ids)}
        start += n
    return truth


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("arch", ["b32", "l14"])
def test_datacomp_comes_through_bit_for_bit(make_pool, tmp_path, monkeypatch, compress, arch):
    monkeypatch.setattr(uid_join, "ROWS_PER_BUCKET", 10)
    monkeypatch.setattr(vector_ranges, "ROWS_PER_RANGE", 16)
    rng = np.random.default_rng(0)
    truth = write_datacomp(tmp_path / "meta", rng, compress)
    pool_ids = [uid(i) for i in rng.permutation(100)[:70]] + [uid(3), uid(3)]
    pool = make_pool({"uid": pool_ids}, cuts=[20, 20, 50])
    options = DatacompEmbeddings(path=str(tmp_path / "meta"), arch=arch)
    arrays, counts, facts = imported(pool, options, tmp_path / "w")
    for modality, side in (("image", "img"), ("text", "txt")):
        for u, found in zip(pool_ids, arrays[modality], strict=True):
            if u in truth:
                np.testing.assert_array_equal(found, truth[u][f"{arch}_{side}"])
            else:
                assert np.isnan(found).all()
    matched = sum(u in truth for u in pool_ids)
    assert counts["image"] == counts["text"] == matched == facts["matched"]
    assert counts["image_normalized"] == counts["image_zero"] == counts["text_broken"] == 0
    assert facts["rows"] == 65
    assert facts["dims"] == {"image": 8 if arch == "b32" else 12, "text": 8 if arch == "b32" else 12}
    assert len(options.files()) == 4


def test_datacomp_in_part_folders_and_its_faults(make_pool, tmp_path):
    rng = np.random.default_rng(1)
    write_datacomp(tmp_path / "meta" / "part_0", rng, files=(3,))
    pool = make_pool({"uid": [uid(1)]})
    options = DatacompEmbeddings(path=str(tmp_path / "meta"), only="image")
    arrays, _, _ = imported(pool, options, tmp_path / "w")
    assert list(arrays) == ["image"]
    assert np.isfinite(arrays["image"]).all()
    folder = tmp_path / "meta" / "part_0"
    pq.write_table(pa.table({"uid": [uid(1)]}), folder / "0000.parquet")
    with pytest.raises(DataError, match=r"3 rows of vectors, but .*0000\.parquet has 1 rows"):
        imported(pool, options, tmp_path / "w")
    np.savez(folder / "0000.npz", l14_img=np.array([[None]], object))
    with pytest.raises(DataError, match="Python objects, which are never loaded"):
        imported(pool, options, tmp_path / "w")
    np.savez(folder / "0000.npz", b32_img=np.zeros((1, 2)))
    with pytest.raises(DataError, match="has no array 'l14_img'; it has b32_img"):
        imported(pool, options, tmp_path / "w")
    (folder / "0000.npz").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match=r"0000\.npz.* cannot be read"):
        imported(pool, options, tmp_path / "w")
    (folder / "0000.npz").unlink()
    with pytest.raises(ConfigError, match=r"has no 0000\.npz beside it"):
        imported(pool, options, tmp_path / "w")


def write_clip_retrieval(folder, rng, tables):
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir(parents=True)
    vectors = []
    for p, table in enumerate(tables):
        pq.write_table(pa.table(table), folder / "metadata" / f"metadata_{p}.parquet")
        n = len(next(iter(table.values())))
        both = unit(rng, n, 6), unit(rng, n, 6)
        np.save(folder / "img_emb" / f"img_emb_{p}.npy", both[0])
        np.save(folder / "text_emb" / f"text_emb_{p}.npy", both[1])
        vectors.append(both)
    return [np.concatenate(v) for v in zip(*vectors, strict=True)]


def test_clip_retrieval_by_uid_and_by_key(make_pool, tmp_path):
    rng = np.random.default_rng(2)
    paths = [[f"00000{i:04d}" for i in range(5)], [f"00001{i:04d}" for i in range(4)]]
    flat = paths[0] + paths[1]
    image, text = write_clip_retrieval(tmp_path / "a", rng, [{"image_path": p} for p in paths])
    pool = make_pool({"uid": [uid(i) for i in range(4)], "key": [flat[7], flat[0], None, "other"]}, cuts=[1])
    with pytest.raises(ConfigError, match=r"unknown column 'uid'.*with `on` which column of the pool"):
        imported(pool, ClipRetrievalEmbeddings(path=str(tmp_path / "a")), tmp_path / "w")
    options = ClipRetrievalEmbeddings(path=str(tmp_path / "a"), key="image_path", on="key")
    assert options.columns() == ["key"]
    arrays, _, facts = imported(pool, options, tmp_path / "w")
    np.testing.assert_array_equal(arrays["image"][:2], image[[7, 0]])
    np.testing.assert_array_equal(arrays["text"][:2], text[[7, 0]])
    assert np.isnan(arrays["image"][2:]).all()
    assert (facts["matched"], facts["unmatched"], facts["not_in_pool"]) == (2, 2, 7)

    image, _ = write_clip_retrieval(tmp_path / "b", rng, [{"uid": [uid(3), uid(0)]}])
    arrays, _, _ = imported(pool, ClipRetrievalEmbeddings(path=str(tmp_path / "b")), tmp_path / "w")
    np.testing.assert_array_equal(arrays["image"][[3, 0]], image)
    (tmp_path / "b" / "text_emb" / "text_emb_0.npy").unlink()
    with pytest.raises(ConfigError, match="say `only: image`"):
        ClipRetrievalEmbeddings(path=str(tmp_path / "b")).files()


@pytest.mark.parametrize("form", ["records", "bytes", "text", "txt", "parquet"])
def test_an_array_and_its_uids(make_pool, tmp_path, form):
    rng = np.random.default_rng(3)
    ids, vectors = [uid(i) for i in range(9)], unit(rng, 9, 5, np.float32)
    np.save(tmp_path / "v.npy", np.asfortranarray(vectors))
    path = tmp_path / f"u.{form if form in ('txt', 'parquet') else 'npy'}"
    if form == "txt":
        path.write_text("".join(f"{u}\n" for u in ids))
    elif form == "parquet":
        pq.write_table(pa.table({"id": ids}), path)
    else:
        np.save(path, {"records": to_records(ids), "bytes": np.array(ids, "S32"), "text": np.array(ids)}[form])
    options = NpyEmbeddings(text=str(tmp_path / "v.npy"), uids=str(path), key="id" if form == "parquet" else "uid")
    arrays, _, _ = imported(make_pool({"uid": [ids[8], uid(99), ids[2]]}), options, tmp_path / "w")
    np.testing.assert_array_equal(arrays["text"][[0, 2]], vectors[[8, 2]].astype(np.float16))
    assert np.isnan(arrays["text"][1]).all()


def test_uids_are_never_unpickled(make_pool, tmp_path):
    np.save(tmp_path / "v.npy", np.eye(2))
    np.save(tmp_path / "u.npy", np.array([uid(0), uid(1)], object))
    options = NpyEmbeddings(image=str(tmp_path / "v.npy"), uids=str(tmp_path / "u.npy"))
    with pytest.raises(DataError, match="cannot be read"):
        imported(make_pool({"uid": [uid(0)]}), options, tmp_path / "w")


@pytest.mark.parametrize("kind", [pa.list_(pa.float32(), 3), pa.list_(pa.float32()), pa.large_list(pa.float64())])
def test_parquet_lists(make_pool, tmp_path, kind):
    rows = [[1.0, 0, 0], None, [0, 0.6, 0.8], [0, None, 1]]
    for name, some in (("a", slice(0, 3)), ("b", slice(3, 4))):
        table = pa.table({"uid": [uid(i) for i in range(4)][some], "e": pa.array(rows[some], kind)})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    options = ParquetEmbeddings(path=str(tmp_path), image="e")
    pool = make_pool({"uid": [uid(2), uid(1), uid(0), uid(3)]}, cuts=[2])
    arrays, counts, _ = imported(pool, options, tmp_path / "w")
    nan = [np.nan] * 3
    np.testing.assert_array_equal(arrays["image"], np.array([rows[2], nan, rows[0], nan], np.float16))
    assert (counts["image"], counts["image_broken"]) == (2, 2)


def test_lists_of_different_lengths_are_an_error(make_pool, tmp_path):
    pq.write_table(pa.table({"uid": [uid(0), uid(1)], "e": [[1.0, 0.0], [1.0]]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="row 1 has another length than 2"):
        imported(make_pool({"uid": [uid(0)]}), ParquetEmbeddings(path=str(tmp_path), image="e"), tmp_path / "w")
    pq.write_table(pa.table({"uid": [uid(0)], "e": [[1.0, 0.0]]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"uid": [uid(1)], "e": [[1.0]]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match="have length 1, those of other files 2"):
        imported(make_pool({"uid": [uid(0)]}), ParquetEmbeddings(path=str(tmp_path), image="e"), tmp_path / "w")
    with pytest.raises(ValidationError, match="`image`, `text` or both"):
        ParquetEmbeddings(path="x")


def test_norms_zeros_and_nans(make_pool, tmp_path):
    vectors = np.array([[3, 4], [0, 0], [np.nan, 1], [1, 0.05], [np.inf, 0], [1e5, 0], [0.6, 0.8]], np.float64)
    np.save(tmp_path / "v.npy", vectors)
    np.save(tmp_path / "u.npy", np.array([uid(i) for i in range(7)]))
    pool = make_pool({"uid": [uid(i) for i in range(7)]}, cuts=[4])
    options = NpyEmbeddings(image=str(tmp_path / "v.npy"), uids=str(tmp_path / "u.npy"))
    arrays, counts, _ = imported(pool, options, tmp_path / "w")
    nan = [np.nan, np.nan]
    expected = [[0.6, 0.8], nan, nan, [1, 0.05], nan, [1, 0], [0.6, 0.8]]
    np.testing.assert_array_equal(arrays["image"], np.array(expected, np.float32).astype(np.float16))
    assert counts == {"image": 4, "image_zero": 1, "image_broken": 2, "image_normalized": 2}
    raw = options.model_copy(update={"normalize": False})
    arrays, counts, _ = imported(pool, raw, tmp_path / "w")
    expected = [[3, 4], [0, 0], nan, [1, 0.05], nan, nan, [0.6, 0.8]]
    np.testing.assert_array_equal(arrays["image"], np.array(expected, np.float32).astype(np.float16))
    assert counts == {"image": 3, "image_zero": 1, "image_broken": 3, "image_normalized": 0}


def test_repeats_must_agree(make_pool, tmp_path):
    np.save(tmp_path / "u.npy", np.array([uid(0)] * 3))
    options = NpyEmbeddings(image=str(tmp_path / "v.npy"), uids=str(tmp_path / "u.npy"))
    pool = make_pool({"uid": [uid(0)]})
    np.save(tmp_path / "v.npy", np.array([[0, 1], [0, 1], [0, 1.0]]))
    assert imported(pool, options, tmp_path / "w")[2]["repeated"] == 2
    np.save(tmp_path / "v.npy", np.array([[1, 0], [0, 1], [0, 1.0]]))
    with pytest.raises(DataError, match="1 keys occur several times"):
        imported(pool, options, tmp_path / "w")
    first = options.model_copy(update={"duplicates": "first"})
    assert imported(pool, first, tmp_path / "w")[0]["image"].tolist() == [[1, 0]]


def test_cut_off_arrays_are_told(make_pool, tmp_path):
    np.save(tmp_path / "u.npy", np.array([uid(i) for i in range(500)]))
    np.save(tmp_path / "v.npy", np.ones((500, 4)))
    data = (tmp_path / "v.npy").read_bytes()
    (tmp_path / "v.npy").write_bytes(data[: len(data) // 2])
    options = NpyEmbeddings(image=str(tmp_path / "v.npy"), uids=str(tmp_path / "u.npy"))
    with pytest.raises(DataError, match="cut off"):
        imported(make_pool({"uid": [uid(0)]}), options, tmp_path / "w")


def test_the_types_are_registered():
    assert set(EMBEDDING_IMPORTS) == {"datacomp", "clip_retrieval", "npy", "parquet"}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_equal_to_a_dictionary_however_it_is_cut(make_pool, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("vectors")
    listed = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=40))
    wanted = data.draw(st.lists(st.integers(0, 40), max_size=40))
    cuts = data.draw(st.lists(st.integers(0, len(wanted)), max_size=3))
    vectors = unit(np.random.default_rng(len(listed)), len(listed), 4)
    np.save(folder / "v.npy", vectors)
    np.save(folder / "u.npy", to_records(uid(i) for i in listed))
    pool = make_pool({"uid": pa.array([uid(i) for i in wanted], pa.string())}, cuts=cuts)
    options = NpyEmbeddings(image=str(folder / "v.npy"), uids=str(folder / "u.npy"), duplicates="first")
    arrays, _, _ = imported(pool, options, folder / "w")
    for i, found in zip(wanted, arrays["image"], strict=True):
        expected = vectors[listed.index(i)] if i in listed else np.full(4, np.nan, np.float16)
        np.testing.assert_array_equal(found, expected)
