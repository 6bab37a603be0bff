import csv
import io
import json
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pyarrow.parquet as pq
import pytest
from zoo_results import DIGEST, babel, strict, write
from zoo_set import Labelled, zoo

from curate.errors import ConfigError
from curate.eval.metrics.outcomes import Outcomes
from curate.eval.results.datacomp import datacomp_lines, leaderboard_record, write_datacomp, write_leaderboard_folder
from curate.eval.results.harness import to_harness
from curate.eval.results.tidy import Evaluated, gather_tidy
from curate.eval.suites import EvalContext, Suite, SuiteResult
from curate.eval.tasks.aggregates import datacomp_aggregates
from curate.eval.tasks.by_name import described
from curate.eval.tasks.datacomp import TASKS
from curate.shards.evalsets.base import Association, Captions

TYPES = {"classification": "zero_shot", "retrieval": "retrieval", "association": "association"}
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
        "KITTI Vehicle Distance", "Oxford Flowers-102", "Oxford-IIIT Pet", "PatchCamelyon", "RESISC45", "SVHN",
        "SUN397",
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
    with pytest.raises(ConfigError, match=r"nowhere.pt does not exist"):
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


class Silent(Suite):
    """Says things of which none is the main one, as fairness does."""

    task: ClassVar[str] = "zeroshot_fairness"
    main_metric: ClassVar[str | None] = None  # pyright: ignore[reportIncompatibleVariableOverride]
    type: Literal["fairness"] = "fairness"

    def evaluate(self, context: EvalContext) -> SuiteResult:
        found = Outcomes(context.split("test").labels, np.array([0, 1, 1, 2]), np.array([0, 0, 1, 0]), 3)
        return SuiteResult({"acc_race_avg": 0.75, "acc_race:0": None}, found)


def test_results_without_a_main_metric_work_everywhere(tmp_path):
    out = write(tmp_path, [zoo(name="fairness-fairface")], [Silent()])
    results = strict(out / "results.json")
    (record,) = results["results"]
    assert (record["main_metric"], record["chance"], record["datacomp"]["name"]) == (None, None, "FairFace")
    assert results["aggregates"] == []
    (line,) = (out / "eval_results.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "key": "fairness/fairface",
        "dataset": "FairFace",
        "metrics": {"acc_race_avg": 0.75, "acc_race:0": None, "main_metric": None},
    }
    assert [row["main_metric"] for row in build(out / "clip_benchmark")] == [""]
    rows = gather_tidy([Evaluated("run", "arm", None, str(out))]).to_pylist()
    assert [(r["metric"], r["value"], r["is_main"]) for r in rows] == [
        ("acc_race:0", None, False), ("acc_race_avg", 0.75, False),
    ]  # fmt: skip
    assert to_harness(results, "mine")["results"]["fairness-fairface|fairness"]["acc_race_avg,none"] == 0.75


def test_retrieval_and_association_go_by_their_display_names(tmp_path):
    pictures, cues = Labelled([0, 1, 2, 2]), Labelled([0, 1, 2, 2])
    pictures.classes = cues.classes = None
    pictures.captions = Captions(("an ant", "a bee", "a bee", "a cow", "a dog"), np.array([0, 1, 1, 2, 3]))
    cues.associations = [Association("q", "ant", tuple(range(4)), (0,))] * 10 + [Association("r", "bee", (0, 1), (0,))]
    flickr = zoo(name="retrieval-flickr_1k_test_image_text_retrieval", kind="retrieval", opened=pictures, classnames=())
    winogavil = zoo(name="misc-winogavil", kind="association", opened=cues, classnames=())
    out = write(tmp_path, [flickr, winogavil], ["retrieval", "association"])
    lines = [json.loads(line) for line in (out / "eval_results.jsonl").read_text().splitlines()]
    assert [(line["key"], line["dataset"]) for line in lines] == [
        (TASKS[30].key, "Flickr"),
        ("misc/winogavil", "WinoGAViL"),
    ]
    metrics = lines[0]["metrics"]
    assert metrics["main_metric"] == metrics["mean_recall@1"] > 0
    assert metrics["mean_recall@1"] == pytest.approx(
        (metrics["image_retrieval_recall@1"] + metrics["text_retrieval_recall@1"]) / 2
    )
    first, second = strict(out / "results.json")["results"]
    assert (first["datacomp"]["expected_n"], first["datacomp"]["whole"]) == (1000, False)
    assert (second["datacomp"]["expected_n"], second["n"]) == (3563, 11)
    columns = build(out / "clip_benchmark")[1]
    assert {"image_retrieval_recall@5", "text_retrieval_recall@5"} < set(columns)


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


def test_given_features_are_what_the_numbers_are_of(tmp_path):
    out = write(tmp_path, [zoo()])
    table = pq.read_table(out / "outcomes/zoo.zero_shot.parquet").to_pydict()
    assert np.mean(table["correct"]) == 0.75
    assert table["prediction"] == [0, 1, 1, 2]
