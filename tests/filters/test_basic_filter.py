import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.filters.basic import Basic
from curate.filters.captions import characters, words
from curate.filters.memory import run_filters


def row(caption="one two three", width=300, height=300, language="en"):
    return {"caption": caption, "original_width": width, "original_height": height, "language": language}


def fate_of(make_pool, options=None, **changes):
    rows = [row(), row(**changes)]
    pool = make_pool({k: [r[k] for r in rows] for k in rows[0]})
    fate = run_filters(pool, [Basic(**(options or {}))]).fates[0].to_pylist()
    assert fate[0]["kept"]
    return fate[1]["reason"], fate[1]["value"]


@pytest.mark.parametrize(
    ("changes", "reason", "value"),
    [
        ({}, None, None),
        ({"language": "fr"}, "language", None),
        ({"language": None}, "language", None),
        ({"caption": "two words"}, "words", 2),
        ({"caption": " a\tb\n "}, "words", 2),
        ({"caption": ""}, "words", 0),
        ({"caption": None}, "words", None),
        ({"caption": "a b c"}, "chars", 5),
        ({"caption": "a b cd"}, None, None),
        ({"caption": "à b cé"}, None, None),  # characters, not bytes
        ({"width": 199, "height": 200}, "side", 199),
        ({"width": 200, "height": 200}, None, None),
        ({"width": None}, "side", None),
        ({"width": 0, "height": 0}, "side", 0),
        ({"width": 600, "height": 200}, None, None),
        ({"width": 601, "height": 200}, "aspect", 3.005),
        ({"width": 200, "height": 601}, "aspect", 3.005),
        ({"language": "de", "caption": "x", "width": 1}, "language", None),  # the first broken rule is the reason
    ],
)
def test_datacomp_boundaries(make_pool, changes, reason, value):
    found, number = fate_of(make_pool, **changes)
    assert found == reason
    assert (None if np.isnan(number) else number) == (None if value is None else np.float32(value))


def test_a_rule_that_is_off_reads_nothing(make_pool):
    anything = Basic(languages=[], min_words=0, min_chars=0, min_side=0, max_aspect=None)
    assert anything.columns() == []
    assert run_filters(make_pool({"x": [1, 2]}), [anything]).steps[0].kept == 2
    assert anything.describe(None) == {"rules": {}}
    assert Basic().describe(None)["rules"] == {"language": ["en"], "words": 3, "chars": 6, "side": 200, "aspect": 3.0}
    assert Basic(min_words=0, min_chars=0, min_side=0).columns() == ["language", "original_width", "original_height"]
    assert Basic(languages=[], max_aspect=None).columns() == ["caption", "original_width", "original_height"]


def test_zero_sides_have_no_shape(make_pool):
    options = {"min_side": 0}
    assert fate_of(make_pool, options, width=0, height=0)[0] == "aspect"
    assert fate_of(make_pool, options, width=0, height=5)[0] == "aspect"


def test_languages_and_their_column(make_pool):
    pool = make_pool({**{k: [v, v] for k, v in row().items()}, "lang": ["de", "nl"]})
    outcome = run_filters(pool, [Basic(languages=["de", "fr"], language_column="lang")])
    assert outcome.fates[0]["kept"].to_pylist() == [True, False]


@settings(deadline=None)
@given(st.lists(st.text(max_size=12) | st.none(), max_size=8))
def test_counts_are_pythons(texts):
    column = pa.chunked_array([pa.array(texts, pa.string())])
    lengths = [(np.nan, np.nan) if t is None else (len(t.split()), len(t)) for t in texts]
    np.testing.assert_array_equal(words(column), [w for w, _ in lengths])
    np.testing.assert_array_equal(characters(column), [c for _, c in lengths])


def test_every_code_point_splits_as_in_python():
    texts = [f"a{chr(c)}b" for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]
    found = words(pa.chunked_array([pa.array(texts)]))
    np.testing.assert_array_equal(found, [len(t.split()) for t in texts])
