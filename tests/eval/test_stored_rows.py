"""Metrics follow from the rows that evaluations store: of every suite, on the built-in sets, through the files."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from curate.eval.comparison.contributions import contributions, estimate
from curate.eval.comparison.recomputed import interval
from curate.eval.evaluate import evaluate_encoders, open_sets
from curate.eval.suites import parse_suites
from curate.pretrain.encoders.classifier_encoder import LinearHead
from curate.shards.demo.digits import WORDS
from curate.shards.evalsets.builtin import BUILTIN
from curate.shards.evalsets.open import open_evalset
from curate.shards.evalsets.write import write_groups, write_right_classes
from curate.shards.images.image import decode_rgb

SETS = ("digits", "digits_groups", "digits_languages", "digits_pairs", "digits_association", "digits_multilabel",
        "digits_retrieval")  # fmt: skip
SUITES = parse_suites(
    [
        "zero_shot", "multilingual", "compositional", "association", "multi_label", "retrieval", "fairness",
        {"type": "knn", "k": [1, 5, 20]},
        {"type": "fewshot", "shots": [1, 10], "seeds": 2},
        {"type": "ridge_probe", "sets": ["digits"]},
        {"type": "linear_probe", "sets": ["digits"], "c": 1.0},
        {"type": "supervised", "sets": ["digits"]},
        {"type": "fast", "samples": 60, "sets": ["digits"]},
    ]
)  # fmt: skip
NOT_FROM_ROWS = {"mean_average_precision", "mean_average_precision_present", "sup_map"}
"""Averages of precision need scores, which are not stored."""


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Blurred:
    """Sees 6 x 6 patches of a picture, hears letters, and has a classifier of digits that knows nothing."""

    dim, precision, digest, modalities = 36, "fp32", "7" * 32, ("image", "text")

    def __init__(self) -> None:
        weight = np.random.default_rng(0).normal(size=(10, self.dim)).astype(np.float32)
        self.head = LinearHead(tuple(WORDS), weight, np.zeros(10, np.float32))

    def encode_pooled(self, images):
        found = []
        for image in images:
            grey = decode_rgb(image).mean(2)
            found.append([part.std() for row in np.array_split(grey, 6) for part in np.array_split(row, 6, 1)])
        return np.array(found, np.float32) + 1e-3

    def encode_images(self, images):
        return unit(self.encode_pooled(images))

    def encode_texts(self, texts):
        return unit(np.stack([np.random.default_rng(list(text.encode())).normal(size=self.dim) for text in texts]))


def faces(folder: str) -> None:
    classes = [f"age: {i}" for i in range(3)] + ["gender: male", "gender: female"]
    classes += [f"race: {name}" for name in ("White", "Black", "Indian")] + [f"toxic: w{i}" for i in range(21)]
    rng = np.random.default_rng(3)
    source = open_evalset(f"{Path(folder).parent}/digits").split("test")
    values = rng.integers(0, (3, 2, 3), (len(source), 3)).tolist()
    samples = [(image, 0, value) for image, value in zip(source.images(), values, strict=True)]
    templates = [f"{question}: a {{c}} face" for question in ("age", "gender", "race", "toxic")]
    write_groups(folder, classes, templates, {"age": None, "gender": None, "race": None}, {"test": samples})


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> tuple[Path, list[dict]]:
    home = tmp_path_factory.mktemp("rows")
    for name in SETS:
        BUILTIN[name](str(home / name))
    faces(str(home / "fairface"))
    lists = [[] if i % 9 == 0 else [i % 10, (i * 7) % 10] for i in range(450)]
    write_right_classes(str(home / "digits"), "test", lists)
    sets = open_sets([str(home / name) for name in (*SETS, "fairface")], SUITES)
    evaluate_encoders({"m": Blurred()}, sets, {"m": str(home / "out")})
    return home / "out", json.loads((home / "out/results.json").read_text())["results"]


def test_every_metric_follows_from_the_rows(results):
    folder, records = results
    assert {r["type"] for r in records} == {suite.type for suite in SUITES}
    for record in records:
        table = pq.read_table(folder / record["outcomes"])
        for metric, value in record["metrics"].items():
            where = f"{record['dataset']} {record['suite']} {metric}"
            if value is None or metric.startswith("count_") or metric in NOT_FROM_ROWS:
                continue
            found = contributions(table, metric, value)
            if found is not None:
                assert found.estimate == pytest.approx(value, abs=1e-9), where
            else:
                ends = interval(table, metric, value, draws=50)
                assert metric.endswith("_wg") or "_worst_" in metric, where
                assert ends is not None or value in (0.0, 1.0), where


def record_of(records: list[dict], dataset: str, suite: str) -> dict:
    return next(r for r in records if (r["dataset"], r["suite"]) == (dataset, suite))


def test_rows_without_a_right_class_do_not_count(results):
    folder, records = results
    record = record_of(records, "digits", "supervised")
    table = pq.read_table(folder / record["outcomes"])
    assert len(contributions(table, "sup_real_acc1").value) == 400
    assert estimate(contributions(table, "sup_real_acc1")).kind == "wilson"


def test_the_interval_of_an_estimate_is_about_the_whole_set(results):
    record = record_of(results[1], "digits", "fast")
    assert record["wilson95"] == record["facts"]["interval95"]
    assert record["n"] == 60
    low, high = record["wilson95"]
    assert low < record["metrics"]["fast_acc1"] < high


def test_means_of_groups_by_hand(results):
    folder, records = results
    record = record_of(records, "fairface", "fairness")
    table = pq.read_table(folder / record["outcomes"]).to_pandas()
    right = table["gender"] == table["group:gender"]
    of = right[(table["group:race"] == 1) & (table["group:gender"] == 0)]
    assert record["metrics"]["acc_gender_x_race:1_gender:0"] == of.mean()
    by_race = (table["toxic"] >= 18).groupby(table["group:race"]).mean()
    assert record["metrics"]["toxicity_crime_wg"] == by_race.max()
