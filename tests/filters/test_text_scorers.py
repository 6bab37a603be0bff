"""Scorers over captions as columns: language options, statistics, entities, metadata."""

import json
import re
import unicodedata
from itertools import groupby

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import ConfigError, DataError
from curate.filters.captions import characters, split_words, text, words
from curate.filters.scorers.caption_statistics import CaptionStatistics, statistics
from curate.filters.scorers.entity_match import EntityMatch, entities_path, read_wnids
from curate.filters.scorers.language import Language, fasttext_tokens, identify, model_path
from curate.filters.scorers.metadata_match import MetadataMatch

CHARACTERS = st.sampled_from("aaB bé9٣,$-  \t\n\r\x00\x0b\x1c\x85\u00a0\u2003日жʼǅ🙂")
CAPTION = st.none() | st.text(CHARACTERS, max_size=15)
TORN = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.py_buffer(np.array([0, 4, 7], np.int32)), pa.py_buffer(b"a\xff bc d")]
)


def column(pool, name):
    return pa.concat_tables(part.table for part in pool.members)[name].to_pylist()


# --- captions as columns


@settings(max_examples=200, deadline=None)
@given(st.lists(CAPTION, max_size=8))
def test_words_are_pythons(captions):
    array = pa.chunked_array([pa.array(captions, pa.string())])
    split = split_words(array)
    found = [[] for _ in captions]
    for row, code in zip(split.rows, split.codes, strict=True):
        found[row].append(split.vocabulary[code])
    assert found == [(c or "").split() for c in captions]
    counts = [np.nan if c is None else len(c.split()) for c in captions]
    np.testing.assert_array_equal(words(array), counts)
    np.testing.assert_array_equal(characters(array), [np.nan if c is None else len(c) for c in captions])


def test_text_is_valid_whatever_comes_in():
    assert text(TORN).to_pylist() == ["a\ufffd b", "c d"]
    assert text(pa.chunked_array([TORN, TORN])).to_pylist() == ["a\ufffd b", "c d"] * 2
    assert text(["\ud800x", None, "\ud83d\ude42"]).to_pylist() == ["\ufffdx", None, "🙂"]
    assert text(pa.chunked_array([pa.nulls(2)])).to_pylist() == [None, None]
    assert text(pa.chunked_array([], pa.string())).to_pylist() == []
    assert text(pa.array(["a", None, "a"]).dictionary_encode()).to_pylist() == ["a", None, "a"]


# --- language


def test_odd_captions_have_a_language():
    captions = [
        "a\0b",
        "\ud800 a small dog on the beach",
        "the dog " * 200_000,
        "",
        None,
        " \u2003",
        "\0",
        "the end\r\n",
    ]
    codes, probabilities = identify(captions)
    assert [code is None for code in codes.to_pylist()] == [False, False, False, True, True, True, False, False]
    assert codes.to_pylist()[1] == "en"
    np.testing.assert_array_equal(np.isnan(probabilities), [code is None for code in codes.to_pylist()])


def test_equal_captions_are_one_question_with_the_answer_of_the_library():
    import fasttext

    model = fasttext.load_model(str(model_path()))
    captions = ["ein Hund", "a dog\non the beach", "ein Hund", "un chien", None] * 3
    codes, probabilities = identify(captions)
    for caption, code, probability in zip(captions, codes.to_pylist(), probabilities, strict=True):
        if caption is None:
            assert code is None
            continue
        labels, scores = model.predict(caption.replace("\n", " "))
        assert code == labels[0].removeprefix("__label__")
        assert probability == np.float32(min(scores[0], 1.0))


def naive_tokens(caption: str | None) -> int:
    """fastText's reader: words end at ASCII white space and NUL; a newline is a token."""
    tokens, inside = 0, False
    for byte in (caption or "").encode():
        blank = byte in b" \n\r\t\v\f\0"
        tokens += (not blank and not inside) + (byte == 10)
        inside = not blank
    return tokens


@settings(max_examples=200, deadline=None)
@given(st.lists(CAPTION, max_size=8))
def test_fasttext_tokens(captions):
    assert fasttext_tokens(captions).tolist() == [naive_tokens(c) for c in captions]


def test_a_model_of_ones_own(make_pool, tmp_path):
    mine = tmp_path / "mine.ftz"
    mine.write_bytes(model_path().read_bytes())
    scorer = Language(model=str(mine), tokens=True)
    assert scorer.files() == [str(mine)]
    assert scorer.describe()["model"] == "mine.ftz"
    assert scorer.describe()["sha256"] == Language().describe()["sha256"]
    pool = make_pool({"caption": ["ein kleiner Hund am Strand", "dog\n", None]}, cuts=[1]).score("lang", scorer)
    assert column(pool, "lang")[0] == "de"
    np.testing.assert_array_equal(column(pool, "lang_tokens"), [5, 2, np.nan])
    torn = tmp_path / "torn.ftz"
    torn.write_bytes(b"not a model")
    with pytest.raises(ConfigError, match="no fastText model"):
        identify(["x"], str(torn))
    with pytest.raises(ConfigError, match="no model file"):
        Language(model=str(tmp_path / "none.bin")).describe()


