import numpy as np
import open_clip
import pytest
import torch
from torch import nn

from curate.errors import ConfigError
from curate.pretrain.data.preprocess import Preprocess
from curate.pretrain.models.architecture import build, resolve_model
from curate.pretrain.models.resize_positions import allow_image_size, features_at_any_size, resized
from curate.pretrain.models.short_captions import allow_text_length, text_features
from curate.pretrain.models.towers import Towers

VISION = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
TEXT = {"context_length": 40, "vocab_size": 258, "width": 32, "heads": 2, "layers": 2}


@pytest.fixture(autouse=True)
def one_thread():
    """Several threads on so small tensors do nothing but wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model_of(vision=None, text=None, make=open_clip.CLIP):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(embed_dim=16, vision_cfg=VISION | (vision or {}), text_cfg=TEXT | (text or {}))


def pixels(size, count=3):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(size))


@pytest.mark.parametrize("vision", [{}, {"pool_type": "avg"}, {"attentional_pool": True, "attn_pooler_heads": 2}])
def test_features_are_those_of_a_model_whose_positions_were_resized(vision):
    model = model_of(vision)
    other = model_of(vision | {"image_size": 48})
    state = model.state_dict()
    open_clip.model.resize_pos_embed(state, other, interpolation="bicubic", antialias=True)
    other.load_state_dict(state)
    torch.testing.assert_close(features_at_any_size(model.visual, pixels(48)), other.visual(pixels(48)))
    assert torch.equal(features_at_any_size(model.visual, pixels(32)), model.visual(pixels(32)))


def test_towers_take_other_sizes_by_their_short_route_too():
    model = model_of()
    towers = Towers(model, Preprocess((32, 32)))
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), np.uint8))
    expected = features_at_any_size(model.visual, (images.float() - towers.shift) * towers.factor)
    torch.testing.assert_close(towers.encode_images(images), nn.functional.normalize(expected, dim=-1))


@pytest.mark.parametrize("vision", [{}, {"pool_type": "avg"}, {"patch_size": None, "layers": [1, 1, 1, 1], "width": 8}])
def test_the_gradient_reaches_the_models_own_positions(vision):
    size = 64 if "layers" in vision else 16
    model = model_of(vision)
    names = {"positional_embedding", "attnpool.positional_embedding"}
    (positions,) = [p for n, p in model.visual.named_parameters() if n in names]
    features_at_any_size(model.visual, pixels(size)).square().sum().backward()
    assert positions.grad is not None
    assert positions.grad.abs().sum(1).min() > 0


def test_resizing_keeps_flat_and_linear_maps():
    cells = torch.arange(16.0).reshape(16, 1) // 4  # grows from row to row
    positions = torch.cat([torch.full((1, 1), 9.0), cells])
    grown = resized(positions, (4, 4), (8, 8))
    assert grown[0] == 9
    assert len(grown) == 65
    inner = grown[1:].reshape(8, 8)[2:6, :]
    torch.testing.assert_close(inner.diff(dim=0), torch.full((3, 8), 0.5), atol=0.08, rtol=0)
    assert resized(positions, (4, 4), (4, 4)) is positions


def test_our_resnet_takes_larger_and_smaller_images():
    model = build(resolve_model("RN-mini-32"), 0)
    for size in (32, 64):
        allow_image_size(model.visual, (size, size))
        assert features_at_any_size(model.visual, pixels(size)).shape == (3, 64)


def timm_tower(name, size=64):
    visual = {"timm_model_name": name, "timm_pool": "", "timm_proj": "linear", "image_size": size}
    return model_of(visual | {"patch_size": None}).visual


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_resnet"])
def test_timms_nets_take_other_sizes(name):
    visual = timm_tower(name).eval()
    before = visual(pixels(64))
    allow_image_size(visual, (64, 64))
    allow_image_size(visual, (32, 32))
    assert torch.equal(visual(pixels(64)), before)
    assert features_at_any_size(visual, pixels(32)).shape == (3, 16)


def test_sizes_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="do not divide into patches of 8 x 8"):
        allow_image_size(model_of().visual, (36, 36))
    with pytest.raises(ConfigError, match="SwinTransformer takes images of"):
        allow_image_size(timm_tower("swin_tiny_patch4_window7_224", 224), (112, 112))


@pytest.mark.parametrize(
    ("text", "make"),
    [
        ({}, open_clip.CustomTextCLIP),
        ({"no_causal_mask": True, "pool_type": "last"}, open_clip.CustomTextCLIP),
        ({"pool_type": "last"}, open_clip.CustomTextCLIP),
    ],
)
def test_text_towers_take_shorter_captions(text, make):
    model = model_of(text=text, make=make).eval()
    ids = torch.from_numpy(np.random.default_rng(0).integers(1, 250, (3, 9)))
    allow_text_length(model, 9)
    shorter = model_of(text=text | {"context_length": 9}, make=make).eval()
    state = model.state_dict()
    state["text.positional_embedding"] = state["text.positional_embedding"][:9]
    shorter.load_state_dict(state)
    torch.testing.assert_close(text_features(model, ids), shorter.encode_text(ids))


def test_lengths_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="the model takes 40"):
        allow_text_length(model_of(), 41)
    allow_text_length(model_of(), 9)
    with pytest.raises(ConfigError, match="custom_text"):
        allow_text_length(model_of(text={"pool_type": "last"}), 9)
