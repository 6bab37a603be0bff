import io
import json
from pathlib import Path

import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from curate.errors import ConfigError, DataError
from curate.eval.comparison.leaderboard import gather, leaderboard
from curate.eval.embedding.features import TextFeatures, class_weights, image_features
from curate.eval.evaluate import evaluate, evaluate_encoders, open_sets
from curate.eval.suites import parse_suites
from curate.pretrain.encoders.load_encoder import load_encoder
from curate.pretrain.models.architecture import build, resolve_model
from curate.pretrain.models.encoder_folder import WEIGHTS_FILE, write_config, write_record
from curate.shards.demo.digits import write_digits_evalset
from curate.shards.evalsets.open import open_evalset
from curate.shards.evalsets.webdataset import write_evalset
from curate.shards.images.image import decode_rgb

NAMES = ("ant", "bee", "cow", "dog", "eel", "fox")
SUITES = parse_suites(["zero_shot", "linear_probe", "knn"])


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


class SmallEncoder:
    """Sees the class in a picture's red channel, through noise; its calls are counted."""

    dim, precision = 12, "fp32"

    def __init__(self, noise: float = 1.2, seed: int = 0) -> None:
        self.digest = f"{seed:016x}{int(noise * 1000):016x}"
        self.noise, self.seed = noise, seed
        self.images = self.texts = 0

    def encode_images(self, images):
        self.images += len(images)
        pixels = np.stack([decode_rgb(image)[0, 0] for image in images]).astype(int)
        noise = [np.random.default_rng([self.seed, *pixel]).normal(size=self.dim) for pixel in pixels]
        return unit(np.eye(self.dim)[pixels[:, 0]] + self.noise * np.array(noise) / np.sqrt(self.dim))

    def encode_texts(self, texts):
        self.texts += len(texts)
        return unit(np.stack([np.eye(self.dim)[NAMES.index(t.split()[-1])] for t in texts]))


