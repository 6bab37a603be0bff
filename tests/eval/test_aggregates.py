import pytest

from curate.eval.tasks.aggregates import aggregates, capability_aggregates, datacomp_aggregates, main_value
from curate.eval.tasks.by_name import described
from curate.eval.tasks.capabilities import CAPABILITIES, members, short_name
from curate.eval.tasks.datacomp import TASKS
from curate.eval.tasks.vtab import TASKS as VTAB_TASKS

TYPES = {"classification": "zero_shot", "retrieval": "retrieval", "association": "association"}


def record(task, value, **changes):
    """What `evaluate` writes of a DataComp task, as far as means need it."""
    metrics = {"acc1": 0.123} | ({task.metric: value} if task.metric else {})
    return {
        "dataset": task.folder, "suite": TYPES[task.kind], "type": TYPES[task.kind], "kind": task.kind,
        "task": "zeroshot_classification", "main_metric": task.metric, "metrics": metrics,
        "datacomp": described(task, task.size, task.classes),
    } | changes  # fmt: skip


def everything():
    """Task i (from 1) has i / 100."""
    return [record(task, number / 100) for number, task in enumerate(TASKS, 1)]


def by_group(found):
    return {one["group"]: one for one in found if one["family"] == "datacomp"}


def test_datacomp_by_hand():
    found = by_group(aggregates(everything()))
    assert list(found) == ["ImageNet", "ImageNet dist. shifts", "VTAB", "Retrieval", "Average"]
    assert found["ImageNet"]["value"] == 0.12
    assert found["ImageNet dist. shifts"]["value"] == pytest.approx((13 + 14 + 15 + 16 + 17 + 20) / 600)
    vtab = (1, 3, 4, 5, 7, 8, 18, 21, 22, 24, 26, 29, 30)
    assert found["VTAB"]["value"] == pytest.approx(sum(vtab) / 1300)
    assert found["VTAB"]["members"][0] == "Caltech-101"
    assert found["Retrieval"]["value"] == pytest.approx((31 + 32 + 33) / 300)
    assert found["Average"]["value"] == pytest.approx(sum(range(1, 39)) / 3800)  # FairFace, UTKFace are 39 and 40
    assert all(one["complete"] and not one["missing"] and not one["not_whole"] for one in found.values())
    assert found["VTAB"]["name"] == "DataComp VTAB (13 tasks, zero-shot)"


def test_with_a_task_missing_there_is_no_mean():
    records = [r for r in everything() if r["dataset"] not in ("mnist", "imagenetv2")]
    found = by_group(aggregates(records))
    average = found["Average"]
    assert (average["value"], average["complete"], average["missing"]) == (None, False, ["ImageNet v2", "MNIST"])
    assert len(average["members"]) == 36
    assert found["ImageNet dist. shifts"]["missing"] == ["ImageNet v2"]
    assert found["ImageNet"]["value"] == 0.12
    assert list(by_group(aggregates(records[:2]))) == ["VTAB", "Average"]  # no group without a member
    assert aggregates([]) == []


def test_a_missing_value_is_a_missing_task():
    records = everything()
    records[0]["metrics"]["mean_per_class_recall"] = None
    assert by_group(aggregates(records))["VTAB"]["missing"] == ["Caltech-101"]


def test_sets_of_another_size_are_told():
    records = everything()
    records[11]["datacomp"] = described(TASKS[11], 100, 1000)
    found = by_group(aggregates(records))
    assert found["ImageNet"]["not_whole"] == ["ImageNet 1k"]
    assert found["ImageNet"]["complete"]


def test_probes_and_second_suites_do_not_count():
    records = everything()
    first = records[11]
    probe = {**first, "type": "linear_probe", "suite": "linear_probe", "metrics": {"acc1": 0.99}}
    second = {**first, "suite": "other_prompts", "metrics": {"acc1": 0.98}}
    multilabel = {**first, "dataset": "voc2007", "kind": "multilabel", "metrics": {"acc1": 0.97}}
    found = by_group(datacomp_aggregates([probe, multilabel, *records, second]))
    assert found["ImageNet"]["value"] == 0.12
    assert found["Average"]["value"] == pytest.approx(sum(range(1, 39)) / 3800)


