"""A run of scores: the demo pool, two loaded encoders and one that is trained, and a score of every kind."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from curate.pretrain.models.architecture import build, resolve_model
from curate.shards.demo.digits import encode, render, scans
from curate.shards.tar import TarWriter
from curate.shards.uid import stable_uid

FUNCTION = """
import pyarrow as pa
import pyarrow.compute as pc


def vowels(table: pa.Table) -> pa.Array:
    return pc.count_substring_regex(table["caption"], "[aeiou]")
"""

SMALL = {"type": "demo", "rows": 240, "trusted_rows": 60}


def make_files(folder: Path) -> None:
    """What the config names: two checkpoints, a function of the user's."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in (("rn", "RN-mini-32"), ("vit", "ViT-mini-8-32")):
        torch.save(build(resolve_model(model), seed=len(name)).state_dict(), folder / f"{name}.pt")
    (folder / "house_scores.py").write_text(FUNCTION)


def encoders(folder: Path) -> dict[str, Any]:
    training = {"data": {**SMALL, "split": "trusted"}, "recipe": {"type": "clip", "batch_size": 32, "warmup": 2}}
    return {
        "rn": {"model": "RN-mini-32", "pretrained": str(folder / "rn.pt")},
        "vit": {"model": "ViT-mini-8-32", "pretrained": str(folder / "vit.pt"), "store": "float32"},
        "dfn": {"model": "RN-mini-32", "train": {**training, "samples_seen": 640}},
    }


def config(folder: Path, scores: dict[str, Any], address: str = "inline", **more: Any) -> str:
    """Write a config that computes `scores`; returns its path."""
    value = {
        "name": "scored",
        "workdir": str(folder / "runs"),
        "seed": 5,
        "pool": {
            "source": SMALL,
            "image": {"size": 32, "resize": "keep_ratio"},
            "fetch": {"timeout": 10, "retries": 1, "concurrency": 16},
            "samples_per_shard": 40,
        },
        "encoders": encoders(folder),
        "targets": {"trusted": {**SMALL, "split": "trusted"}},
        "scores": scores,
        "cluster": {"address": address, "workers": 2},
        **more,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return str(path)


def digits_pool(folder: Path, shards: int, rows: int) -> Path:
    """A pool of small shards without a web: digits as PNG, with captions; every 17th picture is broken."""
    pictures = scans()
    rng = np.random.default_rng(4)
    folder.mkdir(parents=True)
    for index in range(shards):
        name = f"{index:08d}"
        keys = [f"{index:05d}{row:04d}" for row in range(rows)]
        chosen = rng.integers(len(pictures.labels), size=rows)
        captions = [f"the number {pictures.labels[i]} in row {row}" for row, i in enumerate(chosen)]
        with TarWriter(str(folder / f"{name}.tar")) as tar:
            for row, (key, i, caption) in enumerate(zip(keys, chosen, captions, strict=True)):
                body = encode(render(pictures.images[i], rng, 32), "png")
                tar.write(key, {"png": body[: 40 if row % 17 == 3 else None], "txt": caption.encode()})
        table = {"key": keys, "status": ["success"] * rows, "caption": captions, "uid": [stable_uid(k) for k in keys]}
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
        stats = {"count": rows, "successes": rows, "status_dict": {"success": rows}}
        (folder / f"{name}_stats.json").write_text(json.dumps(stats))
    return folder
