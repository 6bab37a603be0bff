import math

import pytest
import torch
from torch import nn

from curate.pretrain.models.architecture import resolve_model
from curate.pretrain.objectives.logit_scale import MAX_LOGIT_SCALE, clamp
from curate.pretrain.optim.optimizer import decays
from curate.pretrain.optim.schedule import learning_rate
from curate.pretrain.recipe import RECIPES, ClipRecipe


def test_logit_scale_is_clamped():
    model = nn.Module()
    for value, kept in [(9.0, MAX_LOGIT_SCALE), (-1.0, 0.0), (2.5, 2.5)]:
        model.logit_scale = nn.Parameter(torch.tensor(value))
        clamp(model)
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
