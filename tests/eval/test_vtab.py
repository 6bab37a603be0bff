"""VTAB-1k: 19 tasks with the real sizes, labels and features made up."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from labelled_memory import LabelledSet, NoTexts, labelled_set
from sklearn.linear_model import LogisticRegression

from curate.errors import ConfigError, DataError
from curate.eval.embedding.features import Features, TextFeatures
from curate.eval.suites import EvalContext, parse_suites
from curate.eval.tasks.vtab import GROUPS, TASKS, Slice, parse_slices, rows_of, vtab_means, vtab_task

D = 6
TEST_SIZES = {
    "caltech101": 6085, "cifar100": 10000, "dtd": 1880, "flowers102": 6149, "pets": 3669, "sun397": 21750,
    "svhn": 26032, "patch_camelyon": 32768, "eurosat": 5400, "resisc45": 6300, "diabetic_retinopathy": 42670,
    "clevr_count": 15000, "clevr_distance": 15000, "dmlab": 22735, "dsprites_location": 73728,
    "dsprites_orientation": 73728, "kitti": 711, "smallnorb_azimuth": 12150, "smallnorb_elevation": 12150,
}  # fmt: skip
VAL_STARTS = {
    "caltech101": ("train", 2753), "cifar100": ("train", 45000), "dtd": ("validation", 0),
    "flowers102": ("validation", 0), "pets": ("train", 2944), "sun397": ("validation", 0), "svhn": ("train", 65931),
    "patch_camelyon": ("validation", 0), "eurosat": ("train", 16200), "resisc45": ("train", 18900),
    "diabetic_retinopathy": ("validation", 0), "clevr_count": ("train", 63000), "clevr_distance": ("train", 63000),
    "dmlab": ("validation", 0), "dsprites_location": ("train", 589824), "dsprites_orientation": ("train", 589824),
    "kitti": ("validation", 0), "smallnorb_azimuth": ("test", 0), "smallnorb_elevation": ("test", 0),
}  # fmt: skip


def seed_of(*words: str) -> int:
    return int.from_bytes(hashlib.blake2b(" ".join(words).encode(), digest_size=4).digest(), "big")


def labels_of(task, split: str) -> np.ndarray:
    """Made-up labels; sorted by class over the first rows, as far as TFDS can be from stratified."""
    rng = np.random.default_rng(seed_of(task.name, split))
    return rng.integers(0, task.classes, task.sizes[split])


def vtab_set(task, name: str | None = None) -> LabelledSet:
    return labelled_set({s: labels_of(task, s) for s in task.sizes}, task.classes, (), name or f"vtab1k-{task.name}")


def features_of(evalset: LabelledSet, split: str, rows: np.ndarray | None) -> Features:
    """What the model would see: NaN in all rows that the suite does not ask for."""
    labels = evalset.split(split).labels
    centres = np.random.default_rng(1).normal(size=(len(evalset.classnames), D))
    image = np.full((len(labels), D), np.nan, np.float32)
    rows = np.arange(len(labels)) if rows is None else rows
    noise = np.random.default_rng(seed_of(split)).normal(size=(len(rows), D))
    found = centres[labels[rows]] + 0.3 * noise
    image[rows] = found / np.linalg.norm(found, axis=1, keepdims=True)
    return Features(image, labels)


def context_of(suite, evalset: LabelledSet, model=None) -> EvalContext:
    asked = set(suite.splits_of(evalset))

    def features(split: str) -> Features:
        assert split in asked
        return features_of(evalset, split, suite.rows(evalset, evalset.split(split)))

    return EvalContext(evalset, evalset.split, features, TextFeatures(NoTexts()), None, model)


def test_nineteen_tasks_in_three_groups():
    assert len(TASKS) == len({task.name for task in TASKS}) == 19
    assert [sum(task.group == group for task in TASKS) for group in GROUPS] == [7, 4, 8]
    assert [t.classes for t in TASKS] == [102, 100, 47, 102, 37, 397, 10, 2, 10, 45, 5, 8, 6, 6, 16, 16, 4, 18, 9]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_slices_are_positional_and_of_the_right_size(task):
    train, val, test, first = (
        parse_slices(text, task.sizes) for text in (task.train800, task.val200, task.test, task.first1000)
    )
    assert train == [Slice("train", 0, 800)]
    assert first == [Slice("train", 0, 1000)]
    where, start = VAL_STARTS[task.name]
    assert val == [Slice(where, start, start + 200)]
    (scored,) = test
    assert scored.stop == task.sizes[scored.split]
    assert scored.stop - scored.start == TEST_SIZES[task.name]
    assert parse_slices(task.train1000, task.sizes) == train + val
    everything = {(s.split, row) for s in train + val for row in range(s.start, s.stop)}
    assert len(everything) == 1000
    assert not any((scored.split, row) in everything for row in range(scored.start, scored.stop))


# the sets with small pictures by the hundred thousand are in the parametrised test above; these cover every layout
@pytest.mark.parametrize("name", ["caltech101", "dtd", "eurosat", "clevr_count", "kitti", "smallnorb_azimuth"])
def test_linear_protocol_on_a_set_of_the_real_size(name):
    task = vtab_task(name)
    evalset = vtab_set(task)
    (suite,) = parse_suites(["vtab"])
    assert suite.measures(evalset)
    result = suite.evaluate(context_of(suite, evalset))
    assert list(result.metrics) == ["vtab1k_acc1"]
    assert result.metrics["vtab1k_acc1"] > 0.3
    assert len(result.outcomes) == TEST_SIZES[name]
    facts = result.facts
    assert (facts["task"], facts["protocol"], facts["exact"], facts["train_n"]) == (name, "linear", True, 1000)
    scored = suite.split_of(evalset)
    table = result.outcomes.table(evalset.split(scored))
    first = parse_slices(task.test, task.sizes)[0].start
    assert table["key"][0].as_py() == f"s{first:07d}"
    assert (table["label"].to_numpy() == evalset.split(scored).labels[first:]).all()
    # the head is that of the 1,000 at the chosen C, and C does not depend on the test labels
    image, labels = [], []
    for part in parse_slices(task.train1000, task.sizes):
        found = features_of(evalset, part.split, suite.rows(evalset, evalset.split(part.split)))
        image.append(found.image[part.start : part.stop])
        labels.append(found.labels[part.start : part.stop])
    image, labels = np.concatenate(image), np.concatenate(labels)
    seen = np.bincount(labels, minlength=task.classes) > 0
    assert facts["unseen_classes"] == np.flatnonzero(~seen).tolist()
    assert set(np.unique(result.outcomes.prediction)) <= set(np.flatnonzero(seen))
    if task.classes < 20 and facts["c"] < 1e3:
        model = LogisticRegression(C=facts["c"], max_iter=5000, tol=1e-7).fit(image.astype(float), labels)
        test = features_of(evalset, scored, suite.rows(evalset, evalset.split(scored))).image[first:]
        assert (model.predict(test) == result.outcomes.prediction).mean() > 0.995


def test_only_the_rows_of_the_slices_are_looked_at():
    task = vtab_task("dsprites_orientation")
    evalset = vtab_set(task)
    (suite,) = parse_suites(["vtab"])
    rows = suite.rows(evalset, evalset.split("train"))
    assert len(rows) == 800 + 200 + 73728
    assert rows[[0, 799, 800, 999, 1000, -1]].tolist() == [0, 799, 589824, 590023, 663552, 737279]
    result = suite.evaluate(context_of(suite, evalset))
    assert result.outcomes.rows[0] == 663552
    assert len(result.outcomes) == 73728
    (tune,) = parse_suites([{"type": "vtab", "protocol": "finetune"}])
    assert tune.rows(evalset, evalset.split("train")).tolist() == []


def test_missing_classes_are_tolerated():
    task = vtab_task("flowers102")
    labels = {split: labels_of(task, split) for split in task.sizes}
    labels["train"][:800] = np.arange(800) % 50  # half of the classes are not in the 1,000
    labels["validation"][:200] = np.arange(200) % 60
    evalset = labelled_set(labels, 102, (), "vtab1k-flowers102")
    (suite,) = parse_suites(["vtab"])
    result = suite.evaluate(context_of(suite, evalset))
    assert result.facts["unseen_classes"] == list(range(60, 102))
    assert result.outcomes.prediction.max() < 60


def test_other_sizes_and_classes_are_refused_unless_for_a_trial():
    task = vtab_task("pets")
    small = labelled_set({"train": np.arange(200) % 37, "test": np.arange(90) % 37}, 37, (), "vtab1k-pets")
    strict, loose = parse_suites(["vtab", {"type": "vtab", "strict": False}])
    with pytest.raises(DataError, match="train holds 200, not 3680"):
        strict.rows(small, small.split("train"))
    with pytest.raises(DataError, match="test holds 90, not 3669"):
        strict.evaluate(context_of(loose, small))
    result = loose.evaluate(context_of(loose, small))
    assert not result.facts["exact"]
    assert result.facts["slices"] == {"train800": "train[:64%]", "val200": "train[64%:80%]", "test": "test"}
    other = labelled_set({s: labels_of(task, s) for s in task.sizes}, 36, (), "vtab1k-pets")
    with pytest.raises(DataError, match="36 classes, and VTAB-1k's pets has 37"):
        strict.check_set(other, ())


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_trials_of_every_task_keep_learning_and_scoring_apart(task):
    evalset = labelled_set({s: np.arange(100) % task.classes for s in task.sizes}, task.classes, (), task.name)
    (suite,) = parse_suites([{"type": "vtab", "strict": False}])
    plan = suite.plan(evalset, dict.fromkeys(task.sizes, 100))
    learned = {(s.split, row) for s in plan.train800 + plan.val200 for row in range(s.start, s.stop)}
    scored = {(s.split, row) for s in plan.test for row in range(s.start, s.stop)}
    assert len(learned) == sum(s.stop - s.start for s in plan.train800 + plan.val200)
    assert not learned & scored


def test_a_set_may_hold_the_slices_themselves():
    sizes = {"train800": 800, "val200": 200, "test": 6149}
    evalset = labelled_set({s: np.arange(n) % 102 for s, n in sizes.items()}, 102, (), "vtab-oxford_flowers102")
    strict, tune = parse_suites(["vtab", {"type": "vtab", "name": "ft", "protocol": "finetune"}])
    assert strict.measures(evalset)
    result = strict.evaluate(context_of(strict, evalset))
    assert (result.facts["exact"], result.outcomes.rows) == (True, None)
    with pytest.raises(DataError, match=r"fine-tunes on train\[:1000\]"):
        tune.evaluate(context_of(tune, evalset))


def test_names_of_sets():
    for name in (
        "vtab1k-caltech101",
        "wds_vtab-caltech101_test",
        "vtab/caltech101",
        "caltech101",
        "VTAB-1k_Caltech101",
    ):
        assert vtab_task(name).name == "caltech101"
    assert vtab_task("vtab-dsprites_label_orientation").name == "dsprites_orientation"
    assert vtab_task("vtab/kitti_closest_vehicle_distance").name == "kitti"
    assert vtab_task("imagenet1k") is None
    (plain,) = parse_suites(["vtab"])
    labels = {"train": np.zeros(4), "test": np.zeros(4)}
    for name, splits, expected in (
        ("vtab1k-pets", labels, True),
        ("vtab-pets", labels, True),
        ("vtab-pets", {"test": labels["test"]}, False),  # an export for zero-shot
        ("pets", labels, False),
        ("vtab1k-zoo", labels, False),
    ):
        assert plain.measures(labelled_set(splits, 37, (), name)) is expected
    (named,) = parse_suites([{"type": "vtab", "tasks": {"my_pets": "oxford_iiit_pet"}}])
    assert named.measures(labelled_set(labels, 37, (), "my_pets"))
    (chosen,) = parse_suites([{"type": "vtab", "sets": ["pets"]}])
    assert chosen.measures(labelled_set(labels, 37, (), "pets"))
    with pytest.raises(ValueError, match="none of the tasks of VTAB-1k"):
        parse_suites([{"type": "vtab", "tasks": {"x": "imagenet"}}])
    with pytest.raises(ConfigError, match="say which in `tasks`"):
        plain.splits_of(labelled_set(labels, 37, (), "zoo"))


def test_slices_are_read_as_tfds_reads_them():
    sizes = {"train": 3060, "test": 24300}
    assert parse_slices("train[:800]+train[2753:2953]", sizes) == [Slice("train", 0, 800), Slice("train", 2753, 2953)]
    assert parse_slices("test[50%:]", sizes) == [Slice("test", 12150, 24300)]
    assert parse_slices("train", sizes) == [Slice("train", 0, 3060)]
    assert parse_slices(" train[90%:] ", sizes) == [Slice("train", 2754, 3060)]
    for bad, says in (
        ("train[800]", "no slice"),
        ("train[-5:]", "no slice"),
        ("val[:3]", "wants the split 'val'"),
        ("train[:4000]", "not a part of a split of 3060"),
        ("train[5:5]", "not a part"),
        ("train[200%:]", "not a part"),
        ("", "no slice"),
    ):
        with pytest.raises(DataError, match=says):
            parse_slices(bad, sizes)


@given(
    size=st.integers(1, 2000),
    parts=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2000)), min_size=1, max_size=4),
)
def test_rows_of_slices_are_those_of_a_list(size, parts):
    good = [(a % size, a % size + 1 + b % (size - a % size)) for a, b in parts]
    text = "+".join(f"train[{a}:{b}]" for a, b in good)
    rows = list(range(size))
    expected = sorted({row for a, b in good for row in rows[a:b]})
    assert rows_of(parse_slices(text, {"train": size}), "train").tolist() == expected
    assert rows_of(parse_slices(text, {"train": size}), "test").tolist() == []


def record(task, value: float | None, suite: str = "vtab", protocol: str = "linear", exact: bool = True) -> dict:
    facts = {"task": task.name, "group": task.group, "protocol": protocol, "exact": exact}
    metrics = {"vtab1k_acc1": value}
    return {"type": "vtab", "suite": suite, "dataset": f"vtab1k-{task.name}", "facts": facts, "metrics": metrics}


def test_means_by_hand():
    values = [i / 20 for i in range(19)]
    records = [record(task, value) for task, value in zip(TASKS, values, strict=True)]
    noise = {"type": "zero_shot", "suite": "zero_shot", "dataset": "vtab-pets", "metrics": {"acc1": 1.0}}
    means = vtab_means([noise, *records[::-1]])
    assert means["natural"] == pytest.approx((0 + 1 + 2 + 3 + 4 + 5 + 6) / 7 / 20)
    assert means["specialized"] == pytest.approx((7 + 8 + 9 + 10) / 4 / 20)
    assert means["structured"] == pytest.approx((11 + 12 + 13 + 14 + 15 + 16 + 17 + 18) / 8 / 20)
    assert means["mean"] == pytest.approx(9 / 20)
    assert means["mean_of_groups"] == pytest.approx((3 + 8.5 + 14.5) / 3 / 20)
    assert means["tasks"] == {task.name: value for task, value in zip(TASKS, values, strict=True)}
    assert (means["missing"], means["made_up"], means["sets"]["pets"]) == ([], [], "vtab1k-pets")


def test_means_of_parts_do_not_exist_and_mixtures_are_refused():
    records = [record(task, 0.5) for task in TASKS]
    means = vtab_means(records[1:])
    assert (means["natural"], means["mean"], means["mean_of_groups"]) == (None, None, None)
    assert means["specialized"] == means["structured"] == 0.5
    assert means["missing"] == ["caltech101"]
    trial = vtab_means([record(TASKS[0], 0.9, exact=False), *records[1:]])
    assert (trial["mean"], trial["made_up"], trial["missing"]) == (None, ["caltech101"], ["caltech101"])
    assert vtab_means([])["mean"] is None
    with pytest.raises(DataError, match="there twice"):
        vtab_means([*records, records[3]])
    with pytest.raises(DataError, match="cannot mix"):
        vtab_means([*records[1:], record(TASKS[0], 0.5, "ft", "finetune")])
