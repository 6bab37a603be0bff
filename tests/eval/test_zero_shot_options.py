import json

import numpy as np
import pytest
from pydantic import ValidationError
from zoo_set import EYE, IMAGE, Labelled, Words, Zoo, zoo

from curate.errors import ConfigError, DataError
from curate.eval.embedding.features import Features, TextFeatures
from curate.eval.suites import EvalContext, parse_suites
from curate.eval.suites.base import Suite
from curate.shards.evalsets.base import Groups, LanguageTexts


def one(value) -> Suite:
    return parse_suites([value])[0]


def run(suite: Suite, evalset: Zoo, image: np.ndarray = IMAGE):
    def features(split):
        return Features(image, evalset.split(split).labels)

    return suite.evaluate(EvalContext(evalset, evalset.split, features, TextFeatures(Words())))  # type: ignore[arg-type]


def test_golden_zero_shot():
    found = run(one("zero_shot"), zoo())
    assert found.metrics == {"acc1": 0.75, "acc5": None, "mean_per_class_recall": pytest.approx((1 + 1 + 0.5) / 3)}
    assert found.facts == {"prompts": 3}
    assert found.chance is None


def test_words_of_the_set_win_unless_others_are_given(tmp_path):
    evalset = zoo()
    plain = one("zero_shot")
    assert plain.templates_for(evalset) == ("a {c}",)
    assert list(plain.texts(evalset, evalset.split)) == ["a ant", "a bee", "a cow"]
    (tmp_path / "templates.txt").write_text("the {}\nmy {c}\n")
    (tmp_path / "names.txt").write_text("ant\ncow\nbee\n")
    other = one({"type": "zero_shot", "templates": str(tmp_path / "templates.txt")})
    assert other.templates == ("the {}", "my {c}")
    assert list(other.texts(evalset, evalset.split))[:2] == ["the ant", "my ant"]
    renamed = one({"type": "zero_shot", "classnames": str(tmp_path / "names.txt")})
    assert renamed.classnames_for(evalset) == ("ant", "cow", "bee")
    assert run(renamed, evalset).metrics["acc1"] == 0.5  # ant is right, and the picture half bee half cow
    hashes = {suite.text_hash_for(evalset) for suite in (plain, other, renamed)}
    assert len(hashes) == 3
    assert parse_suites([renamed.model_dump(mode="json")]) == [renamed]
    with pytest.raises(DataError, match=r"has 2 names for the 3 classes of /sets/wds_zoo.*`sets`"):
        one({"type": "zero_shot", "classnames": ["ant", "bee"]}).templates_for(evalset)


def test_class_prompts_of_the_set_and_of_a_file(tmp_path):
    cupl = {"ant": ("an ant crawls",), "bee": ("a bee hums", "yellow bee"), "cow": ("this is a dog", "this is a dog")}
    shipped = zoo(templates=(), class_prompts=cupl)
    found = run(one("zero_shot"), shipped)
    assert found.facts == {"prompts": 5}
    assert found.metrics["acc1"] == 0.5  # nothing looks like a dog
    (tmp_path / "cupl.json").write_text(json.dumps({**cupl, "cow": ["a cow"]}))
    given = one({"type": "zero_shot", "class_prompts": str(tmp_path / "cupl.json")})
    assert run(given, zoo()).metrics["acc1"] == 0.75
    assert given.templates_for(zoo()) == ()
    assert given.text_hash_for(zoo()) != one("zero_shot").text_hash_for(shipped)
    with pytest.raises(DataError, match="prompts for its own class names"):
        one({"type": "zero_shot", "classnames": ["a", "b", "c"]}).templates_for(shipped)
    by_template = one({"type": "zero_shot", "classnames": ["ant", "bee", "dog"], "templates": ["a {}"]})
    assert run(by_template, shipped).metrics["acc1"] == 0.5


def test_canonical_names_and_aliases_change_words_and_hash():
    evalset = zoo(classnames=("Ant, Bug", "BEE_fly", "cow"), templates=("A photo of the {c}!",))
    suite = one({"type": "zero_shot", "canonicalize": True, "aliases": "first"})
    expected = ["a photo of the ant", "a photo of the bee fly", "a photo of the cow"]
    assert list(suite.texts(evalset, evalset.split)) == expected
    hashes = [one({"type": "zero_shot", **o}).text_hash_for(evalset) for o in ({}, {"canonicalize": True})]
    assert len({*hashes, suite.text_hash_for(evalset)}) == 3


def test_what_cannot_be_meant_is_refused():
    bad = [
        {"templates": []}, {"templates": ["a photo"]}, {"classnames": []}, {"class_prompts": {}},
        {"templates": ["a {}"], "class_prompts": {"a": ["b"]}}, {"aliases": "some"},
    ]  # fmt: skip
    for options in bad:
        with pytest.raises(ValidationError):
            one({"type": "zero_shot", **options})
    with pytest.raises(ConfigError, match=r"openai_imagnet does not exist"):
        one({"type": "zero_shot", "templates": "openai_imagnet"})
    with pytest.raises(DataError, match=r"/sets/wds_zoo has no templates"):
        one("zero_shot").templates_for(zoo(templates=()))


