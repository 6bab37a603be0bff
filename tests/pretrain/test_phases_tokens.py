import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import ConfigError
from curate.pretrain.models.architecture import build, resolve_model
from curate.pretrain.models.token_reduction import (
    install_patch_selection,
    kept_patches,
    patches_kept,
    shorten,
)
from curate.pretrain.models.towers import Towers


@pytest.mark.parametrize(
    ("patches", "keep", "expected"), [(196, 0.5, 98), (49, 0.5, 24), (10, 0.7, 7), (100, 0.29, 29), (16, 0.01, 1)]
)
def test_the_number_of_patches_is_exact(patches, keep, expected):
    assert patches_kept(patches, keep) == expected
    assert kept_patches(0, 0, 0, 3, patches, keep).shape == (3, expected)


def test_patches_depend_on_step_and_place_alone():
    whole = kept_patches(5, 7, 0, 64, 49, 0.3)
    parts = [kept_patches(5, 7, first, 16, 49, 0.3) for first in range(0, 64, 16)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert (np.diff(whole) > 0).all()
    assert whole.min() >= 0
    assert whole.max() < 49
    assert not np.array_equal(whole, kept_patches(5, 8, 0, 64, 49, 0.3))
    assert kept_patches(5, 7, 0, 64, 49, 1.0) is None


def test_patches_are_kept_evenly():
    counts = np.bincount(kept_patches(1, 1, 0, 4000, 16, 0.25).ravel(), minlength=16)
    assert counts.sum() == 16000
    assert abs(counts - 1000).max() < 150  # 5 standard deviations are 137


def pixels(size=32, count=4):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, size, size), np.uint8))


def test_a_transformer_sees_the_kept_patches_only():
    spec = resolve_model("ViT-mini-8-32")
    model = build(spec, 0)
    names = set(model.state_dict())
    selection = install_patch_selection(model.visual)
    assert set(model.state_dict()) == names
    towers = Towers(model, spec.preprocess).train()
    images = pixels()
    everything = towers.encode_images(images)
    selection.kept = torch.arange(16).expand(4, -1)
    torch.testing.assert_close(towers.encode_images(images), everything)

    kept = torch.from_numpy(kept_patches(0, 0, 0, 4, 16, 0.5))
    selection.kept = kept
    features = towers.encode_images(images)
    torch.testing.assert_close(
        features, torch.nn.functional.normalize(model.encode_image(normalised(towers, images)), dim=-1)
    )
    changed = images.clone()
    for i, seen in enumerate(kept):  # whatever is in the other patches
        for patch in set(range(16)) - set(seen.tolist()):
            row, column = divmod(patch, 4)
            changed[i, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0
    torch.testing.assert_close(towers.encode_images(changed), features)
    towers.eval()
    torch.testing.assert_close(towers.encode_images(images), everything)


def normalised(towers, images):
    return (images.float() - towers.shift) * towers.factor


def test_timms_transformer_leaves_out_patches_too_and_a_resnet_cannot():
    spec = resolve_model("ViT-mini-8-32")
    visual = {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear", "image_size": 64}
    config = {**spec.config, "vision_cfg": visual}
    model = build(type(spec)(spec.name, config, spec.tokenizer, spec.preprocess), 0)
    selection = install_patch_selection(model.visual)
    shape = []
    model.visual.trunk.blocks[0].register_forward_hook(lambda module, args, out: shape.append(out.shape[1]))
    selection.kept = torch.from_numpy(kept_patches(0, 0, 0, 2, 16, 0.5))
    model.encode_image(torch.randn(2, 3, 64, 64))
    assert shape == [selection.prefix + 8]
    with pytest.raises(ConfigError, match="ModifiedResNet"):
        install_patch_selection(build(resolve_model("RN-mini-32"), 0).visual)


def captions(lengths, context=12):
    tokens = np.zeros((len(lengths), context), np.int64)
    for row, n in zip(tokens, lengths, strict=True):
        row[: n + 2] = [98, *range(1, n + 1), 99]
    return tokens, np.array(lengths) + 1


@given(
    st.lists(st.integers(0, 10), min_size=1, max_size=8),
    st.integers(3, 12),
    st.sampled_from(["truncate", "random", "block"]),
)
def test_short_captions_keep_marks_and_order(lengths, length, how):
    tokens, ends = captions(lengths)
    short = shorten(tokens, ends, length, how, seed=3, step=4)
    assert short.shape == (len(lengths), length)
    for row, n in zip(short.tolist(), lengths, strict=True):
        kept = min(n, length - 2)
        body = row[1 : kept + 1]
        assert row[0] == 98
        assert row[kept + 1] == 99
        assert not any(row[kept + 2 :])
        assert body == sorted(body)
        assert len(set(body)) == kept
        assert set(body) <= set(range(1, n + 1))
        if how == "truncate":
            assert body == list(range(1, kept + 1))
        if how == "block" and kept:
            assert body == list(range(body[0], body[0] + kept))


@pytest.mark.parametrize("how", ["random", "block"])
def test_a_caption_is_cut_alike_wherever_it_lies(how):
    tokens, ends = captions([10, 9, 10, 8])
    short = shorten(tokens, ends, 6, how, 0, 5)
    assert np.array_equal(shorten(tokens[::-1], ends[::-1], 6, how, 0, 5), short[::-1])
    assert np.array_equal(short[0], short[2])
    many = [tuple(shorten(tokens, ends, 6, how, 0, step)[0]) for step in range(200)]
    assert len(set(many)) == (7 if how == "block" else len(set(many)))  # 10 tokens, 4 kept: 7 places for a block
    starts = np.bincount([caption[1] for caption in many], minlength=11)
    assert starts[1] > 10
    if how == "random":
        seen = np.bincount(np.array(many)[:, 1:5].ravel(), minlength=11)[1:]
        assert abs(seen - 80).max() < 36  # each of 10 tokens in 40 % of 200 draws
