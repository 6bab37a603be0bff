import open_clip
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from curate.errors import ConfigError
from curate.pretrain.models.architecture import build, resolve_model
from curate.pretrain.models.locking import LockOptions, checkpoint_gradients, lock, stand_still
from curate.pretrain.models.towers import Towers

VISION = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 3}
TEXT = {"context_length": 16, "vocab_size": 258, "width": 32, "heads": 2, "layers": 3}


def model_of(vision=None, make=open_clip.CLIP):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(embed_dim=16, vision_cfg=VISION | (vision or {}), text_cfg=TEXT)


def free(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("make", [open_clip.CLIP, open_clip.CustomTextCLIP])
@pytest.mark.parametrize("groups", [0, 1, 2, 5])
def test_locks_are_open_clips(make, groups):
    ours, theirs = model_of(make=make), model_of(make=make)
    lock(ours, LockOptions(image=True, image_unlocked_groups=groups, text=True, text_unlocked_layers=groups))
    theirs.lock_image_tower(unlocked_groups=groups)
    theirs.lock_text_tower(unlocked_layers=groups)
    assert free(ours) == free(theirs)
    assert "logit_scale" in free(ours)
    if not groups:
        assert free(ours) == {"logit_scale"}


def test_a_resnet_is_locked_by_stages():
    model = build(resolve_model("RN-mini-32"), 0)
    lock(model, LockOptions(image=True, image_unlocked_groups=2))
    assert {n.split(".")[1] for n in free(model) if n.startswith("visual.")} == {"layer4", "attnpool"}


def test_timms_nets_are_locked_by_groups():
    visual = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "patch_size": None}
    model = model_of(visual)
    lock(model, LockOptions(image=True))
    assert {n for n in free(model) if n.startswith("visual.")} == {"visual.head.proj.weight"}
    model = model_of(visual)
    lock(model, LockOptions(image=True, image_unlocked_groups=2))
    mine = {n for n in free(model) if n.startswith("visual.trunk")}
    assert mine
    assert "visual.trunk.patch_embed.proj.weight" not in mine
    assert "visual.trunk.norm.weight" in mine


def test_a_locked_batch_norm_stands_still_and_keeps_its_names():
    model = build(resolve_model("RN-mini-32"), 0)
    names = list(model.state_dict())
    lock(model, LockOptions(image=True, image_unlocked_groups=2))
    model.train()
    stand_still(model)
    before = {n: b.clone() for n, b in model.visual.named_buffers()}
    model.encode_image(torch.randn(4, 3, 32, 32))
    moved = {n.split(".")[0] for n, b in model.visual.named_buffers() if not torch.equal(b, before[n])}
    assert moved == {"layer4"}
    assert list(model.state_dict()) == names
    assert model.transformer.training
    assert not model.visual.bn1.training


def test_more_groups_than_there_are_is_an_error():
    with pytest.raises(ConfigError, match="has 5 only"):
        lock(model_of(), LockOptions(image=True, image_unlocked_groups=6))
    with pytest.raises(ConfigError, match="has 5 only"):
        lock(model_of(), LockOptions(text=True, text_unlocked_layers=6))
    with pytest.raises(ConfigError, match="has 6 only"):
        lock(build(resolve_model("RN-mini-32"), 0), LockOptions(image=True, image_unlocked_groups=7))
    with pytest.raises(ValidationError, match="needs `image: true`"):
        LockOptions(image_unlocked_groups=1)


def test_checkpointed_gradients_are_the_same():
    grads = []
    for checkpointed in (False, True):
        spec = resolve_model("ViT-mini-8-32")
        model = build(spec, 0)
        if checkpointed:
            checkpoint_gradients(model)
        towers = Towers(model, spec.preprocess).train()
        images = torch.arange(2 * 3 * 32 * 32).reshape(2, 3, 32, 32).remainder(251).to(torch.uint8)
        towers.encode_images(images)[:, 0].sum().backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], atol=1e-6, rtol=1e-4)


def test_towers_that_cannot_checkpoint_say_so():
    with pytest.raises(ConfigError, match="ModifiedResNet cannot"):
        checkpoint_gradients(build(resolve_model("RN-mini-32"), 0))
    model = model_of()
    model.visual = nn.Module()
    with pytest.raises(ConfigError, match="Module cannot"):
        checkpoint_gradients(model)
