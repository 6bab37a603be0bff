import math

import numpy as np
import pytest
from compare_sample import Split, answers
from hypothesis import given
from hypothesis import settings as configured
from hypothesis import strategies as st
from scipy import stats

from curate.errors import DataError
from curate.eval.comparison.bootstrap import Units, bootstrap, influence, interval, resample, sign_flip, standard_error
from curate.eval.comparison.compare import compare_arms, compare_samples, covariance
from curate.eval.comparison.contributions import contributions
from curate.eval.comparison.statistics import mcnemar


def rows(n: int, right: float, seed: int, metric: str = "acc1", classes: int = 5):
    return contributions(answers(n, classes, right, seed).table(Split(n)), metric)


def units(top, bottom=None, stratum=None) -> Units:
    top = np.asarray(top, float)
    return Units(top, np.ones(len(top)) if bottom is None else np.asarray(bottom, float), stratum)


def test_drawing_types_is_drawing_units():
    """Moments of the multinomial shortcut against indices drawn one by one."""
    rng = np.random.default_rng(0)
    top, bottom = rng.integers(0, 4, 60).astype(float), rng.integers(1, 3, 60).astype(float)
    fast = resample(units(top, bottom), draws=20_000)
    drawn = rng.integers(0, 60, (20_000, 60))
    slow = top[drawn].sum(1) / bottom[drawn].sum(1)
    assert fast.mean() == pytest.approx(slow.mean(), abs=4 * slow.std() / 100)
    assert fast.std() == pytest.approx(slow.std(), rel=0.03)
    assert np.quantile(fast, [0.025, 0.975]) == pytest.approx(np.quantile(slow, [0.025, 0.975]), rel=0.03)


def test_strata_keep_their_sizes():
    stratum = np.repeat([0, 1, 2], [4, 30, 10])
    top = np.where(stratum == 0, 1.0, np.arange(44) % 2)
    found = resample(units(top, np.ones(44), stratum), draws=5000)
    assert found.min() >= 4 / 44  # the first stratum always counts 4
    variance = (30 * np.var(top[4:34]) + 10 * np.var(top[34:])) / 44**2
    assert found.var() == pytest.approx(variance, rel=0.1)
    shuffled = np.random.default_rng(1).permutation(44)
    assert (resample(units(top[shuffled], np.ones(44), stratum[shuffled]), draws=5000) == found).all()


def test_errors_golden():
    assert standard_error(units([0, 1, 1, 1])) == pytest.approx(np.std([0, 1, 1, 1], ddof=1) / 2)
    both = units([0, 1, 0, 1, 1, 1], None, np.array([0, 0, 1, 1, 1, 2]))
    # variances 1/2 and 1/3 within strata; one unit alone has none: (2 * 1/2 + 3 * 1/3) / 36
    assert standard_error(both) == pytest.approx(math.sqrt(2 / 36))
    assert influence(both).sum() == pytest.approx(0)


def test_nothing_to_draw_has_no_interval():
    assert bootstrap(units([1.0])) is None
    assert bootstrap(units([1.0, 1.0, 1.0])) is None
    assert interval(units([1.0, 1.0])) == (None, None)


def test_bca_is_scipys():
    sample = np.random.default_rng(3).exponential(size=40)
    expected = stats.bootstrap((sample,), np.mean, n_resamples=20_000, rng=0, method="BCa").confidence_interval
    assert bootstrap(units(sample), draws=20_000, method="bca") == pytest.approx(tuple(expected), abs=0.02)


def test_intervals_cover():
    """300 simulated sets: macro recall of unequal classes and clustered recall; 95 % +- 4 standard errors."""
    truth = np.array([0.9, 0.6, 0.3])
    size = np.array([12, 30, 60])
    hit = {"strata": 0, "clusters": 0}
    for seed in range(300):
        rng = np.random.default_rng(seed)
        label = np.repeat(np.arange(3), size)
        right = rng.random(102) < truth[label]
        low, high = bootstrap(units(right / size[label], 1 / size[label], label), seed, draws=300)
        hit["strata"] += low <= truth.mean() <= high
        picture = rng.beta(2, 2, 150)
        low, high = bootstrap(units(rng.binomial(5, picture), np.full(150, 5)), seed, draws=300)
        hit["clusters"] += low <= 0.5 <= high
    assert all(0.90 <= count / 300 <= 0.99 for count in hit.values()), hit


@given(wins=st.integers(0, 60), losses=st.integers(0, 60), ties=st.integers(0, 20))
def test_sign_flips_of_right_and_wrong_are_mcnemar(wins, losses, ties):
    first = np.array([True] * wins + [False] * losses + [True] * (ties + 1))
    second = np.array([False] * wins + [True] * losses + [True] * (ties + 1))
    found = sign_flip(units(first.astype(float) - second))
    assert found == pytest.approx(mcnemar(first, second).p)


