import hashlib

import numpy as np
import pytest

from curate.errors import DataError
from curate.filters.centroids import Centroids, read_centroids
from curate.filters.centroids import digest as digest_of
from curate.filters.cluster_options import ClusterOptions
from curate.filters.kmeans import assign, compact, fit_centroids, group, train, train_levels, unit
from curate.filters.memory import MemoryContext
from curate.filters.nearest import largest_product, nearest
from curate.filters.train_centroids import TrainCentroids


def blobs(n, k, d, seed=0, spread=0.3):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((k, d))
    rows = centres[rng.integers(0, k, n)] + spread * rng.standard_normal((n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def test_unit_rows_leave_out_what_has_no_direction():
    rows = np.array([[3, 4], [0, 0], [np.nan, 1], [np.inf, 1], [0, -2]], np.float32)
    found, usable = unit(rows)
    assert usable.tolist() == [True, False, False, False, True]
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, -1]], rtol=1e-7)


def test_compact_never_loses_anything():
    half = np.array([[0.5, 1e-3]], np.float16).astype(np.float32)
    assert compact(half).dtype == np.float16
    fine = np.array([[0.1, 1e6]], np.float32)
    assert compact(fine).dtype == np.float32
    np.testing.assert_array_equal(compact(fine), fine)


@pytest.mark.parametrize(("k", "d"), [(1, 8), (7, 32), (100, 512), (3000, 16)])
def test_assignment_is_the_exact_argmax(k, d):
    rows, _ = unit(blobs(1500, 20, d))
    centroids, _ = unit(blobs(k, k, d, seed=1))
    nearest, distance = assign(rows, centroids)
    exact = (rows.astype(np.float64) @ centroids.astype(np.float64).T).astype(np.float32)
    np.testing.assert_array_equal(nearest, exact.argmax(axis=1))
    np.testing.assert_array_equal(distance, np.float32(1) - exact.max(axis=1))
    steps = distance.astype(np.float64) * 2**24
    np.testing.assert_array_equal(steps, np.rint(steps))


def test_assignment_of_a_row_does_not_depend_on_its_neighbours():
    rows, _ = unit(blobs(1300, 20, 64))
    centroids, _ = unit(blobs(50, 50, 64, seed=1))
    nearest, distance = assign(rows, centroids)
    for start, stop in ((0, 1), (5, 8), (100, 1124), (777, 1300)):
        alone = assign(rows[start:stop], centroids)
        np.testing.assert_array_equal(alone[0], nearest[start:stop])
        np.testing.assert_array_equal(alone[1], distance[start:stop])


def test_a_tie_goes_to_the_first_centroid():
    centroids = np.array([[0, 1], [1, 0], [1, 0], [0, 1]], np.float32)
    nearest, _ = assign(np.array([[1, 0], [0, 1], [np.sqrt(0.5), np.sqrt(0.5)]], np.float32), centroids)
    assert nearest.tolist() == [1, 0, 0]


def test_centroids_that_rounding_cannot_tell_apart():
    """A collapsed encoder: every row and centroid points almost the same way."""
    rng = np.random.default_rng(0)
    rows, _ = unit(1 + 1e-4 * rng.standard_normal((300, 64)))
    centroids, _ = unit(1 + 1e-4 * rng.standard_normal((200, 64)))
    exact = (rows.astype(np.float64) @ centroids.astype(np.float64).T).astype(np.float32)
    nearest, distance = assign(rows, centroids)
    np.testing.assert_array_equal(nearest, exact.argmax(axis=1))
    np.testing.assert_array_equal(distance, np.float32(1) - exact.max(axis=1))


def test_training_finds_the_blobs_and_repeats():
    points = blobs(2000, 5, 32, spread=0.05)
    centroids, made_by = train(points, 5, 20, seed=1)
    assert made_by.startswith("faiss ")
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(centroids, train(points, 5, 20, seed=1)[0])


def test_k_may_equal_the_points_but_not_exceed_them():
    points = blobs(6, 6, 8)
    assert train(points, 6, 5, seed=0)[0].shape == (6, 8)
    assert train(points, 1, 5, seed=0)[0].shape == (1, 8)
    with pytest.raises(DataError, match="7 clusters asked for, but only 6"):
        train(points, 7, 5, seed=0)


