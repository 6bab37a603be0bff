"""Results as DataComp's evaluation writes them, and the folder that its leaderboard takes. Both stay on disk.

``eval_results.jsonl`` has one line for each set, ``{"key", "dataset", "metrics": {..., "main_metric"}}``. The
aggregator drops lines without a main metric and then wants exactly the 38 scored tasks. So the 40 tasks go by their key
and display name, and sets that are none of them have their metrics here but null for the main one: they can neither
stand in for a task nor spoil the count. Multi-label and compositional results are no protocol of DataComp's and are
left out, as are probes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ...errors import ConfigError
from ...shards import storage
from ..tasks.aggregates import Record, main_value, task_of_record, zero_shot_records

DATACOMP_RESULTS = "eval_results.jsonl"
Scale = Literal["small", "medium", "large", "xlarge"]

LEADERBOARD_KEYS = ("model", "dataset_size", "checkpoint", "batch_size", "learning_rate", "method_name", "author",
                    "email", "hf_username", "hf_repo_name", "timestamp", "track", "writeup")  # fmt: skip
"""What a leaderboard record says beside ``scale`` and the numbers; all of it is the submitter's to give."""


def datacomp_lines(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The lines, in the order of the records."""
    lines = []
    for record in zero_shot_records(records):
        task = task_of_record(record)
        name = record["dataset"]
        main = main_value(record) if task is not None and task.metric is not None else None
        key, title = (task.key, task.name) if task is not None else (name, name)
        lines.append({"key": key, "dataset": title, "metrics": {**record["metrics"], "main_metric": main}})
    return lines


def write_datacomp(out: str, records: Sequence[Record]) -> None:
    """Write ``eval_results.jsonl``; no file without a result of its protocols."""
    lines = datacomp_lines(records)
    if lines:
        storage.write_bytes(storage.join(out, DATACOMP_RESULTS), _jsonl(lines))


def leaderboard_record(records: Sequence[Record], scale: Scale, about: Mapping[str, Any]) -> dict[str, Any]:
    """One record of DataComp's leaderboard: what the submitter says, and each scored task's main metric.

    Args:
        about: values of `LEADERBOARD_KEYS`; those that are not given are null. Nothing is made up: no clock is read
            for ``timestamp``.

    Raises:
        ConfigError: a key that such a record does not have.
    """
    if strange := sorted(set(about) - set(LEADERBOARD_KEYS)):
        raise ConfigError(f"a leaderboard record has no {strange[0]!r}; it has {', '.join(LEADERBOARD_KEYS)}")
    numbers = {
        line["dataset"]: line["metrics"]["main_metric"]
        for line in datacomp_lines(records)
        if line["metrics"]["main_metric"] is not None
    }
    return {"scale": scale, **{key: about.get(key) for key in LEADERBOARD_KEYS}, **numbers}


def write_leaderboard_folder(
    folder: str,
    records: Sequence[Record],
    scale: Scale,
    about: Mapping[str, Any],
    checkpoint: str | None = None,
    samples: Sequence[str] = (),
) -> str:
    """Write ``<scale>_scale/`` as the leaderboard wants it; it is only written, never sent anywhere.

    Args:
        folder: where the folder goes.
        records: entries of one model's ``results.json``.
        about: see `leaderboard_record`.
        checkpoint: file that becomes ``checkpoint.pt``.
        samples: files of the subset that go to ``samples/`` under their own names.

    Returns:
        The folder: ``results.jsonl`` (one line), and what was given.

    Raises:
        ConfigError: a key or a file that does not exist, two sample files of one name.
    """
    line = leaderboard_record(records, scale, about)
    names = [path.rstrip("/").rsplit("/", 1)[-1] for path in samples]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"two sample files are called {twice!r}")
    whole = storage.join(folder, f"{scale}_scale")
    copies = [(path, storage.join(whole, "samples", name)) for path, name in zip(samples, names, strict=True)]
    if checkpoint is not None:
        copies.append((checkpoint, storage.join(whole, "checkpoint.pt")))
    for path, _ in copies:
        if not storage.exists(path):
            raise ConfigError(f"{path} does not exist; the leaderboard folder needs it")
    for path, target in copies:
        with storage.publishing(target) as temporary:
            shutil.copyfile(storage.local(path), temporary)
    storage.write_bytes(storage.join(whole, "results.jsonl"), _jsonl([line]))
    return whole


def _jsonl(lines: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines).encode()
