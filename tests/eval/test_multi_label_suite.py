"""Zero-shot on pictures with several right classes."""

import json

import numpy as np
import pytest
from given_features import GivenTexts, MemorySet, MemorySplit, context
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import DataError
from curate.eval.suites import parse_suites
from curate.eval.suites.multi_label import multi_label_outcomes

WORDS = {"a cat": [1, 0, 0], "a dog": [0, 1, 0], "a car": [0, 0, 1]}
RIGHT = np.array([[True, True, False], [True, False, False], [False, False, False], [False, True, False]])
IMAGE = [[0.9, 0.1, 0.2], [0.5, 0.6, 0.1], [0.7, 0.2, 0.9], [0.1, 0.3, 0.4]]


def voc(right: np.ndarray | None = RIGHT) -> MemorySet:
    split = MemorySplit(4, right=right)
    return MemorySet("voc", "/voc", ("cat", "dog", "car"), ("a {c}",), kind="multilabel", one=split)


def test_golden_by_hand():
    evalset = voc()
    (suite,) = parse_suites(["multi_label"])
    assert suite.measures(evalset)
    assert list(suite.texts(evalset, evalset.split)) == list(WORDS)
    found = suite.evaluate(context(evalset, np.array(IMAGE), GivenTexts(WORDS)))
    # cat: pictures in order 0, 2, 1, 3, right are 0 and 1; dog: 1, 3, 2, 0, right are 3 and 0; car: none
    cat, dog = (1 + 2 / 3) / 2, (1 / 2 + 2 / 4) / 2
    assert found.metrics == {
        "mean_average_precision": pytest.approx((cat + dog) / 3),
        "mean_average_precision_present": pytest.approx((cat + dog) / 2),
        "top1_right": pytest.approx(1 / 3),
    }
    assert found.outcomes.table(evalset.one).to_pydict() == {
        "key": ["p0", "p1", "p2", "p3"],
        "prediction": [0, 1, 2, 2],
        "correct": [True, False, False, False],
        "rank": [0, 1, None, 1],
        "right_classes": [2, 1, 0, 1],
    }
    rows = json.loads(json.dumps(found.outcomes.tables(evalset, evalset.one), allow_nan=False))["per_class"]
    assert rows[1] == {"class": 1, "name": "dog", "n": 2, "average_precision": pytest.approx(dog)}
    assert rows[2]["average_precision"] is None
    assert 0 < found.chance < 1


def test_what_is_missing_is_named():
    (suite,) = parse_suites(["multi_label"])
    with pytest.raises(DataError, match="no lists of right classes"):
        suite.evaluate(context(voc(None), np.array(IMAGE), GivenTexts(WORDS)))
    with pytest.raises(DataError, match=r"right classes of \(4, 2\) for 3 classes"):
        suite.evaluate(context(voc(RIGHT[:, :2]), np.array(IMAGE), GivenTexts(WORDS)))


@given(seed=st.integers(0, 2**32), n=st.integers(1, 20), classes=st.integers(1, 6), levels=st.sampled_from([2, 10**6]))
def test_rank_is_that_of_the_first_right_class_in_a_full_sort(seed, n, classes, levels):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (n, classes)).astype(np.float32)
    right = rng.random((n, classes)) < 0.3
    found = multi_label_outcomes(scores, right)
    order = np.argsort(-scores, 1, "stable")
    expected = [next((p for p, c in enumerate(row) if right[i, c]), -1) for i, row in enumerate(order)]
    assert found.rank.tolist() == expected
    assert (found.correct == right[np.arange(n), scores.argmax(1)]).all()
