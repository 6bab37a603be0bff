"""Set-level selection: exact gains against the objective itself, codes against brute force, composition, the cut."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import ConfigError, DataError
from curate.filters.coverage import Coverage, lazy_greedy, stochastic_greedy
from curate.filters.memory import MemoryContext, MemoryPool, run_filters
from curate.filters.soft_cap_sampling import SoftCapSampling
from curate.filters.sparse_features import fit_coder, top_features, train_autoencoder
from curate.filters.submodular import Submodular

N, D = 240, 8


def value(coverage, rows):
    counts = np.bincount(coverage.codes[list(rows)].ravel(), minlength=len(coverage.weights))
    return float(np.sum(coverage.weights * np.log1p(counts)))


def coverage_of(seed, n, features, active):
    rng = np.random.default_rng(seed)
    codes = np.array([np.sort(rng.choice(features, active, replace=False)) for _ in range(n)], np.int32)
    return Coverage(codes, rng.random(features))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 25), active=st.integers(1, 4), share=st.floats(0, 1))
def test_lazy_greedy_is_greedy(seed, n, active, share):
    coverage, count = coverage_of(seed, n, 9, active), int(n * share)
    picks, chosen = lazy_greedy(coverage, count), []
    for row, gain in zip(picks.order, picks.gain[picks.order], strict=True):
        gains = np.array([value(coverage, [*chosen, i]) - value(coverage, chosen) for i in range(n)])
        gains[chosen] = -np.inf
        assert row == np.flatnonzero(gains >= gains.max() - 1e-12)[0]
        assert gain == pytest.approx(gains[row], rel=1e-6)
        chosen.append(int(row))
    left = [i for i in range(n) if i not in chosen]
    would = [value(coverage, [*chosen, i]) - value(coverage, chosen) for i in left]
    assert picks.gain[left] == pytest.approx(would, rel=1e-5, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000), n=st.integers(1, 60), share=st.floats(0, 1), epsilon=st.sampled_from([0.01, 0.3, 0.9])
)
def test_stochastic_greedy_gains_are_those_of_the_objective(seed, n, share, epsilon):
    coverage, count = coverage_of(seed, n, 9, 3), int(n * share)
    picks = stochastic_greedy(coverage, count, epsilon, np.random.default_rng(seed))
    assert len(set(picks.order.tolist())) == count
    assert picks.gain[picks.order].sum() == pytest.approx(value(coverage, picks.order), rel=1e-5, abs=1e-9)
    for k, row in enumerate(picks.order):
        before = picks.order[:k].tolist()
        gain = value(coverage, [*before, row]) - value(coverage, before)
        assert picks.gain[row] == pytest.approx(gain, rel=1e-5, abs=1e-9)


def test_stochastic_greedy_is_nearly_as_good_as_greedy_and_better_than_chance():
    coverage = coverage_of(3, 2000, 300, 4)
    greedy = value(coverage, lazy_greedy(coverage, 200).order)
    found = value(coverage, stochastic_greedy(coverage, 200, 0.05, np.random.default_rng(0)).order)
    chance = value(coverage, np.random.default_rng(1).choice(2000, 200, replace=False))
    assert found > 0.97 * greedy
    assert found - chance > 0.8 * (greedy - chance)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 100), active=st.integers(1, 8), step=st.integers(1, 40))
def test_codes_are_the_largest_products_whoever_stands_beside(seed, active, step):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((40, D)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    vectors = rng.standard_normal((8, D)).astype(np.float32)
    vectors[5] = vectors[2]  # a tie in every row
    bias = np.zeros(8, np.float32)
    found = top_features(rows, vectors, bias, active)
    exact = (rows.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    exact[:, 5] = exact[:, 2]
    expected = [sorted(sorted(range(8), key=lambda j: (-row[j], j))[:active]) for row in exact]
    assert found.tolist() == expected
    parts = [top_features(rows[i : i + step], vectors, bias, active) for i in range(0, 40, step)]
    assert np.concatenate(parts).tolist() == found.tolist()


def rows():
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal((N // 2, D))[rng.integers(0, N // 2, N)] + 0.1 * rng.standard_normal((N, D))
    embedding[: N // 6] = embedding[N // 6 : N // 3]
    embedding = embedding.astype(np.float16).astype(np.float32)
    embedding[:2], embedding[2] = np.nan, 0
    score = rng.normal(size=N).astype(np.float32)
    score[3:6] = np.nan
    return {"mixed": score}, {"e.image": embedding}


SIZES = {"encoder": "e", "size": 24, "active": 3, "sample": 200}
CHOSEN = [
    Submodular(**SIZES, by="mixed", keep=0.3),
    Submodular(**SIZES, keep=0.2, features="directions", epsilon=0),
    Submodular(**SIZES, by="mixed", count=40, diversity=0.8, features="autoencoder", steps=5),
    Submodular(**SIZES, by="mixed", keep=0.25, partitions=3),
    Submodular(**SIZES, by="mixed", keep=0.25, partitions=4, oversample=1, features="directions"),
]
IDS = ["centroids", "directions-greedy", "autoencoder", "two-rounds", "one-round"]


@pytest.mark.parametrize("chosen", CHOSEN, ids=IDS)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, N), max_size=4), order=st.permutations(range(N)))
def test_the_cut_leaves_no_trace(make_pool, fates, chosen, cuts, order):
    columns, embeddings = rows()
    expected = fates(make_pool(columns, embeddings), [chosen])
    assert fates(make_pool(columns, embeddings, cuts=cuts, order=order), [chosen]) == expected


@pytest.mark.parametrize("chosen", CHOSEN, ids=IDS)
def test_sizes_reasons_and_facts(make_pool, chosen):
    pool = make_pool(*rows(), cuts=[100, 100])
    step = run_filters(pool, [chosen]).steps[0]
    assert step.kept == step.samples == (chosen.count or int(N * chosen.keep)) == step.facts["chosen"]
    holes = {"no_embedding": 3} | ({"no_value": 3} if chosen.by else {})
    assert step.reasons == holes | {"not_chosen": N - step.kept - sum(holes.values())}
    assert step.facts["approximate"] == (chosen.partitions > 1)
    json.dumps(step.facts, allow_nan=False)
    again, state = pickle.loads(pickle.dumps((chosen, chosen.fit(pool))))
    assert sum(int(again.decide(p, state).keep.sum()) for p in pool.members) == step.kept
    for empty in (MemoryPool([]), make_pool({"mixed": [0.5][:0]}, {"e.image": np.empty((0, D), np.float32)}, cuts=[0])):
        step = run_filters(empty, [chosen]).steps[0]
        assert (step.entered, step.kept) == (0, 0)


def test_it_covers_more_and_scores_higher_than_chance(make_pool):
    rng = np.random.default_rng(1)
    concept = np.repeat([0, 1, 2, 3], [260, 60, 40, 40])  # a long tail
    embedding = (np.eye(4, D)[concept] + 0.05 * rng.standard_normal((400, D))).astype(np.float32)
    score = rng.normal(size=400).astype(np.float32)
    pool = make_pool({"s": score}, {"e.image": embedding})
    options = {"encoder": "e", "by": "s", "count": 40, "size": 12, "active": 2, "steps": 20}
    kept = run_filters(pool, [Submodular(**options, diversity=0.5)]).fates[0]["kept"].to_numpy()
    assert score[kept].mean() > score.mean() + 0.2
    assert set(concept[kept]) == {0, 1, 2, 3}
    only_score = run_filters(pool, [Submodular(**options, diversity=0.0)]).fates[0]["kept"].to_numpy()
    assert score[only_score].mean() > score[kept].mean() - 0.05
    target = make_pool({"s": score[360:]}, {"e.image": embedding[360:]})
    aimed = Submodular(**{**options, "by": None}, target="task")
    kept = run_filters(pool, [aimed], MemoryContext({"task": target})).fates[0]["kept"].to_numpy()
    assert (concept[kept] == 3).mean() > 0.6


def test_selection_and_capped_sampling_compose_in_two_lines(make_pool):
    """Learned mixing gives the column; the set is chosen by it, then drawn from with repeats, for one budget."""
    pool = make_pool(*rows(), cuts=[90])
    two = [Submodular(**SIZES, by="mixed", keep="auto"), SoftCapSampling(by="mixed", total="auto")]
    with pytest.raises(ConfigError, match="submodular: `auto` needs a training"):
        run_filters(pool, two)
    outcome = run_filters(pool, [f.with_budget(300) for f in two])
    assert outcome.steps[0].kept == 300 // 4
    assert outcome.steps[0].facts["budget"]["views"] == 4
    assert len(outcome.subset()) == outcome.steps[1].samples == 300
    assert outcome.steps[1].kept <= 75


def test_the_autoencoder_learns_and_is_a_function_of_its_seed(make_pool):
    rng = np.random.default_rng(0)
    dictionary = rng.standard_normal((12, 16))
    codes = np.zeros((800, 12))
    for row in codes:
        row[rng.choice(12, 2, replace=False)] = rng.uniform(0.5, 1.5, 2)
    points = (codes @ dictionary).astype(np.float32)
    errors = []
    for steps in (1, 150):
        vectors, bias, made_by = train_autoencoder(points, 24, 3, steps, seed=1, batch=256, rate=1e-2)
        errors.append(float(made_by.rsplit(" ", 1)[1]))
    assert errors[1] < 0.5 * errors[0]
    same = train_autoencoder(points, 24, 3, 150, seed=1, batch=256, rate=1e-2)
    assert np.array_equal(vectors, same[0])
    assert np.array_equal(bias, same[1])
    assert not np.array_equal(vectors, train_autoencoder(points, 24, 3, 150, seed=2, batch=256, rate=1e-2)[0])


def test_what_cannot_be_is_said(make_pool):
    pool = make_pool(*rows())
    with pytest.raises(DataError, match="236 samples asked for, but only 234 of 240 have an embedding and a score"):
        run_filters(pool, [Submodular(**SIZES, by="mixed", count=236)])
    with pytest.raises(DataError, match=r"24 clusters asked for|no embedding"):
        run_filters(
            make_pool({"mixed": [1.0] * 5}, {"e.image": np.full((5, D), np.nan)}), [Submodular(**SIZES, count=1)]
        )
    with pytest.raises(DataError, match="no embedding in any of 5 rows"):
        fit_coder(make_pool({"x": [1] * 5}, {"e.image": np.zeros((5, D))}), "e.image", "autoencoder", 4, 2, 1, 10)
    for wrong in (
        {},
        {"keep": 0.5, "count": 3},
        {"keep": 0.0},
        {"keep": 0.5, "active": 24},
        {"keep": 1, "diversity": 0.5},
    ):
        with pytest.raises(ValidationError):
            Submodular(**{**SIZES, **wrong})
