"""Scores of images against prompts: each equals a softmax of cosines in float64."""

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import ConfigError, DataError
from curate.eval.embedding.features import TextFeatures, class_weights
from curate.filters.memory import MemoryContext
from curate.filters.scorers.class_probabilities import ClassPrompts, column_suffix
from curate.filters.scorers.prompt_safety import PromptSafety
from curate.shards.evalsets.webdataset import WebDatasetSet

D = 12


def embeddings(n: int, seed: int, d: int = D) -> np.ndarray:
    """float16 unit rows, around a common direction as CLIP's are, with NaN, zero and equal rows among them."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, d)) + 0.4
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    if n > 5:
        rows[2], rows[4], rows[5] = np.nan, 0, rows[0]
    return rows


def unit(rows: np.ndarray) -> np.ndarray:
    """float64 unit rows; zero rows stay zero."""
    rows = rows.astype(np.float64)
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norm, out=np.zeros_like(rows), where=norm != 0)


def column(pool, name: str) -> np.ndarray:
    return np.concatenate([part.array(name) for part in pool.members])


class Words:
    """An encoder whose towers are a hash of the text: same text, same unit vector."""

    dim, precision, digest, logit_scale = D, "fp32", "words", 30.0

    def load(self):
        return self

    def encode_texts(self, texts):
        rows = np.stack([np.random.default_rng(list(text.encode())).standard_normal(D) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


WORDS = MemoryContext(encoders={"e": Words()})


# --- prompt_safety


def test_safety_is_a_softmax_of_two_cosines(make_pool):
    scorer = PromptSafety(encoder="e", safe=["a cat", "a dog"], unsafe=["a gun", "blood", "a knife"])
    rows = embeddings(50, 4)
    pool = make_pool({}, {"e.image": rows}, cuts=[20]).score("s", scorer, WORDS)
    text = Words().encode_texts
    sides = unit(np.stack([text(scorer.safe).mean(axis=0), text(scorer.unsafe).mean(axis=0)]))
    powers = np.exp(30 * unit(rows) @ sides.T)
    exact = powers[:, 1] / powers.sum(axis=1)
    exact[4] = np.nan  # a zero row has no direction
    np.testing.assert_allclose(column(pool, "s"), exact, atol=1e-6)
    flags = pa.chunked_array([part.table["s_flag"].combine_chunks() for part in pool.members]).to_pylist()
    assert flags == [None if np.isnan(p) else bool(p > 0.5) for p in exact]
    assert {True, False, None} == set(flags)
    facts = scorer.describe(scorer.fit(WORDS))
    assert facts["prompts"] == {"safe": 2, "unsafe": 3}
    assert facts["logit_scale"] == 30
    json.dumps(facts, allow_nan=False)


def test_tuned_vectors_of_unequal_length_are_compared_by_angle(make_pool, tmp_path):
    """(1, 0) against (0, 3): for an image at 40 degrees the first is nearer, though its dot product is smaller."""
    np.save(tmp_path / "q.npy", np.array([[1, 0], [0, 3]], np.float16))
    angle = np.radians(40)
    pool = make_pool({}, {"e.image": np.array([[np.cos(angle), np.sin(angle)]], np.float32)})
    scorer = PromptSafety(encoder="e", prompts_file=str(tmp_path / "q.npy"), logit_scale=10)
    assert (scorer.files(), scorer.encoders()) == ([str(tmp_path / "q.npy")], [])
    found = pool.score("s", scorer)
    expected = 1 / (1 + np.exp(10 * (np.cos(angle) - np.sin(angle))))
    np.testing.assert_allclose(column(found, "s"), [expected], rtol=1e-5)
    assert found.members[0].table["s_flag"].to_pylist() == [False]


def test_extreme_scales_give_no_warning_and_no_nan(make_pool):
    pool = make_pool({}, {"e.image": embeddings(20, 5)})
    scorer = PromptSafety(encoder="e", safe=["a"], unsafe=["b"], logit_scale=1e6)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = column(pool.score("s", scorer, WORDS), "s")
    assert np.isnan(found).sum() == 2
    assert set(found[~np.isnan(found)]) <= {0.0, 1.0}


def test_safety_options_and_files_that_are_refused(tmp_path):
    for wrong in ({}, {"safe": ["a"]}, {"safe": ["a"], "unsafe": ["b"], "prompts_file": "q.npy"}):
        with pytest.raises(ValidationError, match="both `safe` and `unsafe`"):
            PromptSafety(encoder="e", **wrong)
    with pytest.raises(ValidationError, match="blank"):
        PromptSafety(encoder="e", safe=["a"], unsafe=[" "])
    np.save(tmp_path / "three.npy", np.ones((3, 4)))
    np.save(tmp_path / "zero.npy", np.zeros((2, 4)))
    for name, message in (("three", "two vectors"), ("zero", "zero or not a number"), ("none", "cannot be read")):
        with pytest.raises(ConfigError, match=message):
            PromptSafety(encoder="e", prompts_file=str(tmp_path / f"{name}.npy"), logit_scale=1).fit(WORDS)


# --- class_prompts


CLASSES = ["cat", "golden retriever", "T-shirt", "nothing at all"]
TEMPLATES = ["a photo of a {c}.", "art of {}"]


@settings(max_examples=15, deadline=None)
@given(
    n=st.integers(0, 60), k=st.integers(1, 4), cuts=st.lists(st.integers(0, 60), max_size=3), seed=st.integers(0, 99)
)
def test_classes_equal_the_softmax(make_pool, n, k, cuts, seed):
    rows = embeddings(n, seed)
    scorer = ClassPrompts(encoder="e", classes=CLASSES[:k], templates=TEMPLATES, probabilities_of=CLASSES[k - 1 : k])
    pool = make_pool({}, {"e.image": rows}, cuts=[c for c in cuts if c <= n]).score("s", scorer, WORDS)
    evalset = WebDatasetSet("x", "x", tuple(CLASSES[:k]), tuple(TEMPLATES), "classification")
    weights = class_weights(TextFeatures(Words()), evalset, TEMPLATES).astype(np.float64)  # type: ignore[arg-type]
    logits = 30 * unit(rows) @ weights.T
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    lost = np.isnan(powers).any(axis=1) | ~rows.any(axis=1)
    in_order = np.sort(powers, axis=1)
    second = in_order[:, -2] if k > 1 else 0.0
    expected = {
        "s_probability": in_order[:, -1],
        "s_margin": in_order[:, -1] - second,
        "s_entropy": -(powers * np.log(np.maximum(powers, 1e-300))).sum(axis=1),
        f"s_p_{column_suffix(CLASSES[k - 1])}": powers[:, k - 1],
    }
    for name, values in expected.items():
        found = column(pool, name)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, np.where(lost, np.nan, values), atol=3e-6, err_msg=name)
    top = [name for part in pool.members for name in part.table["s"].to_pylist()]
    assert top == [None if gone else CLASSES[i] for gone, i in zip(lost, np.argmax(logits, axis=1), strict=True)]


def test_classes_and_templates_from_files(make_pool, tmp_path):
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    (tmp_path / "templates.txt").write_text("\n".join(TEMPLATES))
    scorer = ClassPrompts(
        encoder="e",
        classes_file=str(tmp_path / "classes.txt"),
        templates_file=str(tmp_path / "templates.txt"),
        probabilities_of=["T-shirt", "golden retriever"],
    )
    assert len(scorer.files()) == 2
    inline = ClassPrompts(encoder="e", classes=CLASSES, templates=TEMPLATES, probabilities_of=["T-shirt"])
    pool = make_pool({}, {"e.image": embeddings(20, 6)})
    from_files, from_options = pool.score("s", scorer, WORDS), pool.score("s", inline, WORDS)
    for name in ("s", "s_entropy", "s_p_t_shirt"):
        assert str(from_files.members[0].table[name].to_pylist()) == str(
            from_options.members[0].table[name].to_pylist()
        )
    assert "s_p_golden_retriever" in from_files.members[0].table.column_names
    facts = scorer.describe(scorer.fit(WORDS))
    assert facts["prompts_digest"] == inline.describe(inline.fit(WORDS))["prompts_digest"]
    assert facts["columns_of_classes"] == {"T-shirt": "p_t_shirt", "golden retriever": "p_golden_retriever"}


def test_class_options_that_are_refused(tmp_path):
    wrong = {
        "either `classes` or a `classes_file`": {},
        "there twice": {"classes": ["a", "b", "a"]},
        "has no {c}": {"classes": ["a"], "templates": ["a photo"]},
        "there are no templates": {"classes": ["a"], "templates": []},
        "did you mean 'cats'": {"classes": ["cats", "dogs"], "probabilities_of": ["cat"]},
        "would share a column": {"classes": ["a b", "a-b"], "probabilities_of": ["a b", "a-b"]},
    }
    for message, options in wrong.items():
        with pytest.raises(ValidationError, match=message.replace("{", r"\{")):
            ClassPrompts(encoder="e", **options)
    (tmp_path / "blank.txt").write_text("a\n\nb\n")
    (tmp_path / "nothing.txt").write_text("\n")
    for name, message in (("blank", "line 2"), ("nothing", "is empty"), ("none", "not there")):
        with pytest.raises(ConfigError, match=message):
            ClassPrompts(encoder="e", classes_file=str(tmp_path / f"{name}.txt")).fit(WORDS)


def test_a_prompt_without_a_direction_is_named():
    class Broken(Words):
        def encode_texts(self, texts):
            rows = super().encode_texts(texts)
            rows[-1] = np.nan
            return rows

    with pytest.raises(DataError, match="prompt 'b' is not a number"):
        PromptSafety(encoder="e", safe=["a"], unsafe=["b"]).fit(MemoryContext(encoders={"e": Broken()}))


def test_unequal_dimensions_are_refused(make_pool):
    pool = make_pool({}, {"e.image": np.ones((2, 3), np.float32)})
    for scorer in (PromptSafety(encoder="e", safe=["a"], unsafe=["b"]), ClassPrompts(encoder="e", classes=["a"])):
        with pytest.raises(DataError, match="has 3 dimensions, the prompts have 12"):
            pool.score("s", scorer, WORDS)
