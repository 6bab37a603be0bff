"""What is wrong with suites and sets is told when they are opened, before a model is loaded or a picture read."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_memory import labelled_set
from PIL import Image

from curate.errors import ConfigError, DataError
from curate.eval.opened import open_sets
from curate.eval.suites import parse_suites
from curate.shards.evalsets.open import open_evalset
from curate.shards.evalsets.write import write_class_prompts, write_evalset, write_groups


def a_set(name: str = "zoo", classes: int = 3, **labels: int):
    sizes = labels or {"train": 12, "test": 12}
    return labelled_set({split: np.arange(n) % classes for split, n in sizes.items()}, classes, name=name)


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (number % 256, number // 256, 9)).save(file, "PNG")
    return file.getvalue()


def labelled(folder: Path, n: int = 6) -> str:
    write_evalset(
        str(folder), ("a", "b"), ["a {c}"], {s: [(picture(i), i % 2) for i in range(n)] for s in ("train", "test")}
    )
    return str(folder)


def refused(sets, suites, error=ConfigError):
    with pytest.raises(error) as found:
        open_sets(sets, parse_suites(suites))
    return str(found.value)


def test_a_pattern_that_names_no_set_is_an_error():
    one = a_set()
    told = refused([one], ["zero_shot", {"type": "knn", "sets": ["zo*", "pond*"]}])
    assert "'knn'" in told
    assert "'pond*'" in told
    assert "only zoo" in told
    assert open_sets([one], parse_suites(["zero_shot", {"type": "knn", "sets": ["zo*"]}]))
    # a name that is there, of a kind that the suite is not for, is no set of the suite either
    assert "'zoo'" in refused([one], ["zero_shot", {"type": "retrieval", "sets": ["zoo"]}])


def test_a_task_of_vtab_is_there_once():
    sizes = {"train": 50, "validation": 20, "test": 20}
    two = [a_set("vtab1k-dtd", **sizes), a_set("textures", **sizes)]
    suite = {"type": "vtab", "strict": False, "tasks": {"textures": "dtd"}}
    told = refused(two, [suite])
    assert "vtab1k-dtd" in told
    assert "textures" in told
    assert len(open_sets(two[1:], parse_suites([suite]))) == 1
    assert "'cloth'" in refused(two[:1], [{**suite, "tasks": {"cloth": "dtd"}}])


def test_splits_of_another_size_are_told_before_a_model_is_loaded():
    one = a_set("vtab1k-kitti", 4, train=6347, validation=423, test=710)
    assert "test holds 710, not 711" in refused([one], ["vtab"], DataError)
    assert open_sets([a_set("vtab1k-kitti", 4, train=6347, validation=423, test=711)], parse_suites(["vtab"]))


@pytest.fixture
def faces(tmp_path: Path) -> str:
    names = ("gender: male", "gender: female", "race: White", "race: Black")
    samples = [(picture(i), 0, (i % 2, i // 2 % 2)) for i in range(8)]
    splits = {"train": samples, "test": samples}
    write_groups(str(tmp_path / "faces"), names, ["gender: {c}", "race: {c}"], {"gender": None, "race": None}, splits)
    return str(tmp_path / "faces")


@pytest.mark.parametrize("suite", ["zero_shot", "knn", "linear_probe", "ridge_probe", "fewshot", "supervised", "fast"])
def test_sets_of_several_questions_are_for_fairness_alone(faces, suite):
    (one,) = open_sets([faces], parse_suites(["fairness"]))
    assert one.evalset.kind == "classification"
    assert "several questions; add `fairness`" in refused([faces], [suite])
    both = open_sets([faces, a_set()], parse_suites(["fairness", suite]))
    assert [[s.type for s in o.suites] for o in both] == [["fairness"], [suite]]


def test_broken_annotations_are_told_at_once(tmp_path):
    folder = labelled(tmp_path / "zoo")
    (tmp_path / "zoo/test/labels.json").write_text(json.dumps([[0], [7]]))
    assert "2 lists for 6 samples" in refused([folder], ["supervised"], DataError)
    open_sets([folder], parse_suites(["zero_shot"]))  # it does not look at them
    write_class_prompts(folder, {"a": ["an a"], "b": ["a b"]})
    assert open_sets([folder], parse_suites(["zero_shot"]))
    nowhere = str(tmp_path / "nowhere")
    assert "nowhere" in refused([folder], [{"type": "fast", "history": [nowhere]}], DataError)


@pytest.mark.parametrize("name", ["a\nb", "nul\0", "\x1b[31m", " ", "x" * 129, "é" * 65])
def test_names_that_make_no_file_are_refused(tmp_path, name):
    one = open_evalset(labelled(tmp_path / "zoo"), name)
    assert "`name`" in refused([one], ["zero_shot"])


def test_names_that_make_one_file_are_two_of_a_kind(tmp_path):
    folder = labelled(tmp_path / "zoo")
    two = [open_evalset(folder, "vtab/dtd"), open_evalset(folder, "vtab-dtd")]
    assert "rename" in refused(two, ["zero_shot"])


def test_labels_that_are_names_must_tell_classes_apart(tmp_path):
    table = pa.table({"image": [picture(0), picture(1)], "label": ["crane", "cow"]})
    pq.write_table(table, tmp_path / "test.parquet")
    two = open_evalset(str(tmp_path), "birds", ("crane", "cow", "crane"), ("a {c}",))
    assert "two classes are called 'crane'" in refused([two], ["zero_shot"], DataError)


def test_a_folder_may_have_no_name_left(tmp_path):
    assert "`name`" in refused([labelled(tmp_path / "wds__test")], ["zero_shot"])


def test_the_pattern_of_a_name_is_no_path():
    with pytest.raises(ValueError, match="name"):
        parse_suites([{"type": "knn", "name": "../evil"}])
    with pytest.raises(ValueError, match="name"):
        parse_suites([{"type": "knn", "name": "k" * 65}])