def picture(label: int, number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (label, number // 256, number % 256)).save(file, "PNG")
    return file.getvalue()


def write_set(folder: Path, samples: int = 90, classes: int = 6) -> str:
    splits = {
        name: [(picture(i % classes, start + i), i % classes) for i in range(samples)]
        for name, start in (("train", 0), ("test", 10_000))
    }
    write_evalset(str(folder), NAMES[:classes], ["a {c}", "one {}"], splits, samples_per_tar=40)
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return write_set(tmp_path / "wds_zoo_test")


def run(encoder: SmallEncoder, folders: list[str], out: Path, cache: Path | None = None, suites=SUITES) -> dict:
    sets = open_sets(folders, suites)
    return evaluate_encoders({"small": encoder}, sets, {"small": str(out)}, str(cache) if cache else None)["small"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def no_constants(text: str) -> None:
    raise AssertionError(f"{text} is not strict JSON")


def test_files_hold_what_happened(folder, tmp_path):
    encoder = SmallEncoder()
    summary = run(encoder, [folder], tmp_path / "out")
    results = json.loads((tmp_path / "out/results.json").read_text(), parse_constant=no_constants)
    assert [(r["dataset"], r["suite"], r["task"]) for r in results["results"]] == [
        ("zoo", "zero_shot", "zeroshot_classification"),
        ("zoo", "linear_probe", "linear_probe"),
        ("zoo", "knn", "knn"),
    ]
    assert results["encoder"]["digest"] == encoder.digest
    assert results["sets"][0]["templates"] == ["a {c}", "one {}"]
    assert results["sets"][0]["splits"] == {"test": 90, "train": 90}
    zero = results["results"][0]
    evalset = open_evalset(folder)
    assert zero["dataset_digest"] == evalset.digest
    assert (zero["n"], zero["classes"], zero["chance"], zero["main_metric"]) == (90, 6, 1 / 6, "acc1")
    assert 0.4 < zero["metrics"]["acc1"] < 0.99
    assert zero["wilson95"][0] < zero["metrics"]["acc1"] < zero["wilson95"][1]
    assert [row["name"] for row in zero["per_class"]] == list(NAMES)
    assert sum(row["correct"] for row in zero["per_class"]) == zero["correct"]
    assert np.trace(zero["confusion"]) == zero["correct"]
    assert results["results"][1]["text_hash"] != zero["text_hash"]  # a probe does not depend on templates

    table = pq.read_table(tmp_path / "out" / zero["outcomes"]).to_pydict()
    split = evalset.split("test")
    assert table["key"] == split.keys
    assert table["label"] == split.labels.tolist()
    image = encoder.encode_images(list(split.images()))
    expected = (image @ class_weights(TextFeatures(encoder), evalset, evalset.templates).T).argmax(1)
    assert table["prediction"] == expected.tolist()
    assert table["correct"] == (expected == split.labels).tolist() == [rank == 0 for rank in table["rank"]]
    assert np.mean(table["correct"]) == zero["metrics"]["acc1"]

    assert summary == json.loads(json.dumps(summary, allow_nan=False))
    assert [r["metrics"] for r in summary["results"]] == [r["metrics"] for r in results["results"]]
    assert "per_class" not in summary["results"][0]


def test_files_of_datacomp_and_clip_benchmark(folder, tmp_path):
    other = write_set(tmp_path / "wds_pond_test", 24, 3)
    run(SmallEncoder(), [folder, other], tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out/eval_results.jsonl").read_text().splitlines()]
    assert [(line["key"], line["dataset"]) for line in lines] == [("zoo", "zoo"), ("pond", "pond")]
    assert lines[0]["metrics"]["main_metric"] is None  # none of DataComp's tasks: out of its averages
    assert lines[0]["metrics"]["acc1"] > 0.4
    assert lines[1]["metrics"]["acc5"] is None  # 3 classes
    records = {p.name: json.loads(p.read_text()) for p in (tmp_path / "out/clip_benchmark").iterdir()}
    assert len(records) == 6
    pretrained = SmallEncoder().digest[:16]
    record = records[f"zoo_{pretrained}_small_en_linear_probe.json"]
    assert {"dataset", "model", "pretrained", "task", "metrics", "language"} < set(record)
    assert {"lp_acc1", "lp_acc5", "lp_mean_per_class_recall"} == set(record["metrics"])


def test_bytes_are_the_same_cached_or_not_and_images_are_embedded_once(folder, tmp_path):
    first, second = SmallEncoder(), SmallEncoder()
    run(first, [folder], tmp_path / "one", tmp_path / "cache")
    assert first.images == 180
    run(second, [folder], tmp_path / "two", tmp_path / "cache")
    assert second.images == 0
    run(SmallEncoder(), [folder], tmp_path / "three")
    assert files(tmp_path / "one") == files(tmp_path / "two") == files(tmp_path / "three")


def test_cache_is_keyed_by_content(folder, tmp_path):
    cache = tmp_path / "cache"
    run(SmallEncoder(seed=0), [folder], tmp_path / "one", cache)
    other = SmallEncoder(seed=1)
    run(other, [folder], tmp_path / "two", cache)
    assert other.images == 180
    (Path(folder) / "classnames.txt").write_text("\n".join(["ant", "cow", "bee", *NAMES[3:]]) + "\n")
    again = SmallEncoder(seed=0)
    run(again, [folder], tmp_path / "three", cache)
    assert again.images == 0  # other words, the same pictures
    write_set(Path(folder), samples=89)
    run(again, [folder], tmp_path / "fewer", cache)
    assert again.images == 178  # other splits
    for path in cache.rglob("features-*"):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"features-.*delete the file"):
        run(SmallEncoder(seed=0), [folder], tmp_path / "four", cache)


def test_prompts_shared_by_sets_are_encoded_once(folder, tmp_path):
    other = write_set(tmp_path / "wds_pond_test", 24, 3)
    encoder = SmallEncoder()
    run(encoder, [folder, other], tmp_path / "out")
    assert encoder.texts == 12


def test_progress_counts_images_and_prompts(folder, tmp_path):
    seen = []
    sets = open_sets([folder], SUITES)
    evaluate_encoders({"m": SmallEncoder()}, sets, {"m": str(tmp_path)}, progress=lambda d, t: seen.append((d, t)))
    assert seen[-1] == (192, 192)  # two splits of 90, and 12 prompts
    assert seen == sorted(seen)


def test_what_is_broken_is_named_before_the_model_is_loaded(folder, tmp_path):
    def refused(folders, suites=SUITES):
        return evaluate(str(tmp_path / "no model"), folders, suites, str(tmp_path / "out"))

    with pytest.raises(DataError, match=r"no evaluation set at .*nowhere"):
        refused([str(tmp_path / "nowhere")])
    with pytest.raises(ConfigError, match="no evaluation set to evaluate"):
        refused([])
    with pytest.raises(ConfigError, match="no suite"):
        refused([folder], [])
    with pytest.raises(ConfigError, match="two suites are called 'knn'"):
        refused([folder], parse_suites(["knn", {"type": "knn", "k": [3]}]))
    with pytest.raises(ConfigError, match="two evaluation sets are called 'zoo'"):
        refused([folder, write_set(tmp_path / "more" / "zoo")])
    (Path(folder) / "zeroshot_classification_templates.txt").unlink()
    with pytest.raises(DataError, match=r"wds_zoo_test has no templates"):
        refused([folder])
    (Path(folder) / "train/nshards.txt").unlink()
    with pytest.raises(DataError, match="no split 'train'"):
        refused([folder])
    with pytest.raises(ConfigError, match="no model"):
        refused([folder], parse_suites([{"type": "zero_shot", "templates": ["a {c}"]}]))
    assert not (tmp_path / "out").exists()


def test_broken_image_and_empty_split_are_named(tmp_path):
    data = picture(0, 1)
    samples = [(data, 0), (data[:-30], 1), (data, 2)]
    write_evalset(str(tmp_path / "torn"), NAMES, ["a {c}"], {"test": samples, "empty": []})
    evalset = open_evalset(str(tmp_path / "torn"))
    with pytest.raises(DataError, match=r"torn: the image of test sample s0000001 is broken"):
        image_features(SmallEncoder(), evalset, evalset.split("test"))
    with pytest.raises(DataError, match="'empty' holds no sample"):
        image_features(SmallEncoder(), evalset, evalset.split("empty"))


def test_model_that_gives_nan_is_an_error(folder):
    encoder = SmallEncoder()
    encoder.encode_images = lambda images: np.full((len(images), 12), np.nan, np.float32)  # type: ignore[method-assign]
    evalset = open_evalset(folder)
    with pytest.raises(DataError, match="sample s0000000 is not a number"):
        image_features(encoder, evalset, evalset.split("test"))


# A real model: untrained, but with every part in place.


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("real")
    spec = resolve_model("ViT-mini-8-32")
    model = build(spec, seed=5)
    encoder, data = str(folder / "model"), str(folder / "wds_digits")
    write_config(encoder, spec)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, f"{encoder}/{WEIGHTS_FILE}", {"format": "pt"})
    write_record(encoder, spec, {})
    write_digits_evalset(data)
    return encoder, data


def test_real_model_on_the_digits(real, tmp_path):
    encoder, data = real
    for out in ("one", "two"):
        evaluate(encoder, [data], SUITES, str(tmp_path / out), str(tmp_path / f"{out} cache"))
    assert files(tmp_path / "one") == files(tmp_path / "two")
    rows = gather({("untrained", 0): str(tmp_path / "one")})
    board = leaderboard(rows, "digits", "linear_probe")
    assert (board.n, board.classes, board.chance) == (450, 10, 0.1)
    assert board.arms[0].over_seeds.mean > 0.15  # even an untrained network tells some digits apart
    assert 0 < leaderboard(rows, "digits", "zero_shot").arms[0].values[0] < 0.4


def test_zero_shot_weights_are_open_clips(real):
    folder, data = real
    encoder, evalset = load_encoder(folder, device="cpu"), open_evalset(data)
    ours = class_weights(TextFeatures(encoder), evalset, evalset.templates)
    with torch.no_grad():
        theirs = open_clip.build_zero_shot_classifier(
            encoder.model,
            tokenizer=lambda texts: torch.from_numpy(encoder.tokenizer(texts)),
            classnames=evalset.classnames,
            templates=[t.replace("{c}", "{}").format for t in evalset.templates],
        )
    np.testing.assert_allclose(ours, theirs.T.numpy(), atol=2e-6)
