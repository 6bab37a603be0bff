import json

import open_clip
import pytest
import torch
from torch import nn

from curate.pretrain.optim import optimizer_options as options_of
from curate.pretrain.optim.optimizer import build_optimizer, set_rate
from curate.pretrain.optim.parameter_groups import (
    decays,
    layers_of,
    orthogonal_pieces,
    parameter_groups,
    rate_factors,
    tower_of,
)


def on_meta(name):
    """An open_clip model of any size, without its weights."""
    config = json.loads(json.dumps(open_clip.get_model_config(name)))
    config["vision_cfg"].pop("timm_model_pretrained", None)
    make = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CLIP
    if config.pop("custom_text", False) and make is open_clip.CLIP:
        make = open_clip.CustomTextCLIP
    with torch.device("meta"):
        return make(**config)


@pytest.mark.parametrize(
    "name", ["ViT-B-32", "RN50", "ViT-B-16-SigLIP", "convnext_base", "coca_ViT-B-32", "EVA02-B-16"]
)
def test_what_decays_is_what_decays_in_open_clip(name):
    def left_out(n, p):  # open_clip_train.main, 3.3.0
        return p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n

    for parameter_name, p in on_meta(name).named_parameters():
        assert decays(parameter_name, p) != left_out(parameter_name, p), parameter_name


def test_vit_b_32_has_open_clips_two_groups():
    model = on_meta("ViT-B-32")
    plain, decaying = parameter_groups(model, options_of.AdamW(), 0.2)
    assert (len(plain["params"]), len(decaying["params"])) == (200, 102)
    assert (plain["weight_decay"], decaying["weight_decay"]) == (0.0, 0.2)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == 151.28
    # the order is open_clip's too, so its trainer can load the state of our optimizer
    theirs = [p for n, p in model.named_parameters() if not decays(n, p)]
    assert [id(p) for p in plain["params"]] == [id(p) for p in theirs]


def test_parameters_are_found_under_wrappers():
    for prefix in ("", "towers.model.", "module._orig_mod.towers.model."):
        assert tower_of(prefix + "visual.transformer.resblocks.1.ln_1.weight")[0] == "image"
        assert tower_of(prefix + "transformer.resblocks.1.ln_1.weight") == (
            "text",
            "transformer.resblocks.1.ln_1.weight",
        )
        assert tower_of(prefix + "text.transformer.resblocks.1.x") == ("text", "transformer.resblocks.1.x")
        assert tower_of(prefix + "logit_scale") == ("shared", "logit_scale")
    assert tower_of("head.weight")[0] == "head"
    assert tower_of("module.projections.0.weight")[0] == "head"


@pytest.mark.parametrize(
    ("name", "blocks", "first", "last"),
    [
        ("ViT-B-32", 12, {"class_embedding", "positional_embedding", "conv1.weight"}, {"proj", "ln_post.weight"}),
        ("RN50", 16, {"conv1.weight", "bn3.bias"}, {"attnpool.c_proj.weight"}),
        ("ViT-B-16-SigLIP", 12, {"trunk.pos_embed", "trunk.patch_embed.proj.weight"}, {"trunk.attn_pool.latent"}),
        ("convnext_base", 36, {"trunk.stem.0.weight"}, {"head.proj.weight", "trunk.head.norm.weight"}),
    ],
)
def test_layers_are_counted_from_the_input(name, blocks, first, last):
    names = [tower_of(n)[1] for n, _ in on_meta(name).named_parameters() if tower_of(n)[0] == "image"]
    layers = layers_of(names)
    assert {layer for layer, _ in layers.values()} == set(range(blocks + 2))
    assert {layers[n] for n in first} == {(0, blocks + 1)}
    assert {layers[n] for n in last} == {(blocks + 1, blocks + 1)}


def test_rates_fall_from_layer_to_layer_and_differ_by_tower():
    model = on_meta("ViT-B-32")
    names = [n for n, _ in model.named_parameters()] + ["head.weight"]
    option = options_of.AdamW(image_layer_decay=0.5, image_lr=2.0, text_lr=0.1, head_lr=10.0)
    factors = rate_factors(names, option)
    assert factors["visual.proj"] == 2.0
    assert factors["visual.transformer.resblocks.11.mlp.c_fc.weight"] == 1.0
    assert factors["visual.transformer.resblocks.0.mlp.c_fc.weight"] == 2.0 * 0.5**12
    assert factors["visual.conv1.weight"] == 2.0 * 0.5**13
    assert (factors["token_embedding.weight"], factors["head.weight"], factors["logit_scale"]) == (0.1, 10.0, 1.0)


def test_the_schedules_rate_is_shared_out():
    model = nn.ModuleDict({"visual": nn.Linear(3, 3), "text": nn.Linear(3, 3)})
    optimizer = build_optimizer(model, options_of.AdamW(text_lr=0.5), 1e-3, 0.1)
    for rate in (1e-3, 4e-4):
        set_rate(optimizer, rate)
        assert {(g["lr_scale"], g["lr"]) for g in optimizer.param_groups} == {(1.0, rate), (0.5, rate / 2)}


def test_muon_takes_the_matrices_inside_the_towers():
    model = on_meta("ViT-B-32")
    pieces = {n: orthogonal_pieces(n, p) for n, p in model.named_parameters() if decays(n, p)}
    assert {n for n, k in pieces.items() if not k} == {
        *("visual.proj", "visual.conv1.weight", "visual.positional_embedding"),
        *("text_projection", "token_embedding.weight", "positional_embedding"),
    }
    assert {n.rsplit(".", 2)[-1] for n, k in pieces.items() if k == 3} == {"in_proj_weight"}
    assert orthogonal_pieces("head.weight", torch.empty(3, 3)) == 0


def test_locked_parameters_are_left_out():
    model = on_meta("RN50")
    model.visual.requires_grad_(False)
    groups = parameter_groups(model, options_of.Muon(), 0.3)
    owned = [id(p) for g in groups for p in g["params"]]
    assert len(owned) == len(set(owned))
    assert set(owned) == {id(p) for p in model.parameters() if p.requires_grad}
