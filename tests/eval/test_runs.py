import json
from pathlib import Path

import numpy as np
import pytest
from compare_sample import answers, record_of, retrieval_record, write_results
from scipy import stats

from curate.errors import DataError
from curate.eval.comparison.runs import Evaluated, compare_models
from curate.eval.comparison.statistics import wilson

SETS = {"imagenet1k": (600, 10), "imagenetv2": (300, 10), "letters": (200, 4)}
RIGHT = {"everything": 0.5, "curated": 0.65, "copy": 0.5}


def run(folder, name="run", arms=RIGHT, seeds=3, **changes) -> list[Evaluated]:
    """A run whose arms differ by known amounts."""
    models = []
    for number, (arm, right) in enumerate(arms.items()):
        for seed in range(seeds):
            here = folder / name / arm / str(seed)
            # "copy" differs from "everything" by its seeds alone
            records = [
                record_of(here, dataset, answers(n, classes, right, 100 * number + seed), **changes)
                for dataset, (n, classes) in SETS.items()
            ]
            records.append(retrieval_record(here, "flickr", 100, 5, right, 100 * number + seed))
            mean = float(np.mean([r["metrics"]["acc1"] for r in records[:2]]))
            means = [
                {
                    "name": "two sets", "family": "capability", "value": mean, "members": ["imagenet1k", "imagenetv2"],
                    "missing": ["imagenet-r"],
                }
            ]  # fmt: skip
            facts = {"samples_seen": 1000 * (number + 1), "recipe": "clip"}
            models.append(Evaluated(name, arm, seed, write_results(here, records, f"{arm}{seed}", means), facts))
    return models


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[Evaluated]:
    return run(tmp_path_factory.mktemp("compare"))


@pytest.fixture(scope="module")
def value(models) -> dict:
    return compare_models(models).to_json()


def recorded(model: Evaluated, dataset: str, metric: str = "acc1") -> float:
    results = json.loads(Path(model.folder, "results.json").read_text())["results"]
    return next(r["metrics"][metric] for r in results if r["dataset"] == dataset)


def test_every_number_is_there_and_strict(value, models):
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["format"] == "curate-compare-1"
    assert [a["name"] for a in value["arms"]] == list(RIGHT)
    assert value["arms"][1]["models"] == [3, 4, 5]
    assert value["arms"][1]["facts"] == {"samples_seen": 2000, "recipe": "clip"}
    assert value["axes"] == [{"id": "samples_seen", "label": "samples seen", "log": True}]
    mains = [m["id"] for m in value["measures"] if m["main"]]
    assert mains == [*(f"{d}|zero_shot|acc1" for d in SETS), "flickr|retrieval|mean_recall@1"]
    for place, model in enumerate(models):
        for dataset, (n, _) in SETS.items():
            found, low, high = value["values"][f"{dataset}|zero_shot|acc1"][place]
            expected = recorded(model, dataset)
            assert found == pytest.approx(expected, abs=1e-6)
            assert (low, high) == pytest.approx(wilson(round(expected * n), n), abs=1e-6)
    letters = next(m for m in value["measures"] if m["id"] == "letters|zero_shot|acc1")
    assert (letters["label"], letters["chance"], letters["interval"]) == ("letters, zero-shot top-1", 0.25, "wilson")
    assert all(m["interval"] == "bca" for m in value["measures"] if m["metric"] == "mean_recall@1")
    protocol = value["protocols"][letters["protocol"]]
    assert (protocol["dataset_digest"], protocol["text_hash"]) == ("digest of letters", "t0")


def test_arms_are_paired_with_the_control(value, models):
    name = "imagenet1k|zero_shot|acc1"
    control, curated = ([recorded(m, "imagenet1k") for m in models if m.subset == a] for a in ("everything", "curated"))
    none, found, other = value["paired"][name]
    assert none is None
    assert found["basis"] == "seeds"
    assert found["difference"] == pytest.approx(np.subtract(curated, control).mean(), abs=1e-5)
    assert found["p"] == pytest.approx(stats.ttest_rel(curated, control).pvalue, rel=0.01)
    assert found["wins"] - found["losses"] == round(600 * np.subtract(curated, control).sum())
    assert found["samples"][0] > 0
    assert found["both"][0] < found["difference"] < found["both"][1]
    assert other["low"] < 0 < other["high"]
    assert found["p"] <= found["p_holm"]
    assert value["family"]["tests"] == 8  # two arms on four main measures
    assert "8 comparisons" in value["family"]["sentence"]
    mean = value["arm_values"][name][1]
    assert mean[0] == pytest.approx(np.mean(curated), abs=1e-6)
    assert mean[3] == 3
    pairs = {(a, b): (low, high) for a, b, _, low, high in value["pairs"][name]}
    assert list(pairs) == [(0, 1), (0, 2), (1, 2)]
    assert pairs[0, 1] == pytest.approx((-found["high"], -found["low"]), abs=1e-4)