def test_centroids_ignore_sharding_order_and_rows_without_embedding(make_pool):
    rows = blobs(3000, 8, 16)
    plain = fit_centroids(make_pool({}, {"e.image": rows}), "e.image", 8, 10, 100)
    assert plain.sample == 800
    order = np.random.default_rng(0).permutation(3000)
    moved = fit_centroids(
        make_pool({}, {"e.image": rows}, cuts=[1, 500, 500, 1777], order=order), "e.image", 8, 10, 100
    )
    np.testing.assert_array_equal(plain.vectors, moved.vectors)
    holes = np.concatenate([rows, np.full((500, 16), np.nan, np.float32), np.zeros((500, 16), np.float32)])
    order = np.random.default_rng(1).permutation(4000)
    with_holes = fit_centroids(make_pool({}, {"e.image": holes}, cuts=[900], order=order), "e.image", 8, 10, 100)
    np.testing.assert_array_equal(plain.vectors, with_holes.vectors)


def test_no_embedding_at_all_is_an_error_but_an_empty_pool_is_not(make_pool):
    missing = make_pool({}, {"e.image": np.full((4, 2), np.nan, np.float32)})
    with pytest.raises(DataError, match=r"e\.image.*no embedding in any of 4 rows"):
        fit_centroids(missing, "e.image", 2, 5, 10)
    assert len(fit_centroids(make_pool({}, {"e.image": np.empty((0, 2), np.float32)}), "e.image", 2, 5, 10)) == 0


