"""Every recipe, and every option of one, on pictures that a tiny model can learn in a second: better than chance."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from curate.pretrain.encoders.load_encoder import load_encoder
from curate.pretrain.outputs.retrieval import retrieval_metrics
from curate.pretrain.recipe import RECIPES, Recipe

sys.path.insert(0, str(Path(__file__).parent))
from training_runs import COLOURS, furthest, log, part, run, tiny_model, weights, with_columns

PLAIN: dict[str, Any] = {"batch_size": 32, "lr": 3e-3, "warmup": 5, "log_every": 10}
CLIP: dict[str, Any] = {"type": "clip", **PLAIN}
SEEN = 32 * 40
LABELS = {"column": "label"}
BETTER = 0.4  # share that is right of 80 pictures; chance is 0.25, with a deviation of 0.05


def recipe_of(options: dict[str, Any]) -> Recipe:
    return RECIPES[options["type"]].model_validate(options)


@pytest.fixture(scope="module")
def data(squares, tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "full": part([with_columns(shard, folder / "full") for shard in squares]),
        "captions": part([with_columns(shard, folder / "captions", labels=False) for shard in squares[:1]]),
        "labels": part([with_columns(shard, folder / "labels", captions=False) for shard in squares[1:]]),
        "model": tiny_model(folder),
        "folder": folder,
    }


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory) -> Path:
    """The folder of a CLIP training without any option."""
    folder = tmp_path_factory.mktemp("plain")
    run(folder, recipe_of(CLIP), data["model"], [data["full"]], SEEN)
    return folder


@pytest.fixture(scope="module")
def classifier(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    recipe = recipe_of({"type": "supervised", **PLAIN, "labels": LABELS, "crop_scale": [0.5, 1]})
    run(folder, recipe, data["model"], [data["full"]], SEEN, validation=data["full"])
    return folder


def named(folder: Path, colour_test: Any) -> float:
    """Share of unseen squares whose colour the encoder finds among the prompts."""
    images, labels, prompts = colour_test
    encoder = load_encoder(str(folder / "out"), device="cpu")
    return float(((encoder.encode_images(images) @ encoder.encode_texts(prompts).T).argmax(1) == labels).mean())


def classified(folder: Path, colour_test: Any, columns: list[int] | None = None) -> float:
    """Share of unseen squares whose colour the head knows."""
    images, labels, _ = colour_test
    encoder: Any = load_encoder(str(folder / "out"), device="cpu")
    order = [encoder.head.classes.index(colour) for colour in COLOURS]
    pooled = encoder.encode_pooled(images)
    logits = encoder.head.logits(pooled, np.ones(len(pooled)))[:, order]
    return float((logits.argmax(1) == labels).mean())


def less_loss(folder: Path) -> bool:
    lines = log(folder)
    return lines[-1]["loss"] < 0.8 * lines[0]["loss"]


PHASES = [{"share": 0.3, "image_size": 16, "text_length": 8}, {"share": 0.4, "patch_keep": 0.5}, {"share": 0.3}]
PAIRS: dict[str, dict[str, Any]] = {
    "siglip": {"type": "siglip", "optimizer": "muon"},
    "phases": {"phases": PHASES},
    "average": {"ema": {"decay": 0.9}},
    "labels besides": {"labels": LABELS, "supcon": {}},
    "captions drawn": {"captions": {"caption": 1, "other": 3}},
    "augmented": {"augment": {"flip": 0.5, "erase": 0.3, "jitter": [0.1, 0.1, 0.1, 0.0]}},
    "muon, pieces": {"optimizer": "muon", "micro_batch": 12, "grad_clip": 1.0},
    "groups": {"groups": 2},
}


@pytest.mark.parametrize("name", PAIRS)
def test_pictures_and_captions_find_each_other(tmp_path, data, colour_test, name):
    report = run(tmp_path, recipe_of({**CLIP, **PAIRS[name]}), data["model"], [data["full"]], SEEN)
    assert report.steps == 40
    assert less_loss(tmp_path)
    assert named(tmp_path, colour_test) > BETTER


def test_labels_and_captions_of_two_data_sets(tmp_path, data, colour_test):
    recipe = recipe_of({**CLIP, "labels": LABELS})
    report = run(tmp_path, recipe, data["model"], [data["captions"], data["labels"]], SEEN, validation=data["full"])
    assert named(tmp_path, colour_test) > BETTER
    assert classified(tmp_path, colour_test) > BETTER
    assert report.validation is not None
    assert report.validation["top1"] > BETTER
    assert {"loss/clip", "loss/softmax"} <= set(log(tmp_path)[-1])


def test_the_classifier(classifier, colour_test):
    assert less_loss(classifier)
    assert classified(classifier, colour_test) > BETTER


@pytest.mark.parametrize("name", ["multi_label", "semantic_softmax", "mixed", "supcon alone"])
def test_other_labels(tmp_path, data, colour_test, name):
    tree = tmp_path / "tree.txt"
    tree.write_text("".join(f"{c}\t{'warm' if c in ('red', 'yellow') else 'cold'}\n" for c in COLOURS))
    options: dict[str, Any] = {
        "multi_label": {"labels": {"column": "tags", "loss": "multi_label"}},
        "semantic_softmax": {"labels": {**LABELS, "loss": {"type": "semantic_softmax", "hierarchy": str(tree)}}},
        "mixed": {"labels": LABELS, "mix": {"mixup": 0.2, "cutmix": 0.5}},
        "supcon alone": {"labels": {**LABELS, "loss": None}, "supcon": {}},
    }[name]
    recipe = recipe_of({"type": "supervised", **PLAIN, "crop_scale": [0.5, 1], **options})
    run(tmp_path, recipe, data["model"], [data["full"]], SEEN)
    if name == "supcon alone":
        assert log(tmp_path)[-1]["loss"] < log(tmp_path)[0]["loss"]
    else:
        assert log(tmp_path)[-1]["loss"] < log(tmp_path)[0]["loss"]
        assert classified(tmp_path, colour_test) > BETTER


def test_a_student_follows_teachers(tmp_path, data, plain, classifier, colour_test):
    teacher = str(plain / "out")
    alone = {**CLIP, "contrastive_weight": 0.0}
    wide = tiny_model(tmp_path, "wide", embed_dim=24)
    for name, model, teachers in (
        ("logits", data["model"], [{"model": teacher}]),
        ("features", data["model"], [{"model": teacher, "kind": "features"}]),
        ("projected", wide, [{"model": teacher, "kind": "features"}, {"model": teacher}]),
    ):
        run(tmp_path / name, recipe_of({**alone, "distill": teachers}), model, [data["full"]], SEEN)
        assert log(tmp_path / name)[-1]["loss"] < log(tmp_path / name)[0]["loss"]
        assert named(tmp_path / name, colour_test) > BETTER
    follower = {"type": "supervised", **PLAIN, "labels": {**LABELS, "loss": None}, "crop_scale": [0.5, 1]}
    distill = [{"model": str(classifier / "out"), "kind": "classes", "weight": 3.0, "temperature": 2.0}]
    run(tmp_path / "classes", recipe_of({**follower, "distill": distill}), data["model"], [data["full"]], SEEN)
    assert classified(tmp_path / "classes", colour_test) > BETTER


def test_prefixes_of_matryoshka_features_retrieve_better(tmp_path, data, plain, colour_test):
    run(tmp_path, recipe_of({**CLIP, "matryoshka": [3]}), data["model"], [data["full"]], SEEN)
    images, labels, prompts = colour_test
    scores = []
    for folder in (plain, tmp_path):
        encoder = load_encoder(str(folder / "out"), device="cpu")
        image, text = (
            torch.from_numpy(x[:, :3]) for x in (encoder.encode_images(images), encoder.encode_texts(prompts))
        )
        image, text = torch.nn.functional.normalize(image, dim=1), torch.nn.functional.normalize(text, dim=1)
        scores.append(float(((image @ text.T).argmax(1).numpy() == labels).mean()))
    assert scores[1] > max(scores[0], BETTER)


def test_a_locked_tower_keeps_its_bits_and_a_start_is_gone_on_from(tmp_path, data, plain, colour_test):
    start = str(plain / "out")
    recipe = recipe_of({**CLIP, "lr": 1e-3, "lock": {"image": True}, "micro_batch": 12})
    run(tmp_path, recipe, start, [data["captions"], data["full"]], 160, start=start)  # replay: the old data besides
    before, after = weights(plain), weights(tmp_path)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {name for name in before if ":visual." in name} <= same
    assert any(":transformer" in name for name in before.keys() - same)
    assert log(tmp_path)[0]["loss"] < 0.8 * log(plain)[0]["loss"]  # it did not begin anew
    assert named(tmp_path, colour_test) > BETTER


def test_activations_computed_again_change_nothing(tmp_path, data):
    results = []
    for again in (False, True):
        recipe = recipe_of({**CLIP, "optimizer": "sgd", "lr": 0.01, "grad_checkpointing": again})
        run(tmp_path / str(again), recipe, data["model"], [data["full"]], 96)
        results.append(weights(tmp_path / str(again)))
    difference, where = furthest(*results)
    assert difference < 5e-6, where


def test_a_compiled_network_learns_the_same(tmp_path, data, monkeypatch):
    """Traced as for a compiler, and run as traced: compiling in earnest takes a minute."""
    compile_in_place = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: compile_in_place(network, backend="eager"))
    results = []
    for compiled in (False, True):
        recipe = recipe_of({**CLIP, "optimizer": "sgd", "lr": 0.01, "compile": compiled, "micro_batch": 16})
        run(tmp_path / str(compiled), recipe, data["model"], [data["full"]], 64)
        results.append(weights(tmp_path / str(compiled)))
    difference, where = furthest(*results)
    assert difference < 5e-6, where


def test_retrieval_of_validation_leaves_out_what_has_no_caption(tmp_path, data):
    """Of the captions' and the labels' data set together only the first can be retrieved."""
    recipe = recipe_of({**CLIP, "labels": LABELS})
    report = run(tmp_path, recipe, data["model"], [data["full"]], 64, validation=data["captions"])
    assert report.validation is not None
    assert "top1" not in report.validation
    assert report.validation["num_samples"] == 60
    features = torch.nn.functional.normalize(torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    assert set(retrieval_metrics(features, features)) <= set(report.validation)


def test_other_people_s_loaders_give_the_same_features(tmp_path, data, colour_test):
    """open_clip reads the checkpoint and the folder, averaged or not, with SigLIP's bias or without."""
    import open_clip

    for name, options in (("clip", {"ema": {"decay": 0.9}}), ("siglip", {"type": "siglip"})):
        place = tmp_path / name
        run(place, recipe_of({**CLIP, **options}), "ViT-mini-8-32", [data["full"]], 64)
        ours: Any = load_encoder(str(place / "out"), device="cpu")
        images = colour_test[0][:5]
        pixels = torch.from_numpy(np.stack([ours.prepare(image) for image in images])).permute(0, 3, 1, 2)
        tokens = torch.from_numpy(ours.tokenizer(["a photo of a red square", "blue"]))
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in (ours.spec.preprocess.mean, ours.spec.preprocess.std))
        for path in (f"local-dir:{place}/out", str(place / "out/checkpoints/epoch_latest.pt")):
            if path.startswith("local-dir:"):
                theirs: Any = open_clip.create_model(path)
            else:
                config = json.loads((place / "out/open_clip_config.json").read_text())["model_cfg"]
                (tmp_path / "ours").mkdir(exist_ok=True)
                (tmp_path / f"ours/made-{name}.json").write_text(json.dumps(config))
                open_clip.add_model_config(tmp_path / "ours")
                theirs = open_clip.create_model(f"made-{name}", pretrained=path)
            theirs.eval()
            with torch.inference_mode():
                image = theirs.encode_image((pixels.float() / 255 - mean) / std, normalize=True)
                text = theirs.encode_text(tokens, normalize=True)
            assert np.abs(image.numpy() - ours.encode_images(images)).max() < 1e-5
            assert np.abs(text.numpy() - ours.encode_texts(["a photo of a red square", "blue"])).max() < 1e-5
            assert (getattr(theirs, "logit_bias", None) is not None) == (name == "siglip")
            assert float(theirs.logit_scale.exp()) == pytest.approx(ours.logit_scale, rel=1e-6)


