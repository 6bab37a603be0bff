import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import DataError
from curate.filters import semantic_dedup
from curate.filters.kmeans import assign, fit_centroids, unit
from curate.filters.memory import run_filters
from curate.filters.semantic_dedup import Blocks, SemanticDedup, largest_earlier_similarity
from curate.shards.uid import to_text


def on_circle(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def noisy_copies(n, d, seed=0):
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((max(1, n // 3), d))
    rows = base[rng.integers(0, len(base), n)] + 0.1 * rng.standard_normal((n, d)) * rng.integers(0, 3, (n, 1))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def reference(pool, filter_):
    """SemDeDup by the full matrix, one row at a time: uid -> (kept, M)."""
    column = filter_.columns()[0]
    parts = pool.members
    rows, usable = unit(np.concatenate([p.array(column) for p in parts]))
    uids = np.array(to_text(np.concatenate([p.uids() for p in parts])))[usable]
    centroids = fit_centroids(pool, column, filter_.clusters, filter_.iterations, filter_.points_per_centroid).vectors
    cluster, distance = assign(rows, centroids)
    found = {}
    for j in range(len(centroids)):
        members = sorted(np.flatnonzero(cluster == j), key=lambda i: (-distance[i], uids[i]))
        if filter_.keep == "easy":
            members = members[::-1]
        for place, i in enumerate(members):
            earlier = [float(rows[i] @ rows[h]) for h in members[:place]]
            largest = max([0.0, *earlier])
            found[uids[i]] = (not np.float32(largest) > np.float32(1 - filter_.epsilon), largest)
    return found


@pytest.mark.parametrize("n", [0, 1, 2, 255, 256, 257, 1500])
def test_triangle_against_the_full_matrix(n):
    rows = noisy_copies(n, 24) if n else np.empty((0, 24), np.float32)
    expected = np.maximum(np.triu(rows @ rows.T, 1).max(axis=0, initial=0), 0)
    found = largest_earlier_similarity(rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not found[:1].any()


def test_points_ten_degrees_apart_leave_only_the_first(make_pool, kept):
    """Each is within eps of the one before, which is removed itself; a greedy pass would keep 20 degrees as well."""
    expected = [0, *[np.cos(np.pi / 18)] * 3]
    np.testing.assert_allclose(largest_earlier_similarity(on_circle(0, 10, 20, 30)), expected, rtol=1e-6)
    far = [120] * 50  # they pull the centroid away, so that the order is 0, 10, 20, 30, and then the fifty
    pool = make_pool({"uid": [f"{i:032x}" for i in range(54)]}, {"e.image": on_circle(0, 10, 20, 30, *far)})
    assert kept(pool, SemanticDedup(encoder="e", clusters=1, epsilon=0.02)) == [0, 4]
    assert kept(pool, SemanticDedup(encoder="e", clusters=1, epsilon=0.02, keep="easy")) == [3, 53]


def test_the_furthest_survive(make_pool, kept):
    """One cluster around 15 degrees: 0 and 30 come first and are too far apart to see each other."""
    pool = make_pool({}, {"e.image": on_circle(0, 10, 20, 30)})
    assert kept(pool, SemanticDedup(encoder="e", clusters=1, epsilon=0.02)) == [0, 3]


def test_the_limit_is_strict_and_float32(make_pool, kept):
    """M equal to float32(1 - eps) stays: eps 0.04 and a cosine of exactly float32(0.96)."""
    rows = np.array([[1, 0], [0.96, 0.28]], np.float32)
    cosine = largest_earlier_similarity(unit(rows)[0])[1]
    epsilon = 1 - float(cosine)
    assert kept(make_pool({}, {"e.image": rows}), SemanticDedup(encoder="e", clusters=1, epsilon=epsilon)) == [0, 1]
    less = epsilon + 1e-6
    assert len(kept(make_pool({}, {"e.image": rows}), SemanticDedup(encoder="e", clusters=1, epsilon=less))) == 1


@pytest.mark.parametrize("keep", ["hard", "easy"])
@pytest.mark.parametrize("clusters", [1, 4])
def test_against_the_full_matrix(make_pool, keep, clusters):
    rows = noisy_copies(400, 12)
    rows[[5, 77]] = np.nan
    rows[200] = 0
    filter_ = SemanticDedup(encoder="e", clusters=clusters, epsilon=0.03, keep=keep)
    pool = make_pool({}, {"e.image": rows}, cuts=[10, 150, 150])
    expected, outcome = reference(pool, filter_), run_filters(pool, [filter_])
    dropped = 0
    for row in (r for table in outcome.fates for r in table.to_pylist()):
        if row["uid"] not in expected:  # no embedding: kept, and without a number
            assert row["kept"]
            assert np.isnan(row["value"])
            continue
        keep_, largest = expected[row["uid"]]
        assert row["kept"] == keep_
        assert row["value"] == pytest.approx(largest, abs=1e-6)
        dropped += not keep_
    assert dropped > 50
    facts = outcome.steps[0].facts
    assert facts["without_embedding"] == 3
    assert sum(c["size"] for c in facts["clusters"]) == 397
    assert sum(c["kept"] for c in facts["clusters"]) == 397 - dropped
    assert len(facts["clusters"]) == clusters


@pytest.mark.parametrize("keep", ["hard", "easy", "random"])
@pytest.mark.parametrize("block", [7, 20, 64, 200])
def test_large_clusters_are_compared_block_by_block_to_the_same_end(make_pool, fates, monkeypatch, keep, block):
    rows = noisy_copies(400, 12)
    rows[[5, 77]] = np.nan
    chosen = SemanticDedup(encoder="e", clusters=3, epsilon=0.03, keep=keep)
    whole = fates(make_pool({}, {"e.image": rows}, cuts=[10, 150]), [chosen])
    monkeypatch.setattr(semantic_dedup, "BLOCK_BYTES", block * 4 * 12)
    cut = fates(make_pool({}, {"e.image": rows}, cuts=[10, 150]), [chosen])
    shuffled = np.random.default_rng(0).permutation(400)
    assert fates(make_pool({}, {"e.image": rows}, cuts=[300], order=shuffled), [chosen]) == cut
    assert {u: f[0] for u, f in cut.items()} == {u: f[0] for u, f in whole.items()}
    for uid, fate in whole.items():
        assert cut[uid][4] == pytest.approx(fate[4], abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 11])
def test_every_two_blocks_meet_once(count):
    blocks = Blocks.of(np.array([1, count * 10, 3]), 10)
    if count <= 2:
        assert (blocks.total, blocks.rounds) == (3, 0)
        return
    number = np.arange(count)
    met = []
    for turn in range(blocks.rounds):
        partner = blocks.partner(np.ones(count, int), number, turn)
        assert (partner != number).all()
        some = partner >= 0
        assert (partner[partner[some]] == number[some]).all()
        met += [(int(a), int(b)) for a, b in zip(number[some], partner[some], strict=True) if a < b]
        assert (blocks.partner(np.array([0, 2]), np.array([0, 0]), turn) == -1).all()
    assert sorted(met) == [(a, b) for a in range(count) for b in range(a + 1, count)]


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 40), st.sampled_from(["hard", "easy", "random"]), st.integers(0, 5))
def test_copies_leave_one_survivor_per_kind(make_pool, kept, n, keep, seed):
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, n)
    rows = np.eye(3, dtype=np.float32)[kinds]
    filter_ = SemanticDedup(encoder="e", clusters=1, epsilon=0.01, keep=keep)
    alive = kept(make_pool({}, {"e.image": rows}, cuts=[n // 2], seed=seed), filter_)
    assert sorted(kinds[alive]) == sorted(set(kinds))


def test_equal_rows_survive_by_uid(make_pool, kept):
    """The tie is exact although the copies stand in different parts and places: the smallest uid is first."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 40)).astype(np.float32)
    rows[[17, 130, 131, 290]] = rows[3]
    uids = [f"{i:032x}" for i in rng.permutation(300)]
    for cuts in ([], [100], [18, 131, 200]):
        alive = kept(
            make_pool({"uid": uids}, {"e.image": rows}, cuts=cuts), SemanticDedup(encoder="e", clusters=2, epsilon=0.01)
        )
        copies = [3, 17, 130, 131, 290]
        assert [i for i in copies if i in alive] == [min(copies, key=lambda i: uids[i])]


def test_text_and_too_many_clusters(make_pool, kept):
    pool = make_pool({}, {"e.text": on_circle(0, 1, 90)})
    assert len(kept(pool, SemanticDedup(encoder="e", modality="text", clusters=1, epsilon=0.01))) == 2
    with pytest.raises(DataError, match="4 clusters asked for, but only 3"):
        kept(pool, SemanticDedup(encoder="e", modality="text", clusters=4))
