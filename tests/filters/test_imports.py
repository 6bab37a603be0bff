import gzip
import json
import math
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import ConfigError, DataError
from curate.filters import uid_join
from curate.filters.memory import MemoryContext
from curate.filters.scorers import import_scores
from curate.filters.scorers.import_scores import ImportScores
from curate.shards.uid import stable_uid


def uid(i: int) -> str:
    return stable_uid(str(i))


@pytest.fixture
def small_pieces(monkeypatch):
    """Many ranges and many buckets for a few rows."""
    monkeypatch.setattr(uid_join, "ROWS_PER_BUCKET", 7)
    monkeypatch.setattr(import_scores, "ROWS_PER_RANGE", 5)


def imported(pool, scorer, folder, name="score"):
    """The pool with the scorer's columns, and its facts."""
    context = MemoryContext(folder=str(folder))
    state = pickle.loads(pickle.dumps(scorer.fit(context.of(pool))))
    return pool.score(name, scorer, context), scorer.describe(state)


def column(pool, name):
    return pa.concat_tables(p.table for p in pool.members)[name].to_pylist()


def test_every_matching_row_gets_the_value_and_both_sides_are_counted(make_pool, tmp_path):
    files = tmp_path / "scores"
    files.mkdir()
    pq.write_table(
        pa.table(
            {
                "uid": [uid(0), uid(1), "", "not hex", None, uid(9).upper()],
                "punsafe": pa.array([0.5, None, 1, 2, 3, 0.25], pa.float32()),
                "label": ["a", None, "x", "y", "z", "ü"],
                "good": [True, False, None, None, None, None],
                "big": pa.array([2**60 + 1, 2, 3, 4, 5, 6], pa.int64()),
            }
        ),
        files / "a.parquet",
    )
    pq.write_table(
        pa.table(
            {
                "uid": [uid(1), uid(50), uid(51), uid(51)],
                "punsafe": pa.array([None, 7, 8, 8], pa.float32()),
                "label": [None, "q", "r", "r"],
                "good": pa.array([False, None, None, None], pa.bool_()),
                "big": pa.array([2, 3, 4, 4], pa.int64()),
            }
        ),
        files / "b.parquet",
    )
    (files / "README.md").write_text("not a table")
    pool = make_pool({"uid": [uid(0), uid(1), uid(2), uid(0), uid(9)]}, cuts=[2])
    scorer = ImportScores(path=str(files), column="punsafe", columns={"label": "label", "good": "good", "n": "big"})
    scored, facts = imported(pool, scorer, tmp_path / "work", "unsafe")
    assert column(scored, "unsafe") == [0.5, None, None, 0.5, 0.25]
    assert column(scored, "unsafe_label") == ["a", None, None, "a", "ü"]
    assert column(scored, "unsafe_good") == [True, False, None, True, None]
    assert column(scored, "unsafe_n") == [2**60 + 1, 2, None, 2**60 + 1, 6]
    table = scored.members[0].table
    assert [str(table.schema.field(c).type) for c in ("unsafe", "unsafe_label", "unsafe_good", "unsafe_n")] == [
        "float",
        "string",
        "bool",
        "int64",
    ]
    assert facts == {
        "rows": 10,
        "malformed": 3,
        "distinct": 5,
        "repeated": 2,
        "conflicting": 0,
        "matched": 4,
        "unmatched": 1,
        "not_in_pool": 3,
    }
    json.dumps(facts, allow_nan=False)


def test_short_uids_are_padded_and_dashed_ones_are_malformed(make_pool, tmp_path):
    short, dashed = "00ab" + "0" * 28, "01234567-89ab-cdef-0123-456789abcdef"
    pq.write_table(pa.table({"id": [short.lstrip("0"), dashed], "s": [1, 2]}), tmp_path / "s.parquet")
    pool = make_pool({"uid": [short, dashed.replace("-", "")]})
    scored, facts = imported(pool, ImportScores(path=str(tmp_path / "s.parquet"), key="id", column="s"), tmp_path / "w")
    assert column(scored, "score") == [1, None]
    assert facts["malformed"] == 1


