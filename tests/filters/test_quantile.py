import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curate.filters.quantile import descending_element, from_bits, histogram_high, locate, merge, to_bits

FLOATS = st.floats(width=32, allow_nan=False)


@settings(deadline=None)
@given(hnp.arrays(np.float32, st.integers(0, 60), elements=FLOATS))
def test_bits_order_like_the_numbers_and_come_back(values):
    bits = to_bits(values)
    assert bits.dtype == np.uint32
    np.testing.assert_array_equal(np.sort(values), values[np.argsort(bits, kind="stable")])
    for number, raw in zip(values, bits, strict=True):
        assert from_bits(int(raw)) == number


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, st.integers(1, 80), elements=st.floats(width=32, allow_nan=True)),
    st.lists(st.integers(0, 80), max_size=4),
    st.data(),
)
def test_element_equals_sort(values, cuts, data):
    parts = np.split(values, sorted(cuts))
    ranked = np.sort(values[~np.isnan(values)])[::-1]
    assert sum(h.missing for h in map(histogram_high, parts)) == np.isnan(values).sum()
    if len(ranked):
        index = data.draw(st.integers(0, len(ranked) - 1))
        assert descending_element(parts, index) == ranked[index]
    with pytest.raises(IndexError):
        descending_element(parts, len(ranked))


def test_special_values_in_order():
    values = np.array([np.nan, -0.0, np.inf, 1e-45, -np.inf, 0.0, -1e-45, np.float32(3.4e38)], np.float32)
    found = [descending_element([values], i) for i in range(7)]
    assert found == [np.inf, np.float32(3.4e38), np.float32(1e-45), 0.0, 0.0, np.float32(-1e-45), -np.inf]


def test_counters_are_sparse_and_add_up():
    a, b = histogram_high(np.array([0.3, 0.3, 0.2], np.float32)), histogram_high(np.array([0.3, np.nan], np.float32))
    assert a.counts.tolist() == [1, 2]
    assert b.missing == 1
    total = merge([a, b])
    assert total.sum() == 4
    assert locate(total, 2) == (int(a.bins[1]), 2)
    assert locate(total, 3) == (int(a.bins[0]), 0)
