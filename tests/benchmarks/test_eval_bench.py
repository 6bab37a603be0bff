"""The evaluation benchmark's own parts: proportions, what is written, how numbers are compared and time is counted."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from curate.eval.tasks.datacomp import TASKS
from curate.shards.evalsets.open import open_evalset

HERE = Path(__file__).parents[2] / "benchmarks"


def module(name: str) -> ModuleType:
    """A file of the folder, which is no package, and whose files import each other by their plain names."""
    sys.path.insert(0, str(HERE))
    try:
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", HERE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        found = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = found
        spec.loader.exec_module(found)
        return found
    finally:
        sys.path.remove(str(HERE))


sets, compare, side, metrics = (module(f"eval_{name}") for name in ("sets", "compare", "side", "metrics"))
costs, words = module("eval_costs"), module("eval_words")


@pytest.mark.parametrize("mix", sorted(sets.MIXES))
@pytest.mark.parametrize("factor", [1, 20, 100])
def test_a_scaled_mix_keeps_pictures_and_prompts_in_proportion(mix, factor):
    for one in sets.scaled(mix, factor):
        floor = sets.MIN_PICTURES if one.pictures == sets.MIN_PICTURES else 0
        assert one.pictures == max(floor, round(one.real.pictures / factor))
        assert 1 <= one.templates <= one.real.templates or one.real.kind == "retrieval"
        wanted = one.real.texts / factor
        if one.real.kind != "retrieval" and wanted >= 10 * sets.MIN_CLASSES:
            assert one.texts == pytest.approx(wanted, rel=0.15)
    told = sets.proportions(mix, factor)
    if factor <= 20:
        for name in ("pictures", "texts", "distinct_pictures", "distinct_texts"):
            assert told["written"][name] == pytest.approx(told["real"][name] / factor, rel=0.05)


def test_the_mix_called_datacomp_has_as_many_pictures_as_the_40_tasks():
    told = sets.proportions("datacomp", 1)["real"]
    assert told["pictures"] == sum(task.size for task in TASKS)
    captions = sum(task.size * 5 for task in TASKS if task.kind == "retrieval")
    assert told["texts"] == pytest.approx(310_000 + captions, rel=0.01)
    for real in sets.MIXES["datacomp"]:
        same = [task for task in TASKS if task.key == real.name]
        assert not same or (same[0].size, same[0].classes) == (real.pictures, real.classes)


def test_sets_of_a_family_share_prompts_and_others_do_not():
    found = {one.real.name: sets.words(one) for one in sets.scaled("english", 20)}
    names, templates = found["imagenetv2"]
    for small in ("imagenet-a", "imagenet-o"):
        fewer, first = found[small]
        assert fewer == names[: len(fewer)]
        assert first == templates[: len(first)]
    assert len(templates) == 80
    assert not set(found["vtab/dtd"][0]) & set(found["voc2007_multilabel"][0])


def test_distinct_texts_are_those_of_the_lists():
    found = sets.scaled("english", 40)
    prompts = {t.format(c=name) for one in found for name in sets.words(one)[0] for t in sets.words(one)[1]}
    captions = sum(one.texts for one in found if one.real.kind == "retrieval")
    told = sets.proportions("english", 40)["written"]
    assert told["distinct_texts"] == pytest.approx(len(prompts) + captions, rel=0.02)  # a few classes share a name
    assert told["distinct_pictures"] == told["pictures"]


def test_languages_share_their_pictures_and_nothing_else(tmp_path):
    for language in words.LISTS.values():
        for what, values in (("classnames", ["名字\n二", "nome"]), ("zeroshot_classification_templates", ["{c} !"])):
            (tmp_path / f"{language}_{what}.json").write_text(json.dumps({"imagenet1k": values * 10}))
    babel = {one.real.language.upper(): [[0], ["名字 二"] * 20] for one in sets.scaled("multilingual", 5000)}
    (tmp_path / "babel_imagenet.json").write_text(json.dumps(babel))
    (tmp_path / "nllb_dist13b_prompts.json").write_text(json.dumps({key: ["a  {} ."] * 80 for key in babel}))
    found = [one for one in sets.scaled("multilingual", 5000) if one.real.source in ("imagenet1k", "xtd10")]
    assert len(found) == 4 + 8 + 8
    for one in found:
        files = [sets.picture("small", (7, i)) for i in range(one.pictures)]
        sets.write_set(tmp_path, one, 7, files, tmp_path)
    splits = {one.real.name: open_evalset(str(sets.folder_of(tmp_path, one.real.name))) for one in found}
    assert splits["imagenet1k-zh"].classnames[:2] == ("名字 二", "nome")
    assert splits["imagenet1k-zh"].templates[0] == "{c} !"
    captions = {name: one.split("test").captions for name, one in splits.items() if name.startswith("coco")}
    assert len({kept.texts for kept in captions.values() if kept}) == 8
    assert all(len(kept.texts) == sets.MIN_PICTURES for kept in captions.values() if kept)
    assert splits["babel-ko"].templates[0] == "a {c} ."
    labels = {tuple(one.split("test").labels) for name, one in splits.items() if name.startswith("imagenet")}
    assert len(labels) == 1
    told = sets.proportions("multilingual", 5000)["written"]
    assert told["pictures"] - told["distinct_pictures"] == (3 + 8 + 7) * sets.MIN_PICTURES
    with pytest.raises(SystemExit, match="clip-benchmark's"):
        sets.words(found[0])


def test_costs_are_counted_where_they_fall():
    told = {"pictures": 40, "texts": 100, "distinct_pictures": 10, "distinct_texts": 50}
    parts = {"start": 2.0, "images": 4.0, "texts": 1.0, "metrics": 0.25, "rest": 0.5, "exit": 1.0}
    side_of = {"parts": {name: {"cpu_s": seconds} for name, seconds in parts.items()}}
    ours = costs.costs("ours", side_of, told, "cpu_s")
    theirs = costs.costs("clip_benchmark", side_of, told, "cpu_s")
    assert (ours["per_1000_pictures_s"], ours["per_1000_texts_s"], ours["once_s"]) == (400.0, 20.0, 3.0)
    assert (theirs["per_1000_pictures_s"], theirs["per_1000_texts_s"], theirs["once_s"]) == (100.0, 10.0, 3.0)
    both = {"ours": ours, "clip_benchmark": theirs}
    assert costs.projected(both, told) == 1.0
    more = {**told, "distinct_pictures": 20}
    assert costs.projected(both, more) == pytest.approx((3 + 8 + 1) / (3 + 4 + 1))
    assert costs.by_ratio(both)["1 texts per picture"] == pytest.approx(420 / 110, abs=1e-3)


@pytest.mark.parametrize(("look", "kind", "size"), [("web", "WEBP", 500), ("jpeg", "JPEG", 640), ("small", "WEBP", 96)])
def test_pictures_are_a_function_of_their_number_and_all_differ(look, kind, size):
    first = sets.picture(look, (3, 1))
    image = Image.open(io.BytesIO(first))
    assert image.format == kind
    assert max(image.size) == size or (look == "small" and max(image.size) in (32, 64, 96))
    assert sets.picture(look, (3, 1)) == first
    assert sets.picture(look, (3, 2)) != first


@pytest.mark.parametrize("name", ["imagenet-o", "voc2007_multilabel", "flickr8k"])
def test_what_is_written_is_read(tmp_path, name):
    one = next(one for one in sets.scaled("english", 1000) if one.real.name == name)
    files = [sets.picture("small", (0, i)) for i in range(one.pictures)]
    sets.write_set(tmp_path, one, 0, files)
    folder = sets.folder_of(tmp_path, name)
    with tarfile.open(folder / "test" / "0.tar") as tar:
        assert len(tar.getnames()) == 2 * one.pictures
    found = open_evalset(str(folder))
    split = found.split("test")
    assert (found.kind, len(split), len(found.classnames)) == (one.real.kind, one.pictures, one.classes)
    assert list(split.images()) == files
    if name == "flickr8k":
        assert split.captions is not None
        assert len(split.captions.texts) == 5 * one.pictures
        assert np.array_equal(split.captions.image, np.repeat(np.arange(one.pictures), 5))
    elif name == "imagenet-o":
        assert (np.unique(split.labels) < one.classes).all()
    else:
        assert split.right is not None
        assert split.right.shape == (one.pictures, one.classes)
        assert split.right.any(1).all()


def test_the_largest_difference_is_told_and_a_missing_number_is_an_error():
    theirs = {("a", "acc1"): 0.5, ("a", "acc5"): None, ("b", "acc1"): 0.25}
    ours = {**theirs, ("b", "acc1"): 0.25 + 1e-9, ("b", "more"): 1.0}
    largest, by_metric = compare.difference(ours, theirs)
    assert largest == pytest.approx(1e-9, rel=1e-6)
    assert by_metric == {"acc1": largest, "acc5": 0.0}
    with pytest.raises(SystemExit, match="ours has not"):
        compare.difference({("a", "acc1"): 0.5}, theirs)
    with pytest.raises(SystemExit, match="None there"):
        compare.difference({**theirs, ("a", "acc5"): 0.9}, theirs)


def test_numbers_are_read_from_both_sides_files(tmp_path):
    (tmp_path / "vtab_dtd.json").write_text(json.dumps({"metrics": {"acc1": 0.5, "acc5": float("nan")}}))
    assert compare.their_metrics(tmp_path, ["vtab/dtd"]) == {("vtab/dtd", "acc1"): 0.5, ("vtab/dtd", "acc5"): None}
    results = [{"dataset": "vtab-dtd", "metrics": {"acc1": 0.5, "acc5": None}}]
    (tmp_path / "results.json").write_text(json.dumps({"results": results}))
    assert compare.our_metrics(tmp_path, ["vtab/dtd"]) == compare.their_metrics(tmp_path, ["vtab/dtd"])


def test_time_inside_another_part_counts_once(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(side.time, "process_time", lambda: clock[0])
    monkeypatch.setattr(side.time, "monotonic", lambda: 10 + 2 * clock[0])

    def work(seconds: float) -> None:
        clock[0] += seconds

    parts = side.Parts(9.0)
    work(4.0)
    parts.switch("rest")
    inner = parts.timed("texts", lambda: work(1.0))

    def outer() -> None:
        work(2.0)
        inner()
        work(0.5)

    parts.timed("images", outer)()
    with pytest.raises(ZeroDivisionError):
        parts.timed("images", lambda: work(1 / 0))()
    work(0.25)
    parts.switch("end")
    assert dict(parts.seconds) == {"start": [4.0, 9.0], "texts": [1.0, 2.0], "images": [2.5, 5.0], "rest": [0.25, 0.5]}


def test_every_task_has_a_suite_that_finds_its_main_metric(capsys):
    found = metrics.run(2000)
    assert [t["task"] for t in found["tasks"]] == [task.key for task in TASKS]
    for told, task in zip(found["tasks"], TASKS, strict=True):
        assert told["main_metric"] == task.metric
        assert task.metric is None or 0 <= told["value"] <= 1
