"""Pretraining from the command line: recipes, what comes with them, what is refused, and trainings of two processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml
from pretrain_run import config, labelled_pool, make_pools, summary
from rich.console import Console
from safetensors.torch import load_file
from small_run import curate, outputs

from curate.errors import ConfigError
from curate.pipeline.commands.trainings import print_trainings
from curate.pipeline.config import load
from curate.pipeline.plan import make_plan
from curate.pipeline.plan_budget import budget_lines
from curate.pipeline.run_folder import RunFolder
from curate.pretrain.encoders.load_encoder import load_encoder
from curate.pretrain.recipe import RECIPES
from curate.shards.demo.captions import WORDS

LABELS = {"column": "digit"}
SUPERVISED = {"type": "supervised", "labels": LABELS, "warmup": 2}


def trained_encoder(folder: Path, recipe: Any = "clip", **train: Any) -> dict[str, Any]:
    """An encoder ``net`` of the config, trained on the target set."""
    data = {"type": "shards", "path": str(folder / "trusted")}
    made = {"data": data, "recipe": recipe, "samples_seen": 60, **train}
    return {"net": {"model": "RN-mini-32", "train": made}}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    """SigLIP with labels besides, from an encoder of the config, on two sources, with everything that is published."""
    folder = tmp_path_factory.mktemp("pairs")
    make_pools(folder)
    recipe = {"type": "siglip", "warmup": 2, "labels": LABELS, "ema": {}, "snapshots": {"number": 2}, "log_every": 1}
    more = {"start": "net", "also": {"trusted": 0.25}, "validation": "trusted", "license": "mit", "seeds": 2}
    done = curate(
        "run",
        config(
            folder,
            {"recipe": recipe, "samples_seen": 100, "subsets": ["half"], **more},
            encoders=trained_encoder(folder, {"type": "siglip", "batch_size": 16, "warmup": 2}),
            release={"subsets": ["half"]},
            eval={"suites": ["zero_shot", "supervised"], "data": ["digits"]},
        ),
    )
    assert done.returncode == 2, done.stdout + done.stderr  # the encoder has no head to be measured by
    assert "needs a classifier with named classes, and there is none in the encoder 'net'" in done.stderr
    path = folder / "config.yaml"
    value = yaml.safe_load(path.read_text())
    value["eval"]["encoders"] = []
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    done = curate("run", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "said").write_text(done.stdout)
    return folder


def test_pairs_and_labels_from_two_sources(pairs):
    facts = summary(pairs, "pretrain/half")["seeds"]["seed0"]
    assert (facts["steps"], facts["samples_seen"], facts["samples"]) == (7, 100, 80 + 40)
    assert facts["validation"].keys() >= {"clip_val_loss", "image_to_text_R@1", "top1", "num_samples"}
    model = pairs / "runs" / "trained" / "models" / "half" / "seed0"
    files = {p.name for p in (model / "checkpoints").iterdir()}
    assert files >= {"epoch_latest.pt", "samples_000000000064.pt", "samples_000000000100.pt", "best.json"}
    record = json.loads((model / "encoder.json").read_text())["training"]
    assert record["weights"] == "average"
    assert 'license: "mit"' in (model / "README.md").read_text()
    plan = json.loads((pairs / "runs" / "trained" / "plan.json").read_text())["stages"]
    (stage,) = [s for s in plan if s["name"] == "pretrain/half"]
    assert set(stage["inputs"]) == {"pool", "subset", "start", "also/trusted", "validation"}
    assert (pairs / "runs" / "trained" / "release" / "half").exists()


def test_the_head_of_a_model_of_pictures_and_text_classifies(pairs):
    model = pairs / "runs" / "trained" / "models" / "half" / "seed0"
    encoder: Any = load_encoder(str(model), device="cpu")
    assert encoder.modalities == ("image", "text")
    assert set(encoder.head.classes) == set(WORDS)
    images = [np.full((32, 32, 3), value, np.uint8) for value in (0, 90, 200)]
    pooled, features = encoder.encode_pooled(images), encoder.encode_images(images)
    lengths = np.linalg.norm(pooled, axis=1)
    assert np.allclose(pooled / lengths[:, None], features, atol=1e-6)
    assert np.abs(lengths - 1).max() > 1e-3
    heads = load_file(str(model / "heads.safetensors"))
    expected = pooled @ heads["head.weight"].numpy().T + heads["head.bias"].numpy()
    assert np.allclose(encoder.head.logits(features, lengths), expected, atol=1e-5)
    results = json.loads(next(pairs.glob("runs/artifacts/eval-*/data/seed0/results.json")).read_text())
    assert {r["suite"] for r in results["results"]} == {"zero_shot", "supervised"}
    os.remove(model / "classes.json")  # without names it is a plain encoder
    assert getattr(load_encoder(str(model), device="cpu"), "head", None) is None


def test_what_is_said_at_the_end(pairs):
    said = (pairs / "said").read_text()
    assert "digits, supervised top-1" in said
    row = next(line for line in said.splitlines() if line.startswith("half/seed1"))
    assert len(row.split()) >= 6  # loss, validation loss, top-1, R@1, samples/s, time
    report = json.loads((pairs / "runs" / "trained" / "report" / "report.json").read_text())
    assert {(t["model"], t["recipe"]) for t in report["trainings"]} == {("RN-mini-32", "siglip")}
    assert report["trainings"][0]["validation"]["num_samples"] == 40
    assert {"validation_loss", "validation/top1"} <= report["curves"][0]["others"].keys()
    done = curate("plan", str(pairs / "config.yaml"))
    assert "pretrain/half: 2 seeds, each 100 samples in 7 steps of 16, the last of 4" in done.stdout
    assert "94% of one epoch of 80 of the subset" in done.stdout
    assert "nothing to run" in done.stdout


def test_the_table_of_trainings_leaves_out_what_nobody_knows():
    out = Console(record=True, width=120)
    trainings = [{"arm": "a", "seed": s, "loss": 1.5, "seconds": 75.0, "samples_per_second": 1234.5} for s in range(30)]
    print_trainings({"trainings": trainings}, out)
    said = out.export_text()
    assert "1,234" in said
    assert "1 min 15 s" in said
    assert "validation" not in said
    assert "and 6 more" in said
    print_trainings({}, out)


@pytest.mark.parametrize("model", ["RN-mini-32", "timm:test_resnet"])
def test_supervised_runs(tmp_path, model):
    """An encoder that is a classifier, models that go on from it, on the same classes; and suites for image models."""
    make_pools(tmp_path)
    encoders = trained_encoder(tmp_path, {**SUPERVISED, "batch_size": 16})
    encoders["net"]["model"] = model
    near = {"type": "semantic_dedup", "encoder": "net", "clusters": 2, "epsilon": 1e-6}
    recipe = {**SUPERVISED, "classifier": {"image_size": 32}} if model.startswith("timm") else SUPERVISED
    encoders["net"]["train"]["recipe"] = {**recipe, "batch_size": 16}
    done = curate(
        "run",
        config(
            tmp_path,
            {"recipe": recipe, "model": model, "samples_seen": 40, "start": "net", "validation": "trusted"},
            encoders=encoders,
            subsets={"apart": [near]},
            release={"subsets": ["apart"], "embeddings": ["net"]},
            eval={"suites": ["supervised", {"type": "knn", "k": [5]}], "data": ["digits"]},
        ),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "digits, supervised top-1" in done.stdout
    assert "validation top-1" in done.stdout
    folder = next(tmp_path.glob("runs/artifacts/pretrain-*/data/seed0"))
    record = json.loads((folder / "classifier.json").read_text())
    assert record["training"]["samples_seen"] == 40
    embedded = [p.name.split(".", 1)[1] for p in tmp_path.glob("runs/artifacts/embed-*/data/*.npy")]
    assert embedded == ["image.npy"] * 2
    assert summary(tmp_path, "eval-encoder/net")["seeds"]["model"]["results"][0]["suite"] == "supervised"


REFUSED: list[tuple[dict[str, Any], list[Any], dict[str, Any], str]] = [
    ({"recipe": SUPERVISED}, ["zero_shot"], {}, "no text tower in the models of the recipe 'supervised'"),
    ({"recipe": "clip"}, ["supervised"], {}, "none in the models of the recipe 'clip'; train with `labels`"),
    ({"recipe": "clip"}, ["knn", "knn"], {}, "two are called 'knn'"),
    ({"model": "timm:test_resnet"}, ["knn"], {}, "has no text tower, which the recipe 'clip' trains"),
    ({"recipe": SUPERVISED, "model": "timm:test_resnt"}, ["knn"], {}, "did you mean 'timm:test_resnet'"),
    ({"recipe": "siglip", "model": "coca_ViT-B-32"}, ["knn"], {}, "needs a logit bias"),
    ({"recipe": {"type": "clip", "log": ["wandb"]}}, ["knn"], {}, "wandb, which is not installed"),
    ({"processes": 17}, ["knn"], {}, "17 processes cannot share a batch of 16"),
    ({"start": "nowhere.pt"}, ["knn"], {}, "pretrain.start: 'nowhere.pt' does not exist"),
    ({"start": "net", "model": "ViT-mini-8-32"}, ["knn"], {"net": "clip"}, "are of RN-mini-32, not of ViT-mini-8-32"),
    ({"start": "net"}, ["knn"], {"net": SUPERVISED}, "of an image model"),
    ({"start": "net"}, ["knn"], {"net": "siglip"}, "have SigLIP's logit bias"),
    ({}, ["zero_shot"], {"net": SUPERVISED}, "no text tower in the encoder 'net'"),
    (
        {"recipe": {**SUPERVISED, "labels": {"column": "x", "classes": "no.txt"}}},
        ["knn"],
        {},
        "'no.txt' does not exist",
    ),
    ({"recipe": {**SUPERVISED, "labels": {"column": "bright"}}}, ["knn"], {}, "'bright' is a score"),
    ({"recipe": {"type": "clip", "distill": [{"model": "RN-mini-32"}]}}, ["knn"], {}, "recipe.distill: the encoder"),
    ({"recipe": {"type": "clip", "phases": [{"share": 1.0, "text_length": 500}]}}, ["knn"], {}, "of 500 tokens"),
    ({"recipe": {"type": "clip", "phases": [{"share": 0.01}, {"share": 0.99}]}}, ["knn"], {}, "phase 1 gets no step"),
]


@pytest.mark.parametrize(("pretrain", "suites", "more", "said"), REFUSED)
def test_what_cannot_be_is_told_at_planning(tmp_path, pretrain, suites, more, said):
    labelled_pool(tmp_path / "pool", 1, 3)
    labelled_pool(tmp_path / "trusted", 1, 3, 9)
    encoders = trained_encoder(tmp_path, more["net"]) if more else {}
    scores = {"bright": {"type": "image_quality"}}
    path = config(tmp_path, {"samples_seen": 100, **pretrain}, encoders=encoders, scores=scores, eval=evaluated(suites))
    with pytest.raises(ConfigError) as told:
        make_plan(load(path)[0])
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def evaluated(suites: list[Any]) -> dict[str, Any]:
    return {"suites": suites, "data": ["digits"]}


def lines(folder: Path, **pretrain: Any) -> list[str]:
    """What `curate plan` says of the trainings."""
    path = config(folder, {"subsets": ["everything"], **pretrain})
    loaded = load(path)[0]
    return budget_lines(make_plan(loaded).stages, RunFolder.of(loaded))


def test_what_a_plan_says_of_budgets(tmp_path):
    labelled_pool(tmp_path / "pool", 1, 3)
    clip = {"type": "clip", "warmup": 0}
    assert lines(tmp_path, recipe=clip, samples_seen=128, batch_size=64) == [
        "pretrain/everything: 128 samples in 2 steps of 64"
    ]
    (line,) = lines(tmp_path, recipe=clip, samples_seen=10, seeds=3)
    assert line == "pretrain/everything: 3 seeds, each 10 samples in 1 step of 10"
    (line,) = lines(tmp_path, recipe={"type": "clip"}, samples_seen=100)
    assert line.endswith("in 7 steps of 16, the last of 4 (the warm-up of 500 steps is longer than the run)")
    phases = [{"share": 0.5, "batch_size": 128}, {"share": 0.5, "batch_size": 64}]
    (line,) = lines(tmp_path, recipe={**clip, "phases": phases}, samples_seen=1000)
    assert line.endswith("1,000 samples in 12 steps (4 of 128, then 8 of 64), the last of 40")
    small = {"recipe": {"type": "datacomp", "scale": "small"}, "model": "", "samples_seen": 0, "batch_size": None}
    first, second = lines(tmp_path, **small)
    assert first == "pretrain/everything: 12,800,000 samples in 3,125 steps of 4,096"
    assert second.startswith("DataComp small: exactly 12,800,000 samples in 3,125 steps of 4,096; its own code would")
    (line,) = lines(tmp_path, **{**small, "batch_size": 1000})
    assert line.endswith("12,800,000 samples in 12,800 steps of 1,000")


def test_a_datacomp_recipe_tells_what_is_used(tmp_path):
    labelled_pool(tmp_path / "pool", 1, 3)
    recipe = {"type": "datacomp", "scale": "debug"}
    path = config(tmp_path, {"recipe": recipe, "model": "", "samples_seen": 640, "batch_size": 64})
    loaded = load(path)[0]
    assert loaded.pretrain is not None
    assert (loaded.pretrain.model, loaded.pretrain.samples_seen) == ("ViT-B-32", 640)
    used = loaded.pretrain.effective_recipe()
    assert (used.batch_size, used.samples_seen, used.lr) == (64, 640, 1e-4)
    assert RECIPES["datacomp"].model_validate(recipe).samples_seen == 128_000  # type: ignore[attr-defined]


def test_files_that_a_recipe_names_are_part_of_a_training(tmp_path):
    labelled_pool(tmp_path / "pool", 1, 3)
    classes = tmp_path / "classes.txt"
    prints = []
    for text in ("one\ntwo\n", "two\none\n"):
        classes.write_text(text)
        recipe = {**SUPERVISED, "labels": {"column": "digit", "classes": str(classes)}}
        prints.append(make_plan(load(config(tmp_path, {"recipe": recipe}))[0]).named("pretrain/half").fingerprint)
    assert prints[0] != prints[1]


# --- trainings of two processes


def two(folder: Path, processes: int, address: str) -> str:
    recipe = {"type": "siglip", "warmup": 2, "checkpoint_every_steps": 5, "log_every": 1}
    return config(
        folder,
        {"recipe": recipe, "samples_seen": 800, "processes": processes, "subsets": ["everything"]},
        address,
        pool={"source": {"type": "shards", "path": str(folder.parent / "pool")}},
        targets=None,
    )


def steps_done(folder: Path) -> int:
    """Steps that the live log tells of."""
    found = list(folder.glob("runs/artifacts/pretrain-*/scratch/seed0/live/lines.jsonl"))
    return found[0].read_text().count('"train"') if found else 0


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def start(path: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "curate.pipeline.cli", "run", path]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def trained(folder: Path) -> dict[str, str]:
    """Digests of the training's files, by name."""
    found = {k.split("/", 1)[1]: v for k, v in outputs(folder / "runs").items() if k.startswith("pretrain-")}
    assert "data/seed0/open_clip_model.safetensors" in found
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(str(next(folder.glob("runs/artifacts/pretrain-*/data/seed0/open_clip_model.safetensors"))))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_killed_stopped_and_resumed(tmp_path):
    labelled_pool(tmp_path / "pool")
    for name in ("whole", "killed", "one"):
        (tmp_path / name).mkdir()
    done = curate("run", two(tmp_path / "whole", 2, "processes"))
    assert done.returncode == 0, done.stdout + done.stderr

    folder, path = tmp_path / "killed", two(tmp_path / "killed", 2, "processes")
    driver = start(path)
    wait_for(lambda: steps_done(folder) >= 8)
    os.kill(psutil.Process(driver.pid).children(recursive=True)[-1].pid, signal.SIGKILL)
    wait_for(lambda: steps_done(folder) >= 20)
    driver.kill()
    driver.communicate()
    driver = start(path)
    wait_for(lambda: steps_done(folder) >= 30)
    driver.send_signal(signal.SIGTERM)
    said, _ = driver.communicate(timeout=120)
    assert driver.returncode == 130, said
    assert "samples; run again to go on" in " ".join(said.split())
    done = curate("run", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert trained(folder) == trained(tmp_path / "whole")

    folder = tmp_path / "one"  # begun by two, ended by one: as one alone, but for rounding
    driver = start(two(folder, 2, "processes"))
    wait_for(lambda: steps_done(folder) >= 20)
    driver.send_signal(signal.SIGTERM)
    driver.communicate(timeout=120)
    done = curate("run", two(folder, 1, "inline"))
    assert done.returncode == 0, done.stdout + done.stderr
    ours, theirs = weights(folder), weights(tmp_path / "whole")
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=2e-3, rtol=1e-2)