def test_ranks_share_what_cannot_be_told_apart(value):
    ranks = value["ranks"]["measures"]["imagenet1k|zero_shot|acc1"]
    assert [r["rank"] for r in ranks] == [2, 1, 2]
    assert [r["best"] for r in ranks] == [False, True, False]
    assert (ranks[1]["low"], ranks[1]["high"]) == (1, 1)
    overall = value["ranks"]["overall"]
    assert overall["complete"] == [0, 1, 2]
    assert len(overall["measures"]) == 4
    assert overall["arms"][1]["mean_rank"] == 1
    assert overall["arms"][1]["win_rate"] == 1


def test_chance_and_tables(value):
    assert {verdict for verdict, _ in value["chance"]["letters|zero_shot|acc1"]} == {"above"}
    table = value["per_class"]["2"]
    assert table["classes"][0] == "letters class 0"
    assert (table["shown"], table["of"]) == (4, 4)
    assert np.mean(table["arms"][1]) == pytest.approx(value["arm_values"]["letters|zero_shot|acc1"][1][0], abs=1e-3)
    confused = value["confusion"]["2"]
    true, said, times = confused["arms"][0][0]
    assert confused["names"][true] != confused["names"][said]
    assert times > 1
    (mean,) = value["aggregates"]
    assert mean["measures"] == ["imagenet1k|zero_shot|acc1", "imagenetv2|zero_shot|acc1"]
    assert mean["missing"] == ["imagenet-r"]
    assert mean["arms"][1][3] == 3
    (line,) = value["robustness"]
    assert (line["reference"], line["shifted"]) == ("imagenet1k|zero_shot|acc1", "imagenetv2|zero_shot|acc1")
    assert len(line["models"]) == 9


def test_same_inputs_give_the_same_bytes(value, models):
    assert json.dumps(compare_models(models).to_json()) == json.dumps(value)


def test_what_was_measured_differently_is_never_put_together(tmp_path, models):
    other = run(tmp_path, "later", {"curated": 0.65}, 1, text_hash="t1")
    value = compare_models([*models[:3], *other]).to_json()
    assert [a["name"] for a in value["arms"]] == ["run/everything", "later/curated"]
    assert [d["dataset"] for d in value["differs"]] == list(SETS)
    assert value["differs"][0]["what"] == ["templates or class names"]
    assert "never averaged" in value["differs"][0]["sentence"]
    assert value["values"]["letters|zero_shot|acc1"][3] is None
    assert value["values"]["letters|zero_shot|acc1#2"][:3] == [None, None, None]
    assert value["paired"]["letters|zero_shot|acc1"] == [None, None]
    shared = value["paired"]["flickr|retrieval|mean_recall@1"][1]  # one common seed
    assert (shared["basis"], shared["seeds"], shared["wins"], shared["both"]) == ("samples", 1, None, None)
    assert shared["low"] < shared["difference"] < shared["high"]
    assert shared["samples"] == [shared["low"], shared["high"]]


def test_other_sets_of_a_suite_make_no_other_protocol(tmp_path):
    first = run(tmp_path, "a", {"x": 0.5}, 1, options={"type": "zero_shot", "sets": None, "name": None})
    second = run(tmp_path, "b", {"x": 0.5}, 1, options={"type": "zero_shot", "sets": ["letters"], "name": "zero_shot"})
    assert compare_models([*first, *second]).to_json()["differs"] == []


def test_one_model_alone(models):
    value = compare_models(models[:1]).to_json()
    assert value["family"]["tests"] == 0
    assert value["robustness"] == []
    assert value["ranks"]["overall"] is None
    assert value["ranks"]["measures"]["letters|zero_shot|acc1"] == [
        {"place": 1, "rank": 1, "low": 1, "high": 1, "best": True}
    ]


def test_rows_that_contradict_the_record_give_no_interval(tmp_path):
    (model,) = run(tmp_path, "run", {"x": 0.5}, 1)
    path = Path(model.folder, "results.json")
    value = json.loads(path.read_text())
    value["results"][0]["metrics"]["acc1"] = 0.123
    path.write_text(json.dumps(value))
    found = compare_models([model]).to_json()
    assert found["values"]["imagenet1k|zero_shot|acc1"] == [[0.123, None, None]]
    assert "where 0.123000 was recorded" in found["measures"][0]["note"]


def test_refusals(tmp_path, models):
    with pytest.raises(DataError, match="no finished evaluation"):
        compare_models([])
    with pytest.raises(DataError, match="run/everything seed 0 is given twice"):
        compare_models([models[0], models[0]])
    with pytest.raises(DataError, match="unknown arm 'curatd'; did you mean 'curated'"):
        compare_models(models, control="curatd")
    with pytest.raises(DataError, match=r"r/s seed 1: .*results.json is missing; the evaluation is not finished"):
        compare_models([Evaluated("r", "s", 1, str(tmp_path))])


def test_many_arms_stay_small(tmp_path):
    """Twenty runs on as many columns as forty tasks have."""
    models = []
    for number in range(20):
        here = tmp_path / f"{number}"
        one = record_of(here, "set", answers(60, 20, 0.3 + 0.02 * number, number))
        records = [one | {"dataset": f"a set with a long name {k}"} for k in range(40)]
        models.append(Evaluated(f"run{number}", "curated", 0, write_results(here, records), {"cost": 1.5}))
    value = compare_models(models).to_json()
    assert len(value["measures"]) == 120
    assert len(json.dumps(value, separators=(",", ":"), allow_nan=False)) < 1_000_000
