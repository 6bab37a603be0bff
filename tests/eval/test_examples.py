"""Which test pictures are shown: drawn from outcomes by key, with small copies, whatever the pictures are."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from compare_sample import record_of, write_results
from given_features import MemorySet, MemorySplit
from hypothesis import given
from hypothesis import settings as configured
from hypothesis import strategies as st
from PIL import Image

from curate.errors import DataError
from curate.eval.examples import (
    QUERIES,
    SCHEMA,
    SIDE,
    Seen,
    captions_of,
    choose_mistakes,
    collect,
    query_row,
    retrieved,
    seen_on,
    write_bank,
)
from curate.eval.metrics.outcomes import Outcomes
from curate.eval.report.dashboard.from_bank import Shown, galleries_of, mistakes_of
from curate.eval.results.files import read_results
from curate.eval.suites.retrieval import RetrievalOutcomes
from curate.shards.evalsets.base import Captions

NAMES = ("cat", '<img src=x onerror="hacked=1">', "frog")


def picture(number: int, size: tuple[int, int] = (20, 10)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, (number % 256, number // 256, 7)).save(file, "PNG")
    return file.getvalue()


class PictureSplit(MemorySplit):
    """A split whose pictures can be opened; which were is kept."""

    def __init__(self, images: Sequence[bytes], **annotations: Any) -> None:
        super().__init__(len(images), **annotations)
        self.images, self.opened = images, []

    def image(self, index: int) -> bytes:
        self.opened.append(index)
        return self.images[index]


def a_set(split: PictureSplit, name: str = "zoo") -> MemorySet:
    return MemorySet(name, f"/sets/wds_{name}", NAMES, ("a {c}",), "classification", one=split)


@dataclass
class Keys:
    keys: list[str]


def outcomes(right: Sequence[bool], keys: Sequence[str] | None = None) -> pa.Table:
    """Answers to pictures of class i % 3."""
    labels = np.arange(len(right)) % 3
    prediction = np.where(right, labels, (labels + 1) % 3)
    found = Outcomes(labels, prediction, np.where(right, 0, 1), 3)
    return found.table(Keys(list(keys or [f"p{i}" for i in range(len(right))])))  # type: ignore[arg-type]


def seen(*tables: pa.Table, suite: str = "zero_shot") -> list[Seen]:
    record = {"dataset": "zoo", "suite": suite, "split": "test"}
    return [Seen(f"arm{i}", record, table) for i, table in enumerate(tables)]


@given(
    answers=st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=60),
    limit=st.integers(0, 40),
    order=st.randoms(use_true_random=False),
)
@configured(deadline=None)
def test_mistakes_are_a_fair_draw_that_tells_arms_apart_first(answers, limit, order):
    tables = [outcomes([a[k] for a in answers]) for k in range(3)]
    chosen = choose_mistakes("salt", tables, limit)
    differ = {i for i, a in enumerate(answers) if any(a) and not all(a)}
    hopeless = {i for i, a in enumerate(answers) if not any(a)}
    assert len(chosen) == len(set(chosen)) == min(limit, len(differ) + len(hopeless))
    assert set(chosen) <= differ | hopeless
    first = [i for i in chosen if i in differ]
    assert chosen[: len(first)] == first
    # three quarters differ, unless there are not enough of one kind to fill the rest
    assert len(first) in {min(len(differ), max(round(0.75 * limit), limit - len(hopeless)))}
    # places in the file do not matter, keys do
    shuffled = list(range(len(answers)))
    order.shuffle(shuffled)
    keys = [f"p{i}" for i in shuffled]
    moved = [t.take(shuffled) for t in tables]
    assert [keys[i] for i in choose_mistakes("salt", moved, limit)] == [f"p{i}" for i in chosen]


def test_another_salt_draws_others_and_more_are_drawn_behind_the_same():
    tables = [outcomes([False] * 200), outcomes([True, False] * 100)]
    some, more = choose_mistakes("a", tables, 20), choose_mistakes("a", tables, 40)
    assert some[:15] == more[:15]
    assert choose_mistakes("b", tables, 20) != some


def test_outcomes_of_other_samples_are_refused():
    with pytest.raises(DataError, match="different samples"):
        choose_mistakes("a", [outcomes([True]), outcomes([True], keys=["q0"])], 3)


def test_mistakes_come_with_small_copies_of_their_own_pictures():
    sizes = [(400, 100), (3, 5), (20, 20), (112, 112), (2000, 10), (30, 40)]
    split = PictureSplit([picture(40 * i, sizes[i]) for i in range(6)], classes=np.arange(6) % 3)
    bank = collect(a_set(split), seen(outcomes([False] * 6), outcomes([True, False, True, False, True, False])))
    assert bank.schema.equals(SCHEMA)
    rows = {row["key"]: row for row in bank.to_pylist()}
    assert set(rows) == {f"p{i}" for i in range(6)}
    assert split.opened == [rows[key]["number"] for key in rows]  # each once, and no other
    for i, (width, height) in enumerate(sizes):
        row = rows[f"p{i}"]
        assert (row["role"], row["dataset"], row["suite"], row["split"]) == ("mistake", "zoo", "zero_shot", "test")
        small = Image.open(io.BytesIO(row["picture"]))
        assert small.format == "WEBP"
        assert small.size == (row["width"], row["height"])
        assert max(small.size) == min(SIDE, max(width, height))
        assert abs(np.asarray(small.convert("RGB"), int)[0, 0, 0] - 40 * i) <= 12  # the right one, but for compression


def test_broken_pictures_are_told_without_one():
    whole = picture(9, (64, 64))
    images = [b"", b"no picture", whole[:40], whole[:-60], whole]
    split = PictureSplit(images, classes=np.arange(5) % 3)
    bank = collect(a_set(split), seen(outcomes([False] * 5)))
    found = {row["key"]: row["picture"] for row in bank.to_pylist()}
    assert sorted(found) == [f"p{i}" for i in range(5)]
    assert [found[f"p{i}"] is None for i in range(3)] == [True, True, True]
    assert found["p4"] is not None
    shown = list(mistakes_of(Shown("m", NAMES, seen(outcomes([False] * 5)), bank)))
    assert {m.key: m.picture is None for m in shown}["p0"]
    assert not {m.key: m.picture is None for m in shown}["p4"]


def test_a_budget_bounds_the_pictures_and_other_outcomes_have_none():
    split = PictureSplit([picture(i) for i in range(30)], classes=np.arange(30) % 3)
    assert collect(a_set(split), seen(outcomes([False] * 30)), budget=7).num_rows == 7
    bare = pa.table({"key": ["p0"], "correct": [True]})
    assert collect(a_set(split), seen(bare)).num_rows == 0


def test_guesses_are_those_of_the_outcomes():
    right = [[True, False, False, True], [False, True, False, True]]
    split = PictureSplit([picture(i) for i in range(4)], classes=np.arange(4) % 3)
    both = seen(*(outcomes(r) for r in right))
    shown = {m.key: m for m in mistakes_of(Shown("m", NAMES, both, collect(a_set(split), both)))}
    assert set(shown) == {"p0", "p1", "p2"}  # nobody got the fourth wrong
    for i in range(3):
        mistake = shown[f"p{i}"]
        assert mistake.true == NAMES[i]
        for k, arm in enumerate(("arm0", "arm1")):
            guess = mistake.guesses[arm]
            assert guess.right == right[k][i]
            assert guess.label == (NAMES[i] if right[k][i] else NAMES[(i + 1) % 3])


def test_an_arm_that_lacks_a_sample_says_nothing_of_it():
    split = PictureSplit([picture(i) for i in range(3)], classes=np.arange(3))
    first = seen(outcomes([False] * 3))
    bank = collect(a_set(split), first)
    other = Seen("other", first[0].record, outcomes([False], keys=["p1"]))
    shown = {m.key: set(m.guesses) for m in mistakes_of(Shown("m", NAMES, [*first, other], bank))}
    assert shown == {"p0": {"arm0"}, "p1": {"arm0", "other"}, "p2": {"arm0"}}


# Retrieval: the naive truth is a full sort of scores that the test made.


def a_retrieval(seed: int, n: int = 12) -> tuple[np.ndarray, np.ndarray, PictureSplit]:
    """(pictures, captions) scores, the owner of each caption, and the split; two captions of one picture at least."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(n), rng.integers(1, 4, n))
    texts = tuple(f"caption {t} of {i}" for t, i in enumerate(owner))
    split = PictureSplit([picture(i) for i in range(n)], captions=Captions(texts, owner))
    return rng.normal(size=(n, len(owner))), owner, split


