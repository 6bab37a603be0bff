"""`mix` with given weights and the plain learners, against naive float64 and scikit-learn."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError

from curate.errors import DataError
from curate.filters.memory import MemoryContext
from curate.filters.mixing import auc, balance, combined, least_squares, logistic, moments_of
from curate.filters.scorers.mix import Mix, mean_interval, thinned
from curate.shards.evalsets.source import EvalSource
from curate.shards.uid import stable_uid


def scores_of(pool, name="m"):
    return np.concatenate([part.array(name) for part in pool.members])


def mix(**options):
    return Mix.model_validate(options)


def naive(columns: dict[str, np.ndarray], weights: dict[str, float]) -> np.ndarray:
    """Row by row, as one would say it."""
    n = len(next(iter(columns.values())))
    total, seen = np.zeros(n), np.zeros(n, bool)
    for name, values in columns.items():
        known = [float(v) for v in values if np.isfinite(v)]
        mean = sum(known) / len(known)
        std = (sum((v - mean) ** 2 for v in known) / len(known)) ** 0.5
        for i, v in enumerate(values):
            if np.isfinite(v):
                seen[i] = True
                total[i] += weights[name] * (float(v) - mean) / std if min(known) < max(known) else 0.0
    return np.where(seen, total, np.nan)


numbers = st.one_of(st.floats(-1e3, 1e3, width=32).filter(lambda v: v == 0 or abs(v) > 1e-3), st.just(float("nan")))


@settings(deadline=None, max_examples=30)
@given(data=arrays(np.float32, (17, 3), elements=numbers), cut=st.integers(0, 17))
def test_equals_a_naive_sum_of_z_scores(make_pool, data, cut):
    columns = dict(zip("abc", data.T, strict=True))
    weights = {"a": 0.7, "b": -2.0, "c": 0.0}
    pool = make_pool(columns, cuts=[cut])
    scorer = mix(columns=list("abc"), weights=weights)
    if not np.isfinite(data).any(0).all():
        with pytest.raises(DataError, match="has no value"):
            pool.score("m", scorer)
        return
    found = scores_of(pool.score("m", scorer))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive(columns, weights), rtol=1e-4, atol=1e-5)


def test_by_hand():
    import pyarrow as pa

    from curate.filters.memory import MemoryPool

    table = pa.table(
        {
            "uid": [stable_uid(str(i)) for i in range(4)],
            "a": pa.array([1.0, 3.0, None, None]),  # mean 2, std 1
            "b": pa.array([float("inf"), 10, 30, float("nan")], pa.float32()),  # mean 20, std 10
            "c": pa.array([7, 7, 7, None], pa.int64()),  # one value: says nothing
        }
    )
    pool = MemoryPool.of([table])
    scorer = mix(columns=["a", "b", "c"], weights={"a": 2, "b": 0.5, "c": 100})
    state = scorer.fit(MemoryContext().of(pool))
    found = scorer.score(pool.members[0], "m", state)["m"]
    np.testing.assert_array_equal(found, np.float32([-2, 1.5, 0.5, np.nan]))
    facts = scorer.describe(state)
    json.dumps(facts, allow_nan=False)
    assert (facts["rows"], facts["unscored"], facts["learned_by"]) == (4, 1, "fixed")
    assert [line["missing"] for line in facts["weights"]] == [2, 2, 1]
    assert [(line["mean"], line["std"]) for line in facts["weights"]] == [(2, 1), (20, 10), (7, 0)]
    assert facts["weights"][0]["low"] is None


def test_moments_do_not_suffer_from_a_large_mean(make_pool):
    x = np.float64(1e8) + np.arange(1000) % 7
    for cuts in ([], [1], [10, 10, 500]):
        pool = make_pool({"x": x.astype(np.float32)}, cuts=cuts)
        found = combined(pool.map(moments_of, ["x"]), ["x"])
        np.testing.assert_allclose(found.std, x.astype(np.float32).astype(np.float64).std(), rtol=1e-9)
        assert found.rows == 1000


def test_empty_parts_and_booleans(make_pool):
    pool = make_pool({"x": np.float32([1, 2, 3])}, cuts=[0, 0, 3])
    assert np.isfinite(scores_of(pool.score("m", mix(columns=["x"], weights={"x": 1})))).all()
    with pytest.raises(DataError, match="not numbers"):
        make_pool({"x": ["a", "b"]}).score("m", mix(columns=["x"], weights={"x": 1}))


@pytest.mark.parametrize(
    "options",
    [
        {"columns": ["a"]},
        {"columns": []},
        {"columns": ["a", "a"], "weights": {"a": 1}},
        {"columns": ["a"], "weights": {"b": 1}},
        {"columns": ["a"], "weights": {"a": float("nan")}},
        {"columns": ["a"], "weights": {"a": 1}, "learn": {"type": "logistic", "trusted": "t"}},
        {"columns": ["a"], "learn": {"type": "logistic"}},
        {"columns": ["a"], "learn": {"type": "m_flyt", "downstream": "d"}},
        {"columns": ["a"], "learn": {"type": "m_flyt", "downstream": "d", "encoder": "e", "pretrained": "p"}},
    ],
)
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError):
        mix(**options)


def test_what_each_way_reads():
    trusted = mix(columns=["a", "b"], learn={"type": "logistic", "trusted": "good"})
    assert trusted.targets() == {"good": ["a", "b"]}
    assert (trusted.columns(), trusted.encoders(), trusted.evalsets(), trusted.files()) == (["a", "b"], [], [], [])
    flyt = mix(columns=["a"], learn={"type": "m_flyt", "downstream": "digits", "encoder": "clip"})
    assert (flyt.targets(), flyt.encoders(), flyt.evalsets()) == ({}, ["clip"], [EvalSource(path="digits")])
    assert Mix.whole_pool
    assert Mix.model_validate(trusted.model_dump(mode="json")) == trusted


def sides(n, m, seed=0):
    """Pool and trusted rows: ``good`` is higher among trusted, ``bad`` lower, ``noise`` equal."""
    rng = np.random.default_rng(seed)

    def rows(count, shift, prefix):
        values = rng.standard_normal((3, count)).astype(np.float32)
        values[0] += shift
        values[2] -= shift / 2
        values[1, rng.random(count) < 0.1] = np.nan
        names = {"good": values[0], "noise": values[1], "bad": 5 * values[2] + 3}
        return {"uid": [stable_uid(prefix, str(i)) for i in range(count)], **names}

    return rows(n, 0.0, "p"), rows(m, 1.0, "t")


@pytest.mark.parametrize("learner", ["least_squares", "logistic"])
def test_the_learners_find_what_tells_trusted_rows(make_pool, learner):
    pool_rows, trusted_rows = sides(3000, 900)
    pool, trusted = make_pool(pool_rows, cuts=[7, 1500]), make_pool(trusted_rows, cuts=[100])
    scorer = mix(columns=["good", "noise", "bad"], learn={"type": learner, "trusted": "t"})
    state = scorer.fit(MemoryContext(targets={"t": trusted}).of(pool))
    facts = scorer.describe(state)
    json.dumps(facts, allow_nan=False)
    good, noise, bad = facts["weights"]
    assert good["low"] > 0 > bad["high"]
    assert noise["low"] < 0 < noise["high"]
    assert good["weight"] > abs(bad["weight"]) > abs(noise["weight"])
    assert facts["auc"]["value"] > max(good["auc"], 1 - bad["auc"]) > 0.7
    assert 120 < facts["auc"]["trusted"] < 240
    assert (good["missing"], noise["missing"]) == (0, int(np.isnan(pool_rows["noise"]).sum()))
    # How the pool is cut, and in which order rows come, changes rounding only.
    order = np.random.default_rng(1).permutation(3000)
    other = make_pool(pool_rows, cuts=[2999], order=order)
    again = scorer.fit(MemoryContext(targets={"t": trusted}).of(other))
    np.testing.assert_allclose(again.weights, state.weights, rtol=1e-9)
    same = scorer.fit(MemoryContext(targets={"t": trusted}).of(pool))
    assert same.weights.tobytes() == state.weights.tobytes()


def test_learning_needs_rows_on_both_sides(make_pool):
    pool_rows, trusted_rows = sides(50, 20)
    trusted_rows["good"] = trusted_rows["noise"] = trusted_rows["bad"] = np.full(20, np.nan, np.float32)
    scorer = mix(columns=["good", "noise", "bad"], learn={"type": "logistic", "trusted": "t"})
    context = MemoryContext(targets={"t": make_pool(trusted_rows)})
    with pytest.raises(DataError, match="trusted set 't' has no scored row"):
        make_pool(pool_rows).score("m", scorer, context)


def test_logistic_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(2)
    z, y = rng.standard_normal((400, 3)), rng.random(400) < 0.3
    z[y] += 0.8
    found = logistic(z, y, 0.01)
    theirs = LogisticRegression(C=1 / 0.01, tol=1e-10, max_iter=1000).fit(z, y, sample_weight=balance(y))
    np.testing.assert_allclose(found.weights, theirs.coef_[0], rtol=1e-4)
    assert found.intercept == pytest.approx(float(theirs.intercept_[0]), rel=1e-4)


def test_least_squares_is_the_textbooks():
    rng = np.random.default_rng(3)
    z, y = rng.standard_normal((200, 2)), rng.random(200) < 0.5
    found = least_squares(z, y, 0.0)
    root = np.sqrt(balance(y))
    x = np.c_[np.ones(200), z]
    expected = np.linalg.lstsq(x * root[:, None], y * root, rcond=None)[0]
    np.testing.assert_allclose(np.r_[found.intercept, found.weights], expected, rtol=1e-10)


@pytest.mark.parametrize("fit", [least_squares, logistic])
def test_standard_errors_are_the_spread_over_samples(fit):
    rng = np.random.default_rng(4)
    runs = []
    for _ in range(300):
        y = np.arange(400) < 100
        z = rng.standard_normal((400, 2)) + np.where(y, 0.7, 0.0)[:, None] * [1, 0]
        runs.append(fit(z, y, 0.0))
    spread = np.std([run.weights for run in runs], 0)
    claimed = np.mean([run.errors for run in runs], 0)
    np.testing.assert_allclose(claimed, spread, rtol=0.15)


def test_classes_that_can_be_told_apart_keep_finite_weights():
    z = np.r_[np.full((50, 1), 1.0), np.full((50, 1), -1.0)]
    found = logistic(z, np.arange(100) < 50, 1e-3)
    assert 1 < found.weights[0] < 20
    constant = logistic(np.zeros((10, 1)), np.arange(10) < 5, 0.0)
    assert constant.weights[0] == 0


@settings(max_examples=40)
@given(score=arrays(np.float64, 12, elements=st.sampled_from([0.0, 1.0, 2.0, 2.5])), y=arrays(np.bool_, 12))
def test_auc_counts_pairs(score, y):
    pairs = [(p > n) + 0.5 * (p == n) for p in score[y] for n in score[~y]]
    expected = np.mean(pairs) if pairs else np.nan
    np.testing.assert_allclose(auc(score, y), expected)


def test_interval_of_a_mean():
    low, high = mean_interval(np.array([[1.0], [2.0], [3.0]]))
    assert (high - low)[0] / 2 == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert np.isnan(mean_interval(np.ones((1, 2)))).all()


def test_long_curves_are_thinned():
    curve = [{"step": float(i)} for i in range(1001)]
    kept = thinned(curve)
    assert (len(kept), kept[0], kept[-1]) == (100, curve[0], curve[-1])
    assert thinned(curve[:50]) == curve[:50]