def test_timm_loads_a_trained_classifier(tmp_path, data, colour_test):
    import timm

    options = {"image_size": 32, "head_init": "small"}
    recipe = recipe_of({"type": "supervised", **PLAIN, "labels": LABELS, "classifier": options, "ema": {"decay": 0.9}})
    run(tmp_path, recipe, "timm:test_vit", [data["full"]], 96)
    ours: Any = load_encoder(str(tmp_path / "out"), device="cpu")
    theirs = timm.create_model(f"local-dir:{tmp_path}/out", pretrained=True).eval()
    images = colour_test[0][:5]
    pixels = torch.from_numpy(np.stack([ours.prepare(image) for image in images])).permute(0, 3, 1, 2)
    config = theirs.pretrained_cfg
    mean, std = (torch.tensor(config[x]).view(3, 1, 1) for x in ("mean", "std"))
    with torch.inference_mode():
        logits = theirs((pixels.float() / 255 - mean) / std).numpy()
    pooled = ours.encode_pooled(images)
    assert np.abs(logits - ours.head.logits(pooled, np.ones(5))).max() < 1e-5


def test_siglip_from_clips_weights_begins_with_its_own_bias(squares, tmp_path):
    from curate.pretrain.assembly import assemble
    from curate.pretrain.data.dataset import SubsetDataset
    from curate.pretrain.recipe import ClipRecipe, SigLipRecipe
    from curate.pretrain.trainer import train

    recipe = ClipRecipe(batch_size=16, warmup=2)
    out = str(tmp_path / "clip")
    train(recipe, "ViT-mini-8-32", SubsetDataset(squares), 16, 0, out, str(tmp_path / "scratch"), device="cpu")
    model = assemble(SigLipRecipe(), "ViT-mini-8-32", 1, torch.device("cpu"), start=out).network.model
    assert model.logit_bias.item() == -10
    assert model.logit_scale.exp().item() == pytest.approx(10)


def test_patches_of_a_classifier_can_be_left_out(squares, tmp_path):
    from curate.pretrain.data.dataset import SubsetDataset
    from curate.pretrain.recipe import SupervisedRecipe
    from curate.pretrain.trainer import train

    options = {"labels": {"column": "caption"}, "batch_size": 16, "warmup": 1}
    options["phases"] = [{"share": 0.5, "patch_keep": 0.5}, {"share": 0.5}]
    data = SubsetDataset(squares, captions=None, labels="caption")
    recipe = SupervisedRecipe.model_validate(options)
    report = train(recipe, "timm:test_vit", data, 64, 0, str(tmp_path / "out"), str(tmp_path / "scratch"), device="cpu")
    assert (report.steps, "flops" in report.speed) == (4, False)
