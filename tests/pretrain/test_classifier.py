"""Classifiers: built, trained on real digits, published, and loaded by us and by timm."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from curate.errors import ConfigError
from curate.pretrain.data.label_space import LabelSpace
from curate.pretrain.data.mix_options import MixOptions
from curate.pretrain.data.mixup import mix_images, mix_labels, plan
from curate.pretrain.encoders.load_encoder import load_encoder
from curate.pretrain.features import Features, Labels
from curate.pretrain.models.architecture import build, resolve_model
from curate.pretrain.models.classifier import Classifier, build_classifier, load_tower
from curate.pretrain.models.classifier_folder import is_classifier_folder, open_classifier_folder
from curate.pretrain.models.classifier_options import ClassifierOptions
from curate.pretrain.models.encoder_folder import find_encoder
from curate.pretrain.objectives.softmax import SoftmaxObjective
from curate.pretrain.outputs.export_classifier import write_classifier_folder
from curate.pretrain.precision import contained
from curate.pretrain.processes.world import ALONE
from curate.shards.demo.digits import WORDS, held_out
from curate.shards.images.image import decode_rgb

SMALL = ClassifierOptions(head_init="small")


@pytest.fixture(scope="module")
def digits():
    """200 pictures ``(32, 32, 3) uint8`` to learn from and 200 unseen ones, with their digits."""
    from PIL import Image

    def read(name, count):
        pairs = [pair for _, pair in zip(range(count), held_out(name), strict=False)]
        images = [np.asarray(Image.fromarray(decode_rgb(data)).resize((32, 32))) for data, _ in pairs]
        return np.stack(images), np.array([label for _, label in pairs])

    return read("train", 200), read("test", 200)


def as_batch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)


def learn(classifier: Classifier, images: np.ndarray, labels: np.ndarray, steps: int, mix: MixOptions) -> None:
    objective = SoftmaxObjective(0.1)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=3e-3, weight_decay=0.05)
    classifier.train()
    with contained(1, torch.device("cpu")):
        torch.manual_seed(0)
        for step in range(steps):
            rows = np.random.default_rng(step).choice(len(images), 64, replace=False)
            here = Labels(torch.arange(64), torch.from_numpy(labels[rows]))
            batch, one = as_batch(images[rows]), plan(mix, 0, step, 0, np.ones(64, bool), (32, 32))
            out = classifier(mix_images(batch, one))
            found = Features(out["image"], None, out["scale"], 0, 64, logits=out["logits"])
            found.labels = mix_labels(here, one)
            loss = objective.terms(found, ALONE)["softmax"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    classifier.eval()


@pytest.fixture(scope="module", params=["timm:test_resnet", "RN-mini-32"])
def trained(request, digits, tmp_path_factory):
    (images, labels), _ = digits
    options = ClassifierOptions(image_size=32) if request.param.startswith("timm") else ClassifierOptions()
    classifier = build_classifier(request.param, 10, 1, options)
    learn(classifier, images, labels, 40, MixOptions(mixup=0.2, probability=0.5))
    folder = str(tmp_path_factory.mktemp("classifier") / "model")
    write_classifier_folder(folder, classifier, LabelSpace(WORDS), {"steps": 60})
    return classifier, folder


def test_training_beats_chance_by_far(trained, digits):
    classifier, _ = trained
    _, (images, labels) = digits
    with torch.inference_mode():
        right = (classifier.logits(as_batch(images)).argmax(1).numpy() == labels).mean()
    assert right > 0.3  # chance is 0.1


def test_folder_is_an_encoder_of_images_with_a_head(trained, digits):
    classifier, folder = trained
    _, (images, _) = digits
    encoder = load_encoder(folder, device="cpu")
    assert encoder.modalities == ("image",)
    pictures = [encoder.prepare(image) for image in images[:20]]
    with torch.inference_mode():
        features = classifier.features(as_batch(np.stack(pictures)))
        logits = classifier.logits(as_batch(np.stack(pictures))).numpy()
    pooled, normalised = encoder.encode_pooled(images[:20]), encoder.encode_images(images[:20])  # type: ignore[attr-defined]
    np.testing.assert_allclose(pooled, features.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(normalised, axis=1), 1, rtol=1e-6)
    head = encoder.head  # type: ignore[attr-defined]
    assert head.classes == WORDS
    ours = head.logits(normalised, np.linalg.norm(pooled, axis=1))
    np.testing.assert_allclose(ours, logits, rtol=1e-3, atol=1e-4)
    for refused in (lambda: encoder.encode_texts(["a"]), lambda: encoder.logit_scale):
        with pytest.raises(ConfigError, match="is an image model"):
            refused()
    again = load_encoder(folder, device="cpu")
    assert again.digest == encoder.digest
    assert np.array_equal(again.encode_images(images[:3]), normalised[:3])


@pytest.mark.parametrize("trained", ["timm:test_resnet"], indirect=True)
def test_timm_loads_its_models(trained, digits):
    classifier, folder = trained
    _, (images, _) = digits
    pixels = (as_batch(images[:8]).float() - classifier.tower.shift) * classifier.tower.factor
    by_folder = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    by_file = timm.create_model("test_resnet", num_classes=10, checkpoint_path=f"{folder}/model.safetensors").eval()
    with torch.inference_mode():
        expected = classifier.logits(as_batch(images[:8]))
        assert torch.equal(by_folder(pixels), expected)
        assert torch.equal(by_file(pixels), expected)
    assert by_folder.pretrained_cfg["input_size"] == [3, 32, 32]
    assert json.loads(Path(folder, "config.json").read_text())["label_names"] == list(WORDS)


@pytest.mark.parametrize("trained", ["RN-mini-32"], indirect=True)
def test_open_clip_takes_its_tower(trained):
    classifier, folder = trained
    model = build(resolve_model("RN-mini-32"), seed=9)
    state = load_file(f"{folder}/classifier.safetensors")
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert sorted(unexpected) == ["head.bias", "head.weight"]
    assert not [name for name in missing if name.startswith("visual.")]
    for name, value in classifier.tower.model.state_dict().items():
        assert torch.equal(model.visual.state_dict()[name], value)


def test_training_goes_on_from_a_folder(trained):
    classifier, folder = trained
    model = "timm:test_resnet" if classifier.architecture.timm_name else "RN-mini-32"
    other = build_classifier(model, 3, 5, ClassifierOptions(image_size=32) if "timm" in model else None)
    taken = load_tower(other, folder, ["seven", "eleven", "two"])
    assert taken == ["seven", "two"]
    for name, value in classifier.tower.model.state_dict().items():
        assert torch.equal(other.tower.model.state_dict()[name], value)
    assert torch.equal(other.head.weight[0], classifier.head.weight[7])
    assert (other.head.weight[1] == 0).all()
    stranger = build_classifier("timm:test_vit", 3, 5)
    with pytest.raises(ConfigError, match="not a timm:test_vit"):
        load_tower(stranger, folder)


def test_training_goes_on_from_open_clips_weights(tmp_path):
    whole = build(resolve_model("RN-mini-32"), seed=3)
    path = str(tmp_path / "clip.pt")
    torch.save({"state_dict": whole.state_dict()}, path)
    classifier = build_classifier("RN-mini-32", 3, 5)
    load_tower(classifier, path)
    assert torch.equal(classifier.tower.model.state_dict()["conv1.weight"], whole.visual.state_dict()["conv1.weight"])
    with pytest.raises(ConfigError, match="does not exist"):
        load_tower(classifier, str(tmp_path / "none.pt"))


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet", "test_nfnet", "test_mambaout"])
def test_logits_are_timms_for_every_family(name, tmp_path):
    options = ClassifierOptions(head_init="small", image_size=32 if "vit" in name else 64, dropout=0.1)
    classifier = build_classifier(f"timm:{name}", 4, 0, options).eval()
    write_classifier_folder(str(tmp_path), classifier, LabelSpace(("a", "b", "c", "d")), {})
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = torch.randint(0, 256, (2, 3, *classifier.preprocess.size), dtype=torch.uint8)
    with torch.inference_mode():
        logits = classifier.logits(images)
        assert torch.equal(theirs((images.float() - classifier.tower.shift) * classifier.tower.factor), logits)
    assert logits.std() > 0


def test_first_weights_are_a_function_of_the_seed():
    before = torch.random.get_rng_state()
    one, two, other = (build_classifier("timm:test_vit", 4, seed, SMALL) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    states = [c.state_dict() for c in (one, two, other)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not torch.equal(states[0]["head.weight"], states[2]["head.weight"])
    assert not torch.equal(states[0]["tower.model.pos_embed"], states[2]["tower.model.pos_embed"])
    zero = build_classifier("ViT-mini-8-32", 4, 1, ClassifierOptions(head_bias_init=-2.0))
    out = zero(torch.zeros((2, 3, 32, 32), dtype=torch.uint8))
    assert (out["logits"] == -2).all()
    assert set(out) == {"image", "logits", "scale"}
    dropped = build_classifier("timm:test_vit", 4, 1, ClassifierOptions(drop_path=0.3))
    assert any("DropPath" in type(module).__name__ for module in dropped.modules())


def test_what_cannot_be_built_is_explained():
    with pytest.raises(ConfigError, match="did you mean 'timm:resnet18'"):
        build_classifier("timm:resnet81", 3, 0)
    with pytest.raises(ConfigError, match="not one linear layer"):
        build_classifier("timm:levit_128s", 3, 0)
    with pytest.raises(ConfigError, match="no use for an option"):
        build_classifier("timm:vgg11", 3, 0, ClassifierOptions(drop_path=0.1))
    with pytest.raises(ConfigError, match="needs an image model of timm's"):
        build_classifier("RN-mini-32", 3, 0, ClassifierOptions(drop_path=0.1))
    with pytest.raises(ValueError, match="head_bias is false"):
        ClassifierOptions(head_bias=False, head_bias_init=1.0)


def test_folders_that_timm_wrote(tmp_path):
    model = timm.create_model("test_vit", num_classes=3).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    config = {"architecture": "test_vit", "num_classes": 3, "pretrained_cfg": {"mean": [0.5, 0.5, 0.5]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    encoder = load_encoder(str(tmp_path), device="cpu")
    assert encoder.head is None  # type: ignore[attr-defined]
    assert encoder.spec.preprocess.mean == (0.5, 0.5, 0.5)
    (tmp_path / "config.json").write_text(json.dumps({**config, "label_names": {"0": "x", "2": "z", "1": "y"}}))
    assert load_encoder(str(tmp_path), device="cpu").head.classes == ("x", "y", "z")  # type: ignore[attr-defined]


def test_torn_folders_are_explained(trained, tmp_path):
    _, folder = trained
    record = Path(folder, "classifier.json").read_text()
    (tmp_path / "classifier.json").write_text(record)
    with pytest.raises(ConfigError, match="has no weights"):
        load_encoder(str(tmp_path))
    with pytest.raises(ConfigError, match="leave out `pretrained`"):
        find_encoder(folder, "other.pt")
    (tmp_path / "classifier.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot read"):
        open_classifier_folder(str(tmp_path))
    (tmp_path / "classifier.json").unlink()
    with pytest.raises(ConfigError, match="no folder of a classifier"):
        open_classifier_folder(str(tmp_path))


def test_folders_are_found_without_torch(trained):
    _, folder = trained
    assert is_classifier_folder(folder)
    code = (
        "import sys; from curate.pretrain.models.encoder_folder import find_encoder; "
        "from curate.pretrain.objectives import supervised_options; "
        f"print(find_encoder({folder!r}).classifier.identity); "
        "assert not {'torch', 'timm', 'open_clip', 'scipy'} & set(sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.split() == [open_classifier_folder(folder).identity]
