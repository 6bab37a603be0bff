import numpy as np
import pytest

from curate.errors import DataError
from curate.filters.kmeans import assign, compact, fit_centroids, train, unit


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