def test_capabilities():
    names = [name for mine in CAPABILITIES.values() for name in mine]
    assert len(names) == len(set(names))  # one capability each
    assert short_name("wds_vtab-clevr_count_all_test") == short_name("vtab/clevr_count_all") == "clevr_count_all"
    found = members(["vtab/clevr_count_all", "mnist", "vtab-svhn", "sugar_crepe/add_att", "mine"])
    assert found == {
        "reading": ["mnist", "vtab-svhn"],
        "counting": ["vtab/clevr_count_all"],
        "composition": ["sugar_crepe/add_att"],
    }
    assert members(["mine"], {"mine and only mine": ("mine",)}) == {"mine and only mine": ["mine"]}
    means = {one["group"]: one for one in capability_aggregates(everything())}
    reading = means["reading"]
    assert reading["value"] == pytest.approx((19 + 25 + 30) / 300)
    assert reading["members"] == ["mnist", "renderedsst2", "vtab-svhn"]
    assert means["counting"]["value"] == pytest.approx(0.04)
    pairs = {"dataset": "sugar_crepe/add_att", "type": "compositional", "main_metric": "acc", "metrics": {"acc": 0.5}}
    (composition,) = capability_aggregates([pairs, {**pairs, "dataset": "mnist", "type": "knn"}])
    assert (composition["group"], composition["value"]) == ("composition", 0.5)
    covered = [name for one in means.values() for name in one["members"]]
    assert len(covered) == 38  # every scored task has a capability


def vtab(task, value, exact=True, suite="vtab"):
    facts = {"task": task.name, "protocol": "linear", "exact": exact}
    metrics = {"vtab1k_acc1": value}
    return {"dataset": f"vtab-{task.name}", "suite": suite, "type": "vtab", "kind": "classification", "task": "vtab1k",
            "main_metric": "vtab1k_acc1", "metrics": metrics, "facts": facts}  # fmt: skip


def test_vtab_1k_is_not_datacomps_vtab():
    records = [vtab(task, number / 100) for number, task in enumerate(VTAB_TASKS, 1)]
    found = {one["group"]: one for one in aggregates(records)}
    assert list(found) == ["natural", "specialized", "structured", "mean"]
    assert {one["family"] for one in found.values()} == {"vtab-1k"}
    assert found["mean"]["name"] == "VTAB-1k average of 19 (vtab: linear)"
    assert found["mean"]["value"] == pytest.approx(sum(range(1, 20)) / 1900)
    natural = [number for number, task in enumerate(VTAB_TASKS, 1) if task.group == "natural"]
    assert found["natural"]["value"] == pytest.approx(sum(natural) / len(natural) / 100)
    assert [len(one["members"]) for one in found.values()] == [7, 4, 8, 19]
    lacking = [*records[1:], *(vtab(task, 0.5, suite="second") for task in VTAB_TASKS[:1])]
    found = {one["name"]: one for one in aggregates(lacking)}
    average = found["VTAB-1k average of 19 (vtab: linear)"]
    assert (average["value"], average["complete"], average["missing"]) == (None, False, [VTAB_TASKS[0].name])
    assert found["VTAB-1k average of 19 (second: linear)"]["members"] == [VTAB_TASKS[0].name]
    records[0] = vtab(VTAB_TASKS[0], 0.5, exact=False)
    found = {one["group"]: one for one in aggregates(records)}
    assert (found["mean"]["value"], found["mean"]["not_whole"]) == (None, [VTAB_TASKS[0].name])


def test_results_without_a_main_metric_have_no_value():
    assert main_value({"main_metric": None, "metrics": {"acc_race_avg": 0.5}}) is None
    assert main_value({"main_metric": "acc5", "metrics": {"acc5": None}}) is None