# --- statistics


def naive_statistics(caption: str) -> dict[str, float]:
    letters = [c for c in caption if unicodedata.category(c)[0] == "L"]
    latin = [c for c in letters if unicodedata.name(c, "").startswith(("LATIN", "FULLWIDTH LATIN", "MODIFIER LETTER"))]
    share = lambda some, of: some / of if of else 0.0  # noqa: E731
    category = [unicodedata.category(c) for c in caption]
    split = caption.split()
    return {
        "": len(split),
        "chars": len(caption),
        "digits": share(category.count("Nd"), len(caption)),
        "punctuation": share(sum(c[0] in "PS" for c in category), len(caption)),
        "uppercase": share(sum(c in ("Lu", "Lt") for c in category), len(letters)),
        "nonlatin": share(len(letters) - len(latin), len(letters)),
        "distinct": share(len(set(split)), len(split)) if split else 1.0,
        "run": max((len(list(group)) for _, group in groupby(split)), default=0),
    }


@settings(max_examples=200, deadline=None)
@given(st.lists(CAPTION, max_size=8))
def test_statistics_are_those_of_a_loop(captions):
    found = statistics(text(captions))
    for i, caption in enumerate(captions):
        for name, value in naive_statistics(caption or "").items():
            expected = np.float32(np.nan if caption is None else value)
            np.testing.assert_array_equal(found[name][i], expected, err_msg=f"{name} of {caption!r}")


@pytest.mark.parametrize(
    ("caption", "holds"),
    [
        ("see www.example.com now", "url"),
        ("Buy at shop.de.", "url"),
        ("https://x", "url"),
        ("more at site.co.uk/abc", "url"),
        ("(example.org)", "url"),
        ("me@site.com", "email"),
        ("IMG_1234", "filename"),
        ("dsc00012", "filename"),
        ("chair.jpg", "filename"),
        ("Screenshot-2023", "filename"),
        ("red_chair.PNG?x=1", "filename"),
        ("a 3.5 in screw, e.g. this", None),
        ("It was over.It was", None),
        ("foo.commerce", None),
        ("at 10:30 @ home", None),
        ("a photo of 1234 dogs", None),
        ("readme.pngx", None),
        ("St.Paul", None),
    ],
)
def test_addresses_and_file_names(caption, holds):
    found = statistics(text([caption]))
    assert [k for k in ("url", "email", "filename") if found[k][0]] == ([holds] if holds else [])


def test_statistics_as_columns(make_pool):
    captions = ["SALE sale sale 50 %", None, ""]
    pool = make_pool({"caption": captions}, cuts=[2]).score("length", CaptionStatistics())
    names = [n for n in pool.members[0].table.column_names if n.startswith("length")]
    assert names == ["length", *(f"length_{k}" for k in statistics(text(captions)) if k)]
    assert all(pool.members[0].table[n].type == pa.float32() for n in names)
    assert all(np.isnan(column(pool, n)[1]) for n in names)
    assert column(pool, "length_run")[0] == 2
    assert column(pool, "length_distinct")[::2] == [pytest.approx(0.8), 1]
    empty = CaptionStatistics().score(make_pool({"caption": pa.array([], pa.string())}).members[0], "s")
    assert {len(v) for v in empty.values()} == {0}


# --- entities

WORDNET = {
    "noun": {"dog": "02084071 10114209", "run": "00558008"},
    "verb": {"run": "01926311", "jog": "02084071"},
    "adj": {"red": "00381097"},
    "adv": {},
}


@pytest.fixture
def database(tmp_path):
    for kind, lemmas in WORDNET.items():
        lines = [f"{w} {kind[0]} {at.count(' ') + 1} 0 {at.count(' ') + 1} 0 {at}  \n" for w, at in lemmas.items()]
        (tmp_path / f"index.{kind}").write_text("  1 licence\n" + "".join(lines))
        (tmp_path / f"{kind}.exc").write_text("")
        (tmp_path / f"data.{kind}").write_text("".join(f"{at[:8]} 05 n 01 {w} 0 000 | x\n" for w, at in lemmas.items()))
    (tmp_path / "wnids.txt").write_text("n02084071\n\nn04166281 couch\ns00381097\n")
    return tmp_path


