"""Supervised losses equal what their formulas say, sample by sample, and do not depend on the number of processes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import ConfigError, DataError
from curate.pretrain.data.class_hierarchy import ClassHierarchy, build_hierarchy
from curate.pretrain.features import Features, Labels
from curate.pretrain.objectives.multi_label import MultiLabelObjective
from curate.pretrain.objectives.semantic_softmax import SemanticSoftmaxObjective, level_weights
from curate.pretrain.objectives.softmax import SoftmaxObjective
from curate.pretrain.processes.world import ALONE

CLASSES = 7
# animal > dog > poodle, animal > cat; thing > chair; and one alone
NAMES = ("animal", "dog", "poodle", "cat", "thing", "chair", "sky")
PARENTS = {"dog": "animal", "poodle": "dog", "cat": "animal", "chair": "thing"}


def features(logits: torch.Tensor, labels: Labels | None, total: int | None = None) -> Features:
    image = torch.zeros((len(logits), 2))
    found = Features(image, None, torch.ones(()), 0, len(logits) if total is None else total)
    found.logits, found.labels = logits, labels
    return found


def as_labels(sets: list[dict[int, float]]) -> Labels:
    """One mapping of class to weight per sample; may be empty."""
    flat = [(row, c, w) for row, found in enumerate(sets) for c, w in sorted(found.items())]
    rows, ids, weights = (list(column) for column in zip(*flat, strict=True)) if flat else ([], [], [])
    return Labels(
        torch.tensor(rows, dtype=torch.int64), torch.tensor(ids, dtype=torch.int64), torch.tensor(weights).float()
    )


batches = st.lists(st.dictionaries(st.integers(0, CLASSES - 1), st.floats(0.05, 1), max_size=3), min_size=1, max_size=6)
seeds = st.integers(0, 1000)


def draw(seed: int, rows: int, spread: float = 3.0) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(0, spread, (rows, CLASSES)), dtype=torch.float32)


def softmax_of_one(z: list[float], target: list[float]) -> float:
    log_sum = math.log(sum(math.exp(v) for v in z))
    return sum(t * (log_sum - v) for v, t in zip(z, target, strict=True))


@given(sets=batches, seed=seeds, smoothing=st.sampled_from([0.0, 0.1, 0.5]))
def test_softmax_equals_its_formula(sets, seed, smoothing):
    logits = draw(seed, len(sets))
    found = SoftmaxObjective(smoothing, 2.0).terms(features(logits, as_labels(sets)), ALONE)["softmax"]
    losses = []
    for z, labels in zip(logits.tolist(), sets, strict=True):
        if labels:
            mass = sum(labels.values())
            target = [(1 - smoothing) * labels.get(c, 0) / mass + smoothing / CLASSES for c in range(CLASSES)]
            losses.append(softmax_of_one(z, target))
    assert found.item() == pytest.approx(2 * sum(losses) / max(1, len(losses)), rel=1e-4, abs=1e-5)


def test_softmax_is_torchs_for_one_label_each():
    logits, ids = draw(1, 5).requires_grad_(), torch.tensor([3, 0, 6, 2, 2])
    labels = Labels(torch.arange(5), ids)
    found = SoftmaxObjective(0.1).terms(features(logits, labels), ALONE)["softmax"]
    (ours,) = torch.autograd.grad(found, logits)
    other = draw(1, 5).requires_grad_()
    expected = torch.nn.functional.cross_entropy(other, ids, label_smoothing=0.1)
    (theirs,) = torch.autograd.grad(expected, other)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(ours, theirs)


@given(
    sets=batches,
    seed=seeds,
    focus=st.sampled_from([(0.0, 0.0), (0.0, 4.0), (1.0, 2.0), (0.5, 0.5)]),
    margin=st.sampled_from([0.0, 0.05, 0.3]),
    over=st.sampled_from(["sum", "mean"]),
)
def test_multi_label_equals_its_formula(sets, seed, focus, margin, over):
    logits = draw(seed, len(sets)).requires_grad_()
    objective = MultiLabelObjective(over, *focus, margin)
    found = objective.terms(features(logits, as_labels(sets)), ALONE)["multi_label"]
    total = 0.0
    for z, labels in zip(logits.tolist(), sets, strict=True):
        for c in range(CLASSES) if labels else ():
            p, y = 1 / (1 + math.exp(-z[c])), labels.get(c, 0.0)
            q = max(p - margin, 0.0)
            total -= y * (1 - p) ** focus[0] * math.log(p) + (1 - y) * q ** focus[1] * math.log(1 - q)
    labelled = max(1, sum(bool(labels) for labels in sets))
    expected = total / labelled / (CLASSES if over == "mean" else 1)
    assert found.item() == pytest.approx(expected, rel=2e-4, abs=1e-4)
    (gradient,) = torch.autograd.grad(found, logits)
    assert torch.isfinite(gradient).all()


def test_asymmetric_loss_stays_finite_at_the_ends():
    logits = torch.tensor([[200.0, -200.0, 0.0, 90.0, -90.0, 1.0, -1.0]], requires_grad=True)
    found = MultiLabelObjective("sum", 0.5, 0.5, 0.05).terms(features(logits, as_labels([{1: 1.0, 3: 1.0}])), ALONE)
    found["multi_label"].backward()
    assert torch.isfinite(logits.grad).all()


def naive_semantic(hierarchy: ClassHierarchy, logits, sets, smoothing: float, bound: float) -> float:
    """Sample by sample, level by level, from names and parents only."""

    def chain(c: int) -> list[int]:
        found = [c]
        while (parent := PARENTS.get(NAMES[found[-1]])) is not None:
            found.append(NAMES.index(parent))
        return found[::-1]  # top first

    depth = [len(chain(c)) - 1 for c in range(CLASSES)]
    labelled = max(1, sum(bool(labels) for labels in sets))
    total = 0.0
    for level in range(max(depth) + 1):
        members = [c for c in range(CLASSES) if depth[c] == level]
        weight = min(CLASSES / sum(d >= level for d in depth), bound)
        for z, labels in zip(logits.tolist(), sets, strict=True):
            mass = sum(labels.values())
            for c, w in labels.items():
                if depth[c] >= level:
                    at = chain(c)[level]
                    target = [(1 - smoothing) * (m == at) + smoothing / len(members) for m in members]
                    total += weight * w / mass * softmax_of_one([z[m] for m in members], target) / labelled
    return total


@settings(max_examples=60)
@given(sets=batches, seed=seeds, smoothing=st.sampled_from([0.0, 0.2]), bound=st.sampled_from([1.5, 20.0]))
def test_semantic_softmax_equals_its_formula(sets, seed, smoothing, bound):
    hierarchy = build_hierarchy(NAMES, PARENTS)
    logits = draw(seed, len(sets)).requires_grad_()
    found = SemanticSoftmaxObjective(hierarchy, smoothing, bound).terms(features(logits, as_labels(sets)), ALONE)
    expected = naive_semantic(hierarchy, logits, sets, smoothing, bound)
    assert found["semantic_softmax"].item() == pytest.approx(expected, rel=1e-4, abs=1e-5)
    found["semantic_softmax"].backward()
    assert torch.isfinite(logits.grad).all()


def test_level_weights_by_hand():
    hierarchy = build_hierarchy(NAMES, PARENTS)
    assert np.bincount(hierarchy.depth).tolist() == [3, 3, 1]
    assert level_weights(hierarchy).tolist() == pytest.approx([1, 7 / 4, 7])
    assert level_weights(hierarchy, 2.0).tolist() == pytest.approx([1, 7 / 4, 2])


OBJECTIVES = (
    SoftmaxObjective(0.1),
    MultiLabelObjective(negative_focus=2.0),
    SemanticSoftmaxObjective(build_hierarchy(NAMES, PARENTS)),
)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
def test_pieces_add_up_to_the_whole(objective):
    sets: list[dict[int, float]] = [{1: 1.0}, {}, {2: 0.5, 3: 0.5}, {}, {5: 1.0}]
    logits = draw(4, 5)
    (whole,) = objective.terms(features(logits, as_labels(sets)), ALONE).values()
    parts = []
    for a, b in ((0, 2), (2, 2), (2, 4), (4, 5)):
        piece = features(logits[a:b], as_labels(sets[a:b]), 5)
        with pytest.raises(ValueError, match="labelled_total"):
            objective.terms(piece, ALONE)
        piece.labelled_total = 3
        (part,) = objective.terms(piece, ALONE).values()
        parts.append(part.item())
    assert sum(parts) == pytest.approx(whole.item(), rel=1e-5)
    (count,) = objective.counts(features(logits, as_labels(sets))).values()
    assert int(count) == 3


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("labels", [None, as_labels([{}, {}])])
def test_a_batch_without_labels_costs_nothing_and_has_a_gradient(objective, labels):
    logits = draw(4, 2).requires_grad_()
    (found,) = objective.terms(features(logits, labels), ALONE).values()
    found.backward()
    assert found.item() == 0
    assert (logits.grad == 0).all()


def test_errors_name_what_is_wrong():
    one = Labels(torch.tensor([0]), torch.tensor([CLASSES]))
    with pytest.raises(DataError, match="class number 7, but the head has 7"):
        SoftmaxObjective().terms(features(draw(1, 1), one), ALONE)
    headless = features(draw(1, 1), one)
    headless.logits = None
    with pytest.raises(ConfigError, match="softmax needs a classification head"):
        SoftmaxObjective().terms(headless, ALONE)
    small = SemanticSoftmaxObjective(build_hierarchy(("a", "b"), {}))
    with pytest.raises(ConfigError, match="7 classes, the hierarchy 2"):
        small.terms(features(draw(1, 1), as_labels([{0: 1.0}])), ALONE)
