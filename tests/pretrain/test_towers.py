import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from curate.pretrain.data.preprocess import Preprocess
from curate.pretrain.data.tokenizer import tokenizer_for
from curate.pretrain.models.architecture import build, resolve_model
from curate.pretrain.models.towers import Towers

VISION = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
TEXT = {"context_length": 40, "vocab_size": 258, "width": 32, "heads": 2, "layers": 2}
TEXTS = ["a", "a photo of a cat", "something a good deal longer than that", "", "x" * 90]

# what differs from a plain CLIP -> whether captions are cut
VARIANTS = {
    "plain": ({}, {}, {}, True),
    "one layer": ({"layers": 1}, {"layers": 1}, {}, True),
    "layer scale": ({"ls_init_value": 0.3}, {"ls_init_value": 0.3}, {}, True),
    "average pool": ({"pool_type": "avg"}, {}, {}, True),
    "norm after pool, no norm before": ({"final_ln_after_pool": True, "no_ln_pre": True}, {}, {}, True),
    "attention pool": ({"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2}, {}, {}, None),
    "custom blocks": ({"qk_norm": True}, {"qk_norm": True}, {}, True),
    "quick gelu": ({}, {}, {"quick_gelu": True}, True),
    "custom text": ({}, {}, {"custom_text": True}, True),
    "custom text, eos pool, linear projection": (
        {},
        {"pool_type": "eos", "eos_id": 257, "proj_bias": True},
        {"custom_text": True},
        True,
    ),
    "bidirectional": ({}, {"no_causal_mask": True}, {}, False),
    "last pool": ({}, {"pool_type": "last"}, {"custom_text": True}, False),
    "class token behind the text": ({}, {"embed_cls": True}, {"custom_text": True}, False),
    "resnet": ({"layers": [1, 1, 1, 1], "width": 8, "patch_size": None}, {}, {}, True),
}


def make(vision, text, top, seed=0):
    vision_cfg = {k: v for k, v in {**VISION, **vision}.items() if v is not None}
    config = {"embed_dim": 24, "vision_cfg": vision_cfg, "text_cfg": {**TEXT, **text}, **top}
    spec = resolve_model("ViT-mini-8-32")
    module = build(type(spec)("variant", config, "bytes", Preprocess((32, 32))), seed)
    with torch.no_grad():  # away from initialisation, where biases are 0 and gains 1
        for p in module.parameters():
            p.add_(torch.empty_like(p).normal_(0, 0.05, generator=torch.Generator().manual_seed(p.numel())))
    return module


def inputs():
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8))
    return images, tokenizer_for("bytes", TEXT)(TEXTS)


def normalised(images):
    mean, std = torch.tensor(open_clip.OPENAI_DATASET_MEAN), torch.tensor(open_clip.OPENAI_DATASET_STD)
    return (images.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)


@pytest.mark.parametrize("name", VARIANTS)
def test_features_equal_open_clips(name):
    vision, text, top, truncates = VARIANTS[name]
    model = make(vision, text, top).eval()
    towers = Towers(model, Preprocess((32, 32))).eval()
    images, tokens = inputs()
    with torch.inference_mode():
        expected_image = model.encode_image(normalised(images), normalize=True)
        expected_text = model.encode_text(torch.from_numpy(tokens), normalize=True)
        assert (towers.encode_images(images) - expected_image).abs().max() < 2e-6
        assert (towers.encode_texts(tokens) - expected_text).abs().max() < 2e-6
    if truncates is not None:
        assert towers.truncates == truncates


@pytest.mark.parametrize("name", ["plain", "layer scale", "custom text", "bidirectional", "resnet"])
def test_gradients_equal_open_clips(name):
    vision, text, top, _ = VARIANTS[name]
    images, tokens = inputs()
    weight_image, weight_text = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1))
    gradients = []
    for ours in (True, False):
        model = make(vision, text, top).train()
        if ours:
            towers = Towers(model, Preprocess((32, 32)))
            image, caption = towers.encode_images(images), towers.encode_texts(tokens)
        else:
            image = model.encode_image(normalised(images), normalize=True)
            caption = model.encode_text(torch.from_numpy(tokens), normalize=True)
        ((image * weight_image).sum() + (caption * weight_text).sum()).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for n, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][n], atol=2e-5, rtol=1e-3), n


def test_truncation_is_exact():
    """The same captions in a batch of short ones and behind a long one: the length of the cut changes nothing."""
    model = make({}, {}, {}).eval()
    towers = Towers(model, Preprocess((32, 32)))
    tokens = tokenizer_for("bytes", TEXT)(TEXTS)
    with torch.inference_mode():
        together = towers.encode_texts(tokens)
        alone = torch.cat([towers.encode_texts(row[None]) for row in tokens])
        full = F.normalize(model.encode_text(torch.from_numpy(tokens)), dim=-1)
    assert (together - alone).abs().max() < 5e-7
    assert (together - full).abs().max() < 5e-7


def test_patch_dropout_drops_in_training_only():
    model = make({"patch_dropout": 0.5}, {}, {})
    towers = Towers(model, Preprocess((32, 32)))
    images, _ = inputs()
    with torch.inference_mode():
        towers.eval()
        assert torch.equal(towers.encode_images(images), towers.encode_images(images))
        towers.train()
        assert not torch.equal(towers.encode_images(images), towers.encode_images(images))