def test_sign_flips_of_several_sizes():
    sample = np.random.default_rng(0).choice([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0], 30)
    expected = stats.permutation_test((sample,), np.mean, permutation_type="samples", n_resamples=20_000, rng=0)
    assert sign_flip(units(sample), draws=20_000) == pytest.approx(expected.pvalue, abs=0.02)
    assert sign_flip(units([0.0, 0.0])) == 1.0
    # 3 differences, sizes 1 and 2: two of eight signs are as extreme as +4
    assert sign_flip(units([1.0, 1.0, 2.0]), draws=100_000) == pytest.approx(0.25, abs=0.01)


def test_sign_flips_hold_their_level():
    false = 0
    for seed in range(300):
        sample = np.random.default_rng(seed).choice([-2.0, -1.0, 0.0, 1.0, 2.0], 40)
        false += sign_flip(units(sample), seed, draws=400) < 0.05
    assert 0.015 <= false / 300 <= 0.095


def test_two_models_on_the_same_samples():
    better, worse = rows(2000, 0.7, 1), rows(2000, 0.6, 2)
    found = compare_samples(better, worse)
    assert found.difference == pytest.approx(better.estimate - worse.estimate)
    assert found.p == found.mcnemar.p < 1e-6
    assert (found.mcnemar.wins - found.mcnemar.losses) / 2000 == pytest.approx(found.difference)
    low, high = found.interval
    assert low < found.difference < high
    unpaired = math.hypot(standard_error(better.units), standard_error(worse.units))
    assert high - low < 0.9 * 2 * 1.96 * unpaired  # pairing is what makes it narrow
    assert found.detectable == pytest.approx(2.8016 * math.sqrt(found.discordant / 2000), rel=1e-4)
    same = compare_samples(better, better)
    assert (same.difference, same.interval, same.p, same.detectable) == (0.0, None, 1.0, None)


def test_macro_metrics_are_compared_within_classes():
    metric = "mean_per_class_recall"
    better, worse = rows(1000, 0.7, 1, metric), rows(1000, 0.6, 2, metric)
    found = compare_samples(better, worse)
    assert found.mcnemar is None
    assert found.interval[0] > 0
    assert found.p < 0.001
    assert found.detectable == pytest.approx(2.8016 * (found.interval[1] - found.interval[0]) / 3.92, rel=0.1)


def test_arms_over_seeds_and_samples():
    first = {s: rows(800, 0.65, 10 + s) for s in range(3)}
    second = {s: rows(800, 0.6, 20 + s) for s in range(4)}
    values = tuple({s: one.estimate for s, one in arm.items()} for arm in (first, second))
    found = compare_arms(values, (first, second))
    assert found.basis == "seeds"
    assert found.interval == found.over_seeds.ci95
    expected = stats.ttest_rel([values[0][s] for s in range(3)], [values[1][s] for s in range(3)])
    assert found.p == pytest.approx(expected.pvalue)
    low, high = found.over_samples
    assert low < found.difference < high
    wide = found.both[1] - found.both[0]
    assert wide > high - low
    assert wide > 0.6 * (found.interval[1] - found.interval[0])  # more degrees of freedom, more variance
    assert found.wins - found.losses == round(800 * sum(found.over_seeds.values.values()))
    assert list(found.by_seed) == [0, 1, 2]


def test_one_seed_is_about_samples():
    first, second = {0: rows(800, 0.65, 1)}, {0: rows(800, 0.6, 2)}
    found = compare_arms(({0: first[0].estimate}, {0: second[0].estimate}), (first, second))
    assert (found.basis, found.both, found.p) == ("samples", None, found.by_seed[0].p)
    assert found.interval == found.over_samples == found.by_seed[0].interval
    bare = compare_arms(({0: 0.5}, {0: 0.25}))
    assert (bare.difference, bare.interval, bare.p, bare.wins) == (0.25, None, None, None)
    assert compare_arms(({0: 0.5}, {1: 0.25})) is None


def test_arms_on_other_samples_are_refused():
    with pytest.raises(DataError, match="curated, seed 0 and everything, seed 0 are of different samples"):
        compare_arms(({0: 0.5}, {0: 0.5}), ({0: rows(80, 0.5, 0)}, {0: rows(90, 0.5, 0)}), ("curated", "everything"))


@configured(max_examples=20, deadline=None)
@given(seed=st.integers(0, 100), metric=st.sampled_from(["acc1", "mean_per_class_recall"]))
def test_covariance_gives_the_error_of_every_pair(seed, metric):
    arms = [rows(300, 0.4 + 0.1 * k, seed + k, metric) for k in range(3)]
    found = covariance(arms, ["a", "b", "c"])
    for i in range(3):
        assert found[i, i] == pytest.approx(standard_error(arms[i].units) ** 2)
        for j in range(i):
            gap = Units(arms[i].units.top - arms[j].units.top, arms[i].units.bottom, arms[i].stratum)
            error = math.sqrt(max(0, found[i, i] + found[j, j] - 2 * found[i, j]))
            assert error == pytest.approx(standard_error(gap), abs=1e-9)
