"""Sweeps: which trainings there are, which are the run's own, that sizes are nested, and what the report says."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from score_run import digits_pool
from small_run import curate

from curate.errors import ConfigError
from curate.pipeline.config import load
from curate.pipeline.plan import Plan, make_plan
from curate.pipeline.plan_sweep import sweep_line
from curate.pipeline.stages.filtering import FilterStage, SubsetStage
from curate.pipeline.stages.training import PretrainStage
from curate.pipeline.sweep_config import SweepConfig
from curate.shards.uid import read_subset

SUBSETS: dict[str, Any] = {
    "everything": [],
    "drawn": [{"type": "soft_cap_sampling", "by": "quality", "total": 100, "batch": 10}],
    "budget": [{"type": "top_fraction", "by": "quality", "keep": "auto", "repeats": 4}],
    "like_it": [{"type": "random", "like": "budget"}],
}


def config(folder: Path, sweep: dict[str, Any] | None, **pretrain: Any) -> str:
    value = {
        "name": "swept",
        "workdir": str(folder / "runs"),
        "pool": {"source": {"type": "shards", "path": str(folder / "pool")}},
        "scores": {"quality": {"type": "image_quality"}},
        "subsets": SUBSETS,
        "pretrain": {"model": "RN-mini-32", "batch_size": 16, "samples_seen": 320, "subsets": ["everything", "drawn"]},
        "eval": {"suites": ["zero_shot"], "data": ["digits"]},
        "cluster": {"address": "inline"},
    }
    value["pretrain"] |= {**pretrain, **({"sweep": sweep} if sweep else {})}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    return str(path)


def planned(folder: Path, sweep: dict[str, Any] | None, **pretrain: Any) -> Plan:
    (folder / "pool").mkdir(exist_ok=True)
    (folder / "pool" / "00000000.tar").touch()
    return make_plan(load(config(folder, sweep, **pretrain))[0])


def names(plan: Plan, kind: type) -> list[str]:
    return [s.name for s in plan.of(kind)]


def points(**sweep: Any) -> list[tuple[float, int, str]]:
    found = SweepConfig.model_validate(sweep).points("a", 1000, "m")
    assert len({p.name for p in found}) == len(found)
    return [(p.size, p.samples_seen, p.model) for p in found]


def test_points_are_the_grid_of_what_is_given():
    assert points(subset_sizes=[1.0, 0.5]) == [(0.5, 1000, "m"), (1.0, 1000, "m")]
    assert points(samples_seen=[2000, 500]) == [(1.0, 500, "m"), (1.0, 2000, "m")]
    assert points(subset_sizes=[0.5, 300, 1], samples_seen=[100]) == [(300, 100, "m"), (0.5, 100, "m"), (1, 100, "m")]
    assert points(models=["x", "m"]) == [(1.0, 1000, "x"), (1.0, 1000, "m")]
    assert points(subset_sizes=[0.5, 1], samples_seen=[100, 200], equal_epochs=True) == [
        (0.5, 50, "m"), (1, 100, "m"), (0.5, 100, "m"), (1, 200, "m"),
    ]  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.one_of(st.floats(0.001, 1.0), st.integers(2, 10**9)), min_size=1, max_size=6, unique=True),
    st.lists(st.integers(1, 10**10), min_size=1, max_size=4, unique=True),
)
def test_every_point_has_a_name_of_its_own(sizes: list[float], budgets: list[int]) -> None:
    assert len(points(subset_sizes=sizes, samples_seen=budgets)) == len(sizes) * len(budgets)


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({}, "a sweep needs"),
        ({"subset_sizes": [0.5, 0.5]}, "named twice"),
        ({"subset_sizes": [1.5]}, "neither a share"),
        ({"subset_sizes": [0]}, "greater than 0"),
        ({"subset_sizes": [100], "equal_epochs": True}, "follows shares only"),
        ({"samples_seen": []}, "at least 1"),
    ],
)
def test_mistakes_are_told(sweep: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SweepConfig.model_validate(sweep)


def test_a_subset_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sweep\.subsets.*did you mean.*drawn"):
        planned(tmp_path, {"subset_sizes": [0.5], "subsets": ["drwan"]})


def test_a_point_that_the_run_trains_anyway_is_that_training(tmp_path: Path) -> None:
    without = planned(tmp_path, None)
    plan = planned(tmp_path, {"subset_sizes": [0.5, 1.0], "samples_seen": [160, 320]})
    before = {s.name: s.fingerprint for s in without.stages if s.kind != "report"}
    after = {s.name: s.fingerprint for s in plan.stages}
    assert before.items() <= after.items()  # a sweep changes nothing else
    report = plan.named("report")
    assert report.inputs["sweep-pretrain/drawn/1/seen-320"] is plan.named("pretrain/drawn")
    assert report.inputs["sweep-eval/drawn/1/seen-320"] is plan.named("eval/drawn")
    assert report.inputs["sweep-subset/drawn/1/seen-160"] is plan.named("subset/drawn")
    assert report.inputs["sweep-subset/drawn/0.5/seen-160"] is report.inputs["sweep-subset/drawn/0.5/seen-320"]
    assert len(plan.of(PretrainStage)) == 2 * 4
    assert sum(s.name.endswith("/size") for s in plan.of(FilterStage)) == 2
    told = sweep_line(load(config(tmp_path, {"subset_sizes": [0.5, 1.0]}))[0], plan.stages)
    assert told.startswith("sweep: 4 points (everything, drawn), one seed each")


def test_what_depends_on_the_budget_is_made_anew_for_each(tmp_path: Path) -> None:
    plan = planned(tmp_path, {"samples_seen": [80, 320], "subsets": ["everything", "budget", "like_it"]})
    made = names(plan, SubsetStage)
    assert "subset/budget/seen-80" in made
    assert "subset/like_it/seen-80" in made  # as many as the other keeps at that budget
    assert "subset/everything/seen-80" not in made
    assert plan.named("subset/budget/seen-80/1-top_fraction").filter.samples_seen == 80  # type: ignore[attr-defined]
    assert plan.named("subset/budget/1-top_fraction").filter.samples_seen == 320  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_sweep_from_the_command_line(tmp_path: Path) -> None:
    digits_pool(tmp_path / "pool", shards=2, rows=60)
    path = config(tmp_path, {"subset_sizes": [0.25, 50, 0.5, 1.0], "subsets": ["drawn"]}, samples_seen=64)
    done = curate("run", path)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "swept"
    folders = {s["name"]: s["artifact"] for s in json.loads((run / "plan.json").read_text())["stages"]}
    assert "sweep/drawn/1/pretrain" not in folders

    folder = tmp_path / "runs" / "artifacts"
    drawn = {
        size: read_subset(str(folder / folders[f"sweep/drawn/{size}/subset"] / "data" / "subset.npy"))
        for size in ("0.25", "50", "0.5")
    }
    drawn["1"] = read_subset(str(run / "subsets" / "drawn.npy"))
    times = {
        size: dict(zip(*map(np.ndarray.tolist, np.unique(u, return_counts=True)), strict=True))
        for size, u in drawn.items()
    }
    rows = len(times["1"])
    assert [len(times[s]) for s in ("0.25", "50", "0.5")] == [rows // 4, 50, rows // 2]
    assert max(times["1"].values()) > 1
    for small, large in itertools.pairwise(sorted(times.values(), key=len)):
        assert small.items() <= large.items()  # rows and their repeats

    report = json.loads((run / "report" / "report.json").read_text())
    (panel,) = report["scaling"]["panels"]
    assert panel["axis"] == "data"
    (series,) = panel["series"]
    assert series["subset"] == "drawn"
    assert [p["distinct"] for p in series["points"]] == sorted(len(t) for t in times.values())
    assert [p["samples"] for p in series["points"]] == sorted(sum(t.values()) for t in times.values())
    assert all(len(p["error"]["seeds"]) == 1 and p["samples_seen"] == 64 for p in series["points"])
    assert {law["kind"] for law in series["laws"]} == {"power", "floor", "log"}
    main = {a["name"]: a["scores"]["zero_shot acc1"]["mean"] for a in report["leaderboard"]["arms"]}
    assert series["points"][-1]["error"]["mean"] == pytest.approx(1 - main["drawn"])
    page = (run / "report" / "index.html").read_text()
    assert 'id="scaling"' in page
    assert 'id="plot-scaling-0"' in page
    assert len(report["funnels"]) == len(SUBSETS)  # sizes are no strategies of their own
    told = curate("plan", path).stdout
    assert "nothing to run" in told
    assert "sweep: 4 points (drawn), one seed each" in told
