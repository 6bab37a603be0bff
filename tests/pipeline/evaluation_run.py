"""A run with many suites on every kind of set, small: its config, copies that lack the evaluation, what it wrote."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pretrain_run import config, make_pools

from curate.shards.demo.captions import WORDS
from curate.shards.demo.digits import held_out
from curate.shards.evalsets.write import write_evalset

SETS = [
    "digits",
    "digits_retrieval",
    "digits_pairs",
    "digits_multilabel",
    "digits_shift",
    "digits_groups",
    "digits_languages",
    "digits_association",
]
KNN = {"type": "knn", "sets": ["digits"], "k": [5]}
SUITES: list[Any] = [
    "zero_shot",
    "retrieval",
    "compositional",
    "multi_label",
    "association",
    "multilingual",
    KNN,
    {"type": "ridge_probe", "sets": ["digits"]},
    {"type": "fast", "sets": ["digits", "digits_shift"], "samples": 60},
]
EVAL: dict[str, Any] = {"suites": SUITES, "data": SETS, "shifts": {"digits": ["digits_shift"]}}
PRETRAIN = {"seeds": 2, "samples_seen": 96, "recipe": {"type": "clip", "warmup": 2}}


SMALL = list(held_out("test"))[:20]


def measured_config(folder: Path, address: str = "inline", evaluation: dict[str, Any] | None = None) -> str:
    """Pools and config of the run in `folder`; returns the config's path."""
    make_pools(folder)
    return config(folder, PRETRAIN, address, eval=evaluation or EVAL)


def without_results(original: Path, folder: Path, address: str = "inline", **evaluation: Any) -> str:
    """A copy of a run that has yet to evaluate, with other options of `eval`; returns its config's path."""
    ignored = shutil.ignore_patterns("eval-*", "report-*", "evaluation", "report", ".features")
    shutil.copytree(original / "runs", folder / "runs", symlinks=True, ignore=ignored)
    value = yaml.safe_load((original / "config.yaml").read_text())
    value["workdir"] = str(folder / "runs")
    value["cluster"]["address"] = address
    value["eval"] |= evaluation
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return str(path)


def results_of(folder: Path) -> dict[str, str]:
    """Digest of every file that was measured, by its place in the run's ``evaluation/``, and of the tables over all."""
    run = folder / "runs" / "trained"
    found = {}
    for model in sorted((run / "evaluation").glob("*/*/*")):
        for path in sorted(p for p in model.rglob("*") if p.is_file()):
            found[str(path.relative_to(run))] = hashlib.sha256(path.read_bytes()).hexdigest()
    for name in ("evaluation/results.parquet", "evaluation/comparison.json", "examples.parquet"):
        found[name] = hashlib.sha256((run / "report" / name).read_bytes()).hexdigest()
    return found


def artifacts(folder: Path, kind: str) -> set[str]:
    return {p.name for p in (folder / "runs" / "artifacts").iterdir() if p.name.startswith(f"{kind}-")}


def small_set(folder: Path, name: str = "wds_small") -> Path:
    """A little classification set, of the test split alone."""
    write_evalset(str(folder / name), WORDS, ["a {c}"], {"test": SMALL})
    return folder / name


def image_folder(folder: Path) -> Path:
    """An image folder: split/class/picture."""
    made = folder / "pictures"
    for number, (body, label) in enumerate(SMALL):
        place = made / "test" / WORDS[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:03d}.webp").write_bytes(body)
    return made


def parquet_set(folder: Path) -> Path:
    made = folder / "table"
    made.mkdir()
    rows = [{"image": {"bytes": body, "path": f"{i}"}, "label": label} for i, (body, label) in enumerate(SMALL)]
    pq.write_table(pa.Table.from_pylist(rows), made / "test-00000-of-00001.parquet")
    return made
