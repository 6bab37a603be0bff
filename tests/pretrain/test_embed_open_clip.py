"""CLIP similarity from our embeddings against a plain open_clip loop, on real pictures."""

import io
import json
from itertools import pairwise

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from curate.pretrain.encoders.embed import Embedding, embed_shards
from curate.pretrain.encoders.load_encoder import load_encoder
from curate.pretrain.models.architecture import build, resolve_model
from curate.shards.demo.digits import random_size, render, scans

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
VIT = {"image_size": 64, "patch_size": 16, "width": 64, "head_width": 32, "layers": 2}
MODELS = {
    "curate-test-vit": {"embed_dim": 48, "vision_cfg": VIT, "text_cfg": TEXT},
    "curate-test-rn": {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 96, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": TEXT,
    },
    "curate-test-bidirectional": {  # not causal: runs padded
        "embed_dim": 48,
        "vision_cfg": VIT,
        "text_cfg": {**TEXT, "no_causal_mask": True, "pool_type": "last", "proj_bias": True},
        "custom_text": True,
    },
}
WORDS = ("flower", "temple", "roof", "leaf", "sky", "hill", "digit", "page", "ink", "number", "garden", "wall")


def real_pictures() -> list[tuple[bytes, str]]:
    """240 handwritten digits and 120 crops of photographs, as PNG and JPEG, each with a caption of 1 to 24 words."""
    rng = np.random.default_rng(8)
    pictures = [render(scans().images[i], rng, random_size(rng)) for i in range(240)]
    for i in range(120):
        photo = load_sample_images().images[i % 2]
        h, w = rng.integers(40, 400, 2)
        top, left = rng.integers(0, photo.shape[0] - h), rng.integers(0, photo.shape[1] - w)
        pictures.append(photo[top : top + h, left : left + w])
    found = []
    for i, picture in enumerate(pictures):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, *(("PNG",) if i % 3 else ("JPEG",)))
        found.append((file.getvalue(), " ".join(rng.choice(WORDS, 1 + i % 24)) + f" {i}"))
    return found


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, make_shard):
    """The pictures, and three shards that hold them."""
    samples = real_pictures()
    rows = [(body, caption, "success") for body, caption in samples]
    folder = tmp_path_factory.mktemp("photographs")
    cuts = [0, 100, 101, len(rows)]
    shards = [make_shard[0](folder, f"{i:08d}", rows[a:b]) for i, (a, b) in enumerate(pairwise(cuts))]
    return samples, shards


@pytest.mark.parametrize("name", MODELS)
def test_similarities_equal_a_plain_loop(name, photographs, tmp_path):
    samples, shards = photographs
    (tmp_path / f"{name}.json").write_text(json.dumps(MODELS[name]))
    weights = str(tmp_path / "weights.pt")
    torch.save(build(resolve_model(str(tmp_path / f"{name}.json")), 3).state_dict(), weights)

    open_clip.add_model_config(tmp_path / f"{name}.json")
    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=weights)
    model.eval()
    tokenizer = open_clip.get_tokenizer(name)
    expected = []
    with torch.inference_mode():
        for start in range(0, len(samples), 40):
            some = samples[start : start + 40]
            pixels = torch.stack([preprocess(Image.open(io.BytesIO(body))) for body, _ in some])
            image = model.encode_image(pixels, normalize=True)
            text = model.encode_text(tokenizer([caption for _, caption in some]), normalize=True)
            expected.append((image * text).sum(1))
    expected = torch.cat(expected).numpy()

    encoder = load_encoder(str(tmp_path / f"{name}.json"), weights, "cpu")
    wanted = {"half": Embedding(encoder), "single": Embedding(encoder, "float32")}
    found = embed_shards(wanted, shards).shards
    for key, tolerance in (("half", 1e-3), ("single", 1e-6)):
        image = np.concatenate([shard.embedded[key].image for shard in found]).astype(np.float32)
        text = np.concatenate([shard.embedded[key].text for shard in found]).astype(np.float32)
        assert np.abs((image * text).sum(1) - expected).max() < tolerance
    assert expected.std() > 1e-3
