"""`fast`: which pictures are looked at, and what is said about the others."""

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from curate.errors import DataError
from curate.eval.comparison.statistics import wilson
from curate.eval.embedding.features import Features, TextFeatures
from curate.eval.suites import EvalContext, parse_suites
from curate.eval.suites.fast import interval
from curate.shards.evalsets.base import EvalSet, EvalSplit

NAMES = ("ant", "bee", "cow", "dog", "eel")


class Split(EvalSplit):
    def __init__(self, keys: list[str], labels: np.ndarray) -> None:
        self.name, self.where = "test", "test"
        self.keys, self.classes = keys, labels

    def image(self, index: int) -> bytes:
        raise AssertionError("a suite looks at no picture")


@dataclass(frozen=True)
class Set(EvalSet):
    parts: dict[str, Split] = field(default_factory=dict)
    content: str = "d" * 32

    @property
    def digest(self) -> str:
        return self.content

    def split_names(self) -> list[str]:
        return sorted(self.parts)

    def split(self, name: str) -> EvalSplit:
        return self.parts[name]


class Tower:
    """Texts are unit vectors by their last word."""

    dim, digest, precision = 5, "0" * 32, "fp32"

    def encode_texts(self, texts):
        return np.eye(5, dtype=np.float32)[[NAMES.index(t.split()[-1]) for t in texts]]


def a_set(n: int = 1000, classes: int = 5, digest: str = "d" * 32) -> Set:
    rng = np.random.default_rng(n)
    split = Split([f"k{i}" for i in range(n)], rng.integers(0, classes, n))
    return Set("zoo", "/zoo", NAMES[:5], ("a {c}",), parts={"test": split}, content=digest)


def fast(**options):
    return parse_suites([{"type": "fast", **options}])[0]


def rows(one: Set, **options) -> np.ndarray:
    return fast(**options).rows(one, one.parts["test"])


def evaluate(one: Set, right: np.ndarray, **options):
    """The suite over features that are right where `right` says; rows that it did not ask for are NaN."""
    suite, split = fast(**options), one.parts["test"]
    said = np.where(right, split.labels, (split.labels + 1) % 5)
    image = np.full((len(split), 5), np.nan, np.float32)
    asked = suite.rows(one, split)
    image[asked] = np.eye(5, dtype=np.float32)[said[asked]]
    features = Features(image, split.labels)
    return suite.evaluate(EvalContext(one, one.split, lambda _: features, TextFeatures(Tower())))  # type: ignore[arg-type]


def test_rows_follow_keys_and_not_positions():
    one = a_set()
    split = one.parts["test"]
    found = rows(one, samples=100)
    assert found.tolist() == sorted(set(found.tolist()))
    assert len(found) == 100
    shuffle = np.random.default_rng(3).permutation(1000)
    other = Split([split.keys[i] for i in shuffle], split.labels[shuffle])
    moved = fast(samples=100).rows(one, other)
    assert {other.keys[i] for i in moved} == {split.keys[i] for i in found}
    assert not np.array_equal(rows(a_set(digest="e" * 32), samples=100), found)


def test_every_class_has_its_share():
    one = a_set()
    labels = one.parts["test"].labels
    for samples in (50, 333):
        taken = np.bincount(labels[rows(one, samples=samples)], minlength=5)
        share = samples * np.bincount(labels) / len(labels)
        assert (np.abs(taken - share) < 2).all()


def test_any_picture_may_be_taken_even_of_more_classes_than_samples():
    many = Split([f"k{i}" for i in range(40)], np.arange(40))
    taken = np.zeros(40, int)
    for seed in range(400):
        one = Set("zoo", "/zoo", NAMES, ("a {c}",), parts={"test": many}, content=f"{seed:032x}")
        np.add.at(taken, fast(samples=10).rows(one, many), 1)
    assert taken.min() > 60  # each 100 times on average
    assert taken.max() < 145


def test_small_sets_are_measured_whole():
    one = a_set(80)
    right = np.random.default_rng(0).random(80) < 0.6
    assert np.array_equal(rows(one), np.arange(80))
    found = evaluate(one, right)
    assert found.metrics["fast_acc1"] == right.mean()
    assert found.facts["estimate"] is False
    assert found.facts["interval95"] == [right.mean(), right.mean()]