def test_classes_without_samples_are_predicted_but_not_averaged():
    """A set with all names of a larger label space, as subsets of ImageNet's classes are scored."""
    evalset = zoo(classnames=("ant", "bee", "cow", "dog"))
    image = np.stack([EYE[0], EYE[3], EYE[2], EYE[2]])
    found = run(one("zero_shot"), evalset, image)
    assert found.metrics["acc1"] == 0.75
    assert found.metrics["mean_per_class_recall"] == pytest.approx(2 / 3)


def test_main_metric_is_the_task_lists():
    def main(name):
        return one("zero_shot").main_metric_of(zoo(name=name))

    assert main("vtab-caltech101") == main("fgvc_aircraft") == "mean_per_class_recall"
    assert main("zoo") == main("cifar10") == "acc1"
    assert main("fairness-geode") == "acc_wg"
    assert not one("zero_shot").measures(zoo(classnames=("age: old", "age: young", "race: any")))
    assert one("zero_shot").measures(zoo(name="fairness-geode"))
    with pytest.raises(DataError, match="the main metric of fairness-geode, acc_wg, is about groups"):
        run(one("zero_shot"), zoo(name="fairness-geode"))
    with pytest.raises(DataError, match="is about groups"):
        one("zero_shot").check_splits(geode := zoo(name="fairness-geode"), {"test": geode.split("test")})
    one("zero_shot").check_splits(zoo(), {"test": zoo().split("test")})


def test_groups_give_metrics_beside():
    opened = Labelled([0, 1, 2, 2])
    opened.groups = Groups(("region",), np.array([[0], [1], [1], [1]]), {"region": ("north", "south")})
    found = run(one("zero_shot"), zoo(name="fairness-geode", opened=opened))
    assert found.metrics["acc1"] == 0.75
    assert (found.metrics["acc_region:0"], found.metrics["acc_region:1"]) == (1.0, pytest.approx(2 / 3))
    assert found.metrics["acc_wg"] == pytest.approx(2 / 3)
    assert "group:region" in found.outcomes.table(opened).column_names


def test_macro_f1_needs_no_groups():
    found = run(one("zero_shot"), zoo(name="wilds-iwildcam"))
    assert found.metrics["F1-macro_all"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


# multilingual


def babel() -> Zoo:
    words = (
        ("DE", LanguageTexts((0, 1, 2), ("ant", "bee", "cow"), ("ein {}", "der {c}"))),
        ("NE", LanguageTexts((1, 2), ("cow", "bee"), ())),  # a bad translation
    )
    return zoo(words=words)


def test_golden_multilingual():
    evalset = babel()
    suite = one({"type": "multilingual", "templates": {"*": ["{c}"]}})
    assert suite.measures(evalset)
    assert not suite.measures(zoo())
    assert list(suite.texts(evalset, evalset.split)) == [
        "ein ant", "der ant", "ein bee", "der bee", "ein cow", "der cow", "cow", "bee",
    ]  # fmt: skip
    found = run(suite, evalset)
    # DE: ant, bee right, cow half right. NE: of bee, cow, cow with exchanged names only the mixed picture is right
    de, ne = 3 / 4, 1 / 3
    corrected = ((de - 1 / 3) / (2 / 3) + (ne - 1 / 2) / (1 / 2)) / 2
    assert found.metrics == {
        "acc1:mean": pytest.approx((de + ne) / 2),
        "acc1_above_chance:mean": pytest.approx(corrected),
        "acc1:DE": de,
        "acc1:NE": pytest.approx(ne),
    }
    assert found.chance == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert [(r["language"], r["n"], r["classes"], r["templates"]) for r in found.tables["languages"]] == [
        ("DE", 4, 3, 2), ("NE", 3, 2, 1),
    ]  # fmt: skip
    table = found.outcomes.table(evalset.split("test")).to_pydict()
    assert table["language"] == ["DE"] * 4 + ["NE"] * 3
    assert table["key"][4:] == ["s0000001", "s0000002", "s0000003"]
    assert table["label"] == [0, 1, 2, 2, 1, 2, 2]  # class numbers of the set, not of the language
    assert table["prediction"] == [0, 1, 1, 2, 2, 2, 1]
    assert table["correct"] == found.outcomes.correct.tolist() == [True, True, False, True, False, True, False]
    json.dumps([found.metrics, found.tables, found.facts], allow_nan=False)


def test_a_language_looks_at_its_own_classes_only():
    evalset = babel()
    suite = one({"type": "multilingual", "languages": ["NE"], "templates": {"NE": ["{c}"]}})
    assert suite.rows(evalset, evalset.split("test")).tolist() == [1, 2, 3]
    image = IMAGE.copy()
    image[0] = np.nan  # never read
    assert run(suite, evalset, image).metrics["acc1:mean"] == pytest.approx(1 / 3)
    other = one({"type": "multilingual", "languages": ["NE"], "templates": {"NE": ["my {c}"]}})
    assert suite.text_hash_for(evalset) != other.text_hash_for(evalset)


def test_languages_without_templates_do_not_get_english_ones():
    with pytest.raises(DataError, match=r"language NE has no templates; give `templates`"):
        one("multilingual").templates_for(babel())
    with pytest.raises(DataError, match=r"no class names in FR; it has DE, NE"):
        one({"type": "multilingual", "languages": ["FR"]}).templates_for(babel())
    with pytest.raises(ValidationError, match=r"has no \{c\}"):
        one({"type": "multilingual", "templates": {"DE": ["ein"]}})
