"""Accuracy by group and the worst group, under the names and rules of WILDS' and DataComp's tasks."""

import json
import warnings

import numpy as np
import pytest
from given_features import MemorySet, MemorySplit
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, recall_score

from curate.eval.metrics.groups import GroupedOutcomes, group_metrics, macro_averages, rule_of
from curate.eval.metrics.outcomes import Outcomes
from curate.shards.evalsets.base import Groups

NAMES = [f"c{i}" for i in range(6)]


def made(rank, classes: int = 6, rows=None) -> Outcomes:
    rank = np.asarray(rank)
    labels = np.zeros(len(rank), np.int64)
    return Outcomes(labels, np.where(rank == 0, 0, 1), rank, classes, rows)


def grouped(fields, values, names=None) -> Groups:
    return Groups(tuple(fields), np.asarray(values, np.int64).reshape(-1, len(fields)), names or {})


def test_golden_of_an_unknown_set():
    groups = grouped(["place", "year"], [[0, 1], [0, 1], [2, 1], [2, -1]], {"place": ("a", "b", "c", "d")})
    metrics, tables = group_metrics(made([0, 3, 0, 0]), groups, NAMES)
    assert metrics == {
        "acc_avg": 0.75,
        "acc_place:0": 0.5, "count_place:0": 2, "acc_place:1": None, "count_place:1": 0,
        "acc_place:2": 1.0, "count_place:2": 2, "acc_place:3": None, "count_place:3": 0,
        "acc_worst_place": 0.5, "acc_wg": 0.5,
        "acc_year:0": None, "count_year:0": 0, "acc_year:1": pytest.approx(2 / 3), "count_year:1": 3,
        "acc_worst_year": pytest.approx(2 / 3),
    }  # fmt: skip
    json.dumps([metrics, tables], allow_nan=False)
    assert [(r["field"], r["group"], r["name"], r["n"], r["correct"], r["worst"]) for r in tables["groups"]] == [
        ("place", 0, "a", 2, 1, True), ("place", 2, "c", 2, 2, False), ("year", 1, None, 3, 2, True),
    ]  # fmt: skip
    low, high = tables["groups"][0]["wilson95"]
    assert 0 < low < 0.5 < high < 1


def test_tasks_have_their_own_worst_group():
    regions = [[region, 2000] for region in range(6)]
    # all regions right but number 5, which is "Other": the reference number counts it, the extra one does not
    fmow, _ = group_metrics(made([0, 0, 0, 0, 0, 1]), grouped(["region", "year"], regions), NAMES, "wilds/fmow")
    assert fmow["acc_worst_region"] == 0.0
    assert fmow["acc_worst_region_without_other"] == 1.0
    assert fmow["acc_worst_year"] == pytest.approx(5 / 6)
    incomes = grouped(["income_ds", "income_meta", "region"], [[0, 7, 1], [0, 7, 2], [3, 8, 1], [3, 8, 2]])
    dollar, _ = group_metrics(made([0, 4, 5, 0]), incomes, NAMES, "fairness-dollar_street")
    assert dollar["acc_top5_wg"] == 0.5
    assert dollar["acc_wg"] == 0.5
    assert dollar["acc_top5_avg"] == 0.75
    assert dollar["acc_top5_income_ds:1"] is None
    assert "acc_region:1" not in dollar
    geode, _ = group_metrics(made([0, 1]), grouped(["region", "country"], [[0, 9], [1, 9]]), NAMES, "fairness/geode")
    assert geode["acc_wg"] == 0.0
    assert geode["acc_region:0"] == 1.0
    assert "acc_country:9" not in geode
    slides = grouped(["hospital", "slide", "y"], [[2, 21, 0], [2, 22, 0]])
    camelyon, _ = group_metrics(made([0, 1], 2), slides, NAMES[:2], "wds_wilds-camelyon17_test")
    assert (camelyon["acc_slide:21"], camelyon["acc_slide:22"], camelyon["acc_slide:0"]) == (1.0, 0.0, None)
    few, _ = group_metrics(made([0, 1], 2), incomes_of_two(), NAMES[:2], "fairness/dollar_street")
    assert few["acc_top5_wg"] is None
    assert few["acc_top5_avg"] is None
    assert rule_of("my-own-fmow-copy") == rule_of(None)