def table_of(scores: np.ndarray, owner: np.ndarray, split: PictureSplit) -> pa.Table:
    """Outcomes as the suite stores them, ranks and order by a full sort."""
    from curate.eval.metrics.retrieval_ranks import SHOWN, RetrievalRanks

    captions, pictures = np.argsort(-scores, 1), np.argsort(-scores.T, 1)
    text_rank = np.array([np.flatnonzero(owner[row] == i)[0] for i, row in enumerate(captions)])
    image_rank = np.array([np.flatnonzero(row == owner[t])[0] for t, row in enumerate(pictures)])
    ranks = RetrievalRanks(image_rank, text_rank, pictures[:, :SHOWN], captions[:, :SHOWN])
    return RetrievalOutcomes(ranks, split.captions).table(split)


@pytest.mark.parametrize("seed", range(4))
def test_rows_of_a_query_and_what_it_found(seed):
    scores, owner, split = a_retrieval(seed)
    table = table_of(scores, owner, split)
    for i in range(len(split)):
        row = query_row(table, "text", i)
        assert table["key"][row].as_py() == split.keys[i]
        best = np.argsort(-scores[i])
        assert retrieved(table, "text", i) == best[: len(retrieved(table, "text", i))].tolist()
        assert captions_of(table, i) == np.flatnonzero(owner == i).tolist()
    for t in range(len(owner)):
        assert query_row(table, "image", t) == t
        assert retrieved(table, "image", t)[0] == int(np.argmax(scores[:, t]))


