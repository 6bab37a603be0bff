import json
import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from curate.eval.comparison.statistics import (
    against_chance,
    bootstrap_classes,
    detectable_difference,
    family_sentence,
    holm,
    mcnemar,
    mean_over_seeds,
    minimum_detectable_effect,
    paired_difference,
    seeds_needed,
    sign_test,
    wilson,
)

SLEEP_1 = (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)  # Student (Biometrika 6, 1908): hours of extra sleep
SLEEP_2 = (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)

fractions = st.floats(0, 1).map(lambda v: round(v, 3))


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [  # Newcombe (Statistics in Medicine 17, 1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_golden(correct, n, low, high):
    assert wilson(correct, n) == pytest.approx((low, high), abs=5e-5)


@given(n=st.integers(1, 100_000), share=st.floats(0, 1), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys_and_stays_inside(n, share, level):
    correct = round(share * n)
    low, high = wilson(correct, n, level)
    expected = stats.binomtest(correct, n).proportion_ci(level, method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= correct / n <= high <= 1


def test_what_does_not_exist_is_none():
    assert wilson(0, 0) is None
    one = mean_over_seeds([0.5])
    assert (one.mean, one.sd, one.ci95, one.half_width) == (0.5, None, None, None)
    pair = paired_difference({0: 0.5}, {0: 0.25})
    assert (pair.mean, pair.ci95, pair.p, pair.detectable) == (0.25, None, None, None)
    assert paired_difference({0: 0.5}, {1: 0.25}) is None
    assert bootstrap_classes(np.array([0.1]), np.array([5.0])) is None
    assert bootstrap_classes(np.array([0.1, 0.2]), np.array([5.0, 0.0])) is None


def test_mean_golden():
    # 2, 4, 6: sd 2; t(0.975, 2) = 4.302653
    found = mean_over_seeds([2.0, 4.0, 6.0])
    assert (found.n, found.mean, found.sd) == (3, 4.0, 2.0)
    assert found.half_width == pytest.approx(4.302653 * 2 / math.sqrt(3), rel=1e-6)


def test_paired_golden_on_students_sleep():
    found = paired_difference(dict(enumerate(SLEEP_2)), dict(enumerate(SLEEP_1)))
    assert found.mean == pytest.approx(1.58)
    assert found.ci95 == pytest.approx((0.7001142, 2.4598858), abs=1e-6)
    assert found.p == pytest.approx(0.002833, abs=1e-6)
    assert (found.sign.wins, found.sign.losses, found.sign.ties) == (9, 0, 1)
    assert found.sign.p == 2 / 512


@given(pairs=st.lists(st.tuples(fractions, fractions), min_size=2, max_size=12))
def test_paired_is_scipys_t_test_and_strict_json(pairs):
    first, second = (dict(enumerate(column)) for column in zip(*pairs, strict=True))
    found = paired_difference(first, second)
    json.dumps(asdict(found), allow_nan=False)
    spread = max(found.values.values()) - min(found.values.values())
    if spread < 1e-9:
        assert (found.p, found.sd, found.ci95, found.detectable) == (None, 0.0, None, None)
        return
    expected = stats.ttest_rel(*zip(*pairs, strict=True))
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert found.ci95 == pytest.approx(tuple(expected.confidence_interval()), rel=1e-6, abs=1e-9)
    reverse = paired_difference(second, first)
    assert (reverse.mean, reverse.p) == pytest.approx((-found.mean, found.p))


def test_only_common_seeds_are_paired():
    found = paired_difference({0: 0.5, 1: 0.75, 3: 1.0}, {3: 0.5, 1: 0.5, 2: 0.0})
    assert found.values == {1: 0.25, 3: 0.5}


def test_mcnemar_golden():
    first = np.array([True] * 2 + [False] * 9 + [True] * 20 + [False] * 5)
    second = np.array([False] * 2 + [True] * 9 + [True] * 20 + [False] * 5)
    found = mcnemar(first, second)
    assert (found.wins, found.losses, found.n) == (2, 9, 36)
    assert found.p == pytest.approx(2 * (1 + 11 + 55) / 2**11)
    assert mcnemar(first, first).p == 1.0
    with pytest.raises(ValueError, match="paired"):
        mcnemar(first, second[:-1])


@given(wins=st.integers(0, 300), losses=st.integers(0, 300))
def test_exact_p_is_scipys(wins, losses):
    found = sign_test([0.5] * wins + [-0.5] * losses + [0.0])
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert found.p == pytest.approx(expected, rel=1e-9)
    assert found.ties == 1


def test_equal_up_to_rounding_is_a_tie():
    assert sign_test([0.3 - 0.1 - 0.2]).ties == 1


@pytest.mark.parametrize("n", [5, 10, 30])
def test_detectable_effect_has_its_power(n):
    effect = minimum_detectable_effect(1 / math.sqrt(n), n - 1)  # sd 1
    critical = stats.t.ppf(0.975, n - 1)
    power = 1 - stats.nct.cdf(critical, n - 1, effect * math.sqrt(n))
    assert power == pytest.approx(0.8, abs=0.03)  # Bloom's multiple is an approximation
    assert minimum_detectable_effect(1.0) == pytest.approx(2.8016, abs=1e-4)


def test_bootstrap_over_classes():
    rng = np.random.default_rng(0)
    m = 200
    differences, weights = rng.normal(0.05, 0.1, m), rng.integers(5, 15, m).astype(float)
    low, high = bootstrap_classes(differences, weights)
    mean = np.average(differences, weights=weights)
    error = math.sqrt(np.sum((weights / weights.sum() * (differences - mean)) ** 2))  # of a ratio mean
    assert (low, high) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.1 * error)
    assert bootstrap_classes(differences, weights) == (low, high)
    assert bootstrap_classes(differences, weights, seed=1) != (low, high)
    padded = bootstrap_classes(np.append(differences, 9.0), np.append(weights, 0.0))
    assert padded == (low, high)  # a class without samples is not drawn
    assert bootstrap_classes(np.full(7, 0.25), np.full(7, 3.0)) == (0.25, 0.25)


def test_holm_golden():
    assert holm([0.01, 0.04, None, 0.03, 0.005]) == pytest.approx([0.03, 0.06, None, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_is_between_p_and_bonferroni(values):
    adjusted = holm(values)
    assert all(
        p <= q <= min(1, p * len(values)) or q == pytest.approx(p) for p, q in zip(values, adjusted, strict=True)
    )
    assert [i for _, i in sorted((p, i) for i, p in enumerate(values))] == [
        i for _, _, i in sorted((q, p, i) for i, (p, q) in enumerate(zip(values, adjusted, strict=True)))
    ]


@given(correct=st.integers(0, 200), chance=st.sampled_from([0.1, 0.25, 0.5]))
def test_chance_is_an_exact_binomial(correct, chance):
    found = against_chance(correct, 200, chance)
    tails = stats.binom.cdf(correct, 200, chance), stats.binom.sf(correct - 1, 200, chance)
    assert found.p == pytest.approx(min(1, 2 * min(tails)), rel=1e-9, abs=1e-300)
    assert found.verdict == ("like" if found.p >= 0.05 else "above" if correct > 200 * chance else "below")


def test_chance_golden():
    assert against_chance(9, 10, 0.5).p == pytest.approx(2 * 11 / 1024)
    assert against_chance(0, 0, 0.5).verdict == "like"
    assert against_chance(5, 10, 0.5) == against_chance(5, 10, 0.5)
    assert against_chance(5, 10, 0.5).p == 1.0


def test_detectable_difference_has_its_power():
    """Exact power of McNemar's test at the difference that is called detectable."""
    n, discordant = 2000, 0.2
    effect = detectable_difference(n, discordant)
    assert effect == pytest.approx(2.8016 * math.sqrt(discordant / n), rel=1e-4)
    rng = np.random.default_rng(0)
    share = (discordant + effect) / 2 / discordant
    found = 0
    for _ in range(300):
        differing = rng.binomial(n, discordant)
        wins = rng.binomial(differing, share)
        found += stats.binomtest(wins, differing).pvalue < 0.05
    assert 0.7 <= found / 300 <= 0.88
    assert detectable_difference(0, 0.5) is None
    assert detectable_difference(100, 0.0) is None


def test_seeds_needed():
    needed = seeds_needed(0.01, 0.012)
    assert minimum_detectable_effect(0.01 / math.sqrt(needed), needed - 1) <= 0.012
    assert minimum_detectable_effect(0.01 / math.sqrt(needed - 1), needed - 2) > 0.012
    assert seeds_needed(1.0, 0.0) is None


def test_family_sentence():
    assert family_sentence(1).startswith("One comparison")
    assert "40 comparisons" in family_sentence(40)
    assert "about 2.0 of them" in family_sentence(40)
