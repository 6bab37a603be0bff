"""The suite `supervised`: a model's own classifier on sets whose classes are matched by name."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from sklearn.metrics import average_precision_score

from curate.errors import ConfigError, DataError
from curate.eval.evaluate import evaluate, evaluate_encoders, open_sets
from curate.eval.suites import SuiteOption, parse_suites
from curate.eval.suites.supervised import mean_average_precision
from curate.pretrain.data.label_space import LabelSpace
from curate.pretrain.encoders.classifier_encoder import LinearHead
from curate.pretrain.models.classifier import build_classifier
from curate.pretrain.models.classifier_options import ClassifierOptions
from curate.pretrain.outputs.export_classifier import write_classifier_folder
from curate.shards.demo.digits import WORDS, write_digits_evalset
from curate.shards.evalsets.webdataset import write_evalset
from curate.shards.images.image import decode_rgb

NAMES = ("ant", "bee", "cow", "dog", "hot dog")
MODEL = ("Hot_Dog", "zebra", "dog", "cow", "bee", "ant")


class Sees:
    """A classifier that sees the logits in a picture's pixels; what it is asked is counted."""

    dim, precision, modalities = 6, "fp32", ("image",)
    digest = "0" * 32

    def __init__(self, classes=MODEL) -> None:
        bias = np.linspace(-0.1, 0.1, 6).astype(np.float32)
        self.head = LinearHead(classes, np.eye(6, dtype=np.float32)[:, ::-1], bias) if classes else None
        self.images = 0

    def encode_pooled(self, images):
        self.images += len(images)
        return np.stack([decode_rgb(image)[0, :6, 0] for image in images]).astype(np.float32) + 1

    def encode_images(self, images):
        found = self.encode_pooled(images)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


