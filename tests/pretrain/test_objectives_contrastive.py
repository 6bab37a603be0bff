"""Losses over pairs against open_clip's and against their definitions written out in float64."""

import math
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.loss import ClipLoss, SigLipLoss
from torch import nn

from curate.errors import ConfigError
from curate.pretrain.features import Features, Labels
from curate.pretrain.objectives import options
from curate.pretrain.objectives.base import Counts, Objective
from curate.pretrain.objectives.clip import ClipObjective
from curate.pretrain.objectives.logit_scale import clamp, initial_bias, initial_scale
from curate.pretrain.objectives.matryoshka import MatryoshkaObjective
from curate.pretrain.objectives.pairs import windows
from curate.pretrain.objectives.siglip import SigLipObjective
from curate.pretrain.objectives.supcon import SupConObjective
from curate.pretrain.objectives.weighted_sum import Sum
from curate.pretrain.processes.world import ALONE, World, share


def features(n: int, d: int = 16, seed: int = 0, scale: float = 14.3, dtype=torch.float64, **more) -> Features:
    generator = torch.Generator().manual_seed(seed)
    image, text = (
        F.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1).to(dtype).requires_grad_()
        for _ in range(2)
    )
    factor, bias = (torch.tensor(x, dtype=dtype).requires_grad_() for x in (scale, -3.0))
    return Features(image, text, factor, 0, n, bias=bias, **more)


def loss_of(objective: Objective, f: Features) -> torch.Tensor:
    return torch.stack(list(objective.terms(f, ALONE).values())).sum()


def gradients(loss: torch.Tensor, f: Features) -> list[torch.Tensor]:
    inputs = [x for x in (f.image, f.text, f.scale, f.bias) if x is not None]
    found = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


def assert_equal(found: torch.Tensor, expected: torch.Tensor, f: Features, tolerance: float) -> None:
    assert found.item() == pytest.approx(expected.item(), rel=tolerance, abs=tolerance)
    for ours, theirs in zip(gradients(found, f), gradients(expected, f), strict=True):
        assert (ours - theirs).abs().max().item() <= tolerance * max(1.0, theirs.abs().max().item())


def naive_pairs(f: Features, name: str, groups: int = 1) -> torch.Tensor:
    """Clip or siglip by definition, one pair after the other; a mean over captioned samples."""
    there = torch.ones(f.total, dtype=torch.bool) if f.captioned is None else f.captioned
    parts = []
    for g in range(groups):
        group = [i for i in range(*share(f.total, g, groups)) if there[i]]
        logit = {(i, j): f.scale * (f.image[i] @ f.text[j]) + f.bias for i in group for j in group}
        for i in group:
            if name == "siglip":
                parts += [-F.logsigmoid(logit[i, j] * (1 if i == j else -1)) for j in group]
            else:
                row, column = torch.stack([logit[i, j] for j in group]), torch.stack([logit[j, i] for j in group])
                parts.append((row.logsumexp(0) + column.logsumexp(0) - 2 * logit[i, i]) / 2)
    return torch.stack(parts).sum() / there.sum() if parts else f.scale * 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
@pytest.mark.parametrize(("n", "chunk"), [(1, 1), (2, 5), (33, 7), (33, 100), (64, 16)])
def test_equals_open_clip(n, chunk, scale, dtype, tolerance):
    f = features(n, scale=scale, dtype=dtype)
    for ours, theirs in ((ClipObjective(chunk=chunk), ClipLoss()), (SigLipObjective(chunk=chunk), SigLipLoss())):
        assert_equal(loss_of(ours, f), theirs(f.image, f.text, f.scale, f.bias), f, tolerance)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 4), st.lists(st.booleans(), min_size=9), st.booleans())
def test_equals_the_definition(n, groups, chunk, there, all_there):
    f = features(n, d=4, seed=n, captioned=None if all_there else torch.tensor(there[:n]))
    for name, kind in (("clip", ClipObjective), ("siglip", SigLipObjective)):
        assert_equal(loss_of(kind(groups=groups, chunk=chunk), f), naive_pairs(f, name, groups), f, 1e-12)


