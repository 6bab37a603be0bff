import json
from collections import Counter
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import DataError
from curate.filters.counters import Counters, sum_counters
from curate.filters.entry_balance import tail_share, target_of
from curate.filters.fairness_balance import FairnessBalance
from curate.filters.memory import MemoryPool, run_filters
from curate.filters.metadata_balance import MetadataBalance
from curate.filters.source_balance import SourceBalance, largest_remainders

relaxed = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def keys_of(part, column):
    return Counters.of(part.arrow(column).to_numpy() % 7)


def test_counters_of_many_parts_go_through_groups(make_pool):
    values = np.random.default_rng(0).integers(0, 1000, 500)
    few = sum_counters(make_pool({"x": values}, cuts=[100]), keys_of, "x")
    many = sum_counters(make_pool({"x": values}, cuts=[*range(1, 480, 3), 480, 480]), keys_of, "x", width=2)
    expected = Counter((values % 7).tolist())
    for found in (few, many):
        assert dict(zip(found.keys.tolist(), found.counts.tolist(), strict=True)) == expected
    assert few.at(np.array([0, 6, 99])).tolist() == [expected[0], expected[6], 0]


def entry_pool(make_pool, lists, cuts=(), order=None, **columns):
    return make_pool({"m_entries": pa.array(lists, pa.list_(pa.int32())), **columns}, cuts=cuts, order=order)


entry_lists = st.lists(st.one_of(st.none(), st.lists(st.integers(0, 5), max_size=4)), min_size=1, max_size=40)


@relaxed
@given(entry_lists, st.integers(1, 12), st.randoms(use_true_random=False))
def test_metadata_balance_whatever_the_cut(make_pool, fates, lists, target, random):
    chosen = MetadataBalance(by="m", target=target)
    pool = entry_pool(make_pool, lists)
    before = fates(pool, [chosen])
    order = list(range(len(lists)))
    random.shuffle(order)
    cuts = sorted(random.randrange(len(lists) + 1) for _ in range(3))
    assert fates(entry_pool(make_pool, lists, cuts, order), [chosen]) == before
    counts = Counter(e for entries in lists for e in set(entries or []))
    rows = [row for table in run_filters(pool, [chosen]).fates for row in table.to_pylist()]
    for entries, row in zip(lists, rows, strict=True):
        if not entries:
            assert row["reason"] == "no_entry"
        elif any(counts[e] <= target for e in entries):
            assert row["kept"]
        assert row["kept"] == (bool(entries) and row["value"] < target)


