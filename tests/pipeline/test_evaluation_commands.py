"""`curate compare` over runs made differently, and `curate evaluate` without a config."""

import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from evaluation_run import small_set, without_results
from rich.console import Console
from small_run import curate

from curate.errors import ConfigError, CurateError, DataError
from curate.pipeline.commands.compare import compare_runs
from curate.pipeline.commands.evaluate import evaluate_named

pytestmark = pytest.mark.timeout(600)
OTHER = {"type": "zero_shot", "templates": ["a scribble of {c}"]}


REST = ["retrieval", "compositional", "multi_label", "association"]


def printed() -> Console:
    return Console(file=io.StringIO(), width=200)


def text(out: Console) -> str:
    return out.file.getvalue()  # type: ignore[attr-defined]


def run_of(folder: Path, name: str = "trained") -> str:
    return str(folder / "runs" / name)


@pytest.fixture(scope="module")
def other(measured, tmp_path_factory) -> Path:
    """A run called ``other``: the same models, zero-shot on the digits with other templates."""
    folder = tmp_path_factory.mktemp("other")
    suites = [{**OTHER, "sets": ["digits", "digits_shift", "digits_groups", "digits_languages"]}, *REST]
    path = Path(without_results(measured, folder, suites=suites))
    value = yaml.safe_load(path.read_text())
    value["name"] = "other"
    path.write_text(yaml.safe_dump(value, sort_keys=False))
    done = curate("run", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_runs_made_differently_stand_apart_and_a_note_says_so(measured, other, tmp_path):
    out = printed()
    compare_runs([run_of(measured), str(other / "config.yaml")], str(tmp_path / "page"), out)
    said = text(out)
    assert "note: " in said
    assert "digits" in next(line for line in said.splitlines() if line.startswith("note: "))
    comparison = json.loads((tmp_path / "page" / "comparison.json").read_text())
    assert [arm["name"] for arm in comparison["arms"]] == [
        f"{run}/{arm}" for run in ("trained", "other") for arm in ("everything", "half")
    ]
    zero = [m for m in comparison["measures"] if m["main"] and (m["dataset"], m["suite"]) == ("digits", "zero_shot")]
    assert len(zero) == 2  # one of each set of templates; no arm has a value of both
    values = [[value is not None for value in comparison["arm_values"][m["id"]]] for m in zero]
    assert sorted(values) == [[False, False, True, True], [True, True, False, False]]
    (same,) = [m for m in comparison["measures"] if m["main"] and m["dataset"] == "digits_retrieval"]
    found = comparison["arm_values"][same["id"]]
    assert found[0] == found[2]  # the same models, measured alike
    rows = pq.read_table(tmp_path / "page" / "results.parquet").to_pylist()
    assert {row["run"] for row in rows} == {"trained", "other"}
    assert len({r["text_hash"] for r in rows if (r["dataset"], r["suite"]) == ("digits", "zero_shot")}) == 2
    page = (tmp_path / "page" / "index.html").read_text()
    assert str(measured) not in page


def test_links_to_the_runs_reports_are_relative_and_lead_there(measured, tmp_path):
    compare_runs([f"{run_of(measured)}/"], str(tmp_path / "page"), printed())
    shown = (tmp_path / "page" / "dashboard.json").read_text()
    link = next(part for part in shown.split('"') if part.endswith("report/index.html"))
    assert link.startswith("../")
    assert (tmp_path / "page" / link).exists()


def test_control_and_its_spelling(measured, tmp_path):
    compare_runs([run_of(measured)], str(tmp_path), printed(), control="half", shifts=["digits=digits_shift"])
    comparison = json.loads((tmp_path / "comparison.json").read_text())
    assert comparison["arms"][comparison["control"]]["name"] == "half"
    with pytest.raises(CurateError, match="hlf"):
        compare_runs([run_of(measured)], str(tmp_path), printed(), control="hlf")


def test_bad_runs_are_told(measured, tmp_path):
    def told(*runs: str, **more: Any) -> str:
        with pytest.raises(CurateError) as error:
            compare_runs(list(runs), str(tmp_path / "page"), printed(), **more)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "there is no run at 'runs/nothing'" in told("runs/nothing")
    (tmp_path / "empty").mkdir()
    assert "is no folder of a run" in told(str(tmp_path / "empty"))
    (tmp_path / "empty" / "config.yaml").write_text("")
    assert "has no report yet" in told(str(tmp_path / "empty"))
    assert "two runs are called 'trained'" in told(run_of(measured), run_of(measured))
    assert "write it as SET=SHIFTED" in told(run_of(measured), shifts=["digits"])
    shutil.copytree(Path(run_of(measured)) / "report", tmp_path / "empty" / "report")
    assert "has no results" in told(str(tmp_path / "empty"))
    assert not (tmp_path / "page").exists()
    done = curate("compare", "runs/nothing")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)


