import io

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from curate.errors import ConfigError
from curate.pretrain.encoders.encoder import Encoder
from curate.pretrain.encoders.load_encoder import load_encoder
from curate.pretrain.models.encoder_folder import find_encoder
from curate.pretrain.precision import one_thread
from curate.shards.images.image import ImageError


def test_it_is_what_open_clip_loads(trained, encoder, colour_test):
    """The folder through `local-dir:`, the checkpoint through `pretrained=`: the same features."""
    images, _, prompts = colour_test
    name = "curate-test-rn-mini"
    folder = trained[0]
    local = open_clip.create_model(f"local-dir:{folder}")
    open_clip.add_model_config(_config_file(folder, name))
    checkpoint = open_clip.create_model(name, pretrained=f"{folder}/checkpoints/epoch_latest.pt")
    preprocess = open_clip.image_transform(32, is_train=False)
    pixels = torch.stack([preprocess(Image.fromarray(image)) for image in images])
    tokens = torch.from_numpy(encoder.tokenizer(prompts))
    ours_image, ours_text = encoder.encode_images(images), encoder.encode_texts(prompts)
    for theirs in (local, checkpoint):
        theirs.eval()
        with torch.inference_mode():
            assert np.abs(theirs.encode_image(pixels, normalize=True).numpy() - ours_image).max() < 5e-6
            assert np.abs(theirs.encode_text(tokens, normalize=True).numpy() - ours_text).max() < 5e-6
        assert float(theirs.logit_scale.detach().exp()) == pytest.approx(encoder.logit_scale)


def _config_file(folder: str, name: str) -> str:
    import json

    path = f"{folder}/{name}.json"
    with open(f"{folder}/open_clip_config.json") as file:
        config = json.load(file)["model_cfg"]
    with open(path, "w") as file:
        json.dump(config, file)
    return path


def test_embeddings_are_unit_float32(encoder, colour_test):
    images, _, prompts = colour_test
    for found, count in ((encoder.encode_images(images), 80), (encoder.encode_texts(prompts), 4)):
        assert found.dtype == np.float32
        assert found.shape == (count, encoder.dim) == (count, 64)
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert encoder.encode_images([]).shape == (0, 64)
    assert encoder.encode_texts([]).shape == (0, 64)


def test_a_row_does_not_depend_on_its_batch(encoder, colour_test):
    images, _, _ = colour_test
    captions = [f"a photo of a {c} {'very ' * (i % 7)}thing {i}" for i, c in enumerate(["red", "blue"] * 60)]
    with one_thread():
        _check_rows(encoder, images, captions)


def _check_rows(encoder, images, captions):
    image, text = encoder.encode_images(images), encoder.encode_texts(captions)
    picks = [5, 64, 79, 0]
    assert np.array_equal(encoder.encode_images([images[i] for i in picks]), image[picks])
    assert np.array_equal(np.concatenate([encoder.encode_texts([captions[i]]) for i in picks]), text[picks])


def test_equal_captions_get_equal_bytes_in_any_order(encoder):
    captions = ["red", "this is blue", "red", "a", "this is blue"]
    found = encoder.encode_texts(captions)
    assert np.array_equal(found[0], found[2])
    assert np.array_equal(found[1], found[4])


def test_files_and_arrays_give_the_same(encoder, colour_test):
    image = colour_test[0][0]
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    assert np.array_equal(encoder.encode_images([file.getvalue()]), encoder.encode_images([image]))
    with pytest.raises(ImageError):
        encoder.encode_images([file.getvalue()[:80]])


def test_digest_follows_the_weights(trained, encoder):
    again = load_encoder(trained[0], device="cpu")
    assert again.digest == encoder.digest
    with torch.inference_mode():
        again.model.logit_scale += 1e-6
    fresh = Encoder(again.model, again.spec, again.tokenizer, torch.device("cpu"))
    assert fresh.digest != encoder.digest


def test_a_checkpoint_of_a_named_model(trained, encoder, colour_test):
    folder = trained[0]
    for pretrained in (folder, f"{folder}/open_clip_model.safetensors", f"{folder}/checkpoints/epoch_latest.pt"):
        named = load_encoder("RN-mini-32", pretrained=pretrained, device="cpu")
        assert named.digest == encoder.digest
        assert np.array_equal(named.encode_images(colour_test[0][:3]), encoder.encode_images(colour_test[0][:3]))


def test_missing_or_wrong_weights_are_explained(trained, tmp_path):
    with pytest.raises(ConfigError, match="'ViT-B-32' has no weights"):
        load_encoder("ViT-B-32")
    with pytest.raises(ConfigError, match=r"none\.pt of ViT-B-32 does not exist"):
        find_encoder("ViT-B-32", str(tmp_path / "none.pt"))
    with pytest.raises(ConfigError, match="does not hold a ViT-mini-8-32"):
        find_encoder("ViT-mini-8-32", trained[0])
    with pytest.raises(ConfigError, match="does not hold the weights of ViT-mini-8-32"):
        load_encoder("ViT-mini-8-32", f"{trained[0]}/open_clip_model.safetensors")
    junk = tmp_path / "junk.pt"
    junk.write_bytes(b"no checkpoint")
    with pytest.raises(ConfigError, match=r"junk\.pt does not hold the weights"):
        load_encoder("ViT-mini-8-32", str(junk))