def test_differing_repeats_are_an_error_unless_the_first_is_wanted(make_pool, tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0), ("c", 1.0)):
        pq.write_table(pa.table({"uid": [uid(3), uid(4)], "s": [value, math.nan]}), tmp_path / f"{name}.parquet")
    pool = make_pool({"uid": [uid(4), uid(3)]})
    with pytest.raises(DataError, match=r"1 keys .* row 0 of .*a\.parquet and row 0 of .*b\.parquet"):
        imported(pool, ImportScores(path=str(tmp_path), column="s"), tmp_path / "w")
    scored, facts = imported(pool, ImportScores(path=str(tmp_path), column="s", duplicates="first"), tmp_path / "w")
    assert column(scored, "score")[1] == 1.0
    assert math.isnan(column(scored, "score")[0])  # a NaN that is there stays one
    assert (facts["conflicting"], facts["repeated"], facts["distinct"]) == (1, 4, 2)


def test_csv_and_json_lines(make_pool, tmp_path):
    pool = make_pool({"uid": [uid(i) for i in range(4)]}, cuts=[1, 2])
    (tmp_path / "s.csv").write_text(f"uid,aesthetic,tag\n{uid(0)},4.5,\n{uid(2)},,x\n")
    (tmp_path / "s.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps({"uid": uid(i), "n": i}) + "\n" for i in (1, 3)).encode())
    )
    scored, _ = imported(pool, ImportScores(path=str(tmp_path / "*.csv"), columns=["aesthetic", "tag"]), tmp_path / "w")
    assert column(scored, "score") == [4.5, None, None, None]
    assert column(scored, "score_tag")[2] == "x"
    scored, facts = imported(pool, ImportScores(path=str(tmp_path / "s.jsonl.gz"), column="n"), tmp_path / "w")
    assert column(scored, "score") == [None, 1, None, 3]
    assert facts["matched"] == facts["unmatched"] == 2


def test_another_column_can_be_the_key(make_pool, tmp_path):
    pq.write_table(pa.table({"URL": ["http://a", "http://b", None], "s": [1, 2, 3]}), tmp_path / "s.parquet")
    pool = make_pool({"url": ["http://b", "http://b", None, "http://c"]}, cuts=[1])
    scorer = ImportScores(path=str(tmp_path / "s.parquet"), key="URL", on="url", column="s")
    assert scorer.columns() == ["url"]
    scored, facts = imported(pool, scorer, tmp_path / "w")
    assert column(scored, "score") == [2, 2, None, None]
    assert (facts["malformed"], facts["matched"], facts["unmatched"], facts["not_in_pool"]) == (1, 2, 2, 1)


def test_nothing_in_common_and_nothing_at_all(make_pool, tmp_path):
    pq.write_table(pa.table({"uid": pa.array([], pa.string()), "s": pa.array([], pa.int8())}), tmp_path / "e.parquet")
    pool = make_pool({"uid": [uid(1), uid(2)]}, cuts=[1, 1])  # a part in the middle is empty
    scored, facts = imported(pool, ImportScores(path=str(tmp_path / "e.parquet"), column="s"), tmp_path / "w")
    assert column(scored, "score") == [None, None]
    assert scored.members[0].table["score"].type == pa.int8()
    assert facts["rows"] == facts["matched"] == 0
    assert facts["unmatched"] == 2