def test_a_raw_centroid_with_the_largest_product_wins():
    """DataComp's assignment: centroids are not unit rows, ties go to the first."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((700, 24)).astype(np.float32)
    centroids = (rng.standard_normal((60, 24)) * rng.uniform(0.1, 5, (60, 1))).astype(np.float32)
    centroids[50] = centroids[3]
    exact = (rows.astype(np.float64) @ centroids.astype(np.float64).T).astype(np.float32)
    found, product = largest_product(rows, centroids)
    np.testing.assert_array_equal(found, exact.argmax(axis=1))
    np.testing.assert_array_equal(product, exact.max(axis=1))


def test_nearest_by_l2():
    rng = np.random.default_rng(1)
    rows, centroids = rng.standard_normal((200, 6)).astype(np.float32), rng.standard_normal((9, 6)).astype(np.float32)
    exact = ((rows[:, None].astype(np.float64) - centroids[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(nearest(rows, centroids, "l2"), exact.argmin(axis=1))


def test_two_levels_look_into_one_group_only():
    rows, _ = unit(blobs(800, 20, 16))
    vectors, _ = train(rows, 36, 10, seed=0)
    centroids = Centroids(vectors, 0, "", groups=group(vectors, 10, 0))
    assert len(centroids.groups.heads) <= 6
    assert set(centroids.groups.of) == set(range(len(centroids.groups.heads)))
    found, distance = assign(rows, centroids)
    upper, _ = assign(rows, centroids.groups.heads)
    for i in range(0, 800, 7):
        members = np.flatnonzero(centroids.groups.of == upper[i])
        exact = (vectors[members].astype(np.float64) @ rows[i].astype(np.float64)).astype(np.float32)
        assert found[i] == members[exact.argmax()]
        assert distance[i] == np.float32(1) - exact.max()
    part = assign(rows[100:333], centroids)
    np.testing.assert_array_equal(part[0], found[100:333])
    np.testing.assert_array_equal(part[1], distance[100:333])
    assert (found == assign(rows, vectors)[0]).mean() > 0.6


@pytest.mark.parametrize("k", [1, 3, 16, 50])
def test_hierarchical_training_gives_exactly_k(k):
    points = blobs(600, 12, 8)
    vectors, made_by = train_levels(points, k, 5, seed=0)
    assert vectors.shape == (k, 8)
    assert made_by.endswith("two levels") == (k > 2)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_plain_l2_centroids_are_those_of_faiss(make_pool):
    import faiss

    rows = blobs(400, 6, 8) * np.float32(3)
    trained = fit_centroids(make_pool({}, {"e.image": rows}, cuts=[7, 200]), "e.image", 6, 20, 1000, metric="l2")
    pool = make_pool({}, {"e.image": rows})
    uids = pool.members[0].uids()
    ordered = rows[np.lexsort((uids["f1"], uids["f0"]))]
    digest = hashlib.blake2b(b"kmeans\x000", digest_size=4).digest()
    options = {"niter": 20, "seed": int.from_bytes(digest, "little") >> 1, "min_points_per_centroid": 1}
    model = faiss.Kmeans(8, 6, max_points_per_centroid=1000, **options)
    model.train(np.ascontiguousarray(ordered))
    np.testing.assert_array_equal(trained.vectors, model.centroids.reshape(6, 8))


def test_mostly_missing_embeddings_still_give_a_full_sample(make_pool):
    rows = np.full((4000, 8), np.nan, np.float32)
    rows[::40] = blobs(100, 4, 8)
    trained = fit_centroids(make_pool({}, {"e.image": rows}, cuts=[1000]), "e.image", 4, 5, 20)
    assert trained.sample == 80


@pytest.mark.parametrize("k", [1, 7, 64])
def test_centroids_survive_the_way_back_whatever_the_width(make_pool, k):
    rows = blobs(64, 8, 33)
    trained = fit_centroids(make_pool({}, {"e.image": rows}, cuts=[5, 20]), "e.image", k, 5, 256)
    uids = make_pool({}, {"e.image": rows}).members[0].uids()
    digest = hashlib.blake2b(b"kmeans\x000", digest_size=4).digest()
    seed = int.from_bytes(digest, "little") >> 1
    expected, made_by = train(rows[np.lexsort((uids["f1"], uids["f0"]))], k, 5, seed)
    np.testing.assert_array_equal(trained.vectors, expected)
    assert trained.made_by == made_by


def test_files_of_centroids(tmp_path, make_pool):
    rows = blobs(300, 5, 8)
    pool = make_pool({}, {"e.image": rows}, cuts=[100])
    context = MemoryContext(folder=str(tmp_path)).of(pool)
    trainer = TrainCentroids(encoder="e", clusters=5, metric="cosine", points_per_centroid=50)
    facts = trainer.describe(trainer.fit_in(context))
    written = tmp_path / "data" / facts["centroids"]["file"]
    vectors = np.load(written)
    assert vectors.dtype == np.float32
    assert facts["centroids"]["digest"] == digest_of(vectors)
    given = ClusterOptions(centroids=str(written))
    np.testing.assert_array_equal(given.fit_clusters(pool, "e.image").vectors, vectors)
    assert given.files() == [str(written)]
    assert trainer.describe(trainer.fit(pool))["centroids"]["file"] is None
    with pytest.raises(DataError, match="5 centroids, but `clusters` is 6"):
        ClusterOptions(centroids=str(written), clusters=6).fit_clusters(pool, "e.image")
    np.save(tmp_path / "bad.npy", np.zeros((3, 8), np.float32))
    with pytest.raises(DataError, match="centroid 0 is zero"):
        ClusterOptions(centroids=str(tmp_path / "bad.npy")).fit_clusters(pool, "e.image")
    (tmp_path / "worse.npy").write_bytes(b"what")
    with pytest.raises(DataError, match=r"no \.npy file"):
        read_centroids(str(tmp_path / "worse.npy"))


def test_a_gpu_only_nominates(monkeypatch):
    """faiss-gpu's calls on a stand-in that rounds otherwise: the same centroids win, crowded rows are done again."""
    import faiss

    class Blurred:
        def __init__(self, index):
            self.index = index

        def search(self, block, count):
            similarity, nominees = self.index.search(block, count)
            similarity = similarity * np.float32(1 - 2**-22)
            return similarity, nominees

    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", lambda resources, number, index: Blurred(index), raising=False)
    rows, _ = unit(blobs(500, 20, 32))
    vectors, _ = unit(blobs(80, 20, 32, seed=1))
    vectors[40:] = vectors[7]  # 41 equal centroids: more than a GPU nominates
    for device in ("auto", "gpu"):
        found, distance = assign(rows, vectors, device)
        np.testing.assert_array_equal(found, assign(rows, vectors, "cpu")[0])
        np.testing.assert_array_equal(distance, assign(rows, vectors, "cpu")[1])


def test_a_gpu_that_is_not_there():
    import faiss

    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus():
        pytest.skip("there is one")
    with pytest.raises(DataError, match="faiss sees none"):
        assign(np.ones((1, 2), np.float32), np.ones((1, 2), np.float32), "gpu")
