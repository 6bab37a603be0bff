from collections import Counter

import pytest

from curate.eval.tasks.aggregates import GROUPS
from curate.eval.tasks.by_name import datacomp_task, described
from curate.eval.tasks.datacomp import TASKS

BY_NAME = {task.name: task for task in TASKS}


def test_sums_that_the_task_list_publishes():
    assert len(TASKS) == len({task.key for task in TASKS}) == len(BY_NAME) == 40
    assert sum(task.size for task in TASKS) == 732_026
    scored = [task for task in TASKS if task.metric]
    assert (len(scored), sum(task.size for task in scored)) == (38, 697_369)
    assert {task.name for task in TASKS if not task.metric} == {"FairFace", "UTKFace"}
    assert sum(task.chance is not None for task in TASKS) == 34
    groups = Counter(task.group for task in TASKS)
    assert groups == {"ImageNet": 1, "ImageNet dist. shifts": 6, "VTAB": 13, "Retrieval": 3, None: 17}
    assert set(groups) - {None} <= set(GROUPS)
    tags = Counter(task.tag for task in TASKS if task.tag)
    assert tags == {"vtab_natural": 7, "vtab_specialized": 3, "vtab_structured": 3, "retrieval": 3, "wilds": 3,
                    "fairness": 4}  # fmt: skip
    assert Counter(task.metric for task in TASKS) == {
        "acc1": 27, "mean_per_class_recall": 4, "mean_recall@1": 2, "jaccard_score_10-12": 1, "F1-macro_all": 1,
        "acc_worst_region": 1, "acc_top5_wg": 1, "acc_wg": 1, None: 2,
    }  # fmt: skip


def test_chance_of_balanced_sets_is_one_over_classes():
    """In 12 sets every class has as many samples, or recall is averaged over classes."""
    balanced = [t for t in TASKS if t.chance and t.classes and abs(t.chance - 1 / t.classes) < 1e-6]
    assert len(balanced) >= 12
    assert all(t.chance > 1 / t.classes - 1e-6 for t in TASKS if t.chance and t.classes and t.metric == "acc1")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("vtab/caltech101", "Caltech-101"),
        ("vtab-caltech101", "Caltech-101"),
        ("wds_vtab-caltech101_test", "Caltech-101"),
        ("/data/sets/wds_vtab-caltech101_test/", "Caltech-101"),
        ("imagenet-a", "ImageNet-A"),
        ("wds_imagenet1k", "ImageNet 1k"),
        ("wilds-fmow", "FMoW"),
        ("caltech101", None),  # another set of CLIP_benchmark
        ("vtab-dmlab", None),
        ("retrieval-flickr_1k_test_image_text_retrieval", None),  # not a classification set
    ],
)
def test_sets_by_name(name, found):
    task = datacomp_task(name)
    assert (task and task.name) == found


def test_kind_must_agree():
    name = "wds_retrieval-flickr_1k_test_image_text_retrieval_test"
    assert datacomp_task(name, "retrieval") is BY_NAME["Flickr"]
    assert datacomp_task("misc/winogavil", "association") is BY_NAME["WinoGAViL"]
    assert datacomp_task("voc2007") is BY_NAME["Pascal VOC 2007"]
    assert datacomp_task("voc2007", "multilabel") is None


def test_every_key_and_folder_finds_its_task():
    for task in TASKS:
        for name in (task.key, task.folder, f"wds_{task.folder}_test", f"s3://sets/wds_{task.folder}_test"):
            assert datacomp_task(name, task.kind) is task


def test_another_size_is_told():
    task = BY_NAME["CIFAR-10"]
    assert described(task, 10_000, 10) == {
        "key": "cifar10", "name": "CIFAR-10", "expected_n": 10_000, "expected_classes": 10, "whole": True,
    }  # fmt: skip
    assert not described(task, 9_999, 10)["whole"]
    assert not described(task, 10_000, 9)["whole"]
    assert described(BY_NAME["MSCOCO"], 5000, 0)["whole"]
