"""`random` as the control of another subset: like it in rows, samples, repeats and groups."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import DataError
from curate.filters.draw import uid_hash
from curate.filters.memory import MemoryPool, run_filters
from curate.filters.random import Random
from curate.filters.strata import strata
from curate.shards.uid import stable_uid, to_records


def times_of(pool, chosen):
    return np.concatenate([np.zeros(0, int), *(t["times"].to_numpy() for t in run_filters(pool, [chosen]).fates)])


def naive(chosen, columns):
    """Rank each group's rows by hash and deal its multiplicities out, largest first."""
    n = len(columns["subset.other"])
    hashes = uid_hash(to_records([stable_uid(str(i)) for i in range(n)]), 0, "random/0")
    groups = columns["g"] if chosen.per else [None] * n
    times = np.zeros(n, int)
    for name in set(groups):
        rows = sorted((i for i in range(n) if groups[i] == name), key=lambda i: hashes[i])
        other = [int(columns["subset.other"][i]) for i in rows]
        if chosen.like is None:
            dealt = [1] * int(len(rows) * chosen.fraction)
        elif chosen.of == "rows":
            dealt = [1] * sum(m > 0 for m in other)
        elif chosen.of == "repeats":
            dealt = sorted(other, reverse=True)
        else:
            dealt = [sum(other) // len(rows) + (k < sum(other) % len(rows)) for k in range(len(rows))]
        for row, m in zip(rows, dealt, strict=False):
            times[row] = m
    return times.tolist()


CHOSEN = [
    Random(like="other", of="repeats"),
    *(Random(like="other", of=of, per="g") for of in ("rows", "samples", "repeats")),
    Random(fraction=0.4, per="g"),
]


@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda c: f"{c.of}-{c.per}-{c.like}")
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["a", "b", "", None])), max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=3),
)
def test_controls_are_dealt_as_a_naive_dealer_would(make_pool, chosen, rows, cuts):
    columns = {"subset.other": np.array([r[0] for r in rows], np.int32), "g": [r[1] for r in rows]}
    if not rows:
        return
    pool = make_pool(columns, cuts=[min(c, len(rows)) for c in cuts])
    assert times_of(pool, chosen).tolist() == naive(chosen, columns)


def test_samples_are_spread_evenly_when_there_are_more_than_rows(make_pool):
    pool = make_pool({"n": np.arange(10)}, cuts=[4])
    like = Random(like="other", of="samples")
    assert like.columns() == ["uid"]
    times = times_of(pool, like.with_count(5, 23))
    assert (times.sum(), times.min(), times.max()) == (23, 2, 3)
    assert set(np.flatnonzero(times == 3)) == set(np.flatnonzero(times_of(pool, Random(count=3))))
    assert times_of(pool, like.with_count(5, 7)).tolist() == times_of(pool, Random(count=7)).tolist()
    step = run_filters(pool, [like.with_count(5, 23)]).steps[0]
    assert (step.kept, step.samples, step.facts) == (10, 23, {"drawn": 23, "rows": 10})
    assert times_of(pool, Random(like="other").with_count(5, 23)).sum() == 5


def test_groups_are_in_the_facts_and_too_many_are_an_error(make_pool):
    pool = make_pool({"g": ["x", None, "x", "y"], "subset.other": [1, 2, 0, 0]})
    chosen = Random(like="other", of="samples", per="g")
    assert chosen.columns() == ["uid", "g", "subset.other"]
    assert chosen.with_count(99) == chosen
    facts = run_filters(pool, [chosen]).steps[0].facts
    assert facts == {
        "drawn": 3,
        "rows": 4,
        "column": "g",
        "groups": [
            {"group": None, "drawn": 2, "rows": 1},
            {"group": "x", "drawn": 1, "rows": 2},
            {"group": "y", "drawn": 0, "rows": 1},
        ],
    }
    many = make_pool({"g": np.arange(10_001)}, cuts=[5000])
    with pytest.raises(DataError, match="'g' has more than 10000 different values"):
        strata(many, "g", None)
    step = run_filters(MemoryPool([]), [chosen]).steps[0]
    assert (step.entered, step.kept) == (0, 0)


@pytest.mark.parametrize(
    "wrong", [{"count": 3, "per": "g"}, {"count": 3, "of": "samples"}, {"fraction": 0.5, "of": "repeats"}]
)
def test_what_makes_no_sense_together(wrong):
    with pytest.raises(ValidationError):
        Random(**wrong)