# --- evaluate


def models(measured: Path) -> list[str]:
    return [f"{run_of(measured)}/models/{arm}/seed0" for arm in ("everything", "half")]


def evaluated(given: list[str], data: list[str], suites: list[str], target: Path, **more: Any) -> str:
    out = printed()
    evaluate_named(given, data, suites, str(target), out, printed(), device="cpu", **more)
    return text(out)


def test_models_of_a_run_evaluated_again_are_as_the_run_said(measured, tmp_path):
    given = models(measured)
    suites = ["zero_shot", "{type: knn, k: [5]}"]
    said = evaluated(given, ["digits"], suites, tmp_path / "out")
    assert "zero_shot" in said
    folders = sorted(p.parent for p in (tmp_path / "out").glob("*/results.json"))
    assert len(folders) == 2  # both are called seed0; all of their paths tells them apart
    for folder in folders:
        arm = "everything" if "everything" in folder.name else "half"
        theirs = json.loads(Path(run_of(measured), "evaluation", "subsets", arm, "seed0", "results.json").read_text())
        mine = json.loads((folder / "results.json").read_text())
        wanted = {r["suite"]: r["metrics"] for r in theirs["results"] if r["dataset"] == "digits"}
        assert {r["suite"]: r["metrics"] for r in mine["results"]} == {s: wanted[s] for s in ("zero_shot", "knn")}


def test_data_as_a_mapping(measured, tmp_path):
    made = small_set(tmp_path)
    data = yaml.safe_dump({"path": str(made), "name": "tiny", "templates": ["one {c}"]}, default_flow_style=True)
    said = evaluated(models(measured)[:1], [data], ["zero_shot"], tmp_path / "out")
    assert "tiny" in said
    (found,) = (tmp_path / "out").glob("*/results.json")
    assert json.loads(found.read_text())["sets"][0]["templates"] == ["one {c}"]


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"data": ["no/such"]}, ConfigError, "no/such"),
        ({"data": ["{path: [}"]}, ConfigError, "not YAML"),
        ({"data": ["{pth: x}"]}, ConfigError, "--data {pth: x}"),
        ({"suites": ["zeroshot"]}, ConfigError, "zero_shot"),
        ({"suites": ["{type: knn, kk: 3}"]}, ConfigError, "--suite"),
        ({"suites": ["zero_shot", "retrieval"]}, ConfigError, "the suite 'retrieval' measures retrieval sets"),
        ({"suites": ["zero_shot", "zero_shot"]}, ConfigError, "two suites are called 'zero_shot'"),
        ({"suites": ["linear_probe"]}, DataError, "train"),
        ({"given": ["no/model"]}, CurateError, "no/model"),
        ({"given": ["a", "a"]}, ConfigError, "named twice"),
        ({"given": ["a", "b"], "pretrained": "c.pt"}, ConfigError, "--pretrained belongs to one model"),
    ],
)
def test_what_evaluate_refuses(tmp_path, change, kind, said):
    asked = {"given": ["RN-mini-32"], "data": [str(small_set(tmp_path))], "suites": ["zero_shot"], **change}
    with pytest.raises(kind) as told:
        evaluated(**asked, target=tmp_path / "out")
    assert said in str(told.value)


@pytest.mark.slow
def test_a_killed_evaluation_goes_on(measured, tmp_path):
    asked = ["--data", "digits", "--data", "digits_groups", "--suite", "zero_shot", "--device", "cpu"]
    given = models(measured)
    assert curate("evaluate", *given, *asked, "--out", str(tmp_path / "whole")).returncode == 0
    target = tmp_path / "killed"
    command = [sys.executable, "-m", "curate.pipeline.cli", "evaluate", *given, *asked, "--out", str(target)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while process.poll() is None and not any((target / "features").rglob("*.np*")) and time.monotonic() < until:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert curate(*command[3:]).returncode == 0
    files = {
        str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file() and "_seed0" in str(p)
    }
    assert len(files) > 6
    for name, body in files.items():
        assert body == (tmp_path / "whole" / name).read_bytes(), name
