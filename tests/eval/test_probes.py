"""Probes against scikit-learn, naive code and hand-made cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_memory import labelled_context
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier

from curate.errors import DataError
from curate.eval.embedding.features import Features
from curate.eval.probes.logistic import GRID, LogisticFits, choose_c, fit_logistic, search
from curate.eval.probes.principal_axes import principal_axes
from curate.eval.probes.ridge import RidgePath, best_penalty, solve_ridge
from curate.eval.probes.train_samples import evenly_spaced, first_per_class, short_classes
from curate.eval.suites import parse_suites
from curate.eval.suites.fewshot import classified, drawn
from curate.eval.suites.knn import centred
from curate.eval.suites.linear_probe import standard


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clip_like(seed: int, n: int, classes: int, d: int, noise: float = 2.5) -> Features:
    """Unit vectors in a narrow cone, of falling spread, that overlap."""
    rng = np.random.default_rng(11)
    spread = np.arange(1, d + 1) ** -0.5
    centres, mean = rng.normal(size=(classes, d)) * spread, 3 * rng.normal(size=d) * spread
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return Features(unit(mean + centres[labels] + noise * rng.normal(size=(n, d)) * spread), labels)


def loss_of(weights: np.ndarray, bias: np.ndarray, image: np.ndarray, labels: np.ndarray, penalty: float) -> float:
    logits = image.astype(np.float64) @ weights.T + bias
    logits -= logits.max(1, keepdims=True)
    nll = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    return float(nll.mean() + penalty / 2 * (weights**2).sum())


@pytest.mark.parametrize("c", [0.01, 0.316, 10.0, 1000.0])
@pytest.mark.parametrize(("n", "d", "classes"), [(1500, 40, 8), (150, 200, 4), (800, 30, 2)])
def test_the_head_is_within_noise_of_scikit_learn_at_the_same_c(n, d, classes, c):
    train, test = clip_like(1, n, classes, d), clip_like(2, 2000, classes, d)
    head = fit_logistic(train.image, train.labels, classes, c)
    assert head.converged
    model = LogisticRegression(C=c, max_iter=20000, tol=1e-9).fit(train.image.astype(np.float64), train.labels)
    weights, bias = model.coef_, model.intercept_
    penalty = 1 / (c * n)
    if classes == 2:  # one logit: spread over both classes it is the same function, and half the squares
        weights, bias = np.stack([-weights[0], weights[0]]) / 2, np.stack([-bias[0], bias[0]]) / 2
        penalty *= 2
    ours = loss_of(head.weights.astype(np.float64), head.bias, *train, penalty)
    theirs = loss_of(weights, bias, *train, penalty)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert (head(test.image).argmax(1) == model.predict(test.image)).mean() > 0.995
    again = fit_logistic(train.image, train.labels, classes, c)
    assert (again.weights == head.weights).all()


def test_the_search_chooses_the_c_of_cold_tight_fits():
    train, held = clip_like(3, 1200, 6, 48, 1.5), clip_like(4, 3000, 6, 48, 1.5)
    c, best, tried = choose_c(train, held, 6)
    exact, exact_best, _ = search(lambda value: LogisticFits(*train, 6, 5000)(value, 1e-6).score(*held))
    assert c == exact
    assert c in GRID
    assert abs(best.right - exact_best.right) <= 1
    assert best.log_likelihood == pytest.approx(exact_best.log_likelihood, rel=1e-3)
    assert tried <= 15


def test_linear_probe_on_a_validation_split_learns_from_both_in_the_end():
    train, val, test = clip_like(1, 300, 5, 24), clip_like(2, 100, 5, 24), clip_like(3, 400, 5, 24)
    (suite,) = parse_suites([{"type": "linear_probe", "validation_split": "val"}])
    assert suite.splits() == ["train", "val", "test"]
    found = suite.evaluate(labelled_context({"train": train, "val": val, "test": test}, 5))
    assert (found.facts["validation_n"], found.facts["train_n"]) == (100, 400)
    both = np.concatenate([train.image, val.image]), np.concatenate([train.labels, val.labels])
    head = fit_logistic(*both, 5, found.facts["c"])
    assert (head(test.image).argmax(1) == found.outcomes.prediction).all()


def test_few_shot_linear_probe_learns_from_k_per_class_and_names_short_classes():
    train, val, test = clip_like(1, 300, 5, 24), clip_like(2, 100, 5, 24), clip_like(3, 400, 5, 24)
    few = Features(train.image, np.where((train.labels == 4) & (np.arange(300) > 20), 3, train.labels))
    left = int((few.labels == 4).sum())
    assert 0 < left < 8
    options = {"type": "linear_probe", "validation_split": "val", "fewshot_k": 8, "seed": 3}
    (suite,) = parse_suites([options])
    found = suite.evaluate(labelled_context({"train": few, "val": val, "test": test}, 5))
    assert found.facts["short_classes"] == [4]
    assert found.facts["train_n"] == 32 + left  # not the validation split's
    assert found.metrics["lp_acc1"] is not None
    (one,) = parse_suites([{"type": "linear_probe", "fewshot_k": 1}])
    with pytest.raises(DataError, match="`validation_split`"):
        one.evaluate(labelled_context({"train": few, "test": test}, 5))


def test_standard_features_do_not_depend_on_the_scale_of_a_feature():
    train, test = clip_like(1, 400, 4, 12), clip_like(3, 300, 4, 12)
    (suite,) = parse_suites([{"type": "linear_probe", "normalize": "standard", "c": 0.5}])
    scale = np.float32(2.0) ** np.arange(12).astype(np.float32)
    plain, scaled = (
        suite.evaluate(labelled_context({n: Features(f.image * s, f.labels) for n, f in both}, 4))
        for both, s in ((tuple({"train": train, "test": test}.items()), s) for s in (np.float32(1), scale))
    )
    assert (plain.outcomes.prediction == scaled.outcomes.prediction).mean() > 0.99
    mean, factor = standard(train.image)
    moved = (train.image - mean) * factor
    np.testing.assert_allclose(moved.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(moved.std(0), 1, atol=1e-3)


@given(seed=st.integers(0, 2**32), n=st.integers(2, 30), d=st.integers(1, 30))
def test_principal_axes_rebuild_the_centred_features(seed, n, d):
    image = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    axes = principal_axes(image)
    assert len(axes.values) <= min(n - 1, d)
    np.testing.assert_allclose(axes.axes.T @ axes.axes, np.eye(len(axes.values)), atol=1e-6)
    np.testing.assert_allclose(axes.along(image) @ axes.axes.T + axes.mean, image, atol=1e-4)


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(4, 40),
    d=st.integers(1, 30),
    classes=st.integers(2, 5),
    place=st.integers(9, 30),
)
def test_ridge_path_is_scikit_learns_and_leave_one_out_is_refitting(seed, n, d, classes, place):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(n, d)).astype(np.float32)
    labels = np.concatenate([np.arange(classes), np.arange(classes), rng.integers(0, classes, n)])[:n]
    labels[:2] = [0, 1]
    path = RidgePath(image, labels, classes + 1)
    penalty = float(path.penalties[place])
    weights, bias = path.head(penalty)
    assert bias[classes] == -np.inf

    def fitted(rows: np.ndarray) -> np.ndarray:
        """Scores of all samples by a ridge regression on some, by the normal equations."""
        x, y = image[rows].astype(np.float64), np.where(labels[rows, None] == np.arange(classes), 1.0, -1.0)
        centred_x, centred_y = x - x.mean(0), y - y.mean(0)
        w = np.linalg.solve(centred_x.T @ centred_x + penalty * np.eye(d), centred_x.T @ centred_y)
        return (image - x.mean(0)) @ w + y.mean(0)

    scores = image @ weights.T + bias
    seen = np.unique(labels)
    np.testing.assert_allclose(scores[:, seen], fitted(np.arange(n))[:, seen], atol=2e-4)
    if len(seen) > 2:
        theirs = RidgeClassifier(alpha=penalty).fit(image.astype(np.float64), labels).decision_function(image)
        np.testing.assert_allclose(scores[:, seen], theirs, atol=2e-4)
    left_out, count = path.left_out(image)
    assert count == n
    refitted = np.stack([fitted(np.delete(np.arange(n), i))[i] for i in range(n)])
    miss = refitted - np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)
    assert left_out[place].error == pytest.approx((miss**2).sum(1).mean(), rel=1e-3, abs=1e-4)


def test_best_penalty_prefers_right_then_near_then_strong():
    from curate.eval.probes.ridge import Fit

    assert best_penalty([Fit(3, 1.0), Fit(4, 2.0), Fit(4, 1.5), Fit(4, 1.5), Fit(2, 0.1)]) == 3


def test_ridge_probe_chooses_on_the_train_split_alone():
    train, test = clip_like(1, 600, 6, 32), clip_like(2, 500, 6, 32)
    for options in ({}, {"choose": "held_out"}):
        (suite,) = parse_suites([{"type": "ridge_probe", **options}])
        found = suite.evaluate(labelled_context({"train": train, "test": test}, 6))
        assert list(found.metrics) == ["ridge_acc1", "ridge_acc5", "ridge_mean_per_class_recall"]
        model = RidgeClassifier(alpha=found.facts["penalty"]).fit(train.image.astype(np.float64), train.labels)
        assert (model.predict(test.image) == found.outcomes.prediction).mean() > 0.998
        poisoned = Features(test.image, np.roll(test.labels, 1))
        assert suite.evaluate(labelled_context({"train": train, "test": poisoned}, 6)).facts == found.facts
    one = Features(train.image[:4], np.zeros(4, np.int64))
    with pytest.raises(DataError, match="one class"):
        suite.evaluate(labelled_context({"train": one, "test": one}, 6))
    same = Features(np.ones((4, 3), np.float32), np.arange(4))
    with pytest.raises(DataError, match="same feature"):
        suite.evaluate(labelled_context({"train": same, "test": same}, 6))


@given(seed=st.integers(0, 2**32), n=st.integers(1, 20), d=st.integers(1, 20))
def test_both_forms_of_ridge_are_the_normal_equations(seed, n, d):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(n, 3))
    expected = np.linalg.solve(x.T @ x + 2.5 * np.eye(d), x.T @ y)
    np.testing.assert_allclose(solve_ridge(x, y, 2.5), expected, atol=1e-9)


def test_few_shot_is_big_visions_regression():
    train, test = clip_like(1, 400, 5, 16), clip_like(2, 300, 5, 16)
    (suite,) = parse_suites([{"type": "fewshot", "shots": [1, 10, 25]}])
    setting = labelled_context({"train": train, "test": test}, 5)
    found = suite.evaluate(setting)
    seeds = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rows = np.concatenate([rng.permutation(np.where(train.labels == c)[0])[:10] for c in range(5)])
        x = train.image[rows].astype(np.float64)
        mean, std = x.mean(0), x.std(0) + 1e-5
        x, z = (np.column_stack([(v - mean) / std, np.full(len(v), 100.0)]) for v in (x, test.image))
        y = 2.0 * np.eye(5)[train.labels[rows]] - 1
        prediction = (z @ np.linalg.inv(x.T @ x + 2**10 * np.eye(17)) @ x.T @ y).argmax(1)
        seeds.append(float((prediction == test.labels).mean()))
        assert found.facts["seeds"][f"blobs_10shot-seed-{seed}"] == pytest.approx(seeds[-1], abs=1e-9)
    assert found.metrics["fewshot_acc1@10"] == pytest.approx(np.mean(seeds))
    assert list(found.metrics) == ["fewshot_acc1@1", "fewshot_acc1@10", "fewshot_acc1@25"]
    assert suite.main_metric_of(setting.evalset) == "fewshot_acc1@10"
    table = found.outcomes.table(setting.split("test"))
    right = table["right_draws"].to_numpy()
    assert right.sum() / (3 * 300) == pytest.approx(found.metrics["fewshot_acc1@10"])
    assert table["correct"].to_numpy().mean() == pytest.approx(seeds[0])
    assert found.chance == 0.2
    assert found.facts["deviation"]["fewshot_acc1@10"] == pytest.approx(np.std(seeds, ddof=1))


def test_few_shot_with_short_and_missing_classes():
    train, test = clip_like(1, 100, 5, 16), clip_like(2, 50, 6, 16)
    (suite,) = parse_suites([{"type": "fewshot", "shots": [5, 90], "seeds": 1}])
    setting = labelled_context({"train": train, "test": test}, 6)
    found = suite.evaluate(setting)
    assert found.facts["short_classes"] == {"5": [5], "90": [0, 1, 2, 3, 4, 5]}
    assert suite.main_metric_of(setting.evalset) == "fewshot_acc1@90"
    assert [len(rows) for rows in drawn(train.labels, 6, 0)] == np.bincount(train.labels, minlength=6).tolist()
    (scores,) = classified(train.image, train.labels, test.image, 6, 1024.0)
    assert scores.shape == (50, 6)


def test_knn_chooses_k_and_temperature_by_leave_one_out():
    train, test = clip_like(6, 240, 5, 12, 1.5), clip_like(7, 150, 5, 12, 1.5)
    ks, temperatures = [1, 5, 20], [0.01, 0.05, 1.0]
    (suite,) = parse_suites([{"type": "knn", "k": ks, "temperature": temperatures}])
    found = suite.evaluate(labelled_context({"train": train, "test": test}, 5))

    def weigh(t: float) -> dict:
        return {"weights": lambda d: np.exp((d.min() - d) / t), "metric": "cosine", "algorithm": "brute"}

    right = {}
    for k in ks:
        for t in temperatures:
            others = (np.delete(np.arange(240), i) for i in range(240))
            right[k, t] = sum(
                KNeighborsClassifier(k, **weigh(t))
                .fit(train.image[o], train.labels[o])
                .predict(train.image[i : i + 1])[0]
                == train.labels[i]
                for i, o in enumerate(others)
            )
    best = {k: max(temperatures, key=lambda t: (right[k, t], -t)) for k in ks}
    chosen = max(ks, key=lambda k: (right[k, best[k]], -k))
    assert (found.facts["k"], found.facts["temperature"]) == (chosen, best[chosen])
    assert found.facts["temperatures"] == {str(k): best[k] for k in ks}
    for k in ks:
        model = KNeighborsClassifier(k, **weigh(best[k])).fit(train.image, train.labels)
        assert found.metrics[f"knn_acc1@{k}"] == pytest.approx(model.score(test.image, test.labels))


def test_centred_knn_takes_off_the_train_mean():
    train, test = clip_like(6, 200, 4, 12), clip_like(7, 100, 4, 12)
    mean = train.image.mean(0, dtype=np.float64).astype(np.float32)
    moved = {name: Features(centred(f.image, mean), f.labels) for name, f in (("train", train), ("test", test))}
    plain, centre = parse_suites([{"type": "knn", "k": [5]}, {"type": "knn", "k": [5], "centre": True}])
    expected = plain.evaluate(labelled_context(moved, 4))
    found = centre.evaluate(labelled_context({"train": train, "test": test}, 4))
    assert (found.outcomes.prediction == expected.outcomes.prediction).all()
    np.testing.assert_allclose(np.linalg.norm(moved["train"].image, axis=1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="list of temperatures is empty"):
        parse_suites([{"type": "knn", "temperature": []}])


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=60), k=st.integers(1, 12), seed=st.integers(0, 9))
def test_first_per_class(labels, k, seed):
    labels = np.array(labels)
    rows = first_per_class(labels, k, seed)
    size = np.bincount(labels, minlength=6)
    assert (np.bincount(labels[rows], minlength=6) == np.minimum(size, k)).all()
    assert (np.diff(rows) > 0).all()
    assert set(rows) <= set(first_per_class(labels, k + 1, seed))
    assert short_classes(labels, k, 6) == [c for c in range(6) if size[c] < k]
    assert len(evenly_spaced(len(labels), k)) == min(k, len(labels))
