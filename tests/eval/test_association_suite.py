"""Cues and the pictures that belong to them, against a loop and by hand."""

import json
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from given_features import GivenTexts, MemorySet, MemorySplit, context
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import DataError
from curate.eval.suites import parse_suites
from curate.eval.suites.association import associate, cue_prompt, expected_jaccard
from curate.shards.evalsets.base import Association


@given(seed=st.integers(0, 2**32), levels=st.sampled_from([2, 1000]))
def test_equal_to_a_loop(seed, levels):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, levels, (20, 3)).astype(np.float32)
    questions = []
    for i in range(15):
        candidates = rng.permutation(20)[: rng.choice([5, 6, 10, 12])].tolist()
        right = rng.permutation(candidates)[: rng.integers(1, len(candidates) + 1)].tolist()
        questions.append(Association(f"q{i}", "cue", tuple(candidates), tuple(right)))
    text = rng.integers(0, levels, (15, 3)).astype(np.float32)
    found = associate(image, text, questions)
    for number, one in enumerate(questions):
        nearest = sorted(one.candidates, key=lambda j: -float(image[j] @ text[number]))[: len(one.right)]
        assert list(found.chosen[number]) == nearest
        score = len({*nearest} & {*one.right}) / len({*nearest} | {*one.right})
        assert found.jaccard[number] == pytest.approx(score)
        assert found.correct[number] == (score == 1)


def test_the_article_goes_by_the_first_letter():
    assert [cue_prompt(cue) for cue in ("owl", "Apple", "cat", "hour", "yes")] == [
        "An owl", "An Apple", "A cat", "A hour", "A yes",
    ]  # fmt: skip


@pytest.mark.parametrize(("candidates", "right"), [(5, 2), (6, 6), (10, 3), (12, 1)])
def test_chance_is_the_mean_over_all_choices(candidates, right):
    meant = set(range(right))
    scores = [Fraction(len(meant & {*c}), len(meant | {*c})) for c in combinations(range(candidates), right)]
    assert expected_jaccard(candidates, right) == sum(scores, Fraction(0)) / len(scores)


def wino(*questions: Association) -> MemorySet:
    return MemorySet("w", "/w", (), (), kind="association", one=MemorySplit(12, associations=questions))


def test_golden_by_hand():
    """Pictures 0 to 11 are nearer to the cue the higher their number."""
    image = np.stack([np.arange(12), np.ones(12)], 1)
    ten, five = tuple(range(10)), tuple(range(5))
    evalset = wino(
        Association("all", "owl", ten, (8, 9)),
        Association("half", "owl", ten, (0, 9)),
        Association("small", "cat", five, (4,)),
    )
    (suite,) = parse_suites(["association"])
    assert list(suite.texts(evalset, evalset.split)) == ["An owl", "An owl", "A cat"]
    found = suite.evaluate(context(evalset, image, GivenTexts({"An owl": [1, 0], "A cat": [1, 1]})))
    half = 1 / 3  # {8, 9} and {0, 9} share one of three
    assert found.metrics == {
        "avg_jaccard_score": pytest.approx((1 + half + 1) / 3),
        "jaccard_score_5": 1.0, "jaccard_score_6": None, "jaccard_score_10": pytest.approx((1 + half) / 2),
        "jaccard_score_12": None, "jaccard_score_5-6": 1.0, "jaccard_score_10-12": pytest.approx((1 + half) / 2),
    }  # fmt: skip
    assert suite.main_metric_of(evalset) == "jaccard_score_10-12"
    assert found.chance == pytest.approx(float(expected_jaccard(10, 2)))
    assert found.facts == {"candidates": {"5": 1, "10": 2}}
    table = found.outcomes.table(evalset.one).to_pydict()
    assert table["chosen"] == [[9, 8], [9, 8], [4]]
    assert table["candidates"] == [10, 10, 5]
    assert table["correct"] == [True, False, True]
    tables = json.loads(json.dumps(found.outcomes.tables(evalset, evalset.one), allow_nan=False))
    assert tables["associations"][0]["key"] == "half"
    assert tables["associations"][0]["chosen"] == ["p9", "p8"]


def test_broken_instances_are_named():
    (suite,) = parse_suites(["association"])
    for candidates, right, message in (
        ((0, 1), (), "one or more of its candidates"),
        ((0, 1), (2,), "one or more of its candidates"),
        ((0, 0, 1), (1,), "names a picture twice"),
        ((0, 99), (0,), "not in the split"),
    ):
        evalset = wino(Association("k", "owl", candidates, right))
        with pytest.raises(DataError, match=f"instance k .cue 'owl'.*{message}"):
            suite.texts(evalset, evalset.split)
    with pytest.raises(DataError, match="no cues"):
        suite.texts(wino(), wino().split)
