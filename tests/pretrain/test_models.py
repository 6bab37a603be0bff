import json
import subprocess
import sys

import pytest
import torch

from curate.errors import ConfigError
from curate.pretrain.models.architecture import build, model_identity, resolve_model


def test_names_are_found_without_torch():
    code = (
        "import sys; from curate.pretrain.models.architecture import model_identity; "
        "from curate.pretrain.recipe import RECIPES; "
        "from curate.pretrain.models.encoder_folder import find_encoder; "
        "RECIPES['clip'](); model_identity('ViT-B-32'); model_identity('RN-mini-32'); "
        "assert not {'torch', 'open_clip', 'pyarrow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_shipped_and_builtin_names():
    own = resolve_model("ViT-mini-8-32")
    assert own.tokenizer == "words"
    assert own.preprocess.size == (32, 32)
    assert "tokenizer" not in own.config
    theirs = resolve_model("ViT-B/32")
    assert (theirs.name, theirs.tokenizer, theirs.preprocess.size) == ("ViT-B-32", "open_clip:ViT-B-32", (224, 224))


def test_unknown_names_are_explained():
    with pytest.raises(ConfigError, match="did you mean 'ViT-B-32'"):
        resolve_model("ViT-B-23")
    with pytest.raises(ConfigError, match="did you mean 'RN-mini-32'"):
        resolve_model("RN-mini32")
    with pytest.raises(ConfigError, match="shipped here: RN-mini-32, ViT-mini-8-32") as caught:
        resolve_model("zzzz")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="does not exist"):
        resolve_model("no/such/model.json")


def test_a_json_file_is_a_model(tmp_path):
    spec = resolve_model("ViT-mini-8-32")
    path = tmp_path / "mine.json"
    path.write_text(
        json.dumps({"tokenizer": "words", "preprocess_cfg": {"mean": 0.5, "std": [1, 1, 1]}, **spec.config})
    )
    mine = resolve_model(str(path))
    assert mine.config == spec.config
    assert mine.preprocess.mean == (0.5, 0.5, 0.5)
    assert mine.short_name == "mine"
    assert mine.identity != spec.identity
    path.write_text('{"embed_dim": 4}')
    with pytest.raises(ConfigError, match="has no 'vision_cfg'"):
        resolve_model(str(path))
    path.write_text("{")
    with pytest.raises(ConfigError, match="cannot read"):
        resolve_model(str(path))


def test_identity_does_not_depend_on_the_name(tmp_path):
    spec = resolve_model("RN-mini-32")
    path = tmp_path / "copy.json"
    path.write_text(json.dumps({"tokenizer": spec.tokenizer, **spec.config}))
    assert model_identity(str(path)) == spec.identity != model_identity("ViT-mini-8-32")


def test_initialisation_is_a_function_of_the_seed():
    spec = resolve_model("ViT-mini-8-32")
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    a, b, c = build(spec, 1).state_dict(), build(spec, 1).state_dict(), build(spec, 2).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["visual.conv1.weight"], c["visual.conv1.weight"])


def test_a_config_that_open_clip_refuses(tmp_path):
    spec = resolve_model("ViT-mini-8-32")
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({**spec.config, "vision_cfg": {"image_sise": 32}}))
    with pytest.raises(ConfigError, match="image_sise"):
        build(resolve_model(str(path)), 0)
