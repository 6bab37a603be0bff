import json

import pyarrow.parquet as pq
import pytest
from zoo_results import babel, write
from zoo_set import zoo

from curate.errors import DataError
from curate.eval.comparison.run_measures import Evaluated
from curate.eval.results.files import read_results
from curate.eval.results.harness import to_harness
from curate.eval.results.tidy import SCHEMA, gather_tidy, read_tidy, tidy_table, write_tidy


def test_tidy_by_hand(tmp_path):
    write(tmp_path / "one", [zoo(name="cifar10"), babel()], ["zero_shot", {"type": "multilingual", "sets": ["babel"]}])
    write(tmp_path / "two", [zoo(name="cifar10")], digest="f" * 32)
    facts = {"samples_seen": 12_800_000, "unique_images": 500, "recipe": "clip", "unheard_of": 3}
    models = [
        Evaluated("night", "curated", 1, str(tmp_path / "two")),
        Evaluated("night", "curated", 0, str(tmp_path / "one"), facts),
    ]
    table = gather_tidy(models)
    assert table.schema == SCHEMA
    rows = table.to_pylist()
    assert rows == sorted(rows, key=lambda r: (r["run"], r["subset"], r["seed"], r["model"], r["dataset"], r["suite"]))
    (row,) = [r for r in rows if (r["seed"], r["dataset"], r["metric"]) == (0, "cifar10", "acc1")]
    assert row["value"] == 0.75
    assert row["is_main"]
    assert (row["n"], row["classes"], row["samples_seen"], row["recipe"]) == (4, 3, 12_800_000, "clip")
    assert (row["datacomp_task"], row["datacomp_whole"]) == ("cifar10", False)
    assert row["low"] < 0.75 < row["high"]
    assert json.loads(row["options"])["type"] == "zero_shot"
    by_language = {r["language"]: r for r in rows if r["suite"] == "multilingual" and r["metric"] == "acc1"}
    assert set(by_language) == {"DE", "NE"}
    assert (by_language["NE"]["n"], by_language["NE"]["classes"], by_language["NE"]["chance"]) == (3, 2, 0.5)
    means = {r["dataset"]: r for r in rows if r["type"] == "aggregate" and r["seed"] == 1}
    assert means["DataComp average of 38"]["value"] is None
    assert means["DataComp average of 38"]["datacomp_whole"] is False
    seed1 = [r for r in rows if r["seed"] == 1 and r["metric"] == "acc1"]
    assert (seed1[0]["samples_seen"], seed1[0]["model"]) == (None, "f" * 32)


def test_tidy_bytes_do_not_depend_on_the_order(tmp_path):
    models = []
    for seed, names in enumerate((["cifar10", "zoo"], ["zoo"])):
        folder = write(tmp_path / str(seed), [zoo(name=name) for name in names])
        models.append(Evaluated("run", "all", seed, str(folder)))
    write_tidy(str(tmp_path / "a.parquet"), gather_tidy(models))
    write_tidy(str(tmp_path / "b.parquet"), gather_tidy(models[::-1]))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert read_tidy(str(tmp_path / "a.parquet")).equals(gather_tidy(models))
    assert pq.read_schema(tmp_path / "a.parquet").names == SCHEMA.names


def test_tidy_columns_are_closed_and_typed(tmp_path):
    empty = tidy_table([])
    assert (len(empty), empty.schema) == (0, SCHEMA)
    with pytest.raises(DataError, match="the column 'colour'"):
        tidy_table([{"colour": "red"}])
    with pytest.raises(DataError, match="wrong type"):
        tidy_table([{"seed": "one"}])
    older = tidy_table([{"run": "a", "value": 0.5}]).drop_columns(["parameters"])
    pq.write_table(older, tmp_path / "old.parquet")
    assert read_tidy(str(tmp_path / "old.parquet")).equals(tidy_table([{"run": "a", "value": 0.5}]))


def test_harness_shape_by_hand(tmp_path):
    out = write(tmp_path, [zoo(name="cifar10"), babel()], ["zero_shot", {"type": "multilingual", "sets": ["babel"]}])
    found = to_harness(read_results(str(out)), "mine")
    json.dumps(found, allow_nan=False)
    cifar = found["results"]["cifar10|zero_shot"]
    assert (cifar["alias"], cifar["acc1,none"]) == ("CIFAR-10", 0.75)
    assert cifar["acc1_stderr,none"] == pytest.approx((0.75 * 0.25 / 3) ** 0.5)
    assert "acc5,none" not in cifar  # 3 classes
    assert found["results"]["babel|multilingual"]["acc1:DE,none"] == 0.75
    assert found["n-samples"]["cifar10|zero_shot"] == {"original": 10_000, "effective": 4}
    assert set(found["groups"]) == {"capability: object recognition"}  # DataComp's means lack tasks
    assert found["group_subtasks"] == {"capability: object recognition": ["cifar10"]}
    assert set(found["versions"]) == set(found["results"]) == set(found["task_hashes"])


def test_unfinished_results_are_named(tmp_path):
    with pytest.raises(DataError, match=r"results.json is missing; the evaluation is not finished"):
        read_results(str(tmp_path))
    (tmp_path / "results.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match="has format 1"):
        read_results(str(tmp_path))