def picture(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (2, 6, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> str:
    rng = np.random.default_rng(4)
    splits = {name: [(picture(rng), i % 5) for i in range(n)] for name, n in (("test", 60), ("train", 40))}
    write_evalset(str(tmp_path / "zoo"), NAMES, ["a {c}"], splits)
    return str(tmp_path / "zoo")


def run(encoder, folder: str, out: Path, suites, cache: Path | None = None) -> list[dict]:
    sets = open_sets([folder], suites)
    evaluate_encoders({"model": encoder}, sets, {"model": str(out)}, str(cache) if cache else None)
    return json.loads((out / "results.json").read_text())["results"]


def expected_logits(folder: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits in the model's order, and labels in the set's."""
    from curate.shards.evalsets.open import open_evalset

    split, model = open_evalset(folder).split("test"), Sees()
    pooled = model.encode_pooled(list(split.images())).astype(np.float64)
    return pooled @ model.head.weight.T + model.head.bias, split.labels  # type: ignore[union-attr]


def test_classes_are_matched_by_name_and_scored_among_themselves(folder, tmp_path):
    (found,) = run(Sees(), folder, tmp_path / "out", parse_suites(["supervised"]))
    logits, labels = expected_logits(folder)
    order = [5, 4, 3, 2, 0]
    prediction = logits[:, order].argmax(1)
    assert found["metrics"]["sup_acc1"] == (prediction == labels).mean()
    assert found["metrics"]["sup_acc5"] == 1.0
    assert found["metrics"]["sup_acc1_all"] == (logits.argmax(1) == np.array(order)[labels]).mean()
    assert found["metrics"]["sup_acc1_all"] < found["metrics"]["sup_acc1"]
    assert (found["main_metric"], found["task"], found["classes"]) == ("sup_acc1", "supervised", 5)
    assert found["facts"] == {"model_classes": 6, "missing_classes": [], "missing_samples": 0}


def test_pictures_are_embedded_once_for_all_suites_and_cached(folder, tmp_path):
    suites = parse_suites(["supervised", "knn", "linear_probe"])
    one, two = Sees(), Sees()
    first = run(one, folder, tmp_path / "one", suites, tmp_path / "cache")
    second = run(two, folder, tmp_path / "two", suites, tmp_path / "cache")
    assert (one.images, two.images) == (100, 0)
    assert first == second == run(Sees(), folder, tmp_path / "three", suites)
    alone = run(Sees(), folder, tmp_path / "four", parse_suites(["knn"]))
    assert alone[0]["metrics"] == first[1]["metrics"]


def test_classes_that_the_model_lacks(folder, tmp_path):
    suite = parse_suites(["supervised"])
    few = ("x", "y", "dog", "cow", "bee", "ant")
    with pytest.raises(ConfigError, match=r"lacks 1 of the 5 classes of .*, such as 'hot dog'"):
        run(Sees(few), folder, tmp_path / "out", suite)
    assert not (tmp_path / "out").exists()
    counting = parse_suites([{"type": "supervised", "missing": "wrong"}])
    (found,) = run(Sees(few), folder, tmp_path / "out", counting)
    logits, labels = expected_logits(folder)
    there = labels < 4
    right = logits[:, [5, 4, 3, 2]].argmax(1) == labels
    assert found["metrics"]["sup_acc1"] == pytest.approx((right & there).mean())
    assert found["metrics"]["sup_acc5"] == pytest.approx(there.mean())
    assert found["facts"]["missing_classes"] == ["hot dog"]
    assert found["facts"]["missing_samples"] == 12
    with pytest.raises(ConfigError, match="lacks 5 of the 5"):
        run(Sees(tuple("abcdef")), folder, tmp_path / "no", counting)


def test_names_can_be_mapped(folder, tmp_path):
    model = ("w5", "zebra", "w4", "w3", "w2", "w1")
    mapping = dict(zip(NAMES, ("w1", "w2", "w3", "w4", "w5"), strict=True))
    (tmp_path / "names.tsv").write_text("".join(f"{k}\t{v}\n" for k, v in mapping.items()))
    (tmp_path / "names.json").write_text(json.dumps(mapping))
    (plain,) = run(Sees(), folder, tmp_path / "plain", parse_suites(["supervised"]))
    for given in (mapping, str(tmp_path / "names.tsv"), str(tmp_path / "names.json")):
        suite = parse_suites([{"type": "supervised", "match": "exact", "mapping": given}])
        assert suite[0].model_dump()["mapping"] == mapping  # what the file holds is part of what was asked
        (found,) = run(Sees(model), folder, tmp_path / "mapped", suite)
        assert found["metrics"] == plain["metrics"]
    exact = parse_suites([{"type": "supervised", "match": "exact"}])
    with pytest.raises(ConfigError, match="'hot dog'"):
        run(Sees(), folder, tmp_path / "out", exact)
    twice = parse_suites([{"type": "supervised", "mapping": {"ant": "bee"}}])
    with pytest.raises(ConfigError, match="are the model's 'bee'"):
        run(Sees(), folder, tmp_path / "out", twice)
    with pytest.raises(ConfigError, match="names two classes of the model"):
        run(Sees(("dog", "Dog", *MODEL[2:])), folder, tmp_path / "out", parse_suites(["supervised"]))
    with pytest.raises(ConfigError, match="does not exist"):
        parse_suites([{"type": "supervised", "mapping": str(tmp_path / "none.tsv")}])
    (tmp_path / "names.tsv").write_text("ant bee\n")
    with pytest.raises(ConfigError, match="line 1: 'ant bee' has no tab"):
        parse_suites([{"type": "supervised", "mapping": str(tmp_path / "names.tsv")}])
    with pytest.raises(ValidationError):
        parse_suites([{"type": "supervised", "mapping": 3}])
    assert "mapping" in json.dumps(TypeAdapter(list[SuiteOption]).json_schema())


def test_sets_with_several_right_classes(folder, tmp_path):
    rng = np.random.default_rng(1)
    lists = [sorted(rng.choice(5, rng.integers(0, 4), replace=False).tolist()) for _ in range(60)]
    path = Path(folder, "test", "labels.json")
    path.write_text(json.dumps(lists))
    (found,) = run(Sees(), folder, tmp_path / "out", parse_suites(["supervised"]))
    logits, _ = expected_logits(folder)
    scores = logits[:, [5, 4, 3, 2, 0]]
    hits = [p in right for p, right in zip(scores.argmax(1), lists, strict=True) if right]
    assert found["metrics"]["sup_real_acc1"] == pytest.approx(np.mean(hits))
    assert found["facts"]["without_right_class"] == sum(not right for right in lists)
    right = np.array([[c in some for c in range(5)] for some in lists])
    theirs = np.mean([average_precision_score(right[:, c], scores[:, c]) for c in range(5)])
    assert found["metrics"]["sup_map"] == pytest.approx(theirs, abs=2e-3)  # equal pixels make ties
    wrong = (([[0]], "1 lists for 60"), ([[7]] * 60, "7 is no number"), ({"a": 1}, "1 lists"), (3, "not a"))
    for bad, message in wrong:
        path.write_text(json.dumps(bad))
        with pytest.raises(DataError, match=message):
            run(Sees(), folder, tmp_path / "bad", parse_suites(["supervised"]))


def test_average_precision_by_hand():
    scores = np.array([[0.9, 1], [0.8, 1], [0.7, 1], [0.6, 1]])
    right = np.array([[1, 0], [0, 0], [1, 0], [0, 0]], bool)
    assert mean_average_precision(scores, right) == pytest.approx((1 + 2 / 3) / 2 / 2)
    rng = np.random.default_rng(0)
    scores, right = rng.normal(size=(50, 6)), rng.random((50, 6)) < 0.3
    theirs = [average_precision_score(right[:, c], scores[:, c]) for c in range(6)]
    assert mean_average_precision(scores, right) == pytest.approx(np.mean(theirs))


def test_what_the_model_lacks_is_told_before_anything_is_embedded(folder, tmp_path):
    headless = Sees(())
    with pytest.raises(ConfigError, match="'supervised' needs a model with a classifier"):
        run(headless, folder, tmp_path / "out", parse_suites(["supervised"]))
    with pytest.raises(ConfigError, match="'zero_shot' compares pictures with texts, and model is an image model"):
        run(headless, folder, tmp_path / "out", parse_suites(["knn", "zero_shot"]))
    assert headless.images == 0
    assert not (tmp_path / "out").exists()
    run(headless, folder, tmp_path / "out", parse_suites(["knn"]))


def test_a_real_classifier_folder_on_the_digits(tmp_path):
    options = ClassifierOptions(image_size=32, head_init="small")
    classifier = build_classifier("timm:test_efficientnet", 10, 3, options)
    write_classifier_folder(str(tmp_path / "model"), classifier, LabelSpace(WORDS), {})
    write_digits_evalset(str(tmp_path / "wds_digits"))
    suites = parse_suites(["supervised", "knn", "linear_probe"])
    for out in ("one", "two"):
        evaluate(str(tmp_path / "model"), [str(tmp_path / "wds_digits")], suites, str(tmp_path / out), device="cpu")
    first, second = ((tmp_path / out / "results.json").read_bytes() for out in ("one", "two"))
    assert first == second
    metrics = {r["suite"]: r["metrics"] for r in json.loads(first)["results"]}
    assert metrics["supervised"]["sup_acc1"] < 0.4  # an untrained head
    assert metrics["linear_probe"]["lp_acc1"] > 0.15
