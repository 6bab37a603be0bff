"""Average precision of all classes at once, against scikit-learn and a loop."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from curate.errors import DataError
from curate.eval.metrics.average_precision import average_precision, expected_average_precision, mean_average_precision


def one_class(scores, right):
    """Precision at each positive, in order; ties by sample."""
    order = sorted(range(len(scores)), key=lambda i: (-float(scores[i]), i))
    hits, total = 0, 0.0
    for place, i in enumerate(order, 1):
        if right[i]:
            hits += 1
            total += hits / place
    return total / hits if hits else float("nan")


def test_golden_by_hand():
    scores = np.array([[0.9, 1.0], [0.8, 0.0], [0.7, 0.0], [0.1, 0.0]], np.float32)
    right = np.array([[True, False], [False, False], [True, False], [False, False]])
    assert average_precision(scores, right)[0] == pytest.approx((1 + 2 / 3) / 2)
    assert np.isnan(average_precision(scores, right)[1])
    assert mean_average_precision(scores, right) == pytest.approx((1 + 2 / 3) / 4)  # the empty class counts 0


@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 40),
    classes=st.integers(1, 6),
    levels=st.sampled_from([1, 2, 4, 10**6]),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    double=st.booleans(),
)
def test_equal_to_a_loop_with_ties_signs_and_infinities(seed, n, classes, levels, share, double):
    rng = np.random.default_rng(seed)
    scores = (rng.integers(-levels, levels + 1, (n, classes)) / 7).astype(np.float64 if double else np.float32)
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    scores[rng.random(scores.shape) < 0.1] = -0.0
    right = rng.random((n, classes)) < share
    expected = [one_class(scores[:, c], right[:, c]) for c in range(classes)]
    np.testing.assert_allclose(average_precision(scores, right), expected, rtol=1e-12)


def test_equal_to_scikit_learn_without_ties():
    rng = np.random.default_rng(1)
    scores = rng.permutation(3000 * 8).reshape(3000, 8).astype(np.float32) - 12_000
    right = rng.random((3000, 8)) < 0.05
    theirs = average_precision_score(right, scores, average=None)
    np.testing.assert_allclose(average_precision(scores, right), theirs, rtol=1e-12)
    assert mean_average_precision(scores, right) == pytest.approx(np.mean(theirs), rel=1e-12)


def test_chance_is_the_mean_over_random_rankings():
    assert expected_average_precision(7, np.array([7, 1, 0])).tolist() == pytest.approx(
        [1, sum(1 / k for k in range(1, 8)) / 7, 0]
    )
    rng = np.random.default_rng(2)
    right = np.zeros((20, 4000), bool)
    right[:3] = True
    drawn = average_precision(rng.random((20, 4000)).astype(np.float32), right)
    assert expected_average_precision(20, np.array([3]))[0] == pytest.approx(drawn.mean(), abs=4 * drawn.std() / 63)


def test_not_a_number_is_an_error():
    with pytest.raises(DataError, match="NaN"):
        average_precision(np.array([[np.nan]], np.float32), np.array([[True]]))
