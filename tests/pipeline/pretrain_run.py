"""A run of trainings: a small labelled pool without a web, a target set, and a config of what is asked for."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from curate.shards.demo.captions import WORDS
from curate.shards.demo.digits import encode, render, scans
from curate.shards.tar import TarWriter
from curate.shards.uid import stable_uid


def labelled_pool(folder: Path, shards: int = 2, rows: int = 80, seed: int = 4) -> Path:
    """Digits as PNG with captions and, in the column ``digit``, their names."""
    pictures, rng = scans(), np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for index in range(shards):
        name = f"{index:08d}"
        keys = [f"{seed}{index:04d}{row:04d}" for row in range(rows)]
        chosen = rng.integers(len(pictures.labels), size=rows)
        names = [WORDS[pictures.labels[i]] for i in chosen]
        captions = [f"a photo of the number {digit}" for digit in names]
        with TarWriter(str(folder / f"{name}.tar")) as tar:
            for key, i, caption in zip(keys, chosen, captions, strict=True):
                body = encode(render(pictures.images[i], rng, 32), "png")
                tar.write(key, {"png": body, "txt": caption.encode()})
        table = {"key": keys, "status": ["success"] * rows, "caption": captions, "uid": [stable_uid(k) for k in keys]}
        pq.write_table(pa.table({**table, "digit": names}), folder / f"{name}.parquet")
        stats = {"count": rows, "successes": rows, "status_dict": {"success": rows}}
        (folder / f"{name}_stats.json").write_text(json.dumps(stats))
    return folder


def make_pools(folder: Path) -> None:
    """The pool, and a smaller set to validate on or to mix in."""
    labelled_pool(folder / "pool")
    labelled_pool(folder / "trusted", 1, 40, 9)


def config(folder: Path, pretrain: dict[str, Any] | None, address: str = "inline", **more: Any) -> str:
    """Write a config over the pools of `folder`; returns its path."""
    value: dict[str, Any] = {
        "name": "trained",
        "workdir": str(folder / "runs"),
        "pool": {"source": {"type": "shards", "path": str(folder / "pool")}},
        "targets": {"trusted": {"type": "shards", "path": str(folder / "trusted")}},
        "subsets": {"everything": [], "half": [{"type": "random", "fraction": 0.5}]},
        "report": {"gallery": 0},
        "cluster": {"address": address, "workers": 2},
        **(
            {"pretrain": {"model": "RN-mini-32", "batch_size": 16, "samples_seen": 200, **pretrain}} if pretrain else {}
        ),
        **more,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({key: v for key, v in value.items() if v is not None}, sort_keys=False))
    return str(path)


def summary(folder: Path, stage: str) -> dict[str, Any]:
    """Summary of a stage of the run that was planned last."""
    plan = json.loads((folder / "runs" / "trained" / "plan.json").read_text())
    artifact = next(s["artifact"] for s in plan["stages"] if s["name"] == stage)
    return json.loads((folder / "runs" / "artifacts" / artifact / "artifact.json").read_text())["summary"]
