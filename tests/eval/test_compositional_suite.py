"""Pictures and captions of closed instances, against a loop and by hand; chance by all orders of the scores."""

from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
from given_features import GivenTexts, MemorySet, MemorySplit, context
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import DataError
from curate.eval.suites import parse_suites
from curate.eval.suites.compositional import chance_of_both, match
from curate.shards.evalsets.base import Instance


def by_loop(scores):
    """(image right, text right) of one instance ``(pictures, captions)``; ties are wrong."""
    m = min(scores.shape)
    text = all(scores[i, i] > max([*np.delete(scores[i], i), -np.inf]) for i in range(m))
    image = all(scores[i, i] > max([*np.delete(scores[:, i], i), -np.inf]) for i in range(m))
    return image, text


@given(seed=st.integers(0, 2**32), n=st.integers(1, 12), levels=st.sampled_from([2, 4, 1000]))
def test_equal_to_a_loop_for_mixed_shapes(seed, n, levels):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, levels, (9, 3)).astype(np.float32)
    instances, texts = [], []
    for i in range(n):
        pictures, captions = rng.integers(1, 4, 2)
        instances.append(Instance(f"q{i}", tuple(rng.integers(0, 9, pictures).tolist()), ("",) * captions))
        texts.append(rng.integers(0, levels, (captions, 3)).astype(np.float32))
    found = match(image, np.concatenate(texts), instances)
    expected = [by_loop(image[list(one.images)] @ text.T) for one, text in zip(instances, texts, strict=True)]
    assert list(zip(found.image_right, found.text_right, strict=True)) == expected
    assert (found.correct == [both == (True, True) for both in expected]).all()


TEXTS = {"x": [1, 0, 0], "y": [0, 1, 0], "z": [0.9, 0, 0], "w": [0.8, 0.1, 0], "<b>{c}</b>": [2, 0, 0]}


def winoground(*instances: Instance) -> MemorySet:
    return MemorySet("w", "/w", (), (), kind="compositional", one=MemorySplit(3, instances=instances))


def test_golden_by_hand():
    """Pictures are the axes; 2 x 2 that is right, 2 x 2 that is right for pictures only, 1 x 2 right and wrong."""
    evalset = winoground(
        Instance("both", (0, 1), ("x", "y")),
        Instance("no", (0, 1), ("x", "z")),  # picture 1 sees 0 in both captions: a tie, and caption z is picture 0's
        Instance("crepe", (0,), ("x", "w")),
        Instance("hostile", (0,), ("x", "<b>{c}</b>")),
    )
    (suite,) = parse_suites(["compositional"])
    assert list(suite.texts(evalset, evalset.split)) == ["x", "y", "x", "z", "x", "w", "x", "<b>{c}</b>"]
    found = suite.evaluate(context(evalset, np.eye(3), GivenTexts(TEXTS)))
    assert found.metrics == {"image_acc": 0.75, "text_acc": 0.5, "acc": 0.5}
    assert found.facts == {"shapes": [[1, 2, 2], [2, 2, 2]]}
    assert found.chance == pytest.approx((1 / 6 + 1 / 6 + 1 / 2 + 1 / 2) / 4)
    assert found.outcomes.table(evalset.one).to_pydict() == {
        "key": ["both", "no", "crepe", "hostile"],
        "correct": [True, False, True, False],
        "image_correct": [True, False, True, True],
        "text_correct": [True, False, True, False],
    }


def test_a_model_that_sees_no_difference_is_wrong():
    evalset = winoground(Instance("a", (0,), ("x", "x")), Instance("b", (0, 0), ("x", "y")))
    found = parse_suites(["compositional"])[0].evaluate(context(evalset, np.eye(3), GivenTexts(TEXTS)))
    assert found.metrics["text_acc"] == 0.0
    assert found.metrics["acc"] == 0.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 1), (2, 2), (2, 3), (3, 2), (2, 4)])
def test_chance_is_the_share_of_all_orders(shape):
    orders = list(permutations(range(shape[0] * shape[1])))
    hits = sum(all(by_loop(np.array(order).reshape(shape))) for order in orders)
    assert chance_of_both(*shape) == Fraction(hits, len(orders))


def test_broken_instances_are_named():
    (suite,) = parse_suites(["compositional"])
    for bad, message in (
        (Instance("a", (), ("x",)), "instance a has no picture"),
        (Instance("a", (0,), ()), "instance a has no caption"),
        (Instance("a", (7,), ("x",)), "instance a names a picture that is not"),
    ):
        with pytest.raises(DataError, match=message):
            suite.texts(winoground(bad), winoground(bad).split)
    with pytest.raises(DataError, match="no instances"):
        suite.texts(winoground(), winoground().split)