def test_groups_of_one_process_need_nothing_of_others():
    """6 groups of 4 on 3 processes, 2 each; on 5 processes shares and groups cross, but no more than that travels."""
    world = World(0, 3)
    assert windows(24, 6, world) == world.shares(24)
    assert windows(24, 1, world) == [(0, 24)] * 3
    assert windows(24, 6, World(0, 5)) == [(0, 4), (4, 12), (8, 16), (12, 20), (16, 24)]
    assert windows(2, 2, World(0, 3)) == [(0, 0), (0, 1), (1, 2)]


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 8))
def test_a_window_is_the_groups_of_the_share(total, groups, size):
    for (start, stop), window in zip(World(0, size).shares(total), windows(total, groups, World(0, size)), strict=True):
        together = [share(total, g, groups) for g in range(groups)]
        touched = [(a, b) for a, b in together if max(a, start) < min(b, stop)]
        if touched and groups > 1:
            assert window == (touched[0][0], touched[-1][1])


def test_identical_rows():
    """All pairs look alike: the loss is the entropy of a blind guess, and nothing is learned from it."""
    f = features(6)
    row = F.normalize(torch.ones(6, 16, dtype=torch.float64), dim=1)
    f.image, f.text = (row.clone().requires_grad_() for _ in range(2))
    loss = loss_of(ClipObjective(), f)
    assert loss.item() == pytest.approx(math.log(6))
    assert gradients(loss, f)[0].abs().max() < 1e-14


def test_bfloat16_features_are_compared_in_float32():
    f = features(5, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        for objective in (ClipObjective(), SigLipObjective(), SupConObjective()):
            loss = loss_of(objective, f)
            assert loss.dtype == torch.float32
    gradient = gradients(loss_of(ClipObjective(), f), f)[0]
    assert gradient.dtype == torch.bfloat16


def test_loss_scale_passes_through():
    """A gradient scaler's factor reaches every gradient."""
    f = features(5)
    scaled_up, as_is = (gradients(factor * loss_of(SigLipObjective(), f), f) for factor in (1024, 1))
    for scaled, plain in zip(scaled_up, as_is, strict=True):
        assert torch.equal(scaled, 1024 * plain)


def test_a_model_without_text_is_told():
    f = features(3)
    f.text = None
    with pytest.raises(ConfigError, match="no text tower"):
        loss_of(ClipObjective(), f)


def test_features_of_another_share_are_refused():
    f = features(3)
    f.total = 4
    with pytest.raises(ValueError, match="share of process 0 of 1"):
        loss_of(ClipObjective(), f)


@pytest.mark.parametrize("inner", [ClipObjective(), SigLipObjective(groups=2)])
def test_matryoshka(inner):
    f = features(9)
    terms = MatryoshkaObjective(inner, (4, 7), (0.5, 2.0)).terms(f, ALONE)
    assert list(terms) == [inner.name, f"{inner.name}_4", f"{inner.name}_7"]
    expected = naive_pairs(f, inner.name, inner.groups)
    for dim, weight in ((4, 0.5), (7, 2.0)):
        cut = Features(*(F.normalize(x[:, :dim], dim=1) for x in (f.image, f.text)), f.scale, 0, 9, bias=f.bias)
        expected = expected + weight * naive_pairs(cut, inner.name, inner.groups)
    assert_equal(torch.stack(list(terms.values())).sum(), expected, f, 1e-12)


def test_matryoshka_of_too_much():
    with pytest.raises(ConfigError, match="not a prefix of the model's 16 numbers"):
        loss_of(MatryoshkaObjective(ClipObjective(), (8, 16)), features(3))


def naive_supcon(image: torch.Tensor, classes: list[set[int]], temperature: float) -> torch.Tensor:
    labelled = [i for i, ids in enumerate(classes) if ids]
    losses = []
    for i in labelled:
        others = [a for a in labelled if a != i]
        positive = [a for a in others if classes[i] & classes[a]]
        if positive:
            norm = torch.stack([image[i] @ image[a] / temperature for a in others]).logsumexp(0)
            losses.append(-torch.stack([image[i] @ image[p] / temperature - norm for p in positive]).mean())
    return torch.stack(losses).mean() if losses else (image * 0).sum()


def labels_of(classes: list[set[int]]) -> Labels:
    pairs = [(row, each) for row, ids in enumerate(classes) for each in sorted(ids)]
    table = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return Labels(table[:, 0], table[:, 1])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sets(st.integers(0, 4), max_size=3), min_size=1, max_size=9), st.integers(1, 4))
