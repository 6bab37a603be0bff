import numpy as np
import pytest
from pydantic import ValidationError

from curate.errors import DataError
from curate.filters.concept_clusters import ConceptClusters, first_two_components
from curate.filters.kmeans import assign, fit_centroids, unit
from curate.filters.memory import MemoryContext, run_filters
from curate.shards.uid import to_text


def concepts(n, k, d, seed=0):
    """Blobs of unequal size and spread."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((k, d))
    which = rng.choice(k, n, p=np.arange(1, k + 1) / np.arange(1, k + 1).sum())
    rows = centres[which] + (0.02 + 0.1 * which[:, None]) * rng.standard_normal((n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


def rows_of(outcome):
    return [row for table in outcome.fates for row in table.to_pylist()]


@pytest.mark.parametrize("select", ["hard", "easy"])
def test_published_rule_written_out(make_pool, select):
    rows = concepts(900, 6, 16)
    filter_ = ConceptClusters(encoder="e", clusters=6, keep=0.6, temperature=0.2, select=select)
    pool = make_pool({}, {"e.image": rows}, cuts=[100, 650])
    outcome = run_filters(pool, [filter_])

    centroids = fit_centroids(pool, "e.image", 6, 100, 256).vectors
    points, _ = unit(rows)
    cluster, distance = assign(points, centroids)
    sizes = np.bincount(cluster, minlength=6)
    intra = np.array([distance[cluster == j].mean() for j in range(6)])
    inter = np.array([np.mean([1 - centroids[j] @ centroids[m] for m in range(6) if m != j]) for j in range(6)])
    c = intra * inter
    p = np.exp(c / 0.2) / np.exp(c / 0.2).sum()
    total = int(900 * 0.6)
    low = np.minimum(int(total / 6 * 0.5), sizes - 1)
    down, up = -1000.0, 1000.0
    for _ in range(100):
        t = (down + up) / 2
        down, up = (t, up) if np.clip(p * total - t, low, sizes).sum() > total else (down, t)
    x = np.clip(p * total - t, low, sizes)

    facts = outcome.steps[0].facts
    quotas = np.array([f["kept"] for f in facts["clusters"]])
    assert quotas.sum() == total == outcome.steps[0].kept == facts["budget"]
    assert (np.abs(quotas - x) < 1.001).all()
    assert (quotas >= low).all()
    assert (quotas <= sizes).all()
    np.testing.assert_allclose([f["d_intra"] for f in facts["clusters"]], intra, rtol=1e-5)
    np.testing.assert_allclose([f["d_inter"] for f in facts["clusters"]], inter, rtol=1e-5)

    uids = to_text(np.concatenate([part.uids() for part in pool.members]))
    fates = rows_of(outcome)
    for j in range(6):
        sign = -1 if select == "hard" else 1
        ranked = sorted(np.flatnonzero(cluster == j), key=lambda i: (sign * distance[i], uids[i]))
        assert sorted(i for i in ranked if fates[i]["kept"]) == sorted(ranked[: quotas[j]])
    assert [f["value"] for f in fates] == distance.tolist()


def test_count_random_and_reference_rounding(make_pool, kept):
    rows = concepts(500, 5, 8)
    pool = make_pool({}, {"e.image": rows}, cuts=[200])
    common = {"encoder": "e", "clusters": 5}
    assert len(kept(pool, ConceptClusters(count=123, **common))) == 123
    drawn = kept(pool, ConceptClusters(count=200, select="random", **common))
    assert len(drawn) == 200
    assert drawn != kept(pool, ConceptClusters(count=200, **common))
    assert abs(len(kept(pool, ConceptClusters(keep=0.5, rounding="reference", **common))) - 250) <= 2


def test_everything_and_one_cluster(make_pool, kept):
    rows = concepts(60, 3, 8)
    pool = make_pool({}, {"e.image": rows})
    assert len(kept(pool, ConceptClusters(encoder="e", clusters=3, keep=1.0))) == 60
    assert len(kept(pool, ConceptClusters(encoder="e", clusters=1, keep=0.5))) == 30


def test_a_quota_of_zero_keeps_none(make_pool, kept):
    pool = make_pool({}, {"e.image": concepts(30, 3, 8)})
    assert kept(pool, ConceptClusters(encoder="e", clusters=3, keep=0.01, select="easy")) == []


def test_missing_embeddings_are_dropped_and_do_not_count(make_pool):
    rows = np.concatenate([concepts(100, 3, 8), np.full((20, 8), np.nan, np.float32)])
    step = run_filters(
        make_pool({}, {"e.image": rows}, cuts=[90]), [ConceptClusters(encoder="e", clusters=3, keep=0.5)]
    ).steps[0]
    assert step.kept == 50
    assert step.reasons == {"no_embedding": 20, "over_quota": 50}
    assert step.facts["without_embedding"] == 20


def test_budgets_that_cannot_be_met(make_pool, kept):
    pool = make_pool({}, {"e.image": concepts(20, 3, 8)})
    with pytest.raises(DataError, match="21 samples asked for, but only 20 have an embedding"):
        kept(pool, ConceptClusters(encoder="e", clusters=3, count=21))
    with pytest.raises(DataError, match="cannot keep 2 samples"):
        kept(pool, ConceptClusters(encoder="e", clusters=5, count=2, balance=0))
    with pytest.raises(ValidationError, match="exactly one of"):
        ConceptClusters(encoder="e", keep=0.5, count=3)


def test_map_of_the_concepts():
    rng = np.random.default_rng(0)
    points = np.zeros((50, 10), np.float32)
    points[:, 3], points[:, 7] = 5 * rng.standard_normal(50), rng.standard_normal(50)
    place = first_two_components(points)
    centred = points - points.mean(axis=0)
    np.testing.assert_allclose(np.abs(np.corrcoef(place[:, 0], centred[:, 3])[0, 1]), 1, atol=0.05)
    np.testing.assert_allclose((place**2).sum(), (centred**2).sum(), rtol=1e-5)
    assert first_two_components(points[:1]).tolist() == [[0, 0]]
    assert first_two_components(points[:, :1]).shape == (50, 2)


def test_empty_and_one_row_clusters_by_hand(make_pool, tmp_path):
    """Four given centroids: one that nobody is near, one with one row; naive float64 throughout."""
    angles = np.array([0.0, 0.05, 0.1, 0.2, 0.3, 1.5, 3.0, 3.1, 3.3])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    rows = np.concatenate([rows, np.zeros((1, 2)), np.full((1, 2), np.nan)]).astype(np.float32)
    centres = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
    np.save(tmp_path / "c.npy", centres)
    chosen = ConceptClusters(encoder="e", centroids=str(tmp_path / "c.npy"), count=5, temperature=0.5, balance=0.5)
    outcome = run_filters(make_pool({}, {"e.image": rows}, cuts=[4]), [chosen])
    facts = outcome.steps[0].facts
    assert facts["empty_clusters"] == 1
    assert facts["without_embedding"] == 2
    assert [c["size"] for c in facts["clusters"]] == [5, 1, 3, 0]
    assert [c["d_intra"] is None for c in facts["clusters"]] == [False, False, False, True]
    assert [c["d_inter"] for c in facts["clusters"]] == pytest.approx([4 / 3] * 4)  # k - 1 neighbours, not 20
    points = rows[:9].astype(np.float64)
    distance = 1 - (points @ centres.T.astype(np.float64)).max(axis=1)
    intra = np.array([distance[:5].mean(), distance[5], distance[6:].mean()])
    c = np.append(intra, intra.mean()) * 4 / 3  # the empty cluster: the mean of the others
    assert [f["complexity"] for f in facts["clusters"]] == pytest.approx(c.tolist(), abs=1e-6)
    p = np.exp(c / 0.5) / np.exp(c / 0.5).sum() * 5
    low, high = np.array([0, 0, 0, 0]), np.array([5, 1, 3, 0])  # int(5 / 4 * 0.5) = 0
    best = min(
        (np.array([a, b, d, 0]) for a in range(6) for b in range(2) for d in range(4) if a + b + d == 5),
        key=lambda q: ((q - p) ** 2).sum(),
    )
    quotas = np.array([f["kept"] for f in facts["clusters"]])
    assert (quotas >= low).all()
    assert (quotas <= high).all()
    assert quotas.tolist() == best.tolist()
    value = [row["value"] for row in rows_of(outcome)]
    np.testing.assert_allclose(value[:9], distance, atol=1e-7)
    assert np.isnan(value[9:]).all()


@pytest.mark.parametrize("options", [{"assignment": "two_level"}, {"training": "hierarchical"}])
def test_other_partitions_are_told_and_do_not_depend_on_the_cut(make_pool, fates, options):
    rows = concepts(500, 8, 8)
    chosen = ConceptClusters(encoder="e", clusters=25, keep=0.4, points_per_centroid=15, **options)
    pool = make_pool({}, {"e.image": rows}, cuts=[11, 300])
    assert fates(make_pool({}, {"e.image": rows}), [chosen]) == fates(pool, [chosen])
    facts = run_filters(pool, [chosen]).steps[0].facts
    assert facts["budget"] == 200
    if "assignment" in options:
        assert facts["centroids"]["assignment"].startswith("two levels of")
    else:
        assert facts["made_by"].endswith("two levels")
        assert facts["centroids"]["assignment"] == "flat"


def test_a_file_with_training_options_is_refused():
    with pytest.raises(ValidationError, match="no meaning with a file"):
        ConceptClusters(encoder="e", keep=0.5, centroids="c.npy", training="hierarchical")


def test_centroids_are_written_once_more_for_others(make_pool, tmp_path):
    pool = make_pool({}, {"e.image": concepts(200, 4, 8)}, cuts=[77])
    chosen = ConceptClusters(encoder="e", clusters=4, keep=0.5)
    first = run_filters(pool, [chosen], MemoryContext(folder=str(tmp_path)))
    made = first.steps[0].facts["centroids"]
    assert made["count"] == 4
    given = chosen.model_copy(update={"centroids": str(tmp_path / "data" / made["file"])})
    again = run_filters(pool, [given])
    assert [t.to_pylist() for t in again.fates] == [t.to_pylist() for t in first.fates]
    assert again.steps[0].facts["made_by"] == "file centroids.npy"
