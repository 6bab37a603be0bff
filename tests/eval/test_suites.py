import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_memory import labelled_context
from pydantic import TypeAdapter, ValidationError
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from curate.errors import DataError
from curate.eval.embedding.features import Features, TextFeatures, class_weights, text_hash
from curate.eval.probes.logistic import GRID, Score, fit_logistic, search
from curate.eval.probes.train_samples import stratified_split
from curate.eval.suites import EvalContext, SuiteOption, parse_suites
from curate.eval.suites.knn import neighbours, votes
from curate.shards.evalsets.webdataset import WebDatasetSet


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def blobs(seed: int, n: int, classes: int, d: int = 16, noise: float = 0.6) -> Features:
    """Noisy unit vectors around fixed class centres."""
    centres = np.random.default_rng(99).normal(size=(classes, d))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return Features(unit(centres[labels] + noise * rng.normal(size=(n, d)) * 2), labels)


class Prompts:
    """A text tower that hashes prompts to unit vectors, and counts what it is asked."""

    dim, digest, precision = 16, "0" * 32, "fp32"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def encode_texts(self, texts):
        self.seen += texts
        return unit(np.stack([np.random.default_rng(list(t.encode())).normal(size=self.dim) for t in texts]))


def context(features: dict[str, Features], classes: int, templates: tuple[str, ...] = ("a {c}",)) -> EvalContext:
    return labelled_context(features, classes, Prompts(), templates)


def test_names_and_mappings_are_suites():
    plain, named = parse_suites(["zero_shot", {"type": "knn", "k": [5], "name": "knn5"}])
    assert (plain.type, plain.label, named.label, named.k) == ("zero_shot", "zero_shot", "knn5", (5,))
    assert parse_suites([named]) == [named]
    again = parse_suites([suite.model_dump(mode="json") for suite in (plain, named)])
    assert again == [plain, named]
    for bad in ("zero_short", {"type": "knn", "kk": 1}, {"type": "zero_shot", "templates": ["a photo"]}, {"type": 3}):
        with pytest.raises(ValidationError):
            parse_suites([bad])
    schema = TypeAdapter(list[SuiteOption]).json_schema()
    assert "Prompt templates" in json.dumps(schema)