def test_supcon_equals_the_definition(classes, chunk):
    f = features(len(classes), d=4, labels=labels_of(classes))
    assert_equal(loss_of(SupConObjective(0.2, chunk), f), naive_supcon(f.image, classes, 0.2), f, 1e-12)


def test_supcon_without_labels():
    f = features(4)
    loss = loss_of(SupConObjective(), f)
    assert loss.item() == 0
    assert not any(g.any() for g in gradients(loss, f))


def test_counts():
    f = features(4, captioned=torch.tensor([True, False, True, True]), labels=labels_of([{1}, set(), {1, 2}, set()]))
    objective = Sum([(1.0, MatryoshkaObjective(ClipObjective(), (2,))), (0.5, SupConObjective())])
    assert isinstance(objective, Counts)
    assert {name: int(count) for name, count in objective.counts(f).items()} == {"clip": 3, "supcon": 2}
    assert {name: int(x) for name, x in Sum([(1.0, ClipObjective())]).counts(features(5)).items()} == {"clip": 5}


def test_a_sum_weighs_and_keeps_names():
    f = features(6, labels=labels_of([{1}, {1}, {2}, {2}, {1}, set()]))
    clip, supcon = loss_of(ClipObjective(), f), loss_of(SupConObjective(), f)
    terms = Sum([(2.0, ClipObjective()), (0.25, SupConObjective())]).terms(f, ALONE)
    assert terms["clip"].item() == 2 * clip.item()
    assert terms["supcon"].item() == supcon.item() / 4
    with pytest.raises(ValueError, match="two objectives"):
        Sum([(1.0, ClipObjective()), (1.0, ClipObjective())]).terms(f, ALONE)


def test_where_scale_and_bias_begin_and_stay():
    assert (initial_scale("siglip"), initial_bias("siglip")) == (math.log(10), -10.0)
    assert math.exp(initial_scale("clip")) == pytest.approx(1 / 0.07)
    assert initial_bias("clip") is None
    for value, kept in [(9.0, math.log(100)), (-1.0, 0.0), (2.5, 2.5)]:
        model = nn.Module()
        model.logit_scale, model.logit_bias = nn.Parameter(torch.tensor(value)), nn.Parameter(torch.tensor(-12.0))
        clamp(nn.ModuleDict({"module": model}))
        assert model.logit_scale.item() == pytest.approx(kept)
        assert model.logit_bias.item() == -12


def test_an_objective_from_options():
    made = options.PairLosses.model_validate(
        {
            "contrastive": {"loss": "siglip", "groups": 2, "exchange": "ring", "matryoshka": [8]},
            "weight": 2.0,
            "supcon": {"weight": 0.5},
        }
    )
    f = features(6, labels=labels_of([{1}, {1}, {2}, {2}, {1}, set()]))
    terms = options.contrastive_objective(made).terms(f, ALONE)
    assert list(terms) == ["siglip", "siglip_8", "supcon"]
    assert terms["siglip"].item() == pytest.approx(2 * naive_pairs(f, "siglip", 2).item())
    assert list(options.contrastive_objective(options.PairLosses()).terms(f, ALONE)) == ["clip"]
    assert options.PairLosses.model_validate(made.model_dump()) == made


def test_wrong_options():
    with pytest.raises(ValueError, match="1 weights for 2 lengths"):
        options.ClipLoss(matryoshka=(8, 16), matryoshka_weights=(1.0,))
    with pytest.raises(ValueError, match="given twice"):
        options.ClipLoss(matryoshka=(8, 8))


def test_options_do_not_load_torch():
    import subprocess

    code = "import curate.pretrain.objectives.options, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