def test_entities(make_pool, database):
    captions = ["two Dogs run", "a dog, here", "jogs", "run", "red dog", "", None, "dog dog cat"]
    scorer = EntityMatch(wordnet=str(database), entities=str(database / "wnids.txt"))
    pool = make_pool({"caption": captions}, cuts=[3]).score("entity", scorer)
    nan = np.nan
    np.testing.assert_array_equal(column(pool, "entity"), [1, 0, 1, 0, 1, 0, nan, 1])
    np.testing.assert_array_equal(column(pool, "entity_words"), [1, 0, 1, 0, 2, 0, nan, 2])
    dog = "n02084071"
    assert column(pool, "entity_wnid") == [dog, None, dog, None, "s00381097", None, None, dog]
    strict = make_pool({"caption": captions}).score("entity", scorer.model_copy(update={"exact_reference": False}))
    np.testing.assert_array_equal(column(strict, "entity"), [1, 0, 0, 0, 1, 0, nan, 1])  # jog is a verb
    assert scorer.describe() == {"entities": "wnids.txt", "count": 3, "wordnet": str(database)}
    assert {*scorer.files()} >= {str(database / "index.noun"), str(database / "verb.exc"), str(database / "wnids.txt")}


def test_imagenets_entities_come_with_timm():
    wnids = read_wnids(entities_path())
    assert len(wnids) == len(set(wnids)) == 21_841
    assert "n02084071" in wnids


def test_lists_of_entities_that_are_none(database):
    (database / "wnids.txt").write_text("n02084071\ndog\n")
    with pytest.raises(DataError, match="'dog' is no WordNet id"):
        read_wnids(database / "wnids.txt")
    (database / "wnids.txt").write_text("\n")
    with pytest.raises(DataError, match="holds no WordNet id"):
        read_wnids(database / "wnids.txt")
    with pytest.raises(ConfigError, match="no file of entities"):
        EntityMatch(wordnet=str(database), entities=str(database / "none")).files()
    with pytest.raises(ConfigError, match="wordnet-base"):
        EntityMatch(wordnet=str(database / "nowhere")).files()


# --- metadata


def test_metadata(make_pool, tmp_path):
    path = tmp_path / "entries.txt"
    path.write_text("new york\nyork\n\ncat\n", encoding="utf-8")
    scorer = MetadataMatch(entries=str(path))
    captions = ["a cat, new york", "Cat", None, "york\tcat"]
    pool = make_pool({"caption": captions}, cuts=[1]).score("meta", scorer)
    np.testing.assert_array_equal(column(pool, "meta"), [3, 0, np.nan, 2])
    assert column(pool, "meta_entries") == [[0, 1, 2], [], None, [1, 2]]
    assert pool.members[0].table["meta_entries"].type == pa.list_(pa.int32())
    facts = scorer.describe()
    assert (facts["entries"], facts["count"], facts["repeated"]) == ("entries.txt", 3, 0)
    assert scorer.read() == ["new york", "york", "cat"]

    as_json = tmp_path / "entries.json"
    as_json.write_text(json.dumps(scorer.read()))
    again = make_pool({"caption": captions}).score("meta", MetadataMatch(entries=str(as_json)))
    assert column(again, "meta_entries") == column(pool, "meta_entries")


def test_lists_go_through_parquet_and_take(make_pool, tmp_path):
    (tmp_path / "entries.txt").write_text("a\nb\n")
    pool = make_pool({"caption": ["a b", None, "b"]}).score("m", MetadataMatch(entries=str(tmp_path / "entries.txt")))
    part = pool.members[0]
    pq.write_table(part.table, tmp_path / "m.parquet")
    read = pq.read_table(tmp_path / "m.parquet", columns=["m_entries"])["m_entries"]
    assert read.take(pa.array([2, 0])).to_pylist() == [[1], [0, 1]]
    assert part.only(np.array([1, 2])).arrow("m_entries").to_pylist() == [None, [1]]
    assert [None if v is None else list(v) for v in part.array("m_entries")] == [[0, 1], None, [1]]


def test_an_edited_list_is_not_served_from_memory(make_pool, tmp_path):
    path, pool = tmp_path / "entries.txt", make_pool({"caption": ["a b"]})
    path.write_text("a\n")
    scorer = MetadataMatch(entries=str(path))
    state = scorer.fit(None)
    assert scorer.score(pool.members[0], "m", state)["m"].tolist() == [1]
    path.write_text("a\nb\n")
    assert scorer.score(pool.members[0], "m")["m"].tolist() == [2]
    path.write_text("c\n")
    with pytest.raises(DataError, match="changed while"):
        scorer.score(pool.members[0], "m", "another hash")


def test_names_of_wordnet_as_entries(make_pool, database):
    scorer = MetadataMatch(wordnet=str(database))
    assert scorer.read() == ["dog", "jog", "red", "run"]
    pool = make_pool({"caption": ["a red dog."]}).score("m", scorer)
    assert column(pool, "m_entries") == [[0, 2]]


def test_entries_that_are_none(tmp_path):
    path = tmp_path / "entries.json"
    for content, message in (("[1]", "not a JSON list of strings"), ("[", "must be UTF-8"), ("[]", "holds no entry")):
        path.write_text(content)
        with pytest.raises(DataError, match=message):
            MetadataMatch(entries=str(path)).read()
    with pytest.raises(ConfigError, match=re.escape("no file of entries 'nothing'")):
        MetadataMatch(entries="nothing").files()