def test_options_import_without_heavy_libraries():
    code = (
        "import sys, curate.eval.suites\n"
        "print([m for m in ('torch', 'sklearn', 'scipy', 'open_clip', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_zero_shot_is_nearest_class_mean_of_prompts():
    test = blobs(1, 300, 7)
    setting = context({"test": test}, 7, ("a {c}", "one {} here"))
    found = parse_suites(["zero_shot"])[0].evaluate(setting)
    encode = Prompts().encode_texts
    expected = []
    for c in range(7):
        mean = encode([f"a class{c}", f"one class{c} here"]).mean(0)
        expected.append(mean / np.linalg.norm(mean))
    logits = test.image @ np.stack(expected).T
    assert (found.outcomes.prediction == logits.argmax(1)).all()
    assert found.metrics["acc1"] == (logits.argmax(1) == test.labels).mean()
    assert set(found.metrics) == {"acc1", "acc5", "mean_per_class_recall"}
    assert found.facts == {"prompts": 14}


def test_templates_can_be_overridden_and_are_never_borrowed():
    setting = context({"test": blobs(1, 30, 7)}, 7, ())
    suite, own = parse_suites(["zero_shot", {"type": "zero_shot", "templates": ["the {}"]}])
    with pytest.raises(DataError, match="has no templates"):
        suite.evaluate(setting)
    own.evaluate(setting)
    assert own.templates_for(setting.evalset) == ("the {}",)
    with_templates = context({}, 7, ("a {c}",)).evalset
    assert text_hash(with_templates.classnames, ["a {c}"]) != text_hash(with_templates.classnames, ["the {}"])
    assert text_hash(["a", "b"], ["c"]) != text_hash(["a"], ["b", "c"])


def test_shared_prompts_are_encoded_once():
    tower = Prompts()
    text = TextFeatures(tower)
    first, second = (
        WebDatasetSet("s", "/s", names, ("a {c}", "the {c}"), "classification")
        for names in (("x", "y"), ("y", "x", "z"))
    )
    one, two = (class_weights(text, s, s.templates) for s in (first, second))
    assert len(tower.seen) == len(set(tower.seen)) == 6
    assert (one[::-1] == two[:2]).all()
    np.testing.assert_allclose(np.linalg.norm(two, axis=1), 1, rtol=1e-6)


def test_broken_text_tower_is_an_error():
    opposite = SimpleNamespace(
        dim=2,
        digest="0" * 32,
        precision="fp32",
        encode_texts=lambda t: np.array([[1, 0], [-1, 0]], np.float32)[: len(t)],
    )
    with pytest.raises(DataError, match="class 'x' cancel out"):
        class_weights(
            TextFeatures(opposite), WebDatasetSet("s", "/s", ("x",), (), "classification"), ["a {c}", "b {c}"]
        )
    nan = SimpleNamespace(
        dim=2, digest="0" * 32, precision="fp32", encode_texts=lambda t: np.full((len(t), 2), np.nan, np.float32)
    )
    with pytest.raises(DataError, match="prompt 'hello' is not a number"):
        TextFeatures(nan)(["hello"])


def test_linear_probe_learns_and_never_looks_at_the_test_split_first():
    train, test = blobs(2, 400, 6), blobs(3, 300, 6)
    suite = parse_suites(["linear_probe"])[0]
    found = suite.evaluate(context({"train": train, "test": test}, 6))
    assert found.metrics["lp_acc1"] > 0.8
    poisoned = Features(test.image, np.roll(test.labels, 1))
    other = suite.evaluate(context({"train": train, "test": poisoned}, 6))
    assert found.facts == other.facts  # the same C, whatever the test labels are
    assert (found.outcomes.prediction == other.outcomes.prediction).all()
    assert found.facts["c_tried"] <= 15
    assert found.facts["validation_n"] == pytest.approx(80, abs=6)
    again = suite.evaluate(context({"train": train, "test": test}, 6))
    assert again.metrics == found.metrics
    # the final head is fitted on the whole train split
    model = LogisticRegression(C=found.facts["c"], max_iter=1000).fit(train.image.astype(np.float64), train.labels)
    assert (model.predict(test.image) == found.outcomes.prediction).mean() > 0.995


def test_linear_probe_with_a_fixed_c_and_classes_without_samples():
    train, test = blobs(2, 200, 4), blobs(3, 100, 6)
    keep = train.labels != 1
    train = Features(train.image[keep], train.labels[keep])
    found = parse_suites([{"type": "linear_probe", "c": 10.0}])[0].evaluate(context({"train": train, "test": test}, 6))
    assert set(found.outcomes.prediction) <= {0, 2, 3}
    assert (found.facts["c"], found.facts["c_tried"]) == (10.0, 0)
    assert (found.outcomes.rank[np.isin(test.labels, [1, 4, 5])] >= 3).all()


@pytest.mark.parametrize("classes", [[1, 2], [0, 1, 2]])
def test_head_equals_scikit_learn(classes):
    data = blobs(5, 120, 3)
    rows = np.isin(data.labels, classes)
    image, labels = data.image[rows], data.labels[rows]
    head = fit_logistic(image, labels, 4, 3.0, 500)
    model = LogisticRegression(C=3.0, max_iter=5000, tol=1e-9).fit(image.astype(np.float64), labels)
    logits = head(image)
    assert (logits.argmax(1) == model.predict(image)).all()
    exponent = np.exp(logits[:, classes])
    np.testing.assert_allclose(exponent / exponent.sum(1, keepdims=True), model.predict_proba(image), atol=2e-4)
    score = head.score(image, labels)
    assert score.right == (model.predict(image) == labels).sum()
    likelihood = np.log(model.predict_proba(image)[np.arange(len(labels)), np.searchsorted(classes, labels)]).mean()
    assert score.log_likelihood == pytest.approx(likelihood, abs=1e-4)


def test_linear_probe_says_what_it_lacks():
    suite = parse_suites(["linear_probe"])[0]
    one = Features(np.eye(4, 16, dtype=np.float32), np.zeros(4, np.int64))
    with pytest.raises(DataError, match="holds one class"):
        suite.evaluate(context({"train": one, "test": one}, 3))
    single = Features(np.eye(3, 16, dtype=np.float32), np.arange(3))
    with pytest.raises(DataError, match="no class has two samples"):
        suite.evaluate(context({"train": single, "test": single}, 3))
    found = parse_suites([{"type": "linear_probe", "max_iter": 1}])[0].evaluate(
        context({"train": blobs(2, 100, 3), "test": blobs(3, 50, 3)}, 3)
    )
    assert found.facts["converged"] is False


@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=80), share=st.floats(0.05, 0.95))
def test_split_is_stratified_complete_and_a_function_of_the_labels(labels, share):
    labels = np.array(labels)
    fit, held = stratified_split(labels, share)
    assert sorted([*fit, *held]) == list(range(len(labels)))
    assert set(labels[held]) <= set(labels[fit])
    for c, size in zip(*np.unique(labels, return_counts=True), strict=True):
        count = (labels[held] == c).sum()
        assert count == (np.clip(np.rint(size * share), 1, size - 1) if size > 1 else 0)
    again = stratified_split(labels, share)
    assert (again[0] == fit).all()


