"""VTAB-1k's fine-tuning: the recipe's numbers, and real towers of every kind that are trained a little."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from labelled_memory import LabelledSet, LabelledSplit, NoTexts
from PIL import Image

from curate.errors import ConfigError, DataError
from curate.eval.embedding.features import TextFeatures
from curate.eval.probes.fine_tune import FineTuning, batches, fine_tune, squashed
from curate.eval.suites import EvalContext, parse_suites
from curate.pretrain.data.tokenizer import tokenizer_for
from curate.pretrain.encoders.classifier_encoder import VisualEncoder
from curate.pretrain.encoders.encoder import Encoder
from curate.pretrain.encoders.timm_encoder import TimmEncoder
from curate.pretrain.models.architecture import ModelSpec, build, resolve_model
from curate.pretrain.models.weights import weights_digest

CPU = torch.device("cpu")


def png(colour: tuple[int, int, int], size: tuple[int, int] = (40, 24), seed: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(-25, 25, (*size, 3))
    file = io.BytesIO()
    Image.fromarray(np.clip(noise + colour, 0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


COLOURS = ((200, 60, 60), (60, 200, 60), (60, 60, 200))


def pictures(n: int, first: int = 0) -> tuple[list[bytes], np.ndarray]:
    labels = np.arange(first, first + n) % 3
    return [png(COLOURS[c], seed=first + i) for i, c in enumerate(labels)], labels


def open_clip_encoder() -> Encoder:
    spec = resolve_model("ViT-mini-8-32")
    return Encoder(build(spec, seed=0), spec, tokenizer_for(spec.tokenizer, spec.config["text_cfg"]), CPU)


def visual_encoder() -> Encoder:
    spec = resolve_model("RN-mini-32")
    alone = ModelSpec("resnet", spec.config, "", spec.preprocess)
    return VisualEncoder(build(spec, seed=0).visual, alone, None, CPU)


def timm_encoder() -> Encoder:
    import timm
    from timm.data.config import resolve_model_data_config

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model("test_vit", num_classes=0, img_size=32, drop_rate=0.1)
    data = resolve_model_data_config(model) | {"input_size": (3, 32, 32)}
    return TimmEncoder(model, "timm:test_vit", data, CPU)


@pytest.mark.parametrize(
    ("make", "least"),
    [(open_clip_encoder, 0.9), (visual_encoder, 0.5), (timm_encoder, 0.9)],  # statistics of a ResNet lag behind
)
def test_a_copy_of_the_tower_learns_and_the_encoder_stays_as_it_was(make, least):
    encoder = make()
    before = weights_digest(encoder.model)
    images, labels = pictures(24)
    test, truth = pictures(70, first=300)
    embedded = encoder.encode_images(test[:3])
    state = torch.random.get_rng_state()
    recipe = FineTuning(steps=24, batch_size=8)
    tuned = fine_tune(encoder, images, labels, 3, recipe, seed=1)
    blocks = list(tuned.scores(iter(test), 64))
    scores = np.concatenate(blocks)
    assert scores.shape == (70, 3)
    assert tuned.losses[0] == pytest.approx(np.log(3), abs=1e-6)  # a head of zeros knows nothing
    assert np.mean(tuned.losses[-4:]) < 0.5 * tuned.losses[0]
    assert (scores.argmax(1) == truth).mean() > least
    assert weights_digest(encoder.model) == before
    assert not any(p.requires_grad for p in encoder.model.parameters())
    assert not any(module.training for module in encoder.model.modules())
    assert (encoder.encode_images(test[:3]) == embedded).all()
    assert (torch.random.get_rng_state() == state).all()
    again = fine_tune(encoder, images, labels, 3, recipe, seed=1)
    assert again.losses == tuned.losses
    alone = np.concatenate(list(again.scores(iter(test[5:9]), 1)))
    assert (alone == scores[5:9]).all()
    assert fine_tune(encoder, images, labels, 3, FineTuning(steps=3, batch_size=8), seed=2).losses != tuned.losses[:3]


def test_the_recipe_is_vtabs():
    recipe = FineTuning()
    assert (recipe.steps, recipe.batch_size, recipe.momentum) == (1000, 64, 0.9)
    rates = [recipe.rate(step) for step in range(1000)]
    assert rates[:80] == pytest.approx([0.01 * (i + 1) / 80 for i in range(80)])
    assert set(np.round(rates[80:300], 9)) == {0.01}
    assert set(np.round(rates[300:600], 9)) == {0.001}
    assert set(np.round(rates[600:900], 9)) == {0.0001}
    assert set(np.round(rates[900:], 9)) == {0.00001}


@given(n=st.integers(1, 50), size=st.integers(1, 70), steps=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_every_picture_is_seen_once_before_any_is_seen_again(n, size, steps, seed):
    order = np.concatenate(list(batches(n, size, steps, seed)))
    assert len(order) == size * steps
    for start in range(0, len(order) - n + 1, n):
        assert sorted(order[start : start + n]) == list(range(n))
    assert (order == np.concatenate(list(batches(n, size, steps, seed)))).all()


def test_pictures_are_squashed_to_the_input():
    encoder = open_clip_encoder()
    rgb = np.zeros((20, 60, 3), np.uint8)
    rgb[:, 30:] = 255  # a centre crop would leave out both ends
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG")
    found = squashed(encoder, file.getvalue(), "it")
    expected = np.asarray(Image.fromarray(rgb).resize((32, 32), Image.Resampling.BILINEAR))
    assert (found == expected).all()
    with pytest.raises(DataError, match="picture 3 is broken"):
        squashed(encoder, b"no picture", "picture 3")


def test_the_suite_fine_tunes_the_model_of_the_context():
    splits = {}
    for name, n, first in (("train", 30, 0), ("test", 20, 500)):
        images, labels = pictures(n, first)
        splits[name] = LabelledSplit(name, labels, images)
    evalset = LabelledSet("vtab1k-svhn", "/sets/svhn", ("r", "g", "b"), (), "classification", opened=splits)
    options = {"type": "vtab", "protocol": "finetune", "strict": False, "steps": 25, "batch_size": 8}
    (suite,) = parse_suites([options])

    def features(split: str):
        raise AssertionError("fine-tuning needs no features")

    context = EvalContext(evalset, evalset.split, features, TextFeatures(NoTexts()), None, open_clip_encoder())
    result = suite.evaluate(context)
    assert result.metrics["vtab1k_acc1"] > 0.9
    assert result.facts["slices"] == {"first1000": "train[:80%]", "test": "test"}
    assert (result.facts["train_n"], result.facts["exact"], result.facts["protocol"]) == (24, False, "finetune")
    assert sorted(splits["train"].opened) == list(range(24))
    without = EvalContext(evalset, evalset.split, features, TextFeatures(NoTexts()))
    with pytest.raises(ConfigError, match="there is none"):
        suite.evaluate(without)


def test_nothing_to_learn_from_is_said():
    with pytest.raises(DataError, match="no picture"):
        fine_tune(open_clip_encoder(), [], np.zeros(0, np.int64), 3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fine_tuning_on_a_gpu():
    spec = resolve_model("ViT-mini-8-32")
    model = build(spec, seed=0)
    encoder = Encoder(model, spec, tokenizer_for(spec.tokenizer, spec.config["text_cfg"]), torch.device("cuda"))
    encoder.model.to("cuda")
    images, labels = pictures(24)
    recipe = FineTuning(steps=24, batch_size=8)
    losses = fine_tune(encoder, images, labels, 3, recipe, seed=1).losses
    assert np.mean(losses[-4:]) < 0.5 * losses[0]
    assert fine_tune(encoder, images, labels, 3, recipe, seed=1).losses == pytest.approx(losses, rel=1e-4)