def incomes_of_two() -> Groups:
    return grouped(["income_ds"], [[0], [1]])


@given(seed=st.integers(0, 2**32), n=st.integers(1, 80), classes=st.integers(2, 9))
def test_macro_averages_are_scikit_learns(seed, n, classes):
    rng = np.random.default_rng(seed)
    labels, prediction = rng.integers(0, classes, n), rng.integers(0, classes, n)
    found = macro_averages(labels, prediction, classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes that are only predicted
        assert found["F1-macro_all"] == pytest.approx(f1_score(labels, prediction, average="macro"))
        assert found["recall-macro_all"] == pytest.approx(recall_score(labels, prediction, average="macro"))
    groups = grouped(["location", "y"], rng.integers(0, 5, (n, 2)))
    outcomes = Outcomes(labels, prediction, (labels != prediction).astype(np.int64), classes)
    metrics, tables = group_metrics(outcomes, groups, NAMES + NAMES, "wilds/iwildcam")
    assert set(metrics) == {"acc_avg", "F1-macro_all", "recall-macro_all"}
    assert tables == {"groups": []}


@given(seed=st.integers(0, 2**32), n=st.integers(1, 60), size=st.integers(1, 6))
def test_group_accuracies_are_those_of_a_loop_and_their_mean_is_the_whole(seed, n, size):
    rng = np.random.default_rng(seed)
    rank, number = rng.integers(0, 3, n), rng.integers(0, size, n)
    metrics, _ = group_metrics(made(rank), grouped(["g"], number), NAMES)
    means = {i: (rank[number == i] == 0).mean() for i in set(number.tolist())}
    for i in range(int(number.max()) + 1):
        assert metrics[f"acc_g:{i}"] == (pytest.approx(means[i]) if i in means else None)
        assert metrics[f"count_g:{i}"] == (number == i).sum()
    assert metrics["acc_wg"] == pytest.approx(min(means.values()))
    assert sum(means[i] * (number == i).sum() for i in means) / n == pytest.approx(metrics["acc_avg"])


def test_a_field_that_is_an_identity_is_not_reported():
    count = 1001
    groups = grouped(["g", "when"], np.stack([np.arange(count) % 2, np.arange(count) * 10**6], 1))
    metrics, tables = group_metrics(made(np.arange(count) % 2), groups, NAMES)
    assert "acc_worst_when" not in metrics
    assert metrics["acc_wg"] == 0.0
    assert {row["field"] for row in tables["groups"]} == {"g"}
    few, _ = group_metrics(made([0, 1]), grouped(["when"], [[1_600_000_000], [5]]), NAMES)
    assert few["acc_when:5"] == 0.0
    assert few["acc_when:1600000000"] == 1.0
    assert len(few) == 7


def test_outcomes_remember_their_groups():
    groups = grouped(["g", "h"], [[0, -1], [1, 300], [1, 70_000]])
    evalset = MemorySet("s", "/s", tuple(NAMES), (), one=MemorySplit(3))
    outcomes = made([0, 1], rows=np.array([0, 2]))
    found = GroupedOutcomes.of(outcomes, groups)
    table = found.table(evalset.one)
    assert table["key"].to_pylist() == ["p0", "p2"]
    assert table["group:g"].to_pylist() == [0, 1]
    assert table["group:h"].to_pylist() == [-1, 70_000]
    tables = found.tables(evalset, evalset.one)
    assert {"per_class", "confusion", "groups"} <= set(tables)
    assert [(row["field"], row["group"]) for row in tables["groups"]] == [("g", 0), ("g", 1), ("h", 70_000)]
    assert found.metrics() == outcomes.metrics()
    assert len(found) == 2
