"""Evaluate one model on several sets with several suites: load once, embed once, keep every sample's outcome.

What is wrong with the sets is found before the model is loaded, and nothing is skipped: a missing split is an error, so
that a leaderboard cannot be partial without anybody noticing. Files, all byte for byte functions of model, sets and
suites (no times, no paths), in the folder `out`:

    outcomes/<dataset>.<suite>.parquet  one row per sample: key, label, prediction, correct, rank
    clip_benchmark/*.json               one per dataset and suite, as CLIP_benchmark writes them (`build` reads them)
    eval_results.jsonl                  one line per dataset, as DataComp's evaluation writes them (zero-shot only)
    results.json                        all of it, with tables; written last, so a folder that has it is whole
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ConfigError
from ..shards import storage
from ..shards.evalset import EvalSet, EvalSplit
from .features import ClassScores, Features, TextFeatures, embedded, has_head, text_hash
from .metrics import Outcomes, confusion_matrix, most_confused, per_class_table
from .statistics import wilson
from .suites import EvalContext, Suite, SuiteResult

if TYPE_CHECKING:
    from ..pretrain.encoders.encoder import Encoder

FORMAT = 1
RESULTS = "results.json"
DATACOMP_RESULTS = "eval_results.jsonl"
FULL_CONFUSION = 100  # classes up to which results.json holds the whole matrix
MOST_CONFUSED = 50

Progress = Callable[[int, int], None]


def evaluate(
    encoder_dir: str,
    evalset_folders: Sequence[str],
    suites: Sequence[Suite],
    out: str,
    cache_dir: str | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    pretrained: str | None = None,
) -> dict[str, Any]:
    """Run every suite on every set and write the results.

    Args:
        encoder_dir: encoder folder, or anything that `load_encoder` takes.
        evalset_folders: sets in CLIP_benchmark's WebDataset layout.
        suites: what to measure, from `suites.parse_suites` or a config.
        out: folder for the files.
        cache_dir: folder where image features are kept; with it, a killed evaluation goes on where it was.
        device: ``auto``, ``cpu``, ``cuda``...
        progress: called with (images embedded, images to embed).
        pretrained: local checkpoint, when `encoder_dir` is a model name.

    Returns:
        The results without the per-class tables, as strict JSON: ``{"encoder": digest, "results": [...]}``.

    Raises:
        ConfigError: no set, no suite, two of the same name, or no such model.
        DataError: a set, a split, a tar, an image or the templates are missing or broken; says which.
    """
    sets = open_sets(evalset_folders, suites)
    from ..pretrain.encoders.load_encoder import load_encoder  # torch, once it is clear that there is work

    encoder = load_encoder(encoder_dir, pretrained, device=device)
    name = encoder_dir.rstrip("/").rsplit("/", 1)[-1]
    return evaluate_encoder(encoder, sets, suites, out, name, cache_dir, progress)


Sets = list[tuple[EvalSet, dict[str, EvalSplit]]]


def open_sets(folders: Sequence[str], suites: Sequence[Suite]) -> Sets:
    """Open every set with the splits that the suites need.

    Raises:
        ConfigError: no set, no suite, or two of the same name.
        DataError: what is missing or broken, and where.
    """
    sets: Sets = []
    for folder in folders:
        evalset = EvalSet.open(folder)
        wanted = dict.fromkeys(split for suite in suites for split in suite.splits())
        sets.append((evalset, {name: evalset.split(name) for name in wanted}))
        for suite in suites:
            suite.templates_for(evalset)
    _require_distinct("suite", [suite.label for suite in suites], "give one of them a `name`")
    _require_distinct("evaluation set", [evalset.name for evalset, _ in sets], "rename one of the folders")
    return sets


def _require_distinct(what: str, names: Sequence[str], remedy: str) -> None:
    if not names:
        raise ConfigError(f"there is no {what} to evaluate with")
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise ConfigError(f"two {what}s are called {twice!r}; {remedy}")


def evaluate_encoder(
    encoder: Encoder,
    sets: Sets,
    suites: Sequence[Suite],
    out: str,
    name: str,
    cache_dir: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """As `evaluate`, for a model in memory and sets that are open; `name` is the model's in CLIP_benchmark's files."""
    require(encoder, sets, suites, name)
    text = TextFeatures(encoder)
    todo = sum(len(split) for _, splits in sets for split in splits.values())
    records, described, done = [], [], 0
    for evalset, splits in sets:
        features: dict[str, Features] = {}
        norms: dict[str, Any] = {}
        for split in splits.values():
            step = _shifted(progress, done, todo)
            features[split.name], norms[split.name] = embedded(encoder, evalset, split, cache_dir, step)
            done += len(split)
        scores = ClassScores(encoder, norms.__getitem__) if has_head(encoder) else None
        context = EvalContext(evalset, features.__getitem__, text, scores)
        for suite in suites:
            result = suite.evaluate(context)
            path = f"outcomes/{evalset.name}.{suite.label}.parquet"
            _write_outcomes(storage.join(out, path), splits[suite.split].keys, result.outcomes)
            records.append(_record(evalset, suite, result, path))
            _write_clip_benchmark(out, encoder.digest, name, evalset.name, suite, result)
        described.append(_describe(evalset, splits))
    _write_datacomp(out, suites, records)
    value = {
        "format": FORMAT,
        "encoder": {"digest": encoder.digest, "dim": encoder.dim, "precision": encoder.precision},
        "sets": described,
        "results": records,
    }
    storage.write_json(storage.join(out, RESULTS), value)
    tables = {"per_class", "confusion", "most_confused"}
    short = [{k: v for k, v in record.items() if k not in tables} for record in records]
    return {"encoder": encoder.digest, "results": short}


def require(encoder: Encoder, sets: Sets, suites: Sequence[Suite], name: str) -> None:
    """Raise ConfigError if the model lacks what a suite needs: told before the first image is embedded."""
    classes: tuple[str, ...] = encoder.head.classes if has_head(encoder) else ()  # type: ignore[attr-defined]
    for suite in suites:
        if "text" in suite.needs and "text" not in getattr(encoder, "modalities", ("image", "text")):
            raise ConfigError(
                f"the suite {suite.label!r} compares pictures with texts, and {name} is an image model; "
                "evaluate it with knn, linear_probe or, if it has a classifier, supervised"
            )
        if "head" in suite.needs and not classes:
            raise ConfigError(
                f"the suite {suite.label!r} needs a model with a classifier and names of its classes, and {name} has "
                "none; name the folder of a supervised training"
            )
        for evalset, _ in sets:
            suite.check_set(evalset, classes)


def _shifted(progress: Progress | None, done: int, todo: int) -> Progress | None:
    return None if progress is None else lambda part, _: progress(done + part, todo)


def _record(evalset: EvalSet, suite: Suite, result: SuiteResult, path: str) -> dict[str, Any]:
    """One entry of ``results``: what was asked, what came out, and what it belongs to."""
    found, classes = result.outcomes, len(evalset.classnames)
    confusion = confusion_matrix(found.labels, found.prediction, classes)
    correct = int(found.correct.sum())
    return {
        "dataset": evalset.name,
        "suite": suite.label,
        "task": suite.task,
        "options": suite.model_dump(mode="json"),
        "version": suite.version,
        "split": suite.split,
        "dataset_digest": evalset.digest,
        "text_hash": text_hash(evalset.classnames, suite.templates_for(evalset)),
        "n": len(found.labels),
        "classes": classes,
        "chance": 1 / classes,
        "main_metric": suite.main_metric,
        "metrics": result.metrics,
        "correct": correct,
        "wilson95": list(wilson(correct, len(found.labels)) or ()),
        "facts": result.facts,
        "outcomes": path,
        "per_class": per_class_table(confusion, evalset.classnames),
        "confusion": confusion.tolist() if classes <= FULL_CONFUSION else None,
        "most_confused": most_confused(confusion, MOST_CONFUSED),
    }


def _describe(evalset: EvalSet, splits: dict[str, EvalSplit]) -> dict[str, Any]:
    """The set as it was: texts in full, so that a number can be traced to its prompts years later."""
    return {
        "name": evalset.name,
        "digest": evalset.digest,
        "classnames": list(evalset.classnames),
        "templates": list(evalset.templates),
        "splits": {name: len(split) for name, split in splits.items()},
    }


def _write_outcomes(path: str, keys: Sequence[str], found: Outcomes) -> None:
    kind = pa.uint16() if found.classes <= 1 << 16 else pa.uint32()
    table = pa.table(
        {
            "key": pa.array(keys, pa.string()),
            "label": pa.array(found.labels).cast(kind),
            "prediction": pa.array(found.prediction).cast(kind),
            "correct": pa.array(found.correct),
            "rank": pa.array(found.rank).cast(kind),
        }
    )
    with storage.publishing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _write_clip_benchmark(out: str, digest: str, model: str, dataset: str, suite: Suite, result: SuiteResult) -> None:
    """CLIP_benchmark's record and file name; ``pretrained`` is the content of the weights, not a path."""
    record = {
        "dataset": dataset,
        "model": model,
        "pretrained": digest[:16],
        "task": suite.task,
        "metrics": result.metrics,
        "language": "en",
    }
    parts = [dataset, digest[:16], model, "en", suite.task, *([] if suite.label == suite.type else [suite.label])]
    name = "_".join(parts).replace("/", "_")
    storage.write_json(storage.join(out, "clip_benchmark", f"{name}.json"), record)


def _write_datacomp(out: str, suites: Sequence[Suite], records: Sequence[dict[str, Any]]) -> None:
    """DataComp's lines, of the first zero-shot suite (its protocol is zero-shot); none without one."""
    suite = next((s for s in suites if s.type == "zero_shot"), None)
    if suite is None:
        return
    lines = []
    for record in records:
        if record["suite"] == suite.label:
            metrics = {**record["metrics"], "main_metric": record["metrics"][record["main_metric"]]}
            lines.append({"key": record["dataset"], "dataset": record["dataset"], "metrics": metrics})
    body = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
    storage.write_bytes(storage.join(out, DATACOMP_RESULTS), body.encode())
