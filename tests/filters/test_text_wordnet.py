"""Looking words up in WordNet: a database small enough to read here, and the real one where it is installed."""

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import ConfigError, DataError
from curate.filters.wordnet import FOLDER, WordNet, synset_names

LICENCE = "  1 This software and database is provided to you as it is\n"
INDEX = {
    "noun": {
        "dog": [2084071, 10114209],
        "axis": [13902793, 8],
        "ax": [2764044],
        "glass": [3438257],
        "running": [558008],
        "wolf": [2114100],
        "man": [10287213],
        "hot_dog": [7697537],
        "as": [14758842],
    },
    "verb": {"dog": [2001876], "run": [1926311], "ax": [1550220], "love": [1775535], "be": [2604760]},
    "adj": {"good": [1123148], "nice": [1586342], "big": [1382086], "running": [1], "well": [2555434]},
    "adv": {"well": [11093], "as": [22131]},
}
EXCEPTIONS = {
    "noun": {"axes": ["ax", "axis"], "wolves": ["wolf"], "ghosts": ["absent"]},
    "verb": {"ran": ["run"], "running": ["run"], "was": ["be"]},
    "adj": {"better": ["good", "well"], "bigger": ["big"]},
    "adv": {"better": ["well"]},
}
DATA = {
    "noun": ["02084071 05 n 02 Dog 0 domestic_dog 0 000 | a pet\n", "07697537 13 n 01 hot_dog 0 000 | a sausage\n"],
    "verb": ["01926311 38 v 01 run 0 000 01 + 02 00 | move fast\n"],
    "adj": ["01123148 00 a 01 good(p) 0 000 | fine\n", "01586342 00 s 01 nice 0 000 | pleasant\n"],
    "adv": ["00011093 02 r 01 well 0 000 | in a good way\n"],
}
LETTER = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}


def write_database(folder: Path) -> str:
    for kind, lemmas in INDEX.items():
        lines = [
            f"{lemma} {LETTER[kind]} {len(at)} 2 @ ~ {len(at)} 0 {' '.join(f'{o:08d}' for o in at)}  \n"
            for lemma, at in sorted(lemmas.items())
        ]
        (folder / f"index.{kind}").write_text(LICENCE + "".join(lines))
        forms = [f"{word} {' '.join(bases)}\n" for word, bases in EXCEPTIONS[kind].items()]
        (folder / f"{kind}.exc").write_text("".join(forms))
        (folder / f"data.{kind}").write_text(LICENCE + "".join(DATA[kind]))
    return str(folder)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return WordNet(write_database(tmp_path_factory.mktemp("wordnet")))


RULES = {
    "noun": "s> ses>s ves>f xes>x zes>z ches>ch shes>sh men>man ies>y",
    "verb": "s> ies>y es>e es> ed>e ed> ing>e ing>",
    "adj": "er> est> er>e est>e",
    "adv": "",
}


def naive(word: str) -> list[tuple[str, int]]:
    """morphy(7WN) in the order of nltk 3.8.1, by recursion over sets of forms."""
    found = []
    for kind, lemmas in INDEX.items():

        def rounds(forms, kind=kind, lemmas=lemmas):
            made = []
            for form, rule in product(forms, RULES[kind].split()):
                suffix, end = rule.split(">")
                if form.endswith(suffix):
                    made.append(form.removesuffix(suffix) + end)
            hits = [f for f in made if f in lemmas]
            return hits if hits or not made else rounds(made)

        lower = word.lower()
        if lower in EXCEPTIONS[kind]:
            forms = [lower, *EXCEPTIONS[kind][lower]]
        elif lower in lemmas:
            made = [(f, r.split(">")) for f in [lower] for r in RULES[kind].split()]
            forms = [lower, *(f.removesuffix(a) + b for f, (a, b) in made if f.endswith(a))]
        else:
            forms = rounds([lower])
        for form in dict.fromkeys(forms):
            found += [(LETTER[kind], offset) for offset in lemmas.get(form, [])]
    return found


STEMS = sorted({w for part in (*INDEX.values(), *EXCEPTIONS.values()) for w in part} | {"lov", "hous", "", "x"})
SUFFIXES = [
    "",
    "s",
    "es",
    "ses",
    "ves",
    "xes",
    "ches",
    "men",
    "ies",
    "ed",
    "ing",
    "er",
    "est",
    "'s",
    ",",
    "sses",
    "inged",
]
WORD = st.tuples(st.sampled_from(STEMS), st.sampled_from(SUFFIXES), st.sampled_from(SUFFIXES)).map("".join)


@settings(max_examples=500, deadline=None)
@given(WORD, st.sampled_from([str.lower, str.upper, str.title]))
def test_the_same_synsets_as_by_the_book(small, word, case):
    assert list(small.synsets(case(word))) == naive(case(word))


@pytest.mark.parametrize(
    ("word", "synsets"),
    [
        ("dogs", [("n", 2084071), ("n", 10114209), ("v", 2001876)]),
        ("DOG", [("n", 2084071), ("n", 10114209), ("v", 2001876)]),
        ("axes", [("n", 2764044), ("n", 13902793), ("n", 8), ("v", 1550220)]),  # listed forms, in the list's order
        ("wolves", [("n", 2114100)]),
        ("ghosts", []),  # listed, but under a form that the index lacks: no rule is tried
        ("running", [("n", 558008), ("v", 1926311), ("a", 1)]),
        ("better", [("a", 1123148), ("a", 2555434), ("r", 11093)]),
        ("loved", [("v", 1775535)]),
        ("firemen", []),  # fireman is not in this index
        ("dog,", []),
        ("dog's", []),
        ("hot dog", []),
        ("hot_dogs", [("n", 7697537)]),
        ("glassses", [("n", 3438257)]),  # two rounds: "glasss", then "glass"
        ("", []),
    ],
)
def test_words(small, word, synsets):
    assert list(small.synsets(word)) == synsets == naive(word)


def test_names_of_synsets(small):
    assert synset_names(small.folder) == ["dog", "good", "hot dog", "nice", "run", "well"]


def test_what_is_missing_or_torn_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"index\.noun is not there"):
        WordNet(str(tmp_path))
    folder = write_database(tmp_path)
    (tmp_path / "index.verb").write_text("run v 2 0 2 0 01926311\n")
    with pytest.raises(DataError, match=r"index\.verb: not a line"):
        WordNet(folder)


@pytest.mark.skipif(not Path(FOLDER, "index.noun").exists(), reason="no wordnet-base")
def test_the_real_database():
    """Golden answers of nltk 3.8.1 over the same files."""
    real = WordNet()
    golden = {
        "dogs": ("n", 2084071),
        "Geese": ("n", 1855672),
        "better": ("n", 5143558),
        "ran": ("v", 1926329),
        "axes": ("n", 2764044),
        "was": ("n", 9152944),  # Washington: "was" without its s
        "glassses": ("n", 14881303),
        "xyzzy": None,
    }
    assert {word: next(real.synsets(word), None) for word in golden} == golden
    names = synset_names()
    assert len(names) == 86_571
    assert {"golden retriever", "dog", "dalmatian"} <= set(names)
