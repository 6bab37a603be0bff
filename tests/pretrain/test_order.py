import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.pretrain import streams
from curate.pretrain.data import order
from curate.pretrain.data.order import BLOCK, WINDOW, positions

seeds = st.integers(0, 2**40)


@given(seed=seeds, n=st.integers(1, 3000), epoch=st.integers(0, 10**9))
def test_every_epoch_is_a_permutation(seed, n, epoch):
    order = positions(seed, n, epoch * n, (epoch + 1) * n)
    assert np.array_equal(np.sort(order), np.arange(n))


@settings(deadline=None)
@given(seed=seeds, n=st.integers(1, 400), cuts=st.lists(st.integers(0, 1500), min_size=2, max_size=6))
def test_any_slicing_gives_the_same_sequence(seed, n, cuts):
    cuts = sorted(cuts)
    whole = positions(seed, n, cuts[0], cuts[-1])
    parts = [positions(seed, n, a, b) for a, b in itertools.pairwise(cuts)]
    assert np.array_equal(np.concatenate(parts), whole)


def test_seeds_and_epochs_differ():
    first = positions(0, 1000, 0, 1000)
    assert not np.array_equal(first, positions(1, 1000, 0, 1000))
    assert not np.array_equal(first, positions(0, 1000, 1000, 2000))
    assert abs(np.corrcoef(first, np.arange(1000))[0, 1]) < 0.1


@pytest.mark.parametrize("n", [2, 3, 5, 7])
def test_small_epochs_are_well_shuffled(n):
    """Each sample is equally often at each place: a chi-square over n x n cells."""
    epochs = 600
    orders = positions(9, n, 0, n * epochs).reshape(epochs, n)
    counts = np.stack([np.bincount(orders[:, place], minlength=n) for place in range(n)])
    chi_square = ((counts - epochs / n) ** 2 / (epochs / n)).sum()
    freedom = (n - 1) ** 2
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)


def test_successive_samples_are_unrelated():
    """A shuffled order has no preferred step from one sample to the next."""
    n = 1024
    order = positions(4, n, 0, 50 * n)
    steps = np.diff(order) % n
    counts = np.bincount(steps, minlength=n)[1:]
    expected = len(steps) / (n - 1)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - (n - 2)) < 5 * np.sqrt(2 * (n - 2))


def test_the_order_is_the_same_everywhere():
    """Golden values: a change here would change every training ever made."""
    assert positions(0, 10, 0, 20).tolist() == [5, 2, 9, 0, 1, 7, 6, 3, 8, 4, 5, 9, 7, 6, 8, 4, 0, 3, 2, 1]


def test_a_huge_pool_costs_nothing():
    n = 12_800_000_000
    order = positions(0, n, 5 * n - 64, 5 * n + 64)
    assert len(set(order[:64].tolist())) == 64
    assert order.max() > n // 2


def test_no_samples_is_refused():
    with pytest.raises(ValueError, match="0 samples"):
        positions(0, 0, 0, 1)


@settings(max_examples=30)
@given(start=st.integers(0, 10**12), count=st.integers(1, 50), columns=st.integers(1, 24), cut=st.integers(0, 50))
def test_streams_can_be_read_from_anywhere(start, count, columns, cut):
    stream = streams.key(3, "crop")
    whole = streams.uniform(stream, start, start + count, columns)
    middle = start + min(cut, count)
    parts = [streams.uniform(stream, start, middle, columns), streams.uniform(stream, middle, start + count, columns)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert whole.min() >= 0
    assert whole.max() < 1


def test_streams_do_not_overlap():
    assert streams.key(1, "a") != streams.key(1, "b") != streams.key(11, "") != streams.key(1, "1")
    row, following = streams.words(5, 0, 1, 24)[0], streams.words(5, 1, 2, 24)[0]
    assert not set(row.tolist()) & set(following.tolist())


# --- two levels


@pytest.fixture
def small_windows(monkeypatch):
    monkeypatch.setattr(order, "BLOCK", 8)
    monkeypatch.setattr(order, "WINDOW", 6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=seeds, n=st.integers(1, 700), epoch=st.integers(0, 10**6), cuts=st.lists(st.integers(0, 900), max_size=4))
def test_windows_make_a_permutation_that_can_be_read_from_anywhere(small_windows, seed, n, epoch, cuts):
    start, stop = epoch * n, epoch * n + n
    whole = positions(seed, n, start, stop + 200)
    assert np.array_equal(np.sort(whole[:n]), np.arange(n))
    cuts = sorted({0, n + 200, *(cut % (n + 200) for cut in cuts)})
    parts = [positions(seed, n, start + a, start + b) for a, b in itertools.pairwise(cuts)]
    assert np.array_equal(np.concatenate(parts), whole)


@given(seed=seeds, n=st.integers(96, 700))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_window_is_a_few_blocks_of_consecutive_samples(small_windows, seed, n):
    found = positions(seed, n, 0, n)
    for window in range(n // 48 - 1):
        inside = np.sort(found[48 * window : 48 * window + 48])
        runs = 1 + int((np.diff(inside) != 1).sum())
        assert runs <= 7  # six blocks, one of which may go on from the last sample to the first
    assert not np.array_equal(found, positions(seed, n, n, 2 * n))


def test_pools_of_less_than_two_windows_are_permuted_sample_by_sample():
    """Golden values of the order before there were windows."""
    n = 2 * BLOCK * WINDOW - 1
    assert positions(3, n, 0, n + 2).tolist()[-2:] == positions(3, n, n, n + 2).tolist()
    expected = order.permuted(np.arange(9, dtype=np.uint64), n, streams.key(3, "order", 0))
    assert np.array_equal(positions(3, n, 0, 9), expected)


def test_a_large_pool_is_mixed_from_all_over():
    n = 10 * BLOCK * WINDOW + 77
    found = positions(1, n, 0, n)
    assert np.array_equal(np.sort(found), np.arange(n))
    assert np.array_equal(positions(1, n, n - 500, n), found[-500:])
    window = found[: BLOCK * WINDOW]
    assert len(np.unique(window // BLOCK)) <= 2 * WINDOW
    counts = np.bincount(window * 20 // n, minlength=20)  # twentieths of the pool
    assert counts.min() > 0.3 * counts.mean()
    steps = np.abs(np.diff(found[:20_000]))
    assert (steps < BLOCK).mean() < 0.02  # neighbours in storage do not follow one another


def test_the_two_level_order_is_the_same_everywhere():
    """Golden values: a change here would change every training of a large pool."""
    assert positions(0, 1_000_003, 999_999, 1_000_007).tolist() == [
        561430,
        819732,
        107797,
        348615,
        362871,
        935910,
        699006,
        429268,
    ]
