"""Subsets from the command line: filters that look at evaluation sets, budgets and other subsets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from score_run import digits_pool
from small_run import curate, outputs

from curate.shards.demo.digits import held_out
from curate.shards.tar import TarReader, TarWriter
from curate.shards.uid import read_subset

SCORES = {
    "quality": {"type": "image_quality"},
    "hash": {"type": "perceptual_hash"},
    "sum": {"type": "checksum"},
    "words": {"type": "caption_statistics"},
}
SUBSETS: dict[str, Any] = {
    "everything": [],
    "bright": [{"type": "top_fraction", "by": "quality_brightness", "keep": 0.5}],
    "sharp": [{"type": "top_k", "by": "quality_sharpness", "count": 60}],
    "both": [{"type": "subsets", "op": "intersection", "of": ["bright", "sharp"]}],
    "told": [{"type": "where", "sql": 'quality_brightness > 0.4 and "subset.sharp" > 0'}],
    "apart": [{"type": "near_dedup", "hash": "hash", "radius": 2}, {"type": "exact_dedup", "on": ["caption"]}],
    "drawn": [{"type": "soft_cap_sampling", "by": "quality", "total": 100, "batch": 10}],
    "budget": [{"type": "top_fraction", "by": "quality", "keep": "auto", "repeats": 8}],
}


def config(folder: Path, subsets: dict[str, Any], address: str = "inline", **more: Any) -> str:
    value = {
        "name": "chosen",
        "workdir": str(folder / "runs"),
        "pool": {"source": {"type": "shards", "path": str(folder / "pool")}},
        "scores": SCORES,
        "subsets": subsets,
        "cluster": {"address": address, "workers": 2},
        **more,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return str(path)


TRAINED = {
    "pretrain": {"recipe": {"type": "clip", "warmup": 1}, "model": "RN-mini-32", "batch_size": 16, "samples_seen": 320},
    "eval": {"suites": ["zero_shot"], "data": ["digits"]},
}


def leak(pool: Path, count: int) -> None:
    """Put evaluation images into the pool's first shard, in the place of its own."""
    tar = pool / "00000000.tar"
    own = list(TarReader(str(tar)).samples())
    images = [body for body, _ in held_out("test")][:count]
    with TarWriter(str(tar)) as out:
        for row, (key, members) in enumerate(own):
            out.write(key, {"png": images[row], "txt": members["txt"]} if row < count else members)


def summary(folder: Path, stage: str) -> dict[str, Any]:
    plan = json.loads((folder / "runs" / "chosen" / "plan.json").read_text())
    artifact = next(s["artifact"] for s in plan["stages"] if s["name"] == stage)
    return json.loads((folder / "runs" / "artifacts" / artifact / "artifact.json").read_text())["summary"]


@pytest.fixture(scope="module")
def chosen(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("chosen")
    leak(digits_pool(folder / "pool", shards=4, rows=60), 7)
    done = curate("run", config(folder, SUBSETS, **TRAINED), "--until", "subset")
    assert done.returncode == 0, done.stderr
    return folder, outputs(folder / "runs")


def subset(folder: Path, name: str) -> np.ndarray:
    return read_subset(str(folder / "runs" / "chosen" / "subsets" / f"{name}.npy"))


def test_evaluation_images_are_kept_out(chosen):
    folder, _ = chosen
    facts = summary(folder, "subset/everything/0-decontaminate")
    assert facts["reasons"]["same_file"] == 7
    assert set(facts["reasons"]) <= {"same_file", "near_hash"}  # plain little pictures may look alike
    assert facts["facts"]["matched"] == sum(facts["reasons"].values()) < 40
    everything = summary(folder, "subset/everything")
    assert everything["pool"] == 240
    assert everything["kept"] == facts["kept"] == facts["entered"] - facts["facts"]["matched"]
    plan = json.loads((folder / "runs" / "chosen" / "plan.json").read_text())
    assert sum("decontaminate" in s["name"] for s in plan["stages"]) == 1  # one stage for all subsets


def test_set_algebra_and_sql(chosen):
    folder, _ = chosen
    sets = {name: set(subset(folder, name).tolist()) for name in ("bright", "sharp", "both")}
    assert len(sets["sharp"]) == 60
    assert sets["both"] == sets["bright"] & sets["sharp"]
    assert 0 < len(sets["both"]) < 60
    assert set(subset(folder, "told").tolist()) <= sets["sharp"]


def test_repeats_and_budgets(chosen):
    folder, _ = chosen
    drawn = summary(folder, "subset/drawn")
    assert drawn["samples"] == len(subset(folder, "drawn")) == 100
    assert drawn["kept"] < 100
    facts = summary(folder, "subset/budget/1-top_fraction")["facts"]
    assert facts["budget"]["samples_seen"] == 320
    assert facts["budget"]["kept"] == 40
    assert summary(folder, "subset/budget")["kept"] >= 40


def test_the_same_from_two_workers(chosen, tmp_path):
    folder, expected = chosen
    path = Path(config(tmp_path, SUBSETS, "processes", **TRAINED))
    path.write_text(path.read_text().replace(f"{tmp_path}/pool", f"{folder}/pool"))
    done = curate("run", str(path), "--until", "subset")
    assert done.returncode == 0, done.stderr
    assert outputs(tmp_path / "runs") == expected


@pytest.mark.parametrize(
    ("subsets", "said"),
    [
        ({"a": [{"type": "subsets", "op": "union", "of": ["b"]}]}, "unknown subset 'b'"),
        (
            {
                "a": [{"type": "subsets", "op": "union", "of": ["b"]}],
                "b": [{"type": "subsets", "op": "union", "of": ["a"]}],
            },
            "made from itself",
        ),
        ({"a": [{"type": "top_fraction", "by": "quality", "keep": "auto"}]}, "samples_seen"),
        ({"a": [{"type": "where", "sql": "select 1"}]}, "where"),
        ({"a": [{"type": "near_dedup", "hash": "hsh"}]}, "did you mean 'hash'"),
    ],
)
def test_mistakes_in_subsets_are_told_before_any_work(tmp_path, subsets, said):
    digits_pool(tmp_path / "pool", shards=1, rows=3)
    done = curate("check", config(tmp_path, subsets))
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
