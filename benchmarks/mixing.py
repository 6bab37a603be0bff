"""Do learned weights find the score that tells good pairs from bad? On a small pool whose truth is known.

    python benchmarks/mixing.py [--json] [--steps N] [--seeds N] [--model NAME]

The pool is scikit-learn's handwritten digits as photos, half of them with another digit's caption. Of three made-up
score columns ``informative`` is +-1 by the caption's truth plus noise, ``opposed`` is its opposite with more noise, and
``noise`` knows nothing. The trusted set is other scans with true captions; on it the reference model of M-FLYT is
trained for a moment, as FLYT starts from a trained CLIP too (from random weights a look-ahead of some dozen steps says
little). The labelled set that M-FLYT asks is the demo's train split. No learner sees the truth; it only made the
columns. Printed are the weights that `mix` learns, their 95 % intervals, and how well the mixed score tells true
captions from wrong ones over all rows (AUC), beside every single column. Noise and its rates are synthetic: this shows
that the learners work, not what they are worth on a web pool.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from curate.filters.memory import MemoryContext, MemoryPool
from curate.filters.mixing import auc
from curate.filters.scorers.mix import Mix
from curate.pretrain.data.dataset import SubsetDataset
from curate.pretrain.recipe import ClipRecipe
from curate.pretrain.trainer import train
from curate.shards.demo import digits
from curate.shards.demo.captions import WORDS
from curate.shards.evalsets.webdataset import write_evalset
from curate.shards.shard import Shard
from curate.shards.tar import TarWriter
from curate.shards.uid import stable_uid

COLUMNS = ["informative", "noise", "opposed"]


def png(pixels: np.ndarray) -> bytes:
    """An image file of the pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def scored(true: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The three columns for rows whose caption is true or not."""
    sign = np.where(true, 1.0, -1.0)
    noise = rng.standard_normal((3, len(true)))
    values = {"informative": sign + 0.5 * noise[0], "noise": noise[1], "opposed": -sign + noise[2]}
    return {name: value.astype(np.float32) for name, value in values.items()}


@dataclass(frozen=True)
class Written:
    """A pool with score columns, its shards, and which captions are true ``(n,) bool``."""

    pool: MemoryPool
    shards: tuple[Shard, ...]
    truth: np.ndarray


def write_pool(folder: Path, rows: int, shards: int, wrong: float = 0.5, split: str = "pool", seed: int = 0) -> Written:
    """Shards of captioned digits; a share `wrong` of the captions names another digit."""
    rng = np.random.default_rng(seed)
    scans, members = digits.scans(), digits.split()[split]
    folder.mkdir(parents=True, exist_ok=True)
    tables, files, truth = [], [], []
    for shard in range(shards):
        name = f"{shard:08d}"
        chosen, true = rng.choice(members, rows), rng.random(rows) >= wrong
        keys, captions = [f"{name}{i:04d}" for i in range(rows)], []
        with TarWriter(str(folder / f"{name}.tar")) as tar:
            for key, scan, is_true in zip(keys, chosen, true, strict=True):
                label = (int(scans.labels[scan]) + (0 if is_true else int(rng.integers(1, 10)))) % 10
                template = digits.EVAL_TEMPLATES[rng.integers(len(digits.EVAL_TEMPLATES))]
                captions.append(template.replace("{c}", WORDS[label]))
                tar.write(key, {"png": png(digits.render(scans.images[scan], rng, 32)), "txt": captions[-1].encode()})
        uids = [stable_uid(split, key) for key in keys]
        table = pa.table({"uid": uids, "key": keys, "caption": captions, "status": ["success"] * rows})
        pq.write_table(table, folder / f"{name}.parquet")
        for column, values in scored(true, rng).items():
            table = table.append_column(column, pa.array(values))
        tables.append(table)
        files.append(Shard(name, str(folder / f"{name}.tar"), str(folder / f"{name}.parquet")))
        truth.append(true)
    return Written(MemoryPool.of(tables), tuple(files), np.concatenate(truth))


def train_reference(trusted: Written, folder: Path, model: str = "RN-mini-32", steps: int = 60) -> str:
    """An encoder folder: `model` trained on the trusted pairs."""
    recipe = ClipRecipe(batch_size=128, lr=3e-3, warmup=10)
    out = str(folder / "model")
    train(recipe, model, SubsetDataset(trusted.shards), 128 * steps, 5, out, str(folder / "scratch"), device="cpu")
    return out


def write_labelled(folder: Path) -> str:
    """The demo's train split as an evaluation set."""
    rng, scans = np.random.default_rng(8), digits.scans()
    samples = [(png(digits.render(scans.images[i], rng, 32)), int(scans.labels[i])) for i in digits.split()["train"]]
    write_evalset(str(folder), WORDS, digits.EVAL_TEMPLATES, {"train": samples})
    return str(folder)


def gradients(folder: str, model: str = "RN-mini-32", **options: Any) -> dict[str, Any]:
    """Options of `m_flyt` at the size of this pool."""
    small = {"batch_size": 128, "downstream_batch": 128, "lr": 0.05, "lr_reference": 3e-4, "warmup": 5, "steps": 40}
    return {"type": "m_flyt", "downstream": folder, "model": model, **small, **options}


def measure(written: Written, context: MemoryContext, learn: dict[str, Any]) -> dict[str, Any]:
    """What one learner found and how good its score is."""
    scorer = Mix.model_validate({"columns": COLUMNS, "learn": learn})
    start = time.process_time()
    state = scorer.fit(context.of(written.pool))
    seconds = time.process_time() - start
    scores = np.concatenate([scorer.score(part, "mix", state)["mix"] for part in written.pool.members])
    keys = ("weight", "low", "high", "seeds")
    lines = scorer.describe(state)["weights"]
    return {
        "weights": {line["column"]: {key: line[key] for key in keys} for line in lines},
        "auc_of_truth": auc(scores, written.truth),
        "cpu_s": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default="RN-mini-32")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        written = write_pool(folder / "pool", 600, 4)
        trusted = write_pool(folder / "trusted", 600, 1, wrong=0.0, split="trusted", seed=1)
        context = MemoryContext(targets={"trusted": trusted.pool}, folder=str(folder / "work"), shards=written.shards)
        found: dict[str, Any] = {
            name: measure(written, context, {"type": name, "trusted": "trusted"})
            for name in ("least_squares", "logistic")
        }
        more = {"steps": arguments.steps, "seeds": arguments.seeds}
        more["pretrained"] = train_reference(trusted, folder / "reference", arguments.model)
        labelled = write_labelled(folder / "labelled")
        found["m_flyt"] = measure(written, context, gradients(labelled, arguments.model, **more))
        values = {c: np.concatenate([p.array(c) for p in written.pool.members]) for c in COLUMNS}
        single = {column: auc(value, written.truth) for column, value in values.items()}
    for name, facts in found.items():
        print(f"{name}: AUC of the truth {facts['auc_of_truth']:.3f}, {facts['cpu_s']} CPU s")
        for column, line in facts["weights"].items():
            interval = "" if line["low"] is None else f"  [{line['low']:+.4f}, {line['high']:+.4f}]"
            print(f"  {column:12} {line['weight']:+.4f}{interval}")
    print("single columns: " + ", ".join(f"{c} {value:.3f}" for c, value in single.items()))
    if arguments.json:
        print(json.dumps({**found, "single": single}))


if __name__ == "__main__":
    main()
