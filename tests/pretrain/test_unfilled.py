"""A module that is built for a checkpoint is, once loaded, the module that was saved, to the last bit."""

import threading

import pytest
import torch

from curate.errors import ConfigError
from curate.pretrain.models.architecture import ModelSpec, build, resolve_model
from curate.pretrain.models.unfilled import unfilled
from curate.pretrain.models.weights import load_module, weights_digest

VISION = {"image_size": 32, "patch_size": 16, "width": 64, "layers": 1, "head_width": 32}
TEXT = {"context_length": 9, "vocab_size": 100, "width": 32, "heads": 1, "layers": 1}


def spec_of(kind: str) -> ModelSpec:
    """Every sort of tower that open_clip builds: its own, a ResNet's, timm's, one with layer scales, SigLIP's."""
    if kind in ("ViT-mini-8-32", "RN-mini-32"):
        return resolve_model(kind)
    config = {"embed_dim": 16, "vision_cfg": dict(VISION), "text_cfg": dict(TEXT)}
    if kind == "scaled":
        config["vision_cfg"] |= {"ls_init_value": 0.1, "attentional_pool": True, "attn_pooler_heads": 2}
    elif kind == "timm":
        config["vision_cfg"] = {"timm_model_name": "vit_tiny_patch16_224", "image_size": 32, "timm_pool": "token"}
    elif kind == "siglip":
        config |= {"custom_text": True, "init_logit_bias": -10}
        config["text_cfg"] |= {"no_causal_mask": True, "proj_bias": True, "pool_type": "last"}
    return ModelSpec(kind, config, "clip", resolve_model("ViT-B-32").preprocess)


def tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and all buffers, those that no checkpoint holds (masks, tables) among them."""
    return dict(module.named_parameters()) | dict(module.named_buffers())


@pytest.mark.parametrize("kind", ["ViT-mini-8-32", "RN-mini-32", "plain", "scaled", "timm", "siglip"])
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_what_was_saved_is_loaded_bit_for_bit(tmp_path, kind, form):
    spec = spec_of(kind)
    saved = build(spec, seed=5)
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        from safetensors.torch import save_file

        save_file(saved.state_dict(), path)
    else:
        torch.save(saved.state_dict(), path, _use_new_zipfile_serialization=form == "zip")
    state = torch.random.get_rng_state()
    found = load_module(spec, str(path))
    assert torch.equal(torch.random.get_rng_state(), state)
    path.write_bytes(bytes(path.stat().st_size))  # what is in memory does not hang on the file
    wanted, got = tensors(saved), tensors(found)
    assert wanted.keys() == got.keys()
    assert all(torch.equal(wanted[name], got[name]) for name in wanted)
    assert all(a.requires_grad == b.requires_grad for a, b in zip(wanted.values(), got.values(), strict=True))
    assert weights_digest(found) == weights_digest(saved)


def test_a_checkpoint_of_half_precision_fills_a_module_of_single(tmp_path):
    spec = spec_of("plain")
    halves = {name: t.half() if t.is_floating_point() else t for name, t in build(spec, seed=1).state_dict().items()}
    torch.save(halves, tmp_path / "w.pt")
    found = load_module(spec, str(tmp_path / "w.pt"))
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    assert all(torch.equal(t, halves[name].to(t.dtype)) for name, t in found.state_dict().items())


@pytest.mark.parametrize("lost", ["visual.proj", "token_embedding.weight", "logit_scale"])
def test_a_checkpoint_that_would_leave_something_unfilled_is_refused(tmp_path, lost):
    spec = spec_of("plain")
    state = build(spec, seed=1).state_dict()
    del state[lost]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match="does not hold the weights of plain"):
        load_module(spec, str(tmp_path / "w.pt"))


def test_another_thread_initialises_as_ever():
    wanted = tensors(build(spec_of("plain"), seed=3))
    found = {}
    with unfilled():
        thread = threading.Thread(target=lambda: found.update(tensors(build(spec_of("plain"), seed=3))))
        thread.start()
        thread.join()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_only_parameters_are_left_out():
    with unfilled():
        buffer, weight = torch.empty(3).fill_(2.0), torch.nn.Parameter(torch.full((3,), 7.0), requires_grad=False)
        torch.nn.init.zeros_(weight)
        weight.fill_(1.0)
    assert buffer.tolist() == [2.0] * 3
    assert weight.tolist() == [7.0] * 3