@pytest.mark.parametrize(
    ("table", "options", "message"),
    [
        ({"uid": ["0"], "s": [1]}, {"column": "z"}, "unknown column 'z'"),
        ({"id": ["0"], "s": [1]}, {"column": "s"}, "unknown column 'uid'"),
        ({"uid": [7], "s": [1]}, {"column": "s"}, "uids are text"),
        ({"uid": ["0"], "s": [[1]]}, {"column": "s"}, "holds list"),
    ],
)
def test_wrong_columns_are_told(make_pool, tmp_path, table, options, message):
    pq.write_table(pa.table(table), tmp_path / "s.parquet")
    with pytest.raises(ConfigError, match=message):
        imported(make_pool({"uid": [uid(1)]}), ImportScores(path=str(tmp_path), **options), tmp_path / "w")


def test_broken_files_and_wrong_keys_are_told(make_pool, tmp_path):
    pool = make_pool({"uid": [uid(1)]})
    with pytest.raises(ConfigError, match="scorer import: path"):
        ImportScores(path=str(tmp_path / "no.parquet"), column="s").files()
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(DataError, match=r"torn\.parquet"):
        imported(pool, ImportScores(path=str(tmp_path / "torn.parquet"), column="s"), tmp_path / "w")
    pq.write_table(pa.table({"uid": ["cat", "dog"], "s": [1, 2]}), tmp_path / "words.parquet")
    with pytest.raises(DataError, match="none of the 2 rows has a usable key"):
        imported(pool, ImportScores(path=str(tmp_path / "words.parquet"), column="s"), tmp_path / "w")
    pq.write_table(pa.table({"uid": ["1"], "s": ["text"]}), tmp_path / "words2.parquet")
    with pytest.raises(DataError, match="different types"):
        imported(pool, ImportScores(path=str(tmp_path / "words*.parquet"), column="s"), tmp_path / "w")
    with pytest.raises(ValidationError, match="which `column`"):
        ImportScores(path="x")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_equal_to_a_dictionary_however_it_is_cut(make_pool, tmp_path_factory, small_pieces, data):
    folder = tmp_path_factory.mktemp("join")
    pool_ids = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=60))
    rows = data.draw(st.lists(st.tuples(st.integers(-3, 60), st.integers(0, 2)), max_size=60))
    keys = [uid(i) if i >= 0 else (None, "-", "f" * 33)[i] for i, _ in rows]
    cut = data.draw(st.integers(0, len(rows)))
    for name, part in (("a", slice(0, cut)), ("b", slice(cut, None))):
        table = {"uid": pa.array(keys[part], pa.string()), "s": pa.array([s for _, s in rows[part]], pa.int32())}
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    truth: dict[int, int] = {}
    for i, s in rows:
        if i >= 0:
            truth.setdefault(i, s)
    cuts = data.draw(st.lists(st.integers(0, len(pool_ids)), max_size=4))
    pool = make_pool({"uid": [uid(i) for i in pool_ids]}, cuts=cuts)
    scorer = ImportScores(path=str(folder), column="s", duplicates="first")
    usable = [i for i, _ in rows if i >= 0]
    if rows and not usable:
        with pytest.raises(DataError, match="usable key"):
            imported(pool, scorer, folder / "w")
        return
    scored, facts = imported(pool, scorer, folder / "w")
    assert column(scored, "score") == [truth.get(i) for i in pool_ids]
    matched = sum(i in truth for i in pool_ids)
    values = {i: {s for j, s in rows if j == i} for i in truth}
    assert facts == {
        "rows": len(rows),
        "malformed": len(rows) - len(usable),
        "distinct": len(truth),
        "repeated": len(usable) - len(truth),
        "conflicting": sum(len(v) > 1 for v in values.values()),
        "matched": matched,
        "unmatched": len(pool_ids) - matched,
        "not_in_pool": sum(i not in set(pool_ids) for i in usable),
    }


def test_numbered_uids_spread_over_the_buckets():
    keys = uid_join.to_records(f"{i:032x}" for i in range(4000))
    assert np.bincount(uid_join.bucket_of(keys, 16), minlength=16).min() > 150
    keys["f1"] = keys["f0"] = np.arange(4000)
    assert np.bincount(uid_join.bucket_of(keys, 16), minlength=16).min() > 150