@given(peak=st.integers(0, 96), width=st.floats(3, 60))
def test_search_finds_the_peak_of_a_smooth_curve(peak, width):
    tried = []

    def score(c: float) -> Score:
        tried.append(c)
        i = int(np.argmin(np.abs(GRID - c)))
        return Score(5, -abs(i - peak) / width)

    c, best, count = search(score)
    assert c == GRID[peak]
    assert best.log_likelihood == 0
    assert count == len(tried) == len(set(tried)) <= 15


def test_search_prefers_the_stronger_penalty_among_equals():
    c, _, _ = search(lambda c: Score(7, 0.0))
    assert c == GRID[0]


@given(seed=st.integers(0, 2**32), n=st.integers(2, 40), k=st.integers(1, 40), levels=st.sampled_from([2, 50]))
def test_neighbours_are_exact_and_ties_go_to_the_lower_row(seed, n, k, levels):
    rng = np.random.default_rng(seed)
    train = rng.integers(-levels, levels, (n, 3)).astype(np.float32)  # small integers: exact, many ties
    queries = rng.integers(-levels, levels, (5, 3)).astype(np.float32)
    k = min(k, n)
    found = neighbours(train, queries, k)
    similarity = queries @ train.T
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    assert (found.index == order).all()
    assert (found.cosine == np.take_along_axis(similarity, order, 1)).all()
    rows = np.arange(n)
    if k < n:
        others = neighbours(train, train, k, leave_out=rows)
        assert (others.index != rows[:, None]).all()


def test_knn_votes_by_hand():
    nearest = neighbours(np.array([[1, 0], [0.8, 0.6], [0.6, 0.8]], np.float32), np.array([[1, 0]], np.float32), 3)
    labels = np.array([0, 1, 1])
    (two,) = votes(nearest, 2, labels, 3, 0.5)
    assert two[0] == pytest.approx([1, np.exp(-0.2 / 0.5), 0])
    (three,) = votes(nearest, 3, labels, 3, 0.5)
    assert three[0] == pytest.approx([1, np.exp(-0.4) + np.exp(-0.8), 0])
    assert (two.argmax(), three.argmax()) == (0, 1)


def test_knn_equals_scikit_learn_and_chooses_k_on_the_train_split():
    train, test = blobs(6, 300, 5, noise=0.9), blobs(7, 200, 5, noise=0.9)
    suite = parse_suites([{"type": "knn", "k": [1, 5, 30], "temperature": 0.1}])[0]
    found = suite.evaluate(context({"train": train, "test": test}, 5))
    weigh = {"weights": lambda d: np.exp((1 - d) / 0.1), "metric": "cosine", "algorithm": "brute"}
    for k in (1, 5, 30):
        model = KNeighborsClassifier(k, **weigh).fit(train.image, train.labels)
        assert found.metrics[f"knn_acc1@{k}"] == pytest.approx(model.score(test.image, test.labels))
    rows = range(0, 300, 10)
    nearest = neighbours(train.image, train.image[rows], 5, leave_out=np.array(rows))
    (found_5,) = votes(nearest, 5, train.labels, 5, 0.1)
    for i, vote in zip(rows, found_5, strict=True):
        rest = KNeighborsClassifier(5, **weigh).fit(np.delete(train.image, i, 0), np.delete(train.labels, i))
        assert rest.predict(train.image[i : i + 1])[0] == vote.argmax()
    assert found.metrics["knn_acc1"] == found.metrics[f"knn_acc1@{found.facts['k']}"]
    poisoned = suite.evaluate(context({"train": train, "test": Features(test.image, test.labels * 0)}, 5))
    assert poisoned.facts == found.facts


def test_knn_on_a_split_smaller_than_k():
    train = blobs(6, 8, 3)
    found = parse_suites(["knn"])[0].evaluate(context({"train": train, "test": blobs(7, 9, 3)}, 3))
    assert found.facts["k"] == 7
    assert set(found.metrics) == {"knn_acc1", "knn_acc5", "knn_mean_per_class_recall", "knn_acc1@7"}
    one = Features(train.image[:1], train.labels[:1])
    with pytest.raises(DataError, match="one sample"):
        parse_suites(["knn"])[0].evaluate(context({"train": one, "test": one}, 3))
