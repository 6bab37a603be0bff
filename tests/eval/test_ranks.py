import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from curate.eval.comparison.ranks import kendall_tau, places, rank_intervals, rank_over_tasks, tie_groups

numbers = st.lists(st.integers(0, 6).map(lambda v: v / 6), min_size=1, max_size=9)


def by_gap(values, gap):
    return lambda a, b: abs(values[a] - values[b]) > gap


def test_arms_share_the_rank_of_the_best_that_they_cannot_be_told_from():
    values = [0.70, 0.50, 0.69, 0.66, 0.52]
    # the best holds 0.69 (within 0.03), 0.66 opens a group, 0.52 the next, which holds 0.50
    assert tie_groups(values, by_gap(values, 0.03)) == [1, 4, 1, 3, 4]
    assert tie_groups(values, lambda a, b: True) == [1, 5, 2, 3, 4]
    assert tie_groups(values, lambda a, b: False) == [1, 1, 1, 1, 1]
    assert tie_groups([], lambda a, b: True) == []


def test_nobody_ranks_behind_a_lower_mean():
    values = [0.9, 0.8, 0.7]
    # the second is told apart from the best, the third (fewer seeds, say) is not
    assert tie_groups(values, lambda a, b: b == 1) == [1, 2, 2]


@given(values=numbers, gap=st.floats(0, 1))
def test_ranks_follow_the_means(values, gap):
    rank = tie_groups(values, by_gap(values, gap))
    assert min(rank) == 1
    assert all(r <= q for v, r in zip(values, rank, strict=True) for w, q in zip(values, rank, strict=True) if v > w)


@given(values=numbers)
def test_places_are_scipys(values):
    assert places(np.array(values)).tolist() == stats.rankdata(-np.array(values)).tolist()


def test_rank_intervals():
    values = np.array([0.9, 0.5, 0.49, 0.1])
    found = rank_intervals(values, np.diag(np.full(4, 0.02**2)))
    assert found == [(1, 1), (2, 3), (2, 3), (4, 4)]
    # fully shared chance moves all alike: the order stays
    assert rank_intervals(values, np.full((4, 4), 0.02**2)) == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert rank_intervals(values, np.zeros((4, 4))) == [(1, 1), (2, 2), (3, 3), (4, 4)]


def test_mean_rank_and_win_rate_golden():
    values = np.array([[0.9, 0.2, 0.5], [0.5, 0.4, 0.5], [0.1, 0.3, 0.4]])
    found = rank_over_tasks(values)
    assert [a.mean_rank for a in found.arms] == pytest.approx([(1 + 3 + 1.5) / 3, (2 + 1 + 1.5) / 3, (3 + 2 + 3) / 3])
    assert [a.win_rate for a in found.arms] == pytest.approx([(2 + 0 + 1.5) / 6, (1 + 2 + 1.5) / 6, (0 + 1 + 0) / 6])
    assert sum(a.best_share for a in found.arms) == pytest.approx(1)
    assert all(a.interval[0] <= a.mean_rank <= a.interval[1] for a in found.arms)
    assert found == rank_over_tasks(values)


def test_an_order_that_every_task_agrees_on_is_stable():
    values = np.arange(5)[:, None] + np.random.default_rng(0).random(8)[None]
    found = rank_over_tasks(values)
    assert found.tau == (1.0, 1.0)
    assert [a.best_share for a in found.arms] == [0, 0, 0, 0, 1]
    assert found.arms[4].interval == (1, 1)
    noise = rank_over_tasks(np.random.default_rng(1).random((5, 8)))
    assert noise.tau[1] < 0.5


def test_one_task_or_one_arm():
    alone = rank_over_tasks(np.array([[0.5, 0.6]]))
    assert (alone.tau, alone.arms[0].win_rate, alone.arms[0].mean_rank) == (None, None, 1)
    task = rank_over_tasks(np.array([[0.5], [0.6]]))
    assert (task.tau, task.arms[0].interval, task.arms[0].best_share) == (None, None, None)
    assert [a.win_rate for a in task.arms] == [0, 1]


@given(first=st.lists(st.integers(0, 3), min_size=2, max_size=8), seed=st.integers(0, 50))
def test_tau_is_scipys(first, seed):
    others = np.random.default_rng(seed).integers(0, 3, (3, len(first)))
    expected = [stats.kendalltau(first, other).statistic for other in others]
    found = kendall_tau(np.array(first, float), others.astype(float))
    assert found == pytest.approx(np.nan_to_num(expected))
