import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from curate.errors import DataError
from curate.eval.metrics.accuracy import (
    confusion_matrix,
    mean_per_class_recall,
    most_confused,
    per_class_table,
    target_rank,
    top_k_accuracy,
)
from curate.eval.metrics.outcomes import outcomes


def test_golden_by_hand():
    scores = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5], [0.1, 0.7, 0.2], [0.6, 0.3, 0.1]], np.float32)
    labels = np.array([0, 1, 1, 1])
    found = outcomes([scores], labels)
    assert found.rank.tolist() == [0, 1, 0, 1]
    assert found.prediction.tolist() == [0, 2, 1, 0]
    assert found.correct.tolist() == [True, False, True, False]
    # class 0: 1 of 1, class 1: 1 of 3, class 2 has no sample and does not count
    assert found.metrics("x_") == {"x_acc1": 0.5, "x_acc5": None, "x_mean_per_class_recall": (1 + 1 / 3) / 2}
    assert top_k_accuracy(found.rank, 2) == 1.0
    confusion = confusion_matrix(labels, found.prediction, 3)
    assert confusion.tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]
    assert most_confused(confusion, 9) == [(1, 0, 1), (1, 2, 1)]
    assert most_confused(confusion, 1) == [(1, 0, 1)]
    table = per_class_table(confusion, ["a", "b", "c"])
    assert table[1] == {
        "class": 1, "name": "b", "n": 3, "correct": 1, "recall": 1 / 3, "predicted": 1, "precision": 1.0,
    }  # fmt: skip
    assert (table[2]["recall"], table[2]["predicted"], table[2]["precision"]) == (None, 1, 0.0)


def test_ties_go_to_the_lower_class_as_in_argmax():
    scores = np.zeros((3, 4), np.float32)
    assert target_rank(scores, np.array([0, 1, 3])).tolist() == [0, 1, 3]
    found = outcomes([scores], np.array([0, 1, 3]))
    assert (found.correct == (found.prediction == found.labels)).all()


def test_classes_that_cannot_be_predicted_come_last():
    scores = np.array([[0.5, -np.inf, 0.1]], np.float32)
    assert [int(target_rank(scores, np.array([c]))[0]) for c in range(3)] == [0, 2, 1]


def test_not_a_number_is_an_error():
    with pytest.raises(DataError, match="NaN"):
        target_rank(np.array([[0.5, np.nan]]), np.array([0]))
    with pytest.raises(DataError, match="2 samples for 3 labels"):
        outcomes([np.zeros((2, 2))], np.zeros(3, np.int64))


@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 60),
    classes=st.integers(2, 12),
    block=st.integers(1, 60),
    levels=st.sampled_from([3, 10**6]),
)
def test_equal_to_scikit_learn_in_any_blocks(seed, n, classes, block, levels):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (n, classes)).astype(np.float32)  # few levels: many ties
    labels = rng.integers(0, classes, n)
    found = outcomes((scores[i : i + block] for i in range(0, n, block)), labels)
    assert found.metrics()["acc1"] == pytest.approx(sk.accuracy_score(labels, scores.argmax(1)))
    assert (found.correct == (found.prediction == labels)).all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *a, **k: None)  # about classes without samples
        assert mean_per_class_recall(labels, found.prediction) == pytest.approx(
            sk.balanced_accuracy_score(labels, found.prediction)
        )
    expected = sk.confusion_matrix(labels, found.prediction, labels=range(classes))
    assert (confusion_matrix(labels, found.prediction, classes) == expected).all()
    order = np.argsort(-scores, axis=1, kind="stable")
    assert (found.rank == (order == labels[:, None]).argmax(1)).all()
    if levels > 3 and classes > 5 and len(np.unique(scores)) == scores.size:
        k5 = sk.top_k_accuracy_score(labels, scores, k=5, labels=range(classes))
        assert found.metrics()["acc5"] == pytest.approx(k5)
    assert (found.metrics()["acc5"] is None) == (classes < 5)
