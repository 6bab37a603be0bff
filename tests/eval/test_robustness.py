import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy import special, stats

from curate.errors import DataError
from curate.eval.comparison.robustness import Accuracy, effective_robustness, pairs

N = 10**9  # so many that half a sample does not matter


def on_line(reference: float, slope: float = 0.8, intercept: float = -1.0, lift: float = 0.0) -> Accuracy:
    return Accuracy(round(N * (special.expit(intercept + slope * special.logit(reference)) + lift)), N)


def sets(references: dict[str, float], **lift: float):
    first = {name: Accuracy(round(N * v), N) for name, v in references.items()}
    return first, {name: on_line(v, lift=lift.get(name, 0.0)) for name, v in references.items()}


def test_a_model_above_the_line_is_robust():
    reference, shifted = sets({"a": 0.4, "b": 0.5, "c": 0.7, "robust": 0.6}, robust=0.05)
    line = effective_robustness(reference, shifted, baselines=["a", "b", "c"])
    assert (line.slope, line.intercept) == pytest.approx((0.8, -1.0), abs=1e-6)
    found = line.models["robust"]
    assert found.residual == pytest.approx(0.05, abs=1e-6)
    assert found.expected == pytest.approx(special.expit(-1 + 0.8 * special.logit(0.6)), abs=1e-6)
    assert found.interval[0] > 0.049
    assert not found.in_fit
    assert line.models["a"].residual == pytest.approx(0, abs=1e-6)
    json.dumps(asdict(line), allow_nan=False)


def test_the_line_is_least_squares_on_the_chosen_axes():
    rng = np.random.default_rng(0)
    first = {str(i): Accuracy(int(v), 2000) for i, v in enumerate(rng.integers(600, 1500, 8))}
    second = {name: Accuracy(int(one.correct * 0.6 + rng.integers(0, 60)), 2000) for name, one in first.items()}
    for scale, axis in (("logit", special.logit), ("probit", special.ndtri)):
        line = effective_robustness(first, second, scale=scale)
        x, y = (axis(np.array([(a.correct + 0.5) / 2001 for a in side.values()])) for side in (first, second))
        expected = stats.linregress(x, y)
        assert (line.slope, line.intercept) == pytest.approx((expected.slope, expected.intercept))
        assert all(m.in_fit and m.interval[0] <= m.residual <= m.interval[1] for m in line.models.values())


def test_no_line_is_read_far_outside_its_models():
    reference, shifted = sets({"a": 0.4, "b": 0.6, "near": 0.62, "far": 0.9})
    line = effective_robustness(reference, shifted, ["a", "b"])
    assert line.models["far"] is None
    assert line.models["near"] is not None
    assert line.range[0] < 0.4 < 0.6 < line.range[1] < 0.9
    assert "1 model lies too far outside" in line.sentence
    assert "fits them exactly" in line.sentence
    assert line.spread is None


def test_intervals_cover_test_set_chance():
    """300 simulated pairs of test sets of a model on the true line."""
    hits = 0
    truth = {"a": 0.3, "b": 0.5, "c": 0.8}
    reference, shifted = sets(truth)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        model = Accuracy(rng.binomial(800, 0.55), 800)
        moved = Accuracy(rng.binomial(800, on_line(0.55).value), 800)
        line = effective_robustness(reference | {"m": model}, shifted | {"m": moved}, ["a", "b", "c"])
        low, high = line.models["m"].interval
        hits += low <= 0 <= high
    assert 0.91 <= hits / 300 <= 0.985


def test_too_few_baselines_are_refused():
    reference, shifted = sets({"a": 0.4, "b": 0.4})
    with pytest.raises(DataError, match="at least 2 baseline models to fit a line; there are 1"):
        effective_robustness(reference, shifted, ["a"])
    with pytest.raises(DataError, match="same reference accuracy"):
        effective_robustness(reference, shifted)
    with pytest.raises(DataError, match="'z' has no result on both sets"):
        effective_robustness(reference, shifted, ["a", "z"])


def test_perfect_and_hopeless_accuracies_stay_finite():
    first = {"a": Accuracy(0, 50), "b": Accuracy(50, 50), "c": Accuracy(25, 50)}
    line = effective_robustness(first, first)
    assert line.slope == pytest.approx(1)
    json.dumps(asdict(line), allow_nan=False)


def test_pairs_of_sets():
    assert pairs(["imagenet-r", "cifar10", "imagenet1k", "imagenetv2"]) == [
        ("imagenet1k", "imagenetv2"),
        ("imagenet1k", "imagenet-r"),
    ]
    assert pairs(["digits", "digits-c"], {"digits": ["digits-c", "other"]}) == [("digits", "digits-c")]
    assert pairs(["imagenetv2"]) == []
