import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import ConfigError, DataError
from curate.eval.tasks.prompts import (
    canonicalize,
    class_texts,
    ensemble,
    named_templates,
    read_class_prompts,
    read_texts,
    text_hash,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Great_White  Shark", "great white shark"),
        ("Mercedes-Benz C-Class (2012).", "mercedesbenz cclass 2012"),
        ("tench, Tinca_tinca!", "tench, tinca tinca"),
        ("{c}", "c"),
        ("  Äpfel\tund\nBirnen ", "äpfel und birnen"),
        ("'%$#", ""),
    ],
)
def test_canonical_names_by_hand(text, expected):
    assert canonicalize(text) == expected


def test_canonical_templates_keep_the_place():
    assert canonicalize("A photo, of_a {c}.", template=True) == "a photo, of a {}"
    assert canonicalize("ITAP of my {}!", template=True) == "itap of my {}"
    assert canonicalize("a {c} and {}?", template=True) == "a {} and {}"


@given(st.text())
def test_canonical_text_is_canonical(text):
    once = canonicalize(text)
    assert canonicalize(once) == once
    assert once == " ".join(once.split())
    assert not set("_.{}()'\"!-") & set(once)


def test_names_go_into_all_places_as_text():
    found = class_texts("set", ["cat", "a {c} \\1"], ["one {c}", "{} and {c}"])
    assert found.prompts == (("one cat", "cat and cat"), ("one a {c} \\1", "a {c} \\1 and a {c} \\1"))
    assert (found.count, found.plain) == (4, True)
    assert found.flat()[1] == "cat and cat"


def test_aliases():
    names = ["tench, Tinca tinca", "crane", "cock,  cock"]
    assert class_texts("set", names, ["a {}"]).prompts[0] == ("a tench, Tinca tinca",)
    first = class_texts("set", names, ["a {}", "b {}"], aliases="first")
    assert first.prompts == (("a tench", "b tench"), ("a crane", "b crane"), ("a cock", "b cock"))
    everything = class_texts("set", names, ["a {}", "b {}"], aliases="all")
    assert everything.prompts[0] == ("a tench", "b tench", "a Tinca tinca", "b Tinca tinca")
    assert everything.prompts[2] == ("a cock", "b cock")  # said once
    canonical = class_texts("set", names, ["A {}!"], aliases="all", canonical=True)
    assert canonical.prompts[0] == ("a tench", "a tinca tinca")


def test_class_prompts_differ_in_number_and_may_hold_the_place():
    given_prompts = {"cat": ["a cat purrs", "the {c}"], "dog": ["a dog barks"], "eel": ["not asked for"]}
    found = class_texts("set", ["dog", "cat"], ["not used {}"], given_prompts)
    assert found.prompts == (("a dog barks",), ("a cat purrs", "the cat"))
    assert (found.templates, found.plain) == ((), False)
    with pytest.raises(DataError, match=r"1 of 2 classes have no class prompts, such as 'fox'"):
        class_texts("set", ["dog", "fox"], (), given_prompts)


def test_nothing_is_made_up():
    with pytest.raises(DataError, match="set has no prompt templates"):
        class_texts("set", ["cat"])
    with pytest.raises(DataError, match="nothing is left of the class name '--'"):
        class_texts("set", ["cat", "--"], ["a {}"], canonical=True)
    with pytest.raises(DataError, match="nothing is left of the class name ' , '"):
        class_texts("set", [" , "], ["a {}"], aliases="first")


def test_hash_covers_everything_that_reaches_the_tower():
    plain = class_texts("set", ["Cat", "dog"], ["a {c}"])
    assert plain.digest == text_hash(["Cat", "dog"], ["a {c}"])
    others = [
        class_texts("set", ["Cat", "dog"], ["A {c}"]),
        class_texts("set", ["dog", "Cat"], ["a {c}"]),
        class_texts("set", ["Cat", "dog"], ["a {c}"], canonical=True),
        class_texts("set", ["Cat", "dog"], ["a {c}"], aliases="first"),
        class_texts("set", ["Cat", "dog"], (), {"Cat": ["a Cat"], "dog": ["a dog"]}),
        class_texts("set", ["Cat", "dog"], (), {"Cat": ["a Cat"], "dog": ["a dog", "two"]}),
    ]
    digests = {one.digest for one in [plain, *others]}
    assert len(digests) == 7
    assert all(len(digest) == 32 for digest in digests)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=150), st.integers(0, 2**32 - 1))
def test_ensemble_is_the_normalised_mean_of_each_class(sizes, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(sum(sizes), 6))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    prompts, start = [], 0
    for size in sizes:
        prompts.append([str(start + i) for i in range(size)])
        start += size
    found = ensemble(lambda texts: rows[[int(t) for t in texts]], prompts, [str(i) for i in range(len(sizes))], "set")
    expected = []
    for mine in prompts:
        mean = rows[[int(t) for t in mine]].astype(np.float64).mean(0)
        expected.append(mean / np.linalg.norm(mean))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_ensemble_by_hand():
    features = {"x": [1, 0], "y": [0, 1], "z": [0.6, 0.8]}
    found = ensemble(lambda texts: np.array([features[t] for t in texts], np.float32), [["x", "y"], ["z"]], "ab", "set")
    np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5], [0.6, 0.8]], rtol=1e-6)
    opposite = {"x": [1, 0], "-x": [-1, 0]}
    with pytest.raises(DataError, match=r"set: the prompts of class 'b' cancel out"):
        ensemble(lambda t: np.array([opposite[p] for p in t], np.float32), [["x"], ["x", "-x"]], "ab", "set")


def test_files_of_texts(tmp_path):
    path = tmp_path / "templates.txt"
    path.write_text("a photo of a {c}.\n  one {}\n\n")
    assert read_texts(str(path), "templates") == ("a photo of a {c}.", "one {}")
    other = tmp_path / "names.json"
    other.write_text('["cat", "dog"]')
    assert read_texts(str(other), "names") == ("cat", "dog")
    prompts = tmp_path / "cupl.json"
    prompts.write_text(json.dumps({"cat": ["purrs"], "dog": ["barks", "runs"]}))
    assert read_class_prompts(str(prompts)) == {"cat": ("purrs",), "dog": ("barks", "runs")}
    for body, name in (("", "e.txt"), ("a\n\nb", "b.txt"), ("{", "n.json"), ('{"a": 1}', "d.json"), ("[1]", "i.json")):
        (tmp_path / name).write_text(body)
        with pytest.raises(ConfigError, match=name):
            read_texts(str(tmp_path / name), "names")
    for body in ("[]", "{}", '{"a": "b"}', '{"a": []}', '{"a": [""]}'):
        (tmp_path / "broken.json").write_text(body)
        with pytest.raises(ConfigError, match=r"broken.json must hold a JSON object"):
            read_class_prompts(str(tmp_path / "broken.json"))
    with pytest.raises(ConfigError, match=r"nowhere.txt does not exist"):
        read_texts(str(tmp_path / "nowhere.txt"), "names")


def test_named_templates():
    assert named_templates("simple") == ("a photo of a {c}.",)
    openai = named_templates("openai_imagenet")
    assert len(openai) == 80
    assert all(template.count("{c}") == 1 for template in openai)
    assert len(named_templates("openai_simple")) == 7