def test_galleries_mark_the_right_ones_and_show_what_belongs():
    scores, owner, split = a_retrieval(7)
    tables = [table_of(scores, owner, split), table_of(-scores, owner, split)]
    both = seen(*tables, suite="retrieval")
    bank = collect(a_set(split), both)
    assert len({r["number"] for r in bank.to_pylist() if r["picture"]}) == len(split)
    queries = list(galleries_of(Shown("m", (), both, bank)))
    by_picture = [q for q in queries if q.picture is not None]
    by_text = [q for q in queries if q.picture is None]
    assert len(by_picture) == min(len(split), QUERIES)
    assert len(by_text) == min(len(owner), QUERIES)
    for query in by_picture:
        i = split.keys.index(query.key)
        for arm, values in (("arm0", scores[i]), ("arm1", -scores[i])):
            order = np.argsort(-values)
            assert [hit.text for hit in query.hits[arm]] == [split.captions.texts[t] for t in order[:5]]
            assert [hit.right for hit in query.hits[arm]] == [owner[t] == i for t in order[:5]]
            assert query.rank[arm] == 1 + min(k for k, t in enumerate(order) if owner[t] == i)
        assert [a.text for a in query.answers] == [split.captions.texts[t] for t in np.flatnonzero(owner == i)]
    for query in by_text:
        t = split.captions.texts.index(query.text)
        order = np.argsort(-scores[:, t])
        assert [hit.text for hit in query.hits["arm0"]] == [split.keys[i] for i in order[:5]]
        assert [hit.right for hit in query.hits["arm0"]] == [i == owner[t] for i in order[:5]]
        assert query.rank["arm0"] == 1 + int(np.flatnonzero(order == owner[t])[0])
        assert [(a.text, a.right) for a in query.answers] == [(split.keys[owner[t]], True)]
        assert query.answers[0].picture is not None


def test_a_small_budget_leaves_whole_queries_and_says_what_it_does_not_hold():
    scores, owner, split = a_retrieval(3)
    first = table_of(scores, owner, split)
    bank = collect(a_set(split), seen(first, suite="retrieval"), budget=6)
    pictures = [r for r in bank.to_pylist() if r["role"] in ("query", "item")]
    assert len(pictures) < len(split) + 6
    other = seen(first, table_of(-scores, owner, split), suite="retrieval")
    hits = [h for q in galleries_of(Shown("m", (), other, bank)) if q.text for h in q.hits["arm1"]]
    assert all((h.picture is None) == (h.text == "not in the examples of this page") for h in hits)


def test_seen_on_takes_the_first_model_of_each_arm_and_one_suite(tmp_path):
    from compare_sample import answers

    folders = []
    for i, suites in enumerate((("knn", "zero_shot"), ("zero_shot",), ("zero_shot", "knn"), ("knn",))):
        folder = tmp_path / f"model{i}"
        records = [record_of(folder, "letters", answers(40, 4, 0.5, i), suite) for suite in suites]
        folders.append(write_results(folder, [*records, record_of(folder, "other", answers(9, 3, 0.5, i))]))
    models = [(arm, folder, read_results(folder)) for arm, folder in zip("aabc", folders, strict=True)]
    found = seen_on(models, "letters")
    assert [(one.arm, one.record["suite"]) for one in found] == [("a", "zero_shot"), ("b", "zero_shot")]
    assert found[0].table.equals(pq.read_table(f"{folders[0]}/outcomes/letters.zero_shot.parquet"))
    assert [one.arm for one in seen_on(models, "other")] == ["a", "b", "c"]
    assert seen_on(models, "none") == []


def test_a_bank_is_one_file(tmp_path):
    split = PictureSplit([picture(i) for i in range(4)], classes=np.arange(4) % 3)
    bank = collect(a_set(split), seen(outcomes([False] * 4)))
    for name in ("a.parquet", "b.parquet"):
        write_bank(str(tmp_path / name), [bank, SCHEMA.empty_table()])
    assert pq.read_table(tmp_path / "a.parquet").equals(bank)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    write_bank(str(tmp_path / "none.parquet"), [])
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0
