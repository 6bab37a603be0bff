"""Ranks of retrieval against a full sort, and the suite that reports them."""

import json

import numpy as np
import pytest
from given_features import GivenTexts, MemorySet, MemorySplit, context, unit
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import DataError
from curate.eval.metrics.retrieval_ranks import SHOWN, retrieval_ranks
from curate.eval.suites import parse_suites
from curate.eval.suites.retrieval import RetrievalOutcomes
from curate.shards.evalsets.base import Captions


def by_full_sort(image, text, owner):
    """Ranks by sorting everything, ties by number."""
    scores = text.astype(np.float64) @ image.T.astype(np.float64)
    pictures = np.argsort(-scores, 1, "stable")
    captions = np.argsort(-scores.T, 1, "stable")
    image_rank = (pictures == owner[:, None]).argmax(1)
    text_rank = (owner[captions] == np.arange(len(image))[:, None]).argmax(1)
    return image_rank, text_rank, pictures[:, :SHOWN], captions[:, :SHOWN]


@st.composite
def sets(draw):
    """Small whole numbers, so that sums are exact and ties are many."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = rng.integers(1, draw(st.integers(1, 6)) + 1, draw(st.integers(1, 25)))
    levels, d = draw(st.sampled_from([1, 2, 3, 1000])), draw(st.integers(1, 5))
    owner = np.repeat(np.arange(len(counts)), counts)
    image, text = (rng.integers(0, levels, (n, d)).astype(np.float32) for n in (len(counts), len(owner)))
    return image, text, owner


@given(one=sets(), images=st.integers(1, 30), captions=st.integers(1, 30))
def test_ranks_and_what_was_found_are_those_of_a_full_sort_in_any_blocks(one, images, captions):
    found = retrieval_ranks(*one, images=images, captions=captions)
    for mine, theirs in zip(
        (found.image, found.text, found.image_top, found.text_top), by_full_sort(*one), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


@given(one=sets(), k=st.integers(1, 8))
def test_a_hit_is_having_the_right_one_among_those_found(one, k):
    found = retrieval_ranks(*one)
    k = min(k, SHOWN)
    owner = one[2]
    assert ((found.image < k) == (found.image_top[:, :k] == owner[:, None]).any(1)).all()
    assert ((found.text < k) == (owner[found.text_top[:, :k]] == np.arange(len(one[0]))[:, None]).any(1)).all()


def test_real_features_over_many_tiles():
    rng = np.random.default_rng(3)
    image = unit(rng.normal(size=(700, 32)))
    owner = np.repeat(np.arange(700), rng.integers(1, 8, 700))
    text = unit(image[owner] + 0.3 * rng.normal(size=(len(owner), 32)))
    for blocks in ({}, {"images": 64, "captions": 200}):
        found = retrieval_ranks(image, text, owner, **blocks)
        image_rank, text_rank, image_top, text_top = by_full_sort(image, text, owner)
        assert (found.image == image_rank).all()
        assert (found.text == text_rank).all()
        assert (found.image_top == image_top).all()
        assert (found.text_top == text_top).all()
    assert 0.1 < (found.image == 0).mean() < 0.999


def test_a_model_that_sees_no_difference_is_not_perfect():
    owner = np.repeat(np.arange(10), 2)
    found = retrieval_ranks(np.ones((10, 4), np.float32), np.ones((20, 4), np.float32), owner, images=3)
    assert found.image.tolist() == owner.tolist()  # picture 0 comes first for all
    assert found.text.tolist() == list(range(0, 20, 2))


def test_broken_input_is_named():
    one, two = np.ones((1, 2), np.float32), np.ones((2, 2), np.float32)
    with pytest.raises(DataError, match="not a number"):
        retrieval_ranks(one * np.nan, two, np.array([0, 0]))
    with pytest.raises(DataError, match="sorted by picture"):
        retrieval_ranks(two, two, np.array([1, 0]))
    with pytest.raises(DataError, match="picture 1 has no caption"):
        retrieval_ranks(two, two, np.array([0, 0]))
    with pytest.raises(DataError, match="belongs to picture 1, and there are 1"):
        retrieval_ranks(one, two, np.array([0, 1]))


HOSTILE = "<script>alert('x')</script>\n{c} {} \u202e"
FEATURES = {"a": [1, 0, 0], "b": [0.6, 0.8, 0], HOSTILE: [0, 0.6, 0.8], "d": [0.9, 0.1, 0.1]}


def small_set() -> MemorySet:
    captions = Captions(("a", "b", HOSTILE, "d"), np.array([0, 1, 1, 2]))
    return MemorySet("r", "/r", (), (), kind="retrieval", one=MemorySplit(3, captions=captions))


def test_golden_by_hand():
    evalset, text = small_set(), GivenTexts(FEATURES)
    (suite,) = parse_suites([{"type": "retrieval", "k": [1, 2, 50]}])
    assert list(suite.texts(evalset, evalset.split)) == list(FEATURES)
    found = suite.evaluate(context(evalset, np.eye(3), text))
    # scores of the captions a, b, hostile, d with the three pictures
    #   a [1 0 0] -> 0, right;  b [.6 .8 0] -> 1, right;  hostile [0 .6 .8] -> 2 before 1;  d -> 0, then 1, then 2 (tie)
    assert found.outcomes.ranks.image.tolist() == [0, 0, 1, 2]
    # picture 0: a; picture 1: b (.8); picture 2: hostile (.8) before d (.1)
    assert found.outcomes.ranks.text.tolist() == [0, 0, 1]
    assert found.metrics == {
        "image_retrieval_recall@1": 0.5, "text_retrieval_recall@1": pytest.approx(2 / 3),
        "image_retrieval_recall@2": 0.75, "text_retrieval_recall@2": 1.0,
        "image_retrieval_recall@50": 1.0, "text_retrieval_recall@50": 1.0,
        "mean_recall@1": pytest.approx((0.5 + 2 / 3) / 2),
    }  # fmt: skip
    assert found.chance == pytest.approx(1 / 3)
    assert found.facts == {
        "images": 3, "captions": 4, "image_to_text_mean_rank": pytest.approx(4 / 3), "image_to_text_median_rank": 1,
        "text_to_image_mean_rank": 1.75, "text_to_image_median_rank": 1,
    }  # fmt: skip


def test_rows_hold_both_directions_and_what_was_found():
    evalset = small_set()
    (suite,) = parse_suites(["retrieval"])
    found = suite.evaluate(context(evalset, np.eye(3), GivenTexts(FEATURES)))
    table = found.outcomes.table(evalset.one).to_pydict()
    assert table["key"] == ["p0#0", "p1#0", "p1#1", "p2#0", "p0", "p1", "p2"]
    assert table["direction"] == ["image"] * 4 + ["text"] * 3
    assert table["rank"] == [0, 0, 1, 2, 0, 0, 1]
    assert table["correct"] == [True, True, False, False, True, True, False]
    assert table["owner"] == [0, 1, 1, 2, 0, 1, 2]
    assert table["retrieved"][2] == [2, 1, 0]
    assert table["retrieved"][6] == [2, 3, 0, 1]
    assert len(found.outcomes) == 7
    assert isinstance(found.outcomes, RetrievalOutcomes)
    tables = json.loads(json.dumps(found.outcomes.tables(evalset, evalset.one), allow_nan=False))
    missed = tables["retrieved"]["image"]["missed"]
    assert [one["query"] for one in missed] == ["d", HOSTILE]  # the worst first, and text stays text
    assert missed[0] == {"query": "d", "owner": "p2", "rank": 2, "retrieved": ["p0", "p1", "p2"]}
    assert tables["retrieved"]["text"]["missed"][0]["captions"] == ["d"]
    assert [one["query"] for one in tables["retrieved"]["text"]["found"]] == ["p0", "p1"]


def test_a_picture_without_a_caption_is_an_error_that_names_it():
    (suite,) = parse_suites(["retrieval"])
    for owner in ([0, 0, 2, 2], [0, 0, 1, 1]):
        lost = {0, 1, 2} - set(owner)
        captions = Captions(("a", "b", HOSTILE, "d"), np.array(owner))
        split = MemorySplit(3, captions=captions)
        with pytest.raises(DataError, match=f"picture p{lost.pop()} has no caption"):
            suite.evaluate(context(MemorySet("r", "/r", (), (), one=split), np.eye(3), GivenTexts(FEATURES)))
    with pytest.raises(DataError, match="no captions"):
        list(suite.texts(small_set(), lambda _: MemorySplit(3)))
    with pytest.raises(ValidationError):
        parse_suites([{"type": "retrieval", "k": [0]}])
