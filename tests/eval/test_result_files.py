import csv
import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from zoo_set import IMAGE, Words, Zoo, zoo

from curate.errors import ConfigError, DataError
from curate.eval.aggregates import datacomp_aggregates
from curate.eval.datacomp_files import datacomp_lines, leaderboard_record, write_datacomp, write_leaderboard_folder
from curate.eval.datacomp_tasks import TASKS
from curate.eval.features import Features, TextFeatures
from curate.eval.harness_json import to_harness
from curate.eval.opened import open_sets
from curate.eval.result_files import finish, write_result
from curate.eval.suites import EvalContext, parse_suites
from curate.eval.tasks import described
from curate.eval.tidy import SCHEMA, Evaluated, gather_tidy, read_results, read_tidy, tidy_table, write_tidy
from curate.shards.evalsets.base import LanguageTexts

TYPES = {"classification": "zero_shot", "retrieval": "retrieval", "association": "association"}
DIGEST = "0123456789abcdef" * 2


def strict(path: Path):
    def refuse(text):
        raise AssertionError(f"{path} holds {text}")

    return json.loads(path.read_text(), parse_constant=refuse)


def write(out: Path, sets: list[Zoo], suites=("zero_shot",), digest: str = DIGEST) -> Path:
    """What `evaluate` does, with features that are given."""
    opened, written = open_sets(sets, parse_suites(list(suites))), []
    for one in opened:
        evalset = one.evalset
        context = EvalContext(
            evalset, evalset.split, lambda s, e=evalset: Features(IMAGE, e.split(s).labels), TextFeatures(Words())
        )  # type: ignore[arg-type]
        for suite in one.suites:
            written.append(write_result(str(out), digest, "ViT", one, suite, suite.evaluate(context)))
    finish(str(out), SimpleNamespace(digest=digest, dim=4, precision="fp32"), opened, written)  # type: ignore[arg-type]
    return out


def babel() -> Zoo:
    words = (
        ("DE", LanguageTexts((0, 1, 2), ("ant", "bee", "cow"), ("ein {}",))),
        ("NE", LanguageTexts((1, 2), ("bee", "cow"), ("{}", "a {}"))),
    )
    return zoo(name="babel", words=words)


# DataComp


