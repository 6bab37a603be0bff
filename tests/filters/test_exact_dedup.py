import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import DataError
from curate.filters import exact_dedup
from curate.filters.exact_dedup import ExactDedup
from curate.filters.memory import run_filters

UIDS = [f"{i:032x}" for i in (5, 3, 9, 1, 7)]


def test_the_first_in_uid_order_stays_wherever_it_lies(make_pool):
    pool = make_pool({"uid": UIDS, "sha256": ["a", "a", "b", "a", None]}, cuts=[2])
    outcome = run_filters(pool, [ExactDedup()])
    rows = [r for table in outcome.fates for r in table.to_pylist()]
    assert [r["kept"] for r in rows] == [False, False, True, True, True]  # 1 is the smallest uid of a; no hash, no copy
    assert [r["reason"] for r in rows] == ["duplicate_image"] * 2 + [None] * 3
    assert [r["value"] for r in rows[:4]] == [3, 3, 1, 3]
    assert outcome.steps[0].facts == {"rules": [{"on": "image", "dropped": 2, "without_value": 1}]}


def test_rules_apply_to_what_the_one_before_left(make_pool, kept):
    """Row 1 is a copy of row 0 by image; row 2 shares its caption only with row 1, which is gone: it stays."""
    columns = {"uid": sorted(UIDS)[:3], "sha256": ["a", "a", "b"], "caption": ["x", "y", "y"]}
    assert kept(make_pool(columns, cuts=[1]), ExactDedup(on=["image", "caption"])) == [0, 2]
    assert kept(make_pool(columns), ExactDedup(on=["caption"])) == [0, 1]
    assert kept(make_pool(columns), ExactDedup(on=["pair"])) == [0, 1, 2]


def test_a_pair_is_both_and_needs_both(make_pool, kept):
    columns = {
        "uid": sorted(UIDS),
        "sha256": ["a", "a", "a", "a", None],
        "caption": ["x", "y", "x", None, "x"],
    }
    assert kept(make_pool(columns), ExactDedup(on=["pair"])) == [0, 1, 3, 4]
    assert kept(make_pool(columns), ExactDedup(on=["image"])) == [0, 4]
    assert exact_dedup.digests([["ab"], ["c"]]).tolist() != exact_dedup.digests([["a"], ["bc"]]).tolist()


def test_many_rows_against_a_dictionary(make_pool, kept, monkeypatch):
    monkeypatch.setattr(exact_dedup, "ROWS_PER_BUCKET", 50)
    rng = np.random.default_rng(0)
    uids = [f"{int(u):032x}" for u in rng.permutation(2000)]
    captions = [f"caption {i}" for i in rng.integers(0, 900, 2000)]
    first = {}
    for uid, caption in sorted(zip(uids, captions, strict=True)):
        first.setdefault(caption, uid)
    expected = [i for i, uid in enumerate(uids) if first[captions[i]] == uid]
    pool = make_pool({"uid": uids, "caption": captions}, cuts=[3, 700, 700, 1500])
    assert kept(pool, ExactDedup(on=["caption"])) == expected


def test_the_same_sample_twice_stays_once(make_pool, kept):
    pool = make_pool({"uid": [UIDS[0]] * 3, "sha256": ["a"] * 3}, cuts=[1])
    assert kept(pool, ExactDedup()) == [0]


def test_pixels_are_compared_by_their_checksum(make_pool, kept):
    columns = {"uid": sorted(UIDS)[:4], "sha256": ["a", "b", "c", "c"], "sums": ["p", "p", "q", None]}
    assert kept(make_pool(columns, cuts=[1]), ExactDedup(on=["pixels"], pixels="sums")) == [0, 2, 3]
    both = ExactDedup(on=["image", "pixels"], pixels="sums")
    assert both.columns() == ["sha256", "sums"]
    assert kept(make_pool(columns), both) == [0, 2]
    with pytest.raises(ValidationError, match="go together"):
        ExactDedup(on=["pixels"])
    with pytest.raises(ValidationError, match="go together"):
        ExactDedup(pixels="sums")


def test_folded_captions_differ_in_more_than_case_spaces_and_form(make_pool, kept):
    captions = [
        "A  red Car",
        "a red\tcar ",
        "a redcar",
        "caf\u00e9",
        "CAFE\u0301",
        "stra\u00dfe",
        "STRASSE",
        "\u3000\uff21 b",
        "a B",
    ]
    uids = [f"{i:032x}" for i in range(len(captions))]
    pool = make_pool({"uid": uids, "caption": captions}, cuts=[2, 5])
    assert kept(pool, ExactDedup(on=["caption"])) == list(range(len(captions)))
    assert kept(pool, ExactDedup(on=["caption"], captions="folded")) == [0, 2, 3, 5, 7]
    pool = make_pool({"uid": uids, "caption": captions, "sha256": list("aabbbbbbb")}, cuts=[2, 5])
    assert kept(pool, ExactDedup(on=["pair"], captions="folded")) == [0, 2, 3, 5, 7]


@settings(max_examples=30, deadline=None)
@given(
    kinds=st.lists(st.integers(0, 5), min_size=1, max_size=40),
    seed=st.integers(0, 99),
    cuts=st.lists(st.integers(0, 40), max_size=3),
)
def test_the_preferred_copy_stays(make_pool, kept, kinds, seed, cuts):
    rng = np.random.default_rng(seed)
    n = len(kinds)
    score = np.where(rng.random(n) < 0.2, np.nan, rng.integers(-2, 3, n)).astype(np.float32)
    uids = [f"{int(u):032x}" for u in rng.permutation(n)]
    place = [(np.isnan(s), 0 if np.isnan(s) else -s, u) for s, u in zip(score, uids, strict=True)]
    expected = sorted(min((i for i in range(n) if kinds[i] == k), key=lambda i: place[i]) for k in set(kinds))
    pool = make_pool({"uid": uids, "caption": [str(k) for k in kinds], "score": score}, cuts=[min(c, n) for c in cuts])
    assert kept(pool, ExactDedup(on=["caption"], prefer="score")) == expected


def test_a_column_without_any_value_is_an_error(make_pool, kept):
    import pyarrow as pa

    with pytest.raises(DataError, match="no sample has a sha256"):
        kept(make_pool({"sha256": pa.nulls(3, pa.string())}), ExactDedup())
    with pytest.raises(ValidationError, match="names a rule twice"):
        ExactDedup(on=["image", "image"])
