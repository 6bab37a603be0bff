import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from curate.errors import DataError
from curate.filters.quotas import (
    complexity,
    lower_bounds,
    mean_distance_to_neighbours,
    project,
    round_quotas,
    shares,
)


def bisect(target, low, high, total):
    """The projection by 200 halvings of lambda: slow, and independent of breakpoints."""
    down, up = (target - high).min() - 1, (target - low).max() + 1
    for _ in range(200):
        middle = (down + up) / 2
        down, up = (middle, up) if np.clip(target - middle, low, high).sum() > total else (down, middle)
    return np.clip(target - (down + up) / 2, low, high)


@st.composite
def problems(draw):
    k = draw(st.integers(1, 12))
    high = np.array(draw(st.lists(st.integers(0, 40), min_size=k, max_size=k)))
    low = np.array([draw(st.integers(0, h)) for h in high])
    target = np.array(draw(st.lists(st.floats(-50, 90, width=32), min_size=k, max_size=k)), np.float64)
    return target, low, high, draw(st.integers(int(low.sum()), int(high.sum())))


@settings(max_examples=300, deadline=None)
@given(problems())
def test_projection_is_exact_and_quotas_sum_to_the_total(problem):
    target, low, high, total = problem
    x = project(target, low, high, total)
    assert (x >= low).all()
    assert (x <= high).all()
    assert x.sum() == pytest.approx(total, abs=1e-9)
    np.testing.assert_allclose(x, bisect(target, low, high, total), atol=1e-7)
    quotas = round_quotas(x, high, total)
    assert quotas.sum() == total
    assert (quotas >= low).all()
    assert (quotas <= high).all()
    assert (np.abs(quotas - x) < 1 + 1e-9).all()


def test_projection_minimises_the_distance():
    rng = np.random.default_rng(0)
    for _ in range(10):
        k = int(rng.integers(2, 7))
        high = rng.integers(2, 30, k)
        low = np.minimum(rng.integers(0, 5, k), high - 1)
        total = float(rng.integers(low.sum(), high.sum() + 1))
        target = rng.uniform(-5, 40, k)
        solved = minimize(
            lambda x, target=target: ((x - target) ** 2).sum(),
            np.clip(target, low, high),
            jac=lambda x, target=target: 2 * (x - target),
            bounds=list(zip(low, high, strict=True)),
            constraints={"type": "eq", "fun": lambda x, total=total: x.sum() - total},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(project(target, low, high, total), solved.x, atol=1e-5)


def test_large_budgets_stay_exact():
    rng = np.random.default_rng(0)
    high = rng.integers(0, 3_000_000, 1000)
    total = int(high.sum() * 0.7)
    low = lower_bounds(high, total, 0.5)
    x = project(shares(rng.uniform(0, 0.3, 1000).astype(np.float32), 0.1) * float(total), low, high, total)
    assert x.sum() == pytest.approx(total, abs=1e-3)
    assert round_quotas(x, high, total).sum() == total


@pytest.mark.parametrize("total", [3, 21])
def test_infeasible_totals_are_refused(total):
    with pytest.raises(DataError, match=f"cannot keep {total} samples: 2 clusters must keep at least 4"):
        project(np.array([10.0, 10.0]), np.array([2, 2]), np.array([10, 10]), total)


def test_rounding_of_seven_equal_clusters():
    x = np.full(7, 1000 / 7)
    assert round_quotas(x, np.full(7, 500), 1000).tolist() == [143] * 6 + [142]
    assert round_quotas(x, np.full(7, 500), 1000, "reference").sum() == 1001  # as published: one too many


def test_lower_bounds_never_ask_for_a_whole_cluster_nor_less_than_nothing():
    assert lower_bounds(np.array([100, 3, 1, 0]), total=80, balance=0.5).tolist() == [10, 2, 0, 0]
    assert lower_bounds(np.array([100, 3, 1, 0]), total=80, balance=0).tolist() == [1, 1, 0, 0]


def test_neighbours_leave_self_out_by_index():
    centroids = np.array([[1, 0], [1, 0], [0, 1], [-1, 0]], np.float32)
    np.testing.assert_allclose(mean_distance_to_neighbours(centroids), [1, 1, 1, 5 / 3], rtol=1e-6)
    assert mean_distance_to_neighbours(centroids[:1]).tolist() == [0]


def test_at_most_twenty_neighbours_are_asked():
    rng = np.random.default_rng(0)
    c = rng.standard_normal((600, 16)).astype(np.float32)
    c /= np.linalg.norm(c, axis=1, keepdims=True)
    distance = 1 - c @ c.T
    np.fill_diagonal(distance, np.inf)
    expected = np.sort(distance, axis=1)[:, :20].mean(axis=1)
    np.testing.assert_allclose(mean_distance_to_neighbours(c), expected, rtol=1e-5)


def test_shares_by_hand_and_empty_clusters():
    c = complexity(np.array([0.2, np.nan, 0.4], np.float32), np.array([1, 1, 0.5], np.float32))
    np.testing.assert_allclose(c, [0.2, 0.2, 0.2])
    p = shares(np.array([0.0, 0.1], np.float32), 0.1)
    np.testing.assert_allclose(p, [1 / (1 + np.e), np.e / (1 + np.e)], rtol=1e-6)
    assert p.dtype == np.float32
