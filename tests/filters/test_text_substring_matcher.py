"""MetaCLIP's rule against the loop over entries that it is defined by."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.filters import substring_matcher
from curate.filters.substring_matcher import SubstringMatcher, match


def naive(entries: list[str], texts: list[str | None]) -> list[list[int] | None]:
    def padded(text: str) -> str:
        for white in "\t\n\r":
            text = text.replace(white, " ")
        for sign in ",.;:?!":
            text = text.replace(sign, f" {sign} ")
        return f" {text} "

    first = {entry: i for i, entry in reversed(list(enumerate(entries)))}
    return [None if t is None else sorted(i for e, i in first.items() if f" {e} " in padded(t)) for t in texts]


SIGNS = st.sampled_from(
    ["a", "b", "ab", "é", " ", " ", ",", ".", "\n", "\t", "\r", "-", "'", ")", "\x0b", "\u00a0", "\u2028"]
)
TEXT = st.lists(SIGNS, max_size=12).map("".join)


@settings(max_examples=400, deadline=None)
@given(st.lists(TEXT, max_size=15), st.lists(st.none() | TEXT, max_size=6))
def test_the_same_sets_as_the_loop_over_entries(entries, texts):
    assert match(entries, texts).to_pylist() == naive(entries, texts)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cat,", ["cat"]),
        ("a cat", ["cat"]),
        ("(cat", []),
        ("Cat", []),
        ("cat's", []),
        ("cat)", []),
        ("cat-dog", []),
        ("concatenate", []),
        ("new york", ["york", "new york"]),
        ("new  york", ["york"]),
        ("new\nyork", ["york", "new york"]),
        ("new,york", ["york"]),
        ("cat cat cat", ["cat"]),
        ("", []),
    ],
)
def test_edges_of_the_rule(text, found):
    entries = ["cat", "york", "new york"]
    assert (
        [entries[i] for i in match(entries, [text])[0].as_py()]
        == found
        == [entries[i] for i in naive(entries, [text])[0]]
    )


def test_of_equal_entries_the_first_counts():
    assert match(["x", "a b", "x", "a b"], ["x a b"]).to_pylist() == [[0, 1]]


def test_blocks_do_not_show(monkeypatch):
    entries, texts = ["a", "b a", "a b"], ["a b a", None, "b", "", "a  b", "b a", None]
    whole = match(entries, texts)
    monkeypatch.setattr(substring_matcher, "BLOCK", 1)
    assert match(entries, texts).equals(whole)
    assert whole.to_pylist() == naive(entries, texts)


def test_no_entries_no_texts():
    assert match([], ["a", None]).to_pylist() == [[], None]
    assert match(["a"], []).to_pylist() == []
    assert match(["a\nb", "\n"], ["a\nb", "\n"]).to_pylist() == [[], []]


def test_a_megabyte_of_text():
    matcher = SubstringMatcher(["word", "word word", "rare"])
    assert matcher.match(["word " * 200_000 + "rare", "x" * 1_000_000]).to_pylist() == [[0, 1, 2], []]