def test_what_is_told_about_an_estimate():
    one = a_set()
    right = np.random.default_rng(0).random(1000) < 0.7
    found = evaluate(one, right, samples=200)
    chosen = rows(one, samples=200)
    assert set(found.metrics) == {"fast_acc1", "fast_acc5"}
    assert found.metrics["fast_acc1"] == right[chosen].mean()
    assert (found.facts["estimate"], found.facts["n"], found.facts["of"]) == (True, 200, 1000)
    assert found.facts["method"] == "stratified"
    low, high = found.facts["interval95"]
    assert low < right.mean() < high
    table = found.outcomes.table(one.parts["test"])
    assert table["key"].to_pylist() == [f"k{i}" for i in chosen]
    assert table["correct"].to_pylist() == right[chosen].tolist()


def history(folder, one: Set, models: int = 30, name: str = "zoo.zero_shot") -> np.ndarray:
    split = one.parts["test"]
    rng = np.random.default_rng(8)
    ability, hard = rng.normal(0.8, 1, (models, 1)), rng.normal(0, 1.5, len(split))
    correct = rng.random((models, len(split))) < 1 / (1 + np.exp(-4 * (ability - hard)))
    for number, row in enumerate(correct):
        (folder / f"m{number}/outcomes").mkdir(parents=True)
        pq.write_table(pa.table({"key": split.keys, "correct": row}), folder / f"m{number}/outcomes/{name}.parquet")
    return correct


def test_history_makes_the_estimate_better(tmp_path):
    one = a_set(2000)
    correct = history(tmp_path, one)
    errors: dict[bool, list[float]] = {True: [], False: []}
    for number in range(0, 30, 5):
        others = tuple(str(tmp_path / f"m{i}") for i in range(30) if i != number)
        for known in (True, False):
            found = evaluate(one, correct[number], samples=60, history=others if known else ())
            errors[known].append(found.metrics["fast_acc1"] - correct[number].mean())
            assert found.facts["method"] == ("sort_search" if known else "stratified")
    assert np.square(errors[True]).mean() < np.square(errors[False]).mean()
    assert found.facts["estimate"]


def test_facts_of_history_name_no_path(tmp_path):
    one = a_set(400)
    correct = history(tmp_path, one, models=6)
    folders = evaluate(one, correct[0], samples=50, history=(f"{tmp_path}/m*",))
    files = evaluate(one, correct[0], samples=50, history=(f"{tmp_path}/*/outcomes/*.parquet",))
    assert folders.facts == files.facts
    assert folders.facts["earlier_models"] == 6
    assert 0 <= folders.facts["error"] < 0.3
    assert str(tmp_path) not in str(folders.facts)
    (tmp_path / "empty").mkdir()
    without = evaluate(one, correct[0], samples=50, history=(str(tmp_path / "empty"),))
    assert without.facts["method"] == "stratified"
    with pytest.raises(DataError, match=r"there is nothing at .*nowhere"):
        evaluate(one, correct[0], samples=50, history=(f"{tmp_path}/nowhere",))
    with pytest.raises(DataError, match="not the 401 of this split"):
        rows(a_set(401), samples=50, history=(f"{tmp_path}/m*",))


@given(st.integers(1, 60), st.data())
def test_interval_is_wilsons_narrowed(n, data):
    of = data.draw(st.integers(n, 100))
    correct = data.draw(st.integers(0, n))
    low, high = interval(correct, n, of)
    whole = wilson(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    assert whole is not None
    assert whole[0] <= low + 1e-9
    assert high <= whole[1] + 1e-9
    assert interval(correct, n, 10**9) == pytest.approx(whole, abs=1e-6)


def test_interval_holds_the_truth_about_as_often_as_it_says():
    of, n = 200, 80
    for total in (20, 60, 100, 170):
        inside = [low <= total / of <= high for low, high in (interval(k, n, of) for k in range(n + 1))]
        assert hypergeom.pmf(np.arange(n + 1), of, total, n)[inside].sum() > 0.93


def test_every_small_sample_by_hand():
    values = [True, True, False, True]
    shares = [sum(pair) / 2 for pair in combinations(values, 2)]
    assert sum(shares) / len(shares) == 0.75
    assert interval(1, 2, 4)[0] < 0.75 < interval(1, 2, 4)[1]
