import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import ConfigError, DataError
from curate.filters.memory import run_filters
from curate.filters.random import Random
from curate.filters.threshold import Threshold
from curate.filters.top_fraction import TopFraction


def test_thresholds_are_float32(make_pool, kept):
    """float32(0.29) < 0.29: a float64 comparison would drop the row that is exactly on the threshold."""
    scores = np.array([0.29, np.nextafter(np.float32(0.29), np.float32(0)), 0.3, np.nan], np.float32)
    assert float(scores[0]) < 0.29
    pool = make_pool({"s": scores})
    assert kept(pool, Threshold(by="s", at_least=0.29)) == [0, 2]
    assert kept(pool, Threshold(by="s", at_most=0.29)) == [0, 1]
    step = run_filters(pool, [Threshold(by="s", at_least=0.29, at_most=0.295)]).steps[0]
    assert step.reasons == {"above_threshold": 1, "below_threshold": 1, "no_value": 1}
    assert step.facts["threshold"] == float(np.float32(0.29))
    assert step.facts["column"] == "s"


def test_threshold_reads_integers_and_nulls_but_no_text(make_pool, kept):
    pool = make_pool({"n": [1, None, 3], "t": ["a", "b", "c"]}, cuts=[1])
    assert kept(pool, Threshold(by="n", at_least=2)) == [2]
    with pytest.raises(DataError, match="column 't' of part 00000000 holds string"):
        kept(pool, Threshold(by="t", at_least=2))
    with pytest.raises(DataError, match="unknown column 'm'; known: n, t, uid"):
        kept(pool, Threshold(by="m", at_least=2))
    with pytest.raises(ValidationError):
        Threshold(by="n")


def test_fraction_keeps_one_more_and_all_ties(make_pool, kept):
    """n = int(10 * 0.3) = 3: the threshold is the fourth score from above, and its ties stay."""
    scores = np.array([9, 8, 7, 6, 6, 6, 5, 4, 3, 2], np.float32)
    assert kept(make_pool({"s": scores}, cuts=[2, 5]), TopFraction(by="s", keep=0.3)) == [0, 1, 2, 3, 4, 5]
    assert kept(make_pool({"s": scores}), TopFraction(by="s", keep=0.2)) == [0, 1, 2]
    assert kept(make_pool({"s": scores}), TopFraction(by="s", keep=0.0)) == [0]
    assert kept(make_pool({"s": scores}), TopFraction(by="s", keep=1.0)) == list(range(10))


def test_three_hundred_and_four_for_three_hundred(make_pool, kept):
    scores = np.arange(1000, 0, -1).astype(np.float32)
    scores[300:304] = scores[300]
    assert len(kept(make_pool({"s": scores}, cuts=[250, 302]), TopFraction(by="s", keep=0.3))) == 304


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 1, width=16) | st.just(float("nan")), min_size=1, max_size=50),
    st.floats(0, 1),
    st.lists(st.integers(0, 50), max_size=3),
)
def test_fraction_is_datacomps_rule(make_pool, kept, scores, fraction, cuts):
    values = np.array(scores, np.float32)
    pool = make_pool({"s": values}, cuts=[min(c, len(values)) for c in cuts])
    ranked = np.concatenate([np.sort(values[~np.isnan(values)])[::-1], values[np.isnan(values)]])
    n = int(len(values) * fraction)
    if n < len(values) and np.isnan(ranked[n]):
        with pytest.raises(DataError, match="would be NaN"):
            kept(pool, TopFraction(by="s", keep=fraction))
        return
    threshold = ranked[n] if n < len(values) else -np.inf
    assert kept(pool, TopFraction(by="s", keep=fraction)) == np.flatnonzero(values >= threshold).tolist()


def test_fraction_tells_what_it_did(make_pool):
    scores = np.array([0.1, np.nan, 0.5, 0.4], np.float32)
    step = run_filters(make_pool({"s": scores}, cuts=[1, 1]), [TopFraction(by="s", keep=0.3)]).steps[0]
    assert step.reasons == {"below_threshold": 1, "no_value": 1}
    assert step.facts == {"column": "s", "threshold": float(np.float32(0.4)), "rows": 4, "without_value": 1}


def test_random_keeps_exactly_the_count_and_is_nested(make_pool, kept):
    pool = make_pool({"n": np.arange(1000)}, cuts=[100, 350])
    small, large = (set(kept(pool, Random(count=c))) for c in (100, 400))
    assert (len(small), len(large)) == (100, 400)
    assert small < large
    assert len(kept(pool, Random(fraction=0.2505))) == 250
    assert set(kept(pool, Random(count=100, seed=1))) != small
    assert set(kept(make_pool({"n": np.arange(1000)}, seed=1), Random(count=100))) != small
    assert run_filters(pool, [Random(count=10)]).steps[0].reasons == {"not_drawn": 990}


def test_random_like_another_subset(make_pool, kept):
    pool = make_pool({"n": np.arange(50)})
    like = Random(like="curated", seed=3)
    with pytest.raises(ConfigError, match="'curated' is not known"):
        kept(pool, like)
    assert kept(pool, like.with_count(7)) == kept(pool, Random(count=7, seed=3))
    with pytest.raises(DataError, match="51 samples asked for, but only 50"):
        kept(pool, Random(count=51))
    with pytest.raises(ValidationError, match="exactly one of"):
        Random(count=1, fraction=0.5)
    with pytest.raises(ValidationError, match="exactly one of"):
        Random()