@relaxed
@given(entry_lists, st.integers(1, 10))
def test_a_number_of_samples_is_met_exactly_and_nests(make_pool, kept, lists, samples):
    pool = entry_pool(make_pool, lists, cuts=[len(lists) // 2])
    matched = sum(bool(entries) for entries in lists)
    if samples > matched:
        with pytest.raises(DataError, match="asked for, but only"):
            kept(pool, MetadataBalance(by="m", samples=samples))
        return
    chosen = kept(pool, MetadataBalance(by="m", samples=samples))
    assert len(chosen) == samples
    if samples > 1:
        assert set(kept(pool, MetadataBalance(by="m", samples=samples - 1))) < set(chosen)


def test_chances_are_those_of_the_paper(make_pool):
    """One entry of 8,000 captions, one of 50, and both: 1 - (1 - p)(1 - p')."""
    lists = [[0]] * 7000 + [[1]] * 50 + [[0, 2]] * 1000
    target = 500
    step = run_filters(entry_pool(make_pool, lists, cuts=[3000]), [MetadataBalance(by="m", target=target)])
    keep = np.concatenate([t["kept"].to_numpy() for t in step.fates])
    p0, p2 = target / 8000, target / 1000
    assert keep[7000:7050].all()
    assert keep[:7000].mean() == pytest.approx(p0, abs=4 * (p0 / 7000) ** 0.5)
    both = 1 - (1 - p0) * (1 - p2)
    assert keep[7050:].mean() == pytest.approx(both, abs=4 * (both * (1 - both) / 1000) ** 0.5)
    facts = step.steps[0].facts
    assert (facts["matched"], facts["entries"], facts["over_target"], facts["matches"]) == (8050, 3, 2, 9050)


def test_every_language_gets_its_own_target(make_pool):
    lists = [[0]] * 30 + [[1]] * 10 + [[0]] * 8 + [[1]] * 4 + [[2]] * 2 + [[]]
    language = ["en"] * 40 + ["fr"] * 14 + [None]
    chosen = MetadataBalance(by="m", target=20, language="l")
    facts = run_filters(entry_pool(make_pool, lists, cuts=[20], l=language), [chosen]).steps[0].facts["languages"]
    assert facts["en"]["target"] == 20  # its tail: 10 of 40 matches
    assert facts["fr"]["target"] == 2  # cumulative shares 2/14, 6/14, 1: 2/14 is nearest to 1/4
    assert target_of(np.array([2, 4, 8]), 0.4) == 4
    assert tail_share(np.array([30, 10]), 20) == 0.25
    with pytest.raises(DataError, match="reference language 'de'"):
        run_filters(
            entry_pool(make_pool, lists, l=language), [MetadataBalance(by="m", target=2, language="l", reference="de")]
        )


def test_entries_must_be_lists(make_pool, kept):
    with pytest.raises(DataError, match="not lists of entry numbers"):
        kept(make_pool({"m_entries": [1, 2]}), MetadataBalance(by="m", target=1))
    with pytest.raises(ValidationError, match="exactly one of"):
        MetadataBalance(by="m")
    assert run_filters(MemoryPool([]), [MetadataBalance(by="m", target=1)]).steps[0].facts["rows"] == 0


@relaxed
@given(
    st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=60),
    st.integers(1, 80),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_sources_give_their_quota_or_all_they_have(make_pool, fates, names, samples, repeats, random):
    if not any(names):
        names = [*names, "a"]
    chosen = SourceBalance(by="s", samples=samples, max_repeats=repeats)
    columns = {"s": pa.array(names, pa.string())}
    found = fates(make_pool(columns), [chosen])
    order = list(range(len(names)))
    random.shuffle(order)
    assert found == fates(make_pool(columns, cuts=[len(names) // 3], order=order), [chosen])
    sizes = Counter(n for n in names if n)
    quotas = largest_remainders([Fraction(1, len(sizes))] * len(sizes), samples)
    uids = [row["uid"] for t in run_filters(make_pool(columns), []).fates for row in t.to_pylist()]
    for name, quota in zip(sorted(sizes), quotas, strict=True):
        times = [found[uid][1] for uid, n in zip(uids, names, strict=True) if n == name]
        assert sum(times) == min(quota, sizes[name] * repeats)
        assert max(times) - min(times) <= 1


def test_stated_shares_powers_and_shortfalls(make_pool):
    pool = make_pool({"s": ["web"] * 900 + ["books"] * 100}, cuts=[500])
    equal = run_filters(pool, [SourceBalance(by="s")]).steps[0]
    assert equal.kept == 200
    assert equal.facts["groups"]["web"]["samples"] == 100
    as_is = run_filters(pool, [SourceBalance(by="s", power=1.0)]).steps[0]
    assert as_is.kept == 1000
    three = run_filters(pool, [SourceBalance(by="s", shares={"web": 3, "books": 1})]).steps[0]
    assert (three.kept, three.reasons) == (400, {"over_share": 600})
    only = run_filters(pool, [SourceBalance(by="s", shares={"books": 1}, max_repeats=2)]).steps[0]
    assert (only.kept, only.samples, only.reasons) == (100, 200, {"no_share": 900})
    short = run_filters(pool, [SourceBalance(by="s", samples=600)]).steps[0].facts
    assert short["groups"]["books"]["short"] == 200
    assert short["residual"] == pytest.approx(0.25)
    with pytest.raises(DataError, match="no sample has s 'wiki'"):
        run_filters(pool, [SourceBalance(by="s", shares={"wiki": 1})])
    with pytest.raises(ValidationError, match="not all of them 0"):
        SourceBalance(by="s", shares={"a": 0})
    for step in (equal, as_is, three, only):
        json.dumps(step.facts, allow_nan=False)


def people(n=20_000, seed=0):
    rng = np.random.default_rng(seed)
    woman = rng.random(n) < 0.3
    nurse = rng.random(n) < np.where(woman, 0.2, 0.05)
    return {"woman": woman, "job": np.where(nurse, "nurse", "other").tolist()}


def test_attributes_get_their_share_and_forget_the_label(make_pool, fates):
    columns = people()
    chosen = FairnessBalance(attributes={"woman": 0.5}, labels=["job=nurse"], epsilon=0.001, keep=0.4)
    outcome = run_filters(make_pool(columns, cuts=[7000]), [chosen])
    facts = outcome.steps[0].facts
    assert facts["feasible"]
    assert facts["attributes"]["woman"]["before"] == pytest.approx(0.3, abs=0.02)
    assert facts["attributes"]["woman"]["expected"] == pytest.approx(0.5, abs=1e-4)
    assert facts["association"]["expected"] <= 0.0011
    keep = np.concatenate([t["kept"].to_numpy() for t in outcome.fates])
    woman, nurse = columns["woman"][keep], np.array(columns["job"])[keep] == "nurse"
    assert keep.mean() == pytest.approx(0.4, abs=0.02)
    assert woman.mean() == pytest.approx(0.5, abs=0.02)
    assert facts["attributes"]["woman"]["after"] == pytest.approx(woman.mean())
    assert abs(((woman - 0.5) * (nurse - (np.array(columns["job"]) == "nurse").mean())).mean()) < 0.008
    order = np.random.default_rng(1).permutation(2000)
    few = {k: v[:2000] for k, v in columns.items()}
    assert fates(make_pool(few), [chosen]) == fates(make_pool(few, cuts=[9, 9, 700], order=order), [chosen])


def test_the_chances_are_the_nearest_ones(make_pool):
    """Against a general solver."""
    from scipy.optimize import minimize

    from curate.filters.fairness_balance import Problem, solve

    problem = Problem.of(Counters(np.arange(4), np.array([50, 30, 15, 5])), [0.5], 1, 0.01, 0.5)
    q = solve(problem)
    best = minimize(
        lambda x: problem.weights @ (x - 0.5) ** 2,
        np.full(4, 0.5),
        bounds=[(0, 1)] * 4,
        constraints=[
            {"type": "eq", "fun": lambda x: (problem.weights * x) @ problem.equal},
            {"type": "eq", "fun": lambda x: problem.weights @ x - 0.5},
            {"type": "ineq", "fun": lambda x: 0.005 - np.abs((problem.weights * x) @ problem.bounded)},
        ],
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(q, best.x, atol=1e-4)


def test_targets_that_cannot_be_met_are_told(make_pool):
    pool = make_pool({"a": [0] * 100}, cuts=[30])
    facts = run_filters(pool, [FairnessBalance(attributes={"a": 0.5}, keep=0.5)]).steps[0].facts
    assert not facts["feasible"]
    assert facts["residual"] >= 0.4
    json.dumps(facts, allow_nan=False)
    with pytest.raises(DataError, match="other than 0 and 1"):
        run_filters(make_pool({"a": [0, 2]}), [FairnessBalance(attributes={"a": 0.5})])
    assert run_filters(MemoryPool([]), [FairnessBalance(attributes={"a": 0.5})]).steps[0].kept == 0
