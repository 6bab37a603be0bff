"""Results as CLIP_benchmark writes them: its `build` makes one CSV of them, which its notebook and others read.

`build` merges the metrics into the record and makes every key a column, so what we add beside its own keys are plain
values at the top level: how many samples, what a guess reaches, which words and which set (hashes) a number belongs to.
File names are its own too, ``{dataset}_{pretrained}_{model}_{language}_{task}.json``; the name of a suite that a config
named follows. A multilingual result gives one file for each language, as there; that of the set's own language is
called by its suite, too, because `zero_shot` has a file of that name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ...shards import storage

FOLDER = "clip_benchmark"
NAME_BYTES = 220  # file systems allow 255, of which an unfinished file takes 18 more, and `.json` 5
SCALARS = ("suite", "version", "split", "n", "classes", "templates", "chance", "main_metric", "text_hash",
           "dataset_digest")  # fmt: skip
_COLUMN = {"suite": "suite", "version": "suite_version", "templates": "template_count"}


def write_clip_benchmark(
    out: str, digest: str, model: str, record: Mapping[str, Any], tables: Mapping[str, Any]
) -> None:
    """Write the files of one entry of ``results.json``.

    Args:
        digest: of the model's weights; ``pretrained`` is its beginning, not a path.
        tables: of the entry; ``languages`` holds the results of each language, where there are several.
    """
    for one in clip_benchmark_records(digest, model, record, tables):
        parts = [one[k] for k in ("dataset", "pretrained", "model", "language", "task")]
        taken = one["task"] != record["task"] and one["language"] == record["language"]
        named = record["suite"] != record["type"] or taken
        name = "_".join([*parts, *([record["suite"]] if named else [])]).replace("/", "_")
        storage.write_json(storage.join(out, FOLDER, f"{_short(name)}.json"), one)


def _short(name: str) -> str:
    """A name that a file can have: one of more than `NAME_BYTES` ends in a hash of all of it."""
    body = name.encode("utf-8", "surrogateescape")
    if len(body) <= NAME_BYTES:
        return name
    digest = hashlib.blake2b(body, digest_size=8).hexdigest()
    return f"{body[: NAME_BYTES - 17].decode('utf-8', 'ignore')}-{digest}"


def clip_benchmark_records(
    digest: str, model: str, record: Mapping[str, Any], tables: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The content of the files: CLIP_benchmark's keys, ``metrics``, and plain values."""
    base = {
        "dataset": record["dataset"],
        "model": model,
        "pretrained": digest[:16],
        "task": record["task"],
        "metrics": dict(record["metrics"]),
        "language": record["language"],
    }
    more = {_COLUMN.get(key, key): record[key] for key in SCALARS}
    rows = tables.get("languages")
    if not isinstance(rows, list):
        return [base | more]
    return [
        base
        | {"task": "zeroshot_classification", "metrics": row["metrics"], "language": row["language"]}
        | more
        | {key: row[key] for key in ("n", "classes", "chance", "text_hash")}
        | {"template_count": row["templates"], "main_metric": "acc1"}
        for row in rows
    ]
