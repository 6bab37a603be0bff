"""SQL conditions and functions of one's own as filters."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import ConfigError, DataError
from curate.filters.memory import run_filters
from curate.filters.python_filter import PythonFilter
from curate.filters.where import Where, columns_of

FUNCTIONS = """
import numpy as np
import pyarrow as pa


def long(table, at_least=3):
    return np.array([len(c or "") >= at_least for c in table["caption"].to_pylist()])


def counts(table):
    return pa.array([None if c is None else len(c) for c in table["caption"].to_pylist()], pa.int32())


def full(table):
    n = np.array([len(c or "") for c in table["caption"].to_pylist()])
    return {"keep": n > 2, "value": n, "reason": pa.array([None if x else "empty" for x in n])}


def scores(table):
    return np.ones(len(table), np.float32)


def negative(table):
    return np.full(len(table), -1)


def more(table):
    return {"keep": np.ones(len(table), bool), "extra": np.zeros(len(table))}
"""


def test_conditions_over_columns(make_pool, kept):
    pool = make_pool(
        {
            "s": np.array([0.29, 0.3, np.nan, 0.28, 0.5], np.float32),
            "language": ["en", "de", "en", None, "en"],
            "subset.a": [0, 1, 2, 0, 3],
            "boxes": pa.array([[], [[1.0]], [], None, []]),
        },
        cuts=[1, 3],
    )
    assert kept(pool, Where(sql="s >= 0.29")) == [0, 1, 4]  # as float32
    assert kept(pool, Where(sql="s >= 0.29 AND language = 'en'")) == [0, 4]
    assert kept(pool, Where(sql="s > 0.29 OR language IS NULL")) == [1, 3, 4]
    assert kept(pool, Where(sql="s IS NULL")) == [2]  # NaN is no value
    assert kept(pool, Where(sql='subset.a > 1 and "subset.a" < 3')) == [2]
    assert kept(pool, Where(sql="len(boxes) = 0 -- no faces")) == [0, 2, 4]
    assert kept(pool, Where(sql="lower(language) IN ('en', 'fr') and not (s between 0.2 and 0.3)")) == [4]
    assert kept(pool, Where(sql="1 = 1")) == [0, 1, 2, 3, 4]
    step = run_filters(pool, [Where(sql="s > 0.29")]).steps[0]
    assert step.reasons == {"condition": 2, "null": 1}
    assert step.facts["sql"] == "s > 0.29"


def test_only_the_named_columns_are_read():
    assert Where(sql="a > 1 or (B = 'x' and a < 9) or \"c d\" is null").columns() == ["a", "B", "c d"]
    assert Where(sql="subset.curated > 0").columns() == ["subset.curated"]
    assert Where(sql="box.width > 3").columns() == ["box"]


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("a >", "no SQL condition: syntax error"),
        ("a > 1; drop table pool", "no SQL condition"),
        ("a) union select (1", "more than a condition"),
        ("a > 1) limit (1", "more than a condition"),
        ("a > 1) group by (a", "more than a condition"),
        ("a in (select 1)", "subquery"),
        ("exists (from read_csv('/etc/hostname'))", "subquery"),
        ("max(a) > 1", r"max\(\) looks at other rows"),
        ("row_number() over () > 1", "window"),
        ("random() > 0.5", r"random\(\) depends on more than the row"),
        ("now() > d", "depends on more"),
        ("current_setting('threads') = '1'", "depends on more"),
        ("getvariable('x') = 1", "depends on more"),
        ("lowr(a) = 'x'", "unknown function 'lowr'; did you mean 'lower'"),
        ("? > 1", "parameter"),
        ("clip.image[1] > 0", "embedding"),
        ("* > 1", "name the columns"),
    ],
)
def test_what_is_no_condition_is_refused_before_it_runs(sql, told):
    with pytest.raises(ConfigError, match=told):
        Where(sql=sql).columns()


def test_conditions_that_do_not_fit_the_columns(make_pool, kept):
    pool = make_pool({"s": np.ones(2, np.float32), "t": ["x", "y"]})
    with pytest.raises(DataError, match="unknown column 'score'; known: s, t, uid"):
        kept(pool, Where(sql="score > 1"))
    with pytest.raises(DataError, match=r"on part 00000000: .*Error: "):
        kept(pool, Where(sql="t > 1"))
    with pytest.raises(DataError, match="not true or false"):
        kept(pool, Where(sql="s + 1"))
    with pytest.raises(DataError, match="unknown column 'current_date'"):
        kept(pool, Where(sql="current_date > DATE '2020-01-01'"))
    with pytest.raises(DataError, match="differ in case only"):
        kept(pool.__class__.of([pa.table({"A": [1], "a": [2], "uid": ["0"]})]), Where(sql="A > 0 and a > 0"))
    with pytest.raises(ValidationError):
        Where(sql=" ")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.none() | st.integers(-3, 3), st.none() | st.floats(-1, 1, width=16)), min_size=1, max_size=30
    ),
    st.lists(st.integers(0, 30), max_size=3),
)
def test_three_valued_logic(make_pool, rows, cuts):
    """Kept where true; NULL where SQL cannot tell."""
    arrays = {"a": pa.array([r[0] for r in rows], pa.int64()), "b": pa.array([r[1] for r in rows], pa.float32())}
    outcome = run_filters(make_pool(arrays, cuts=[min(c, len(rows)) for c in cuts]), [Where(sql="a > 0 AND b > 0.5")])
    fates = [row for table in outcome.fates for row in table.to_pylist()]
    for (a, b), fate in zip(rows, fates, strict=True):
        sides = [None if a is None else a > 0, None if b is None else b > 0.5]
        truth = False if False in sides else None if None in sides else True
        assert fate["kept"] == (truth is True)
        assert fate["reason"] == {True: None, False: "condition", None: "null"}[truth]


def test_answers_keep_the_order_of_a_large_part(make_pool, kept):
    values = np.random.Generator(np.random.Philox(key=1)).integers(0, 9, 30_000)
    assert kept(make_pool({"n": values}), Where(sql="n % 3 = 1")) == np.flatnonzero(values % 3 == 1).tolist()


def test_the_same_text_is_parsed_once():
    columns_of.cache_clear()
    for _ in range(3):
        Where(sql="a > 1").columns()
    assert columns_of.cache_info().misses == 1


@pytest.fixture
def functions(tmp_path):
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    return lambda name, **more: PythonFilter(
        function=f"{tmp_path}/functions.py:{name}", **{"columns": ["caption"], **more}
    )


def test_a_function_of_ones_own(make_pool, kept, functions):
    pool = make_pool({"caption": ["a cat", None, "", "hi", "dogs"]}, cuts=[2])
    assert kept(pool, functions("long")) == [0, 4]
    assert kept(pool, functions("long", options={"at_least": 2})) == [0, 3, 4]
    outcome = run_filters(pool, [functions("counts")])
    assert [t for table in outcome.fates for t in table["times"].to_pylist()] == [5, 0, 0, 2, 4]
    assert outcome.steps[0].reasons == {"function": 1, "null": 1}
    outcome = run_filters(pool, [functions("full")])
    assert outcome.steps[0].reasons == {"empty": 2, "function": 1}
    assert [v for table in outcome.fates for v in table["value"].to_pylist()] == [5, 0, 0, 2, 4]
    assert set(outcome.steps[0].facts) == {"function", "sha256"}


def test_a_function_sees_only_rows_that_are_alive(make_pool, kept, functions):
    pool = make_pool({"caption": ["a cat", "x", "dogs"]})
    assert kept(pool, Where(sql="caption <> 'dogs'"), functions("long")) == [0]


def test_functions_that_are_no_filters(make_pool, kept, functions):
    pool = make_pool({"caption": ["a cat"]})
    for name, told in (("scores", "returned float"), ("negative", "kept 0 to"), ("more", "returned 'extra'")):
        with pytest.raises(DataError, match=told):
            kept(pool, functions(name))
    with pytest.raises(ConfigError, match="unknown function 'lang'; did you mean 'long'"):
        kept(pool, functions("lang"))
    assert functions("long").files()[0].endswith("functions.py")