def datacomp_means(path: Path) -> dict[str, float]:
    """DataComp's aggregator, from its description: drop null main metrics, want 38 rows, plain means by name."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    values = {line["dataset"]: line["metrics"]["main_metric"] for line in lines}
    values = {name: value for name, value in values.items() if value is not None}
    assert len(values) == 38
    shifts = ["ImageNet Sketch", "ImageNet v2", "ImageNet-A", "ImageNet-O", "ImageNet-R", "ObjectNet"]
    vtab = [
        "Caltech-101", "CIFAR-100", "CLEVR Counts", "CLEVR Distance", "Describable Textures", "EuroSAT",
        "KITTI Vehicle Distance", "Oxford Flowers-102", "Oxford-IIIT Pet", "PatchCamelyon", "RESISC45", "SVHN", "SUN397",
    ]  # fmt: skip
    groups = {"ImageNet": ["ImageNet 1k"], "ImageNet dist. shifts": shifts, "VTAB": vtab,
              "Retrieval": ["Flickr", "MSCOCO", "WinoGAViL"], "Average": list(values)}  # fmt: skip
    return {group: sum(values[name] for name in names) / len(names) for group, names in groups.items()}


def records_of_all_tasks() -> list[dict]:
    """Task i (from 1) has i / 100."""
    return [
        {
            "dataset": task.folder, "suite": TYPES[task.kind], "type": TYPES[task.kind], "kind": task.kind,
            "main_metric": task.metric, "metrics": {"other": None} | ({task.metric: i / 100} if task.metric else {}),
            "datacomp": described(task, task.size, task.classes),
        }
        for i, task in enumerate(TASKS, 1)
    ]  # fmt: skip


def test_datacomps_aggregator_reads_all_tasks(tmp_path):
    records = records_of_all_tasks()
    first = records[0]
    noise = [
        {**first, "dataset": "digits", "main_metric": "acc1", "metrics": {"acc1": 0.9}},
        {**first, "dataset": "voc2007", "kind": "multilabel", "type": "multi_label", "metrics": {"acc1": 0.9}},
        {**first, "dataset": "winoground", "kind": "compositional", "type": "compositional"},
        {**first, "dataset": "mnist", "type": "linear_probe", "main_metric": "lp_acc1", "metrics": {"lp_acc1": 1.0}},
    ]
    write_datacomp(str(tmp_path), [*noise, *records])
    lines = [json.loads(line) for line in (tmp_path / "eval_results.jsonl").read_text().splitlines()]
    assert len(lines) == 41
    assert lines[0] == {"key": "digits", "dataset": "digits", "metrics": {"acc1": 0.9, "main_metric": None}}
    assert [(line["key"], line["dataset"]) for line in lines[1:]] == [(task.key, task.name) for task in TASKS]
    assert [line["metrics"]["main_metric"] for line in lines[-2:]] == [None, None]  # FairFace, UTKFace
    means = datacomp_means(tmp_path / "eval_results.jsonl")
    assert means["Average"] == pytest.approx(sum(range(1, 39)) / 3800)
    assert means["Retrieval"] == pytest.approx(0.32)
    ours = {one["group"]: one["value"] for one in datacomp_aggregates(records)}
    assert ours == pytest.approx(means)


def test_no_file_without_a_protocol_of_datacomps(tmp_path):
    assert datacomp_lines([{"dataset": "mnist", "type": "linear_probe", "kind": "classification"}]) == []
    write_datacomp(str(tmp_path), [])
    assert not list(tmp_path.iterdir())


def test_leaderboard_folder_is_written_and_complete(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"weights")
    (tmp_path / "subset.npy").write_bytes(b"uids")
    records = records_of_all_tasks()
    about = {"method_name": "mine", "dataset_size": "1.4M", "track": "filtering"}
    place = str(tmp_path / "out")
    for _ in range(2):
        folder = write_leaderboard_folder(
            place, records, "small", about, str(tmp_path / "weights.pt"), [str(tmp_path / "subset.npy")]
        )
    assert folder == f"{place}/small_scale"
    assert (Path(folder) / "checkpoint.pt").read_bytes() == b"weights"
    assert (Path(folder) / "samples/subset.npy").read_bytes() == b"uids"
    (line,) = (Path(folder) / "results.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert list(found)[:3] == ["scale", "model", "dataset_size"]
    assert (found["scale"], found["method_name"], found["timestamp"]) == ("small", "mine", None)
    numbers = {k: v for k, v in found.items() if k in {task.name for task in TASKS}}
    assert len(numbers) == 38
    assert numbers["WinoGAViL"] == 0.33
    with pytest.raises(ConfigError, match=r"no 'methodname'"):
        leaderboard_record(records, "small", {"methodname": "x"})
    with pytest.raises(ConfigError, match="nowhere.pt does not exist"):
        write_leaderboard_folder(place, records, "small", {}, str(tmp_path / "nowhere.pt"))


# results.json


def test_record_says_which_task_and_whether_whole(tmp_path):
    out = write(tmp_path, [zoo(name="vtab-caltech101"), zoo()])
    task, other = strict(out / "results.json")["results"]
    assert task["datacomp"] == {
        "key": "vtab/caltech101", "name": "Caltech-101", "expected_n": 6085, "expected_classes": 102, "whole": False,
    }  # fmt: skip
    assert (task["main_metric"], task["metrics"]["mean_per_class_recall"]) == (
        "mean_per_class_recall", pytest.approx(2.5 / 3),
    )  # fmt: skip
    assert (other["datacomp"], other["main_metric"], other["templates"]) == (None, "acc1", 1)
    assert task["chance"] == other["chance"] == pytest.approx(1 / 3)
    (line, _) = [json.loads(text) for text in (out / "eval_results.jsonl").read_text().splitlines()]
    assert (line["key"], line["dataset"]) == ("vtab/caltech101", "Caltech-101")
    assert line["metrics"]["main_metric"] == task["metrics"]["mean_per_class_recall"]
    means = {one["name"]: one for one in strict(out / "results.json")["aggregates"]}
    average = means["DataComp average of 38"]
    assert (average["value"], len(average["missing"]), average["not_whole"]) == (None, 37, ["Caltech-101"])
    assert means["capability: object recognition"]["value"] == pytest.approx(2.5 / 3)


def test_words_are_in_the_hash(tmp_path):
    evalset = zoo(classnames=("Ant", "bee, b", "cow"))
    suites = [{"type": "zero_shot"}, {"type": "zero_shot", "name": "canonical", "canonicalize": True}]
    first, second = strict(write(tmp_path, [evalset], suites) / "results.json")["results"]
    assert first["text_hash"] != second["text_hash"]


# CLIP_benchmark


def build(folder: Path) -> list[dict[str, str]]:
    """`clip_benchmark build`, from its description: metrics merged with the top-level keys, one CSV row per file."""
    rows = []
    for path in sorted(folder.iterdir()):
        record = strict(path)
        metrics = record.pop("metrics")
        assert not set(metrics) & set(record)
        rows.append({**metrics, **record, "model_fullname": f"{record['model']} {record['pretrained']}"})
    names = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, names)
    writer.writeheader()
    writer.writerows(rows)
    return list(csv.DictReader(io.StringIO(file.getvalue())))


def test_clip_benchmarks_build_reads_the_files(tmp_path):
    out = write(tmp_path, [zoo(name="vtab/pets"), babel()], ["zero_shot", {"type": "multilingual", "sets": ["babel"]}])
    names = {path.name for path in (out / "clip_benchmark").iterdir()}
    short = DIGEST[:16]
    assert names == {
        f"vtab_pets_{short}_ViT_en_zeroshot_classification.json",
        f"babel_{short}_ViT_en_zeroshot_classification.json",
        f"babel_{short}_ViT_DE_zeroshot_classification.json",
        f"babel_{short}_ViT_NE_zeroshot_classification.json",
    }
    rows = {(row["dataset"], row["language"]): row for row in build(out / "clip_benchmark")}
    pets = rows["vtab/pets", "en"]
    needed = ("acc1", "acc5", "mean_per_class_recall", "dataset", "model", "pretrained", "task", "model_fullname")
    assert all(name in pets for name in needed)
    assert (pets["acc1"], pets["acc5"], pets["n"], pets["template_count"]) == ("0.75", "", "4", "1")
    assert pets["model_fullname"] == f"ViT {short}"
    nepali = rows["babel", "NE"]
    assert (nepali["acc1"], nepali["n"], nepali["classes"], nepali["template_count"]) == (str(2 / 3), "3", "2", "2")
    assert all("{" not in str(value) and "[" not in str(value) for row in rows.values() for value in row.values())


# one table of everything


def test_tidy_by_hand(tmp_path):
    write(tmp_path / "one", [zoo(name="cifar10"), babel()], ["zero_shot", {"type": "multilingual", "sets": ["babel"]}])
    write(tmp_path / "two", [zoo(name="cifar10")], digest="f" * 32)
    facts = {"samples_seen": 12_800_000, "subset_size": 500, "recipe": "clip", "unheard_of": 3}
    models = [
        Evaluated(str(tmp_path / "two"), "night", "curated", 1),
        Evaluated(str(tmp_path / "one"), "night", "curated", 0, facts),
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
        models.append(Evaluated(str(folder), "run", "all", seed))
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


def test_given_features_are_what_the_numbers_are_of(tmp_path):
    out = write(tmp_path, [zoo()])
    table = pq.read_table(out / "outcomes/zoo.zero_shot.parquet").to_pydict()
    assert np.mean(table["correct"]) == 0.75
    assert table["prediction"] == [0, 1, 1, 2]
