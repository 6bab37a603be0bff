import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from curate.pretrain.models import build, resolve_model
from curate.pretrain.objectives.clip import MAX_LOGIT_SCALE, ClipObjective, contrastive_loss
from curate.pretrain.optimizer import adamw, decays
from curate.pretrain.recipe import RECIPES, ClipRecipe
from curate.pretrain.schedule import learning_rate


def test_loss_by_hand():
    """Two pairs at 0 and 90 degrees, the second text turned by 60: logits [[2, 1], [0, sqrt 3]] at scale 2."""
    image = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    text = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(3) / 2]])

    def entropy(right, wrong):
        return math.log(math.exp(right) + math.exp(wrong)) - right

    by_image = (entropy(2, 1) + entropy(math.sqrt(3), 0)) / 2
    by_text = (entropy(2, 0) + entropy(math.sqrt(3), 1)) / 2
    loss = contrastive_loss(image, text, torch.tensor(2.0))
    assert loss.item() == pytest.approx((by_image + by_text) / 2, rel=1e-6)


def test_one_pair_has_no_loss():
    feature = torch.tensor([[0.6, 0.8]])
    assert contrastive_loss(feature, feature, torch.tensor(100.0)).item() == 0


def test_loss_equals_open_clips():
    import open_clip

    generator = torch.Generator().manual_seed(0)
    image, text = (F.normalize(torch.randn(9, 16, generator=generator), dim=-1) for _ in range(2))
    expected = open_clip.ClipLoss()(image, text, torch.tensor(14.3))
    assert contrastive_loss(image, text, torch.tensor(14.3)).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_batch_shared_by_processes_has_the_same_loss():
    """Local rows against all columns, averaged over processes, is the loss of the whole batch."""
    generator = torch.Generator().manual_seed(0)
    image, text = (F.normalize(torch.randn(12, 8, generator=generator), dim=-1) for _ in range(2))
    scale = torch.tensor(10.0)
    parts = [
        contrastive_loss(image[a : a + 4], text[a : a + 4], scale, all_image=image, all_text=text, first_row=a)
        for a in (0, 4, 8)
    ]
    assert torch.stack(parts).mean().item() == pytest.approx(contrastive_loss(image, text, scale).item(), rel=1e-6)


def test_logit_scale_is_clamped():
    model = nn.Module()
    for value, kept in [(9.0, MAX_LOGIT_SCALE), (-1.0, 0.0), (2.5, 2.5)]:
        model.logit_scale = nn.Parameter(torch.tensor(value))
        ClipObjective().after_step(model)
        assert model.logit_scale.item() == pytest.approx(kept)


def test_weight_decay_groups_of_vit_b_32():
    """open_clip 3.3: 102 tensors decay, 200 do not, 151.28M parameters."""
    import open_clip

    with torch.device("meta"):
        model = open_clip.CLIP(**resolve_model("ViT-B-32").config)
    kinds = [decays(name, p) for name, p in model.named_parameters()]
    assert (sum(kinds), len(kinds) - sum(kinds)) == (102, 200)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == 151.28


def test_weight_decay_by_name():
    matrix, vector = torch.empty(2, 2), torch.empty(2)
    assert decays("visual.conv1.weight", matrix)
    assert decays("positional_embedding", matrix)
    assert not decays("transformer.resblocks.0.ln_1.weight", matrix)
    assert not decays("visual.layer1.0.bn2.weight", matrix)
    assert not decays("attn.in_proj_bias", matrix)
    assert not decays("logit_scale", matrix)
    assert not decays("visual.class_embedding", vector)


def test_optimizer_leaves_frozen_parameters_out():
    model = build(resolve_model("RN-mini-32"), 0)
    model.visual.requires_grad_(False)
    optimizer = adamw(model, ClipRecipe(weight_decay=0.3))
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.3, 0.0]
    owned = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert owned == {id(p) for p in model.parameters() if p.requires_grad}


def test_schedule_golden_values():
    rates = [learning_rate(step, 8, 1.0, 4) for step in range(8)]
    half = math.sqrt(0.5)
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, (1 + half) / 2, 0.5, (1 - half) / 2])
    assert learning_rate(0, 10, 2.0, 0) == 2.0


def test_a_warmup_longer_than_the_run():
    assert [learning_rate(step, 4, 1e-4, 500) for step in (0, 3)] == pytest.approx([2e-7, 8e-7])


def test_recipe_options():
    assert RECIPES["clip"](batch_size=64).crop_scale == (0.9, 1.0)
    with pytest.raises(ValueError, match="least"):
        ClipRecipe(crop_scale=(0.9, 0.5))
    with pytest.raises(ValueError, match="bach_size"):
        ClipRecipe(bach_size=3)  # type: ignore[call-arg]
