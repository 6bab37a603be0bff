"""The page on pretraining and its examples: every option is named, every snippet is valid, every example runs."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_run import curate

from curate.pipeline.config import PretrainConfig, load
from curate.pipeline.plan import make_plan
from curate.pretrain.data.augment_options import Augment
from curate.pretrain.datacomp_scales import RECIPES, SCALES, original_run
from curate.pretrain.models.locking import LockOptions
from curate.pretrain.optim.optimizer_options import OPTIMIZERS
from curate.pretrain.optim.schedule_options import SCHEDULES
from curate.pretrain.phases import Phase

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/pretraining.md").read_text()
NAMED = set(re.findall(r"[a-z0-9_]+", " ".join(re.findall(r"```yaml.*?```|`[^`\n]+`", PAGE, re.DOTALL))))
SNIPPETS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


def options_of(*classes: Any) -> set[str]:
    return {name for c in classes for name in c.model_fields} - {"type"}


def test_every_option_is_named():
    known = options_of(*(RECIPES[name] for name in RECIPES), PretrainConfig, Phase, Augment, LockOptions)
    known -= {"jitter_probability", "text_unlocked_layers"}  # parts of what is named
    assert known <= NAMED, f"docs/pretraining.md does not name {sorted(known - NAMED)}"


def test_every_kind_is_named():
    assert {*RECIPES, *OPTIMIZERS, *SCHEDULES, *SCALES} <= NAMED


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda s: "-".join(s))
def test_snippets_are_valid(snippet: dict[str, Any]):
    section = dict(snippet.get("pretrain", {}))
    if "recipe" in snippet:
        section["recipe"] = snippet["recipe"]
    if "phases" in snippet:
        section["recipe"] = {"type": "clip", "phases": snippet["phases"]}
        assert sum(phase["share"] for phase in snippet["phases"]) == pytest.approx(1)
    made = PretrainConfig.model_validate({"model": "ViT-B-32", "samples_seen": 1000, **section})
    assert set(made.also) | {*filter(None, [made.validation])} <= set(snippet.get("targets", {}))


def test_scales_of_the_datacomp_page():
    page = (ROOT / "docs/datacomp.md").read_text()
    for name, scale in SCALES.items():
        row = f"| `{name}` | {scale.model} | {scale.samples_seen:,} | {scale.batch_size:,} | {scale.steps:,} |"
        assert row in page
    for name in ("small", "debug"):
        assert f"{original_run(name).samples_seen:,}" in page
    assert f"{original_run('small').samples_seen:,}" in PAGE


def tiny(name: str, folder: Path, *overrides: str) -> list[str]:
    """A shipped config at toy size."""
    size = ["pretrain.samples_seen=128", "pretrain.batch_size=32", "pretrain.seeds=1", "eval.suites=[knn]"]
    return [str(ROOT / "configs" / name), f"workdir={folder / 'runs'}", "cluster.address=inline", *size, *overrides]


def models(folder: Path, run: str, subset: str) -> Path:
    return folder / "runs" / run / "models" / subset / "seed0"


def test_the_siglip_example_runs(tmp_path):
    web = ["pool.source.rows=100", "pool.source.trusted_rows=20", "targets.trusted.rows=100"]
    done = curate("run", *tiny("pretrain_siglip.yaml", tmp_path, *web, "targets.trusted.trusted_rows=20"))
    assert done.returncode == 0, done.stderr
    folder = models(tmp_path, "pretrain-siglip", "english")
    best = json.loads((folder / "checkpoints/best.json").read_text())
    lines = (folder / "checkpoints/results.jsonl").read_text().splitlines()
    assert [json.loads(line)["samples_seen"] for line in lines] == [32, 64, 96, 128]
    assert (folder / "checkpoints" / best["file"]).exists()
    assert "moving average" in (folder / "README.md").read_text()


def test_the_supervised_example_runs(tmp_path):
    spec = importlib.util.spec_from_file_location("digits_folder", ROOT / "configs/digits_folder.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.PICTURES = 1
    few = script.split()["pool"][:150]
    script.split = lambda: {"pool": few}
    script.main(str(tmp_path / "digits"))
    arguments = tiny("pretrain_supervised.yaml", tmp_path, f"pool.source.path={tmp_path / 'digits'}")
    plan = make_plan(load(arguments[0], arguments[1:])[0])
    assert {"pretrain/everything", "pretrain/tenth", "eval/tenth"} <= {stage.name for stage in plan.stages}
    done = curate("run", *arguments, "eval.suites=[supervised]")
    assert done.returncode == 0, done.stderr
    record = json.loads((models(tmp_path, "pretrain-supervised", "tenth") / "classifier.json").read_text())
    assert len(record["classes"]["names"]) == 10
    assert record["training"]["samples_seen"] == 128
