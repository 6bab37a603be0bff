"""timm's image models as encoders."""

import json
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from curate.errors import ConfigError
from curate.pretrain.encoders.load_encoder import load_encoder
from curate.pretrain.encoders.timm_encoder import TimmEncoder
from curate.pretrain.models.architecture import modalities_of, model_identity, resolve_model
from curate.pretrain.models.encoder_folder import find_encoder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A checkpoint of test_vit with its classifier, and the model."""
    model = timm.create_model("test_vit").eval()
    path = str(tmp_path_factory.mktemp("timm") / "vit.pt")
    torch.save(model.state_dict(), path)
    return path, model


def picture(h: int, w: int) -> np.ndarray:
    return np.random.default_rng([h, w]).integers(0, 256, (h, w, 3), dtype=np.uint8)


def test_names_are_looked_up_without_timm():
    code = (
        "import sys; from curate.pretrain.models.architecture import model_identity, modalities_of; "
        "from curate.pretrain.models.encoder_folder import find_encoder; "
        "print(model_identity('timm:vit_small_patch16_224.augreg_in21k'), modalities_of('timm/resnet18')); "
        "assert not {'torch', 'timm', 'open_clip', 'torchvision'} & set(sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.split()[0] == model_identity("timm/vit_small_patch16_224.augreg_in21k")


def test_every_name_of_timm_is_known():
    for name in (*timm.list_models(), *timm.list_pretrained()):
        assert len(model_identity(f"timm:{name}")) == 32


def test_identities_and_modalities():
    tagged, plain = (
        model_identity("timm:vit_small_patch16_224.augreg_in21k"),
        model_identity("timm:vit_small_patch16_224"),
    )
    assert tagged != plain
    assert modalities_of("timm:resnet18") == modalities_of("timm/resnet18") == ("image",)
    assert modalities_of("ViT-B-32") == modalities_of("some/folder") == ("image", "text")


def test_wrong_names_are_explained(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'timm:resnet18'"):
        model_identity("timm:resnet81")
    with pytest.raises(ConfigError, match="augreg_in21k"):
        model_identity("timm:vit_small_patch16_224.augreg_in21")
    with pytest.raises(ConfigError, match="'timm:resnet18' is an image model"):
        resolve_model("timm:resnet18")
    with pytest.raises(ConfigError, match="has no weights"):
        load_encoder("timm:resnet18")
    with pytest.raises(ConfigError, match="does not exist"):
        find_encoder("timm:resnet18", str(tmp_path / "none.pt"))


def test_features_are_timms(weights):
    path, model = weights
    encoder = load_encoder("timm/test_vit", path, "cpu", "auto")
    assert isinstance(encoder, TimmEncoder)
    assert encoder.modalities == ("image",)
    assert encoder.dim == model.num_features
    config = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**config, is_training=False)
    pictures = [picture(170, 200), picture(40, 31), picture(160, 160)]
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.fromarray(p)) for p in pictures])
        pooled = model.forward_head(model.forward_features(pixels), pre_logits=True)
    expected = torch.nn.functional.normalize(pooled, dim=-1).numpy()
    assert np.abs(encoder.encode_images(pictures) - expected).max() < 2e-6
    for refused in (lambda: encoder.encode_texts(["a"]), lambda: encoder.logit_scale):
        with pytest.raises(ConfigError, match="is an image model"):
            refused()


@settings(max_examples=40, deadline=None)
@given(
    h=st.integers(8, 150),
    w=st.integers(8, 150),
    size=st.sampled_from([(32, 32), (48, 32), (64, 64)]),
    crop_pct=st.sampled_from([0.875, 0.9, 0.95, 1.0]),
    crop_mode=st.sampled_from(["center", "squash", "border"]),
    interpolation=st.sampled_from(["bicubic", "bilinear", "lanczos"]),
)
def test_inputs_equal_timms_transform(h, w, size, crop_pct, crop_mode, interpolation):
    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    config = {
        "input_size": (3, *size),
        "interpolation": interpolation,
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.3, 0.4),
        "crop_pct": crop_pct,
        "crop_mode": crop_mode,
    }
    encoder = TimmEncoder(Mean(), "mean", config, torch.device("cpu"))
    image = picture(h, w)
    ours = encoder.prepare(image)
    whole = timm.data.create_transform(**{**config, "mean": (0.0,) * 3, "std": (1.0,) * 3}, is_training=False)
    if crop_mode == "border":  # the border's colour is the mean
        whole.transforms[1].fill = [round(255 * v) for v in config["mean"]]
    expected = (whole(Image.fromarray(image)).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    assert ours.dtype == np.uint8
    assert np.array_equal(ours, expected)


def test_a_model_folder_of_timms(weights, tmp_path):
    path, model = weights
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    overlay = {"architecture": "test_vit", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "crop_pct": 1.0}}
    (tmp_path / "config.json").write_text(json.dumps(overlay))
    encoder, plain = (load_encoder("timm:test_vit", p, "cpu") for p in (str(tmp_path), path))
    assert encoder.spec.preprocess.mean == (0.5, 0.5, 0.5)
    assert encoder.digest != plain.digest
    assert load_encoder("timm:test_vit", path, "cpu").digest == plain.digest
    with pytest.raises(ConfigError, match="holds a test_vit, not a test_vit2"):
        load_encoder("timm:test_vit2", str(tmp_path), "cpu")


def test_wrong_weights_are_explained(weights, tmp_path):
    with pytest.raises(ConfigError, match="does not hold the weights of timm:test_resnet"):
        load_encoder("timm:test_resnet", weights[0], "cpu")
    state = weights[1].state_dict()
    torch.save({k: v for k, v in state.items() if k != "blocks.1.mlp.fc1.weight"}, tmp_path / "cut.pt")
    with pytest.raises(ConfigError, match=r"blocks\.1\.mlp\.fc1\.weight"):
        load_encoder("timm:test_vit", str(tmp_path / "cut.pt"), "cpu")
    (tmp_path / "junk.pt").write_bytes(b"no checkpoint")
    with pytest.raises(ConfigError, match="does not hold the weights"):
        load_encoder("timm:test_vit", str(tmp_path / "junk.pt"), "cpu")
