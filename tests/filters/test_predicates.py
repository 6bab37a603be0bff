"""Thresholds, ranges, exact tops, quotas and the algebra of subsets, against naive versions over lists."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import DataError
from curate.filters import group_cuts
from curate.filters.group_quota import Quota, apportion
from curate.filters.memory import run_filters
from curate.filters.random import Random
from curate.filters.range import Range
from curate.filters.subsets import Subsets
from curate.filters.threshold import Threshold
from curate.filters.top_fraction import TopFraction
from curate.filters.top_k import TopK
from curate.filters.uids import Uids
from curate.shards.uid import stable_uid, to_records, write_subset

SCORES = st.floats(-2, 2, width=16) | st.sampled_from([0.0, -0.0, 0.28, 0.29, 0.3, float("nan"), float("inf")])
ROWS = st.lists(st.tuples(SCORES, st.sampled_from(["a", "b", "c", None]), st.integers(0, 9)), min_size=1, max_size=60)
CUTS = st.lists(st.integers(0, 60), max_size=4)


def test_strict_bounds_and_integers_beyond_float32(make_pool, kept):
    pool = make_pool({"s": np.array([0.28, 0.29, 0.3, np.nan], np.float32), "n": [2**24, 2**24 + 1, 2**24 + 2, None]})
    assert kept(pool, Threshold(by="s", above=0.29)) == [2]
    assert kept(pool, Threshold(by="s", below=0.29)) == [0]
    assert kept(pool, Threshold(by="s", above=0.28, at_most=0.29)) == [1]
    assert kept(pool, Threshold(by="n", at_least=2**24 + 1)) == [1, 2]
    assert kept(pool, Threshold(by="n", above=2**24 + 1)) == [2]
    with pytest.raises(ValidationError, match="`at_least` or `above`, not both"):
        Threshold(by="s", at_least=1, above=1)


@pytest.mark.parametrize(
    ("closed", "inside"), [("both", [1, 2, 3]), ("low", [1, 2]), ("high", [2, 3]), ("neither", [2])]
)
def test_ranges_say_which_ends_belong(make_pool, kept, closed, inside):
    pool = make_pool({"s": np.array([0.1, 0.28, 0.285, 0.29, 0.5, np.nan], np.float32)}, cuts=[2])
    assert kept(pool, Range(by="s", low=0.28, high=0.29, closed=closed)) == inside
    outside = [row for row in range(5) if row not in inside]  # no value is not outside
    assert kept(pool, Range(by="s", low=0.28, high=0.29, closed=closed, keep="outside")) == outside
    step = run_filters(pool, [Range(by="s", low=0.28, high=0.29)]).steps[0]
    assert step.reasons == {"above_threshold": 1, "below_threshold": 1, "no_value": 1}
    with pytest.raises(ValidationError, match="is larger than"):
        Range(by="s", low=1, high=0)


def ranked(rows, uids, sign=1.0):
    """Numbers of the rows with a score, the best first; of equal scores the smaller uid, then the earlier row."""
    scored = [i for i, row in enumerate(rows) if not np.isnan(row[0])]
    return sorted(scored, key=lambda i: (-sign * float(np.float32(rows[i][0])), uids[i], i))


def naive(rows, uids, wanted, per, sign=1.0):
    """The best ``wanted(group, number of rows)`` of each group."""
    names = {(row[1] if per else "") for row in rows} - {None}
    kept = []
    for name in names:
        mine = [i for i, row in enumerate(rows) if not per or row[1] == name]
        best = [i for i in ranked(rows, uids, sign) if i in set(mine)]
        kept += best[: wanted(name, len(mine))]
    return sorted(kept)


def pool_of(make_pool, rows, cuts):
    """A pool in which uids repeat now and then."""
    uids = [stable_uid(str(row[2])) if row[2] < 5 else stable_uid(f"row {i}") for i, row in enumerate(rows)]
    columns = {
        "s": np.array([row[0] for row in rows], np.float32),
        "g": pa.array([row[1] for row in rows], pa.string()),
        "uid": uids,
    }
    return make_pool(columns, cuts=[min(c, len(rows)) for c in cuts]), uids


@settings(max_examples=60, deadline=None)
@given(ROWS, CUTS, st.integers(0, 12), st.booleans(), st.sampled_from(["largest", "smallest"]), st.integers(1, 3))
def test_top_k_is_exact(make_pool, kept, rows, cuts, count, per, order, buckets):
    pool, uids = pool_of(make_pool, rows, cuts)
    chosen = TopK(by="s", count=count, per="g" if per else None, order=order)
    expected = naive(rows, uids, lambda *_: count, per, 1.0 if order == "largest" else -1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_cuts, "ROWS_PER_BUCKET", max(1, len(rows) // buckets))
        assert kept(pool, chosen) == expected


@settings(max_examples=60, deadline=None)
@given(ROWS, CUTS, st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.99, 1.0]), st.booleans())
def test_exact_fractions(make_pool, kept, rows, cuts, fraction, per):
    pool, uids = pool_of(make_pool, rows, cuts)
    chosen = TopFraction(by="s", keep=fraction, ties="uid", per="g" if per else None)
    assert kept(pool, chosen) == naive(rows, uids, lambda _, n: int(n * fraction), per)


@settings(max_examples=60, deadline=None)
@given(ROWS, CUTS, st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.99, 1.0]))
def test_datacomps_fraction_in_every_group(make_pool, kept, rows, cuts, fraction):
    pool, _ = pool_of(make_pool, rows, cuts)
    expected = []
    for name in ("a", "b", "c"):
        mine = [i for i, row in enumerate(rows) if row[1] == name]
        scores = sorted((float(np.float32(rows[i][0])) for i in mine if not np.isnan(rows[i][0])), reverse=True)
        n = int(len(mine) * fraction)
        threshold = scores[n] if n < len(scores) else -np.inf
        expected += [i for i in mine if np.float32(rows[i][0]) >= threshold]
    assert kept(pool, TopFraction(by="s", keep=fraction, per="g")) == sorted(expected)


@settings(max_examples=40, deadline=None)
@given(ROWS, CUTS, st.randoms(use_true_random=False))
def test_cuts_do_not_depend_on_the_sharding(make_pool, fates, rows, cuts, shuffler):
    _, uids = pool_of(make_pool, rows, cuts)
    unique = {uid: i for i, uid in enumerate(uids)}
    order = list(unique.values())
    shuffler.shuffle(order)
    arrays = {"s": np.array([r[0] for r in rows], np.float32), "g": pa.array([r[1] for r in rows], pa.string())}
    first = make_pool({**arrays, "uid": uids}, order=sorted(unique.values()))
    other = make_pool({**arrays, "uid": uids}, order=order, cuts=[min(c, len(order)) for c in cuts])
    for chosen in (
        TopK(by="s", count=3, per="g"),
        Quota(per="g", fraction=0.5),
        Quota(per="g", counts={"a": 2}, count=1),
    ):
        assert fates(first, [chosen]) == fates(other, [chosen])


def test_top_k_tells_where_it_cut(make_pool):
    pool = make_pool({"s": np.array([0.5, 0.29, np.nan, 0.29, 0.1], np.float32), "g": ["x", "x", "x", "y", None]})
    step = run_filters(pool, [TopK(by="s", count=2)]).steps[0]
    assert step.facts == {"column": "s", "threshold": float(np.float32(0.29)), "rows": 5, "without_value": 1}
    assert (step.kept, step.reasons) == (2, {"below_threshold": 2, "no_value": 1})
    step = run_filters(pool, [TopK(by="s", count=1, per="g")]).steps[0]
    assert step.reasons == {"below_threshold": 1, "no_group": 1, "no_value": 1}
    assert step.facts["cuts"]["x"] == {"threshold": 0.5, "rows": 3, "scored": 2, "wanted": 1}
    assert step.facts["groups"] == 2


@settings(max_examples=40, deadline=None)
@given(ROWS, CUTS, st.integers(0, 5), st.integers(0, 20), st.booleans())
def test_quotas_are_exact(make_pool, kept, rows, cuts, some, many, by_score):
    pool, uids = pool_of(make_pool, rows, cuts)
    chosen = Quota(per="g", counts={"a": some, "b": many, "absent": 3}, by="s" if by_score else None)
    if by_score:
        expected = naive(rows, uids, lambda name, _: {"a": some, "b": many}.get(name, 0), True)
        assert kept(pool, chosen) == expected
    else:
        found = [rows[i][1] for i in kept(pool, chosen)]
        sizes = {name: sum(row[1] == name for row in rows) for name in ("a", "b")}
        assert found.count("a") == min(some, sizes["a"])
        assert found.count("b") == min(many, sizes["b"])
        assert set(found) <= {"a", "b"}


def test_quotas_say_what_is_missing(make_pool, kept):
    pool = make_pool({"g": ["web"] * 6 + ["book"] * 2 + ["odd", None], "ok": [True] * 4 + [False] * 6}, cuts=[3])
    step = run_filters(pool, [Quota(per="g", counts={"web": 2, "book": 3, "film": 1})]).steps[0]
    assert step.reasons == {"no_group": 1, "no_quota": 1, "not_drawn": 4}
    assert (step.kept, step.facts["short_groups"]) == (4, 2)
    assert step.facts["cuts"]["film"] == {"threshold": None, "rows": 0, "scored": 0, "wanted": 1}
    with pytest.raises(DataError, match="3 samples of 'book' asked for, but only 2"):
        kept(pool, Quota(per="g", counts={"web": 2, "book": 3}, strict=True))
    assert len(kept(pool, Quota(per="g", fractions={"web": 0.5}, count=1))) == 5
    assert len(kept(pool, Quota(per="g", total=4, shares={"web": 3, "book": 1}))) == 4
    assert kept(pool, Quota(per="ok", counts={False: 6})) == [4, 5, 6, 7, 8, 9]
    drawn = [kept(pool, Quota(per="g", count=3, seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for wrong, told in (
        ({"counts": {"a": 1}, "fractions": {"a": 0.5}}, "two quotas"),
        ({"total": 3}, "belong together"),
        ({}, "needs"),
        ({"counts": {"a": -1}}, "no quota"),
        ({"fractions": {"a": 1.5}}, "no quota"),
        ({"count": 1, "fraction": 0.1}, "not both"),
    ):
        with pytest.raises(ValidationError, match=told):
            Quota(per="g", **wrong)


@given(st.integers(0, 1000), st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 9), min_size=1))
def test_shares_add_up(total, shares):
    counts = apportion(total, shares)
    assert sum(counts.values()) == total
    whole = sum(shares.values())
    assert all(abs(counts[k] - total * shares[k] / whole) < 1 for k in shares)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=20), st.booleans())
def test_the_algebra_of_subsets_is_that_of_multisets(make_pool, rows, once):
    pool = make_pool({f"subset.{n}": [row[i] for row in rows] for i, n in enumerate("abc")}, cuts=[len(rows) // 2])
    rules = {
        "union": max,
        "intersection": min,
        "sum": sum,
        "difference": lambda row: row[0] if row[1] == row[2] == 0 else 0,
    }
    for op, rule in rules.items():
        outcome = run_filters(pool, [Subsets(op=op, of=["a", "b", "c"], once=once)])
        times = np.concatenate([t["times"].to_numpy() for t in outcome.fates]).tolist()
        assert times == [min(rule(row), 1) if once else rule(row) for row in rows]


def test_subsets_multiply_with_what_came_before(make_pool, tmp_path):
    pool = make_pool({"subset.a": [2, 0, 3], "uid": [stable_uid(n) for n in "xyz"]})
    write_subset(str(tmp_path / "x.npy"), to_records([stable_uid("x")] * 3 + [stable_uid("y")]))
    outcome = run_filters(pool, [Uids(path=str(tmp_path / "x.npy")), Subsets(op="union", of=["a"])])
    assert outcome.fates[0]["times"].to_pylist() == [6, 0, 0]
    assert outcome.steps[1].reasons == {"in_none": 1}
    step = run_filters(pool, [Subsets(op="difference", of=["a", "a"])]).steps[0]
    assert step.reasons == {"in_another": 2, "not_in_first": 1}


def test_many_groups_and_empty_pools(make_pool, kept):
    rng = np.random.Generator(np.random.Philox(key=3))
    group, score = rng.integers(0, 300, 3000), rng.integers(0, 50, 3000).astype(np.float32)
    pool = make_pool({"g": group, "s": score}, cuts=[500, 500, 1700])
    found = kept(pool, TopK(by="s", count=2, per="g"))
    assert (
        np.bincount(group[found], minlength=300).tolist() == np.minimum(np.bincount(group, minlength=300), 2).tolist()
    )
    assert kept(pool, Random(count=0), TopK(by="s", count=2), Quota(per="g", count=1)) == []
