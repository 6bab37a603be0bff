"""The pages on evaluation and their examples: every suite, option, set, task and column is there as it is written."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from small_run import curate
from typer.testing import CliRunner

from curate.eval.results.tidy import SCHEMA, write_tidy
from curate.eval.suites import SUITES
from curate.eval.suites.base import ProbeSuite, Suite
from curate.eval.tasks.datacomp import TASKS
from curate.eval.tasks.vtab import TASKS as VTAB_TASKS
from curate.pipeline.cli import app
from curate.pipeline.commands.init import STARTER
from curate.pipeline.config import EvalConfig, load
from curate.pipeline.plan import make_plan
from curate.shards.evalsets.builtin import BUILTIN
from curate.shards.evalsets.source import EvalSource

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/evaluation.md").read_text()
SETS = (ROOT / "docs/evalsets.md").read_text()
README = (ROOT / "README.md").read_text()
CONFIG = ROOT / "configs/evaluation.yaml"
CLASSES: dict[str, type[Suite]] = {name: SUITES[name] for name in SUITES}
SHARED = {"type", "name", "split", "sets"}  # told in one sentence
MULTI_WORDS = ("multi_label", "fast")  # take the options of zero_shot's words


def rows(page: str, header: str) -> list[list[str]]:
    """Cells of the table that begins with this header row."""
    lines = page.split(header, 1)[1].splitlines()[2:]
    table = lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]


def plain(cell: str) -> str:
    return cell.strip().strip("`")


def written(default: Any) -> str:
    """A default as the tables write it."""
    if isinstance(default, (list, tuple)):
        return f"[{', '.join(map(str, default))}]"
    if default is None or isinstance(default, bool):
        return "null" if default is None else str(default).lower()
    return str(default)


def snippets(page: str) -> list[dict[str, Any]]:
    return [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]


def test_every_suite_is_in_the_table_as_it_is():
    table = {plain(row[0]): row for row in rows(PAGE, "| suite | measures |")}
    assert set(table) == set(CLASSES)
    needs = {"text": "text tower", "head": "classifier"}
    for name, suite in CLASSES.items():
        _, _, kinds, needed, metric, _ = table[name]
        assert re.findall(r"`(\w+)`", kinds) == list(suite.kinds)
        assert plain(metric) == (suite.main_metric or "none")
        assert {needs[need] for need in suite.needs} <= {needed}
        assert not suite.needs or needed in needs.values()
        assert issubclass(suite, ProbeSuite) == (needed == "train split")
        assert f"- `{name}`:" in PAGE, f"no trap of {name}"


def test_every_option_of_a_suite_is_in_the_table_with_its_default():
    table = {(plain(row[0]), plain(row[1])): plain(row[2]) for row in rows(PAGE, "| suite | option | default |")}
    for (name, option), default in table.items():
        assert written(CLASSES[name].model_fields[option].default) == default, f"{name}.{option}"
    words = set(CLASSES["zero_shot"].model_fields) - SHARED
    for name, suite in CLASSES.items():
        own = set(suite.model_fields) - SHARED - (words if name in MULTI_WORDS else set())
        own -= {"train_split"} if name != "linear_probe" else set()
        assert own == {option for of, option in table if of == name}


def test_every_key_of_the_section_is_in_the_table_with_its_default():
    table = {plain(row[0]): plain(row[1]) for row in rows(PAGE, "| key of `eval` | default |")}
    assert set(table) == set(EvalConfig.model_fields)
    made = EvalConfig.model_validate({"data": ["digits"]})
    for key in set(table) - {"data", "suites"}:
        assert written(getattr(made, key)) == table[key]
    assert [suite.type for suite in made.suites] == yaml.safe_load(table["suites"])


def test_every_builtin_set_and_option_of_a_source_is_told():
    table = {plain(row[0]) for row in rows(SETS, "| name | kind | test |")}
    assert table == set(BUILTIN)
    options = " ".join(row[0] for row in rows(SETS, "| option | means |"))
    assert set(re.findall(r"`(\w+)`", options)) == set(EvalSource.model_fields)


def test_the_readme_names_every_suite_and_set():
    named = set(re.findall(r"`(\w+)`", README))
    assert set(CLASSES) <= named
    assert set(BUILTIN) <= named
    assert {"docs/evaluation.md", "docs/evalsets.md", "configs/evaluation.yaml"} <= set(re.findall(r"[\w./]+", README))


def test_every_task_of_datacomp_is_named_in_its_group():
    table = {row[0]: row[1] for row in rows(PAGE, "| group | tasks ")}
    for task in TASKS:
        group = "in no mean" if task.metric is None else task.group or "in the average alone"
        assert f"{task.name} (`{task.folder}`)" in table[group]


def test_the_slices_of_vtab_are_those_of_the_code():
    table = [[plain(cell) for cell in row] for row in rows(PAGE, "| task | group | classes | splits")]
    splits = [", ".join(f"{name} {n:,}" for name, n in task.sizes.items()) for task in VTAB_TASKS]
    assert table == [
        [task.name, task.group, str(task.classes), sizes, task.val200, task.test]
        for task, sizes in zip(VTAB_TASKS, splits, strict=True)
    ]


def test_columns_and_query_of_the_results_table(tmp_path, monkeypatch):
    columns = re.split(r"\.\s", PAGE.split("Columns of `results.parquet`:")[1])[0]
    assert re.findall(r"`(\w+)`", columns) == SCHEMA.names
    folder = tmp_path / "runs/one/report/evaluation"
    folder.mkdir(parents=True)
    row = {"subset": "all", "seed": 0, "dataset": "digits", "suite": "knn", "is_main": True, "value": 0.5}
    write_tidy(str(folder / "results.parquet"), SCHEMA.empty_table().from_pylist([row], SCHEMA))
    monkeypatch.chdir(tmp_path)
    query = re.findall(r'duckdb -c "(.*?)"', PAGE)
    assert [duckdb.sql(text).fetchall() for text in query] == [[("all", "digits", "knn", 0.5)]]


@pytest.mark.parametrize("snippet", [*snippets(PAGE), *snippets(SETS)], ids=lambda s: "-".join(s))
def test_snippets_are_valid(snippet: dict[str, Any]):
    section = snippet.get("eval", snippet)
    EvalConfig.model_validate({"data": ["digits"], **section})


def test_commands_have_the_options_that_are_written():
    lines = [line for line in (PAGE + README).splitlines() if line.startswith(("curate evaluate", "curate compare"))]
    commands = [shlex.split(line, comments=True)[1:] for line in lines]
    assert {words[0] for words in commands} == {"evaluate", "compare"}
    for name, *words in commands:
        told = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
        assert {word for word in words if word.startswith("--")} <= set(re.findall(r"--\w+", told))


def test_the_config_measures_everything_that_is_built_in():
    config = load(str(CONFIG), [])[0]
    assert config.eval is not None
    assert {source.path for source in config.eval.data} == set(BUILTIN) - {"mnist"}  # which needs a package
    left_out = {"vtab", "supervised", "fairness"}  # other sets, other models
    assert {suite.type for suite in config.eval.suites} == set(CLASSES) - left_out
    stages = {stage.name for stage in make_plan(config).stages}
    sets = {f"evalset/{source.path}" for source in config.eval.data}
    assert {"evalcheck", "eval/clip_top", "eval-encoder/dfn", *sets} <= stages


def test_the_config_runs_at_toy_size(tmp_path):
    size = ["pool.source.rows=100", "encoders.dfn.train.data.trusted_rows=40", "encoders.dfn.train.data.rows=100"]
    size += ["encoders.dfn.train.samples_seen=128", "pretrain.samples_seen=128", "pretrain.seeds=1"]
    done = curate("run", str(CONFIG), f"workdir={tmp_path / 'runs'}", "cluster.address=inline", *size)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs/evaluation"
    for folder in (run / "evaluation/subsets/clip_top/seed0", run / "evaluation/encoders/dfn/model"):
        assert {path.name for path in folder.iterdir()} >= {"results.json", "outcomes", "clip_benchmark"}
    page = run / "report/evaluation"
    files = {"index.html", "dashboard.json", "comparison.json", "results.parquet"}
    assert {path.name for path in page.iterdir()} == files
    assert files <= set(re.findall(r"[\w.]+", PAGE))


def test_the_starter_config_shows_evaluation_that_is_valid():
    lines = [line.removeprefix("# ") for line in STARTER.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("eval:"))
    end = next(i for i, line in enumerate(lines[start + 1 :], start + 1) if not line.startswith(" "))
    section = yaml.safe_load("\n".join(lines[start:end]))
    assert EvalConfig.model_validate(section["eval"]).data


def test_the_example_of_contributing_is_a_suite():
    """In a process of its own: it registers a class."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    code = next(c for c in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "eval/suites/" in c)
    assert len([line for line in code.split("@SUITES")[1].splitlines() if line.strip()]) < 25
    done = subprocess.run([sys.executable, "-c", TRY], input=code, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0.8", "4"]


TRY = """
import sys
from types import SimpleNamespace as Of
import numpy as np
from curate.eval.embedding.features import Features
from curate.eval.suites import SUITES
space = {"__name__": "curate.eval.suites.nearest_mean", "__package__": "curate.eval.suites"}
exec(sys.stdin.read(), space)
train = Features(np.array([[1, 0], [1, 0.2], [0, 1], [0.2, 1]], np.float32), np.array([0, 0, 1, 1]))
test = Features(np.array([[1, 0], [0, 1], [2, 1], [1, 2], [1, 0]], np.float32), np.array([0, 1, 0, 1, 1]))
splits = {"train": train, "test": test}
found = space["NearestMean"]().evaluate(Of(evalset=Of(classnames=("a", "b")), features=splits.__getitem__))
print(found.metrics["mean_acc1"], int(found.outcomes.correct.sum()))
"""
