from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.filters.draw import draw, uid_hash
from curate.shards.uid import stable_uid, to_records


def even(part):
    keep = part.array("number") % 2 == 0
    return keep, {"number": part.array("number")}


def drawn_rows(pool, drawn, seed, purpose):
    masks = []
    for part in pool.members:
        uids = part.uids()
        hashes = uid_hash(uids, seed, purpose)
        masks.append(drawn.cut.includes(part, uids, hashes) if drawn.cut else np.zeros(len(part), bool))
    return masks


def test_hash_is_uniform_keyed_and_a_function_of_the_uid():
    uids = to_records([f"{i:032x}" for i in range(4096)])
    hashes = uid_hash(uids, 0, "a")
    assert len(np.unique(hashes)) == 4096
    counts = np.bincount((hashes >> np.uint64(60)).astype(int), minlength=16)
    assert ((counts - 256) ** 2 / 256).sum() < 37.7  # chi-squared, 15 degrees of freedom, p = 0.001
    np.testing.assert_array_equal(hashes[10:20], uid_hash(uids[10:20], 0, "a"))
    assert not np.array_equal(hashes, uid_hash(uids, 1, "a"))
    assert not np.array_equal(hashes, uid_hash(uids, 0, "b"))


@pytest.mark.parametrize("count", [0, 1, 300, 2500, 4999, 5000])
def test_exact_count_through_a_narrow_window(make_pool, count):
    pool = make_pool({"number": np.arange(5000)}, cuts=[700, 700, 3000])
    drawn = draw(pool, count, 3, "test")
    assert drawn.count == count
    assert len(drawn.uids) <= min(count, 16 * np.sqrt(5000) + 200)
    everyone = np.concatenate([part.uids() for part in pool.members])
    expected = np.zeros(5000, bool)
    expected[np.argsort(uid_hash(everyone, 3, "test"), kind="stable")[:count]] = True
    np.testing.assert_array_equal(np.concatenate(drawn_rows(pool, drawn, 3, "test")), expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 70), st.lists(st.integers(0, 60)))
def test_repeated_uids_are_counted_one_by_one(make_pool, numbers, count, cuts):
    uids = [stable_uid(str(n)) for n in numbers]
    pool = make_pool({"uid": uids}, cuts=[min(c, len(uids)) for c in cuts])
    drawn = draw(pool, count, 0, "test")
    mask = np.concatenate(drawn_rows(pool, drawn, 0, "test"))
    assert mask.sum() == drawn.count == min(count, len(uids))
    taken, present = Counter(np.array(uids)[mask]), Counter(uids)
    assert sum(0 < taken[u] < present[u] for u in present) <= 1  # only the last uid can be taken in part


def test_many_copies_of_one_uid_widen_the_window(make_pool):
    uids = [stable_uid("same")] * 3000 + [stable_uid(str(i)) for i in range(3000)]
    pool = make_pool({"uid": uids}, cuts=[1000, 4000])
    drawn = draw(pool, 2000, 0, "test")
    assert np.concatenate(drawn_rows(pool, drawn, 0, "test")).sum() == 2000


def test_a_whole_draw_brings_the_eligible_rows_with_their_values(make_pool):
    pool = make_pool({"number": np.arange(4000)}, cuts=[1000, 2500])
    drawn = draw(pool, 900, 0, "test", even, whole=True)
    assert drawn.count == len(drawn.uids) == len(set(drawn.values["number"].tolist())) == 900
    assert not (drawn.values["number"] % 2).any()
    resharded = draw(make_pool({"number": np.arange(4000)}, cuts=[17]), 900, 0, "test", even, whole=True)
    np.testing.assert_array_equal(drawn.values["number"], resharded.values["number"])


def test_more_than_there_are_gives_all(make_pool):
    pool = make_pool({"number": np.arange(100)}, cuts=[40])
    for whole in (False, True):
        assert draw(pool, 90, 0, "test", even, whole=whole).count == 50
    assert draw(make_pool({"number": np.arange(0)}), 5, 0, "test", even).count == 0
