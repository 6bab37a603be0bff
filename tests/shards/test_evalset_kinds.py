"""WebDataset sets of every kind: written, read, and refused when something is wrong with them."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from curate.errors import DataError
from curate.shards.evalsets import write
from curate.shards.evalsets.base import Association, Instance, LanguageTexts
from curate.shards.evalsets.open import open_evalset
from curate.shards.evalsets.texts import caption_lines, captions_of
from curate.shards.evalsets.vectors import read_vector
from curate.shards.tar import TarWriter


def picture(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def tar(folder: Path, samples: dict[str, dict[str, bytes]], split: str = "test", number: int = 0) -> None:
    (folder / split).mkdir(parents=True, exist_ok=True)
    with TarWriter(str(folder / split / f"{number}.tar")) as writer:
        for key, members in samples.items():
            writer.write(key, members)
    (folder / split / "nshards.txt").write_text(f"{number + 1}\n")


def npy(*values: float, dtype: str = "int64") -> bytes:
    return write.npy(np.asarray(values, dtype))


def test_retrieval_round_trip(tmp_path: Path) -> None:
    captions = [["a cat", "two\nlines"], ["ein Hund", " b\u2028c", "x"]]
    write.write_retrieval(str(tmp_path), {"test": [(picture(i), some) for i, some in enumerate(captions)]}, 1)
    opened = open_evalset(str(tmp_path), "pets")
    split = opened.split("test")
    assert (opened.name, opened.kind, opened.classnames, split.classes) == ("pets", "retrieval", (), None)
    assert split.captions is not None
    assert split.captions.texts == ("a cat", "two\nlines", "ein Hund", "b\nc", "x")
    assert split.captions.image.tolist() == [0, 0, 1, 1, 1]
    assert list(split.images()) == [picture(0), picture(1)]
    with pytest.raises(DataError, match="no class labels"):
        _ = split.labels


@given(st.lists(st.text(min_size=1).filter(lambda t: t.strip() and "\\n" not in t), min_size=1, max_size=5))
def test_captions_survive_as_lines_that_every_reader_counts_alike(captions: list[str]) -> None:
    body = caption_lines(captions, "here") if all(c.isprintable() for c in captions) else None
    if body is not None:
        assert captions_of(body, "here") == [c.strip() for c in captions]
        assert len(body.decode().splitlines()) == len(captions)  # as CLIP_benchmark splits


def test_multilabel_round_trip(tmp_path: Path) -> None:
    rows = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1]])
    write.write_multilabel(str(tmp_path), ["a", "b", "c"], ["a {c}"], {"test": [(picture(0), row) for row in rows]})
    split = open_evalset(str(tmp_path)).split("test")
    assert split.right is not None
    assert split.right.dtype == bool
    assert (split.right == rows).all()
    tar(tmp_path, {"s0": {"png": picture(0), "npy": npy(0, 1, dtype="float32")}})
    with pytest.raises(DataError, match=r"0\.tar: sample s0: its npy member has 2 values, not 3"):
        open_evalset(str(tmp_path)).split("test")
    tar(tmp_path, {"s0": {"png": picture(0), "npy": npy(0, 1, 2)}})
    with pytest.raises(DataError, match="sample s0: the labels of a multilabel set are 0 and 1"):
        open_evalset(str(tmp_path)).split("test")
    tar(tmp_path, {"s0": {"png": picture(0), "cls": b"1"}})
    with pytest.raises(DataError, match="sample s0 has no npy member"):
        open_evalset(str(tmp_path)).split("test")


def test_groups_are_named_by_the_set_or_by_its_name(tmp_path: Path) -> None:
    samples = [(picture(i), i % 2, (i % 3, 2000 + i)) for i in range(4)]
    fields = {"region": ["north", "south", "east"], "year": None}
    write.write_groups(str(tmp_path / "own"), ["a", "b"], ["{c}"], fields, {"test": samples})
    split = open_evalset(str(tmp_path / "own")).split("test")
    assert split.groups is not None
    assert split.groups.fields == ("region", "year")
    assert split.groups.names == {"region": ("north", "south", "east")}
    assert split.groups.values.tolist() == [[0, 2000], [1, 2001], [2, 2002], [0, 2003]]
    assert split.labels.tolist() == [0, 1, 0, 1]
    for name, width, expected in (
        ("wds_fairness-geode_test", 2, ("region", "country")),
        ("wds_fairness-dollar_street_test", 3, ("income_ds", "income_meta", "region")),
        ("wds_wilds-fmow_test", 4, ("region", "year", "y", "field3")),
        ("wds_mine", 2, ("field0", "field1")),
    ):
        folder = tmp_path / name
        tar(folder, {"s0": {"png": picture(0), "cls": b"0", "npy": npy(*range(width))}})
        (folder / "classnames.txt").write_text("a\n")
        groups = open_evalset(str(folder)).split("test").groups
        assert groups is not None
        assert groups.fields == expected
    (tmp_path / "wds_mine" / "metadata_fields.txt").write_text("hand\npen\n")
    groups = open_evalset(str(tmp_path / "wds_mine")).split("test").groups
    assert groups is not None
    assert groups.fields == ("hand", "pen")
    (tmp_path / "wds_mine" / "metadata_fields.txt").write_text("hand\n")
    with pytest.raises(DataError, match="2 metadata values, and the set names 1 fields"):
        open_evalset(str(tmp_path / "wds_mine")).split("test")
    (tmp_path / "wds_mine" / "groups.json").write_text('{"fields": ["a", "b"], "names": {"b": ["only"]}}')
    with pytest.raises(DataError, match="sample 0 has b 1, and 1 groups have names"):
        open_evalset(str(tmp_path / "wds_mine")).split("test")


def test_metadata_alone_makes_a_split_without_labels(tmp_path: Path) -> None:
    folder = tmp_path / "wds_fairness-fairface_test"
    tar(folder, {f"s{i}": {"png": picture(i), "npy": npy(1, 0, i, 1)} for i in range(3)})
    (folder / "classnames.txt").write_text("age:young\n")
    split = open_evalset(str(folder)).split("test")
    assert split.groups is not None
    assert split.groups.fields == ("age", "gender", "race", "race_binary")
    with pytest.raises(DataError, match="no class labels"):
        _ = split.labels
    tar(folder, {"s0": {"png": picture(0), "npy": npy(1)}, "s1": {"png": picture(1), "npy": npy(1), "cls": b"0"}})
    with pytest.raises(DataError, match="1 of 2 samples have a cls member; all or none"):
        open_evalset(str(folder)).split("test")


def test_compositional_sets_of_two_images_and_of_one(tmp_path: Path) -> None:
    instances = [([picture(0), picture(1)], ["x y", "y x"]), ([picture(2)], ["right", "wrong", "also wrong"])]
    write.write_compositional(str(tmp_path), {"test": instances})
    opened = open_evalset(str(tmp_path))
    split = opened.split("test")
    assert opened.kind == "compositional"
    assert split.keys == ["s0000000/0", "s0000000/1", "s0000001"]
    assert list(split.images()) == [picture(0), picture(1), picture(2)]
    assert split.instances == [
        Instance("s0000000", (0, 1), ("x y", "y x")),
        Instance("s0000001", (2,), ("right", "wrong", "also wrong")),
    ]
    (tmp_path / "dataset_type.txt").write_text("image_caption_selection\n")  # CLIP_benchmark's name
    assert open_evalset(str(tmp_path)).kind == "compositional"
    for members, message in (
        ({"0.png": picture(0), "2.png": picture(1), "txt": b"a\nb"}, "must have the images 0 to 1, and has .0, 2."),
        ({"0.png": picture(0), "0.jpg": picture(1), "txt": b"a\nb"}, "two images for the place 0"),
        ({"0.png": picture(0), "1.png": picture(1), "txt": b"a"}, "2 images and only 1 captions"),
        ({"0.png": picture(0), "1.png": picture(1)}, "no txt member"),
        ({"png": picture(0), "txt": b"a\n\nb"}, "caption line 2 is blank"),
        ({"txt": b"a\nb"}, "has none"),
    ):
        tar(tmp_path, {"s7": members})
        with pytest.raises(DataError, match=f"sample s7.*{message}"):
            open_evalset(str(tmp_path)).split("test")


def test_association_round_trip_and_its_faults(tmp_path: Path) -> None:
    pictures = [(f"p{i}", picture(i)) for i in range(4)]
    write.write_association(str(tmp_path), {"test": (pictures, [("owl", ["p3", "p0", "p1"], ["p1", "p3"])])}, 3)
    split = open_evalset(str(tmp_path)).split("test")
    assert split.associations == [Association("a0000000", "owl", (3, 0, 1), (1, 3))]
    assert split.image(3) == picture(3)
    path = tmp_path / "test" / "associations.jsonl"
    good = {"key": "k", "cue": "owl", "candidates": ["p0", "p1"], "right": ["p1"]}
    for change, message in (
        ({"right": ["p2"]}, "right must be some of candidates"),
        ({"right": []}, "lists of picture keys"),
        ({"candidates": ["p0", "p9"]}, "no picture 'p9'"),
        ({"candidates": ["p0", "p0", "p1"]}, "each of them once"),
        ({"cue": 3}, "are texts"),
    ):
        path.write_text(json.dumps(good) + "\n" + json.dumps(good | change) + "\n")
        with pytest.raises(DataError, match=f"associations.jsonl, line 2: .*{message}"):
            open_evalset(str(tmp_path)).split("test")
    path.write_text('{"key": "k"}\n')
    with pytest.raises(DataError, match="line 1: 'cue' is missing"):
        open_evalset(str(tmp_path)).split("test")
    path.unlink()
    with pytest.raises(DataError, match=r"associations\.jsonl is missing"):
        open_evalset(str(tmp_path)).split("test")


def test_prompts_of_each_class(tmp_path: Path) -> None:
    write.write_evalset(str(tmp_path), ["cat", "dog"], ["a {c}"], {"test": [(picture(0), 0)]})
    before = open_evalset(str(tmp_path))
    write.write_class_prompts(str(tmp_path), {"dog": ["it barks", "a {c} pun"], "cat": ["it purrs"]})
    opened = open_evalset(str(tmp_path))
    assert opened.class_prompts == {"cat": ("it purrs",), "dog": ("it barks", "a {c} pun")}
    assert opened.prompts("dog") == ["it barks", "a {c} pun"]  # whole prompts: nothing is put in
    assert opened.prompts("dog", ["my {}"]) == ["my dog"]
    assert opened.digest != before.digest
    assert opened.split_digest("test") == before.split_digest("test")  # nothing to embed again
    write.write_class_prompts(str(tmp_path), {"dog": ["it barks"]})
    with pytest.raises(DataError, match="no prompts for 1 of 2 classes, such as 'cat'"):
        open_evalset(str(tmp_path))
    write.write_class_prompts(str(tmp_path), {"dog": ["x"], "cat": ["y"], "cow": ["z"]})
    with pytest.raises(DataError, match="unknown class 'cow'"):
        open_evalset(str(tmp_path))


def test_languages(tmp_path: Path) -> None:
    write.write_evalset(str(tmp_path), ["cat", "dog", "owl"], ["a {c}"], {"test": [(picture(0), 0)]})
    digests = {open_evalset(str(tmp_path)).digest}
    write.write_languages(
        str(tmp_path), {"DE": LanguageTexts((2, 0), ("Eule", "Katze"), ("ein {c}",)), "FR": ([1], ["chien"])}
    )
    opened = open_evalset(str(tmp_path))
    assert opened.languages() == ["DE", "FR"]
    assert opened.language_texts("DE") == LanguageTexts((0, 2), ("Katze", "Eule"), ("ein {c}",))
    assert opened.language_texts("FR") == LanguageTexts((1,), ("chien",), ())
    digests.add(opened.digest)
    path = tmp_path / "languages" / "FR.json"
    for text, message in (
        ("[[1], []]", "1 class numbers for 0 names"),
        ("[[3], ['x']]".replace("'", '"'), "3 is no number of one of the 3 classes"),
        ('[[1, 1], ["x", "y"]]', "names class 1 twice"),
        ('[[1], [" "]]', "must be a text"),
        ("[[], []]", "names no class"),
        ("{}", "list of two lists"),
        ("[", "is not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            open_evalset(str(tmp_path)).language_texts("FR")
    for name in ("XX", "../FR"):
        with pytest.raises(DataError, match="unknown language"):
            opened.language_texts(name)
    digests.add(open_evalset(str(tmp_path)).digest)
    write.write_right_classes(str(tmp_path), "test", [[0, 1]])
    digests.add(open_evalset(str(tmp_path)).digest)
    assert len(digests) == 4


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.binary(max_size=200), st.integers(0, 130))
def test_no_npy_bytes_crash_or_allocate(noise: bytes, at: int) -> None:
    whole = npy(1, 2, 3)
    for body in (noise, whole[:at], whole[:at] + noise + whole[at + len(noise) :]):
        try:
            found = read_vector(body, "here")
        except DataError:
            continue
        assert found.dtype == np.int64
        assert len(found) <= len(body)


def test_npy_members_that_are_refused() -> None:
    assert read_vector(npy(1, 0, dtype="float32"), "x").tolist() == [1, 0]
    assert read_vector(npy(True, False, dtype="bool"), "x").tolist() == [1, 0]
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<i8", "fortran_order": False, "shape": (10**15,)})
    for body, message in (
        (pickled.getvalue(), "Python objects"),
        (huge.getvalue(), "claims 1000000000000000 values"),
        (npy(0.5, dtype="float64"), "not whole"),
        (npy(float("nan"), dtype="float64"), "not whole"),
        (write.npy(np.zeros((2, 2))), "not that of a vector"),
        (write.npy(np.array(["a"])), "not numbers"),
        (bytes(2 << 20), "2,097,152 bytes"),
    ):
        with pytest.raises(DataError, match=message):
            read_vector(body, "here")


def test_keys_must_differ_over_tars(tmp_path: Path) -> None:
    (tmp_path / "classnames.txt").write_text("a\n")
    for number in range(2):
        tar(tmp_path, {"same": {"png": picture(number), "cls": b"0"}}, number=number)
    with pytest.raises(DataError, match="two samples have the key 'same'"):
        open_evalset(str(tmp_path)).split("test")


def test_absurd_counts_end_at_once(tmp_path: Path) -> None:
    (tmp_path / "classnames.txt").write_text("a\n")
    tar(tmp_path, {"s0": {"png": picture(0), "cls": b"0"}})
    for text, message in ((f"{10**12}", r"1\.tar is missing"), ("9" * 5000, "one integer"), ("²", "one integer")):
        (tmp_path / "test" / "nshards.txt").write_text(text)
        with pytest.raises(DataError, match=message):
            open_evalset(str(tmp_path)).split("test")


@pytest.mark.parametrize("label", [b"-1", b"1", b"1e0", b"", b"9" * 5000, b"\xff"])
def test_labels_out_of_range(tmp_path: Path, label: bytes) -> None:
    (tmp_path / "classnames.txt").write_text("a\n")
    tar(tmp_path, {"s0": {"png": picture(0), "cls": label}})
    with pytest.raises(DataError, match="sample s0: label"):
        open_evalset(str(tmp_path)).split("test")
