"""Finished evaluations made up for tests of comparisons: folders as `evaluate` leaves them, with known truth."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import special

from curate.eval.comparison.statistics import wilson
from curate.eval.metrics.accuracy import confusion_matrix, most_confused, per_class_table
from curate.eval.metrics.outcomes import Outcomes
from curate.eval.results.files import FORMAT


class Split:
    """As much of a split as outcomes ask for."""

    def __init__(self, n: int) -> None:
        self.keys = [f"s{i:07d}" for i in range(n)]


def answers(n: int, classes: int, right: float, seed: int, noise: float = 0.5) -> Outcomes:
    """Answers of a model on a set whose images have a difficulty of their own, so that models agree."""
    difficulty = np.random.default_rng(n * classes).normal(size=n)
    rng = np.random.default_rng(seed)
    mine = difficulty + noise * rng.normal(size=n)
    correct = mine < special.ndtri(right) * np.sqrt(1 + noise**2)
    labels = np.arange(n) % classes
    prediction = np.where(correct, labels, (labels + 1 + rng.integers(0, max(1, classes - 1), n)) % classes)
    correct = prediction == labels
    rank = np.where(correct, 0, rng.integers(1, max(2, classes), n))
    return Outcomes(labels, prediction, rank, classes)


def record_of(folder: Path, dataset: str, found: Outcomes, suite: str = "zero_shot", **changes) -> dict:
    """Write outcomes, and return their entry of ``results.json``."""
    path = f"outcomes/{dataset}.{suite}.parquet"
    (folder / "outcomes").mkdir(parents=True, exist_ok=True)
    pq.write_table(found.table(Split(len(found))), folder / path, compression="zstd")
    confusion = confusion_matrix(found.labels, found.prediction, found.classes)
    correct = int(found.correct.sum())
    return {
        "dataset": dataset,
        "suite": suite,
        "type": suite,
        "kind": "classification",
        "language": "en",
        "task": "zeroshot_classification",
        "options": {"type": suite},
        "version": 1,
        "split": "test",
        "dataset_digest": f"digest of {dataset}",
        "text_hash": "t0",
        "n": len(found),
        "classes": found.classes,
        "chance": 1 / found.classes,
        "main_metric": "acc1",
        "metrics": found.metrics(),
        "correct": correct,
        "wilson95": wilson(correct, len(found)),
        "facts": {},
        "outcomes": path,
        "per_class": per_class_table(confusion, [f"{dataset} class {c}" for c in range(found.classes)]),
        "most_confused": most_confused(confusion, 50),
    } | changes


def retrieval_record(folder: Path, dataset: str, images: int, captions: int, right: float, seed: int) -> dict:
    """As `record_of`, of a retrieval set with so many captions per image."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(images), captions)
    text, image = (np.where(rng.random(k) < right, 0, rng.integers(1, 20, k)) for k in (images, len(owner)))
    rank = np.concatenate([text, image])
    path = f"outcomes/{dataset}.retrieval.parquet"
    (folder / "outcomes").mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "key": [f"i{i}" for i in range(images)] + [f"c{i}" for i in range(len(owner))],
            "direction": ["text"] * images + ["image"] * len(owner),
            "rank": rank.astype(np.uint16),
            "owner": np.concatenate([np.arange(images), owner]),
            "correct": rank == 0,
        }
    )
    pq.write_table(table, folder / path)
    metrics = {f"text_retrieval_recall@{k}": float((text < k).mean()) for k in (1, 5)}
    metrics |= {f"image_retrieval_recall@{k}": float((image < k).mean()) for k in (1, 5)}
    metrics["mean_recall@1"] = (metrics["text_retrieval_recall@1"] + metrics["image_retrieval_recall@1"]) / 2
    return {
        "dataset": dataset, "suite": "retrieval", "type": "retrieval", "kind": "retrieval", "language": "en",
        "task": "zeroshot_retrieval", "options": {"type": "retrieval"}, "version": 1, "split": "test",
        "dataset_digest": f"digest of {dataset}", "text_hash": "t0", "n": len(rank), "classes": 0, "chance": None,
        "main_metric": "mean_recall@1", "metrics": metrics, "correct": int((rank == 0).sum()), "wilson95": None,
        "facts": {}, "outcomes": path,
    }  # fmt: skip


def write_results(folder: Path, records: list[dict], digest: str = "d0", aggregates: list[dict] | None = None) -> str:
    """``results.json``, last."""
    folder.mkdir(parents=True, exist_ok=True)
    value = {
        "format": FORMAT,
        "encoder": {"digest": digest, "dim": 8, "precision": "fp32"},
        "sets": [],
        "aggregates": aggregates or [],
        "results": records,
    }
    (folder / "results.json").write_text(json.dumps(value, allow_nan=False))
    return str(folder)
