"""Draws with repeats: the law against enumeration, the outcome against naive races, the cut of the pool, the errors."""

import itertools
import json
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chisquare

from curate.errors import ConfigError, DataError
from curate.filters.arrivals import Weights, first_rings, rings_until, waits
from curate.filters.draw import uid_hash
from curate.filters.hard_cap_sampling import HardCapSampling
from curate.filters.memory import MemoryPool, run_filters
from curate.filters.soft_cap import soft_cap
from curate.filters.soft_cap_sampling import SoftCapSampling
from curate.filters.weighted_sampling import WeightedSampling
from curate.shards.uid import stable_uid, to_records

SCORES = np.array([0.0, 0.7, 1.5], np.float32)
SOFTMAX = Weights("s")


def times_of(pool, *filters):
    return np.concatenate([t["times"].to_numpy() for t in run_filters(pool, list(filters)).fates])


def batches(weights, size):
    """{set of rows: probability} of drawing `size` rows one after another without replacement."""
    found = {}
    for order in itertools.permutations(range(len(weights)), size):
        left, p = sum(weights), 1.0
        for i in order:
            p, left = p * weights[i] / left, left - weights[i]
        found[frozenset(order)] = found.get(frozenset(order), 0.0) + p
    return found


def soft_law(scores, total, batch, alpha):
    """{counts: probability} of the published loop."""
    law = {(0,) * len(scores): 1.0}
    drawn = 0
    while drawn < total:
        following = {}
        for counts, p in law.items():
            weights = [np.exp(s - alpha * c) for s, c in zip(scores, counts, strict=True)]
            for rows, q in batches(weights, min(batch, total - drawn)).items():
                after = tuple(c + (i in rows) for i, c in enumerate(counts))
                following[after] = following.get(after, 0.0) + p * q
        law, drawn = following, drawn + min(batch, total - drawn)
    return law


def capped_law(weights, total, cap):
    """{counts: probability} of draws one at a time from the rows below their cap."""
    law = {(0,) * len(weights): 1.0}
    for _ in range(total):
        following = {}
        for counts, p in law.items():
            open_ = [w if c < cap else 0.0 for w, c in zip(weights, counts, strict=True)]
            for i, w in enumerate(open_):
                if w:
                    after = tuple(c + (i == j) for j, c in enumerate(counts))
                    following[after] = following.get(after, 0.0) + p * w / sum(open_)
        law = following
    return law


def agrees(observed, law):
    """Whether counts of outcomes fit their probabilities; outcomes with too few expected are taken together."""
    n = sum(observed.values())
    assert set(observed) <= set(law)
    often = [o for o, p in law.items() if p * n >= 5]
    seen = [observed.get(o, 0) for o in often]
    expected = [law[o] * n for o in often]
    if n - sum(expected) > 1e-6 * n:
        seen, expected = [*seen, n - sum(seen)], [*expected, n - sum(expected)]
    return len(seen) == 1 or chisquare(seen, np.array(expected) / sum(expected) * n).pvalue > 1e-3


def outcomes(runs):
    found = {}
    for times in runs:
        key = tuple(times.tolist())
        found[key] = found.get(key, 0) + 1
    return found


@pytest.mark.parametrize(
    ("total", "batch", "alpha"), [(4, 2, 0.7), (3, 1, 0.15), (5, 2, 1.5), (2, 3, 0.15), (6, 3, 0.1)]
)
def test_soft_cap_has_the_published_law(total, batch, alpha):
    hashes = np.random.default_rng(total).integers(0, 2**64, (3000, 3), np.uint64)
    runs = (soft_cap(h, SCORES, SOFTMAX, total, batch, alpha) for h in hashes)
    assert agrees(outcomes(runs), soft_law(SCORES.tolist(), total, min(batch, total), alpha))


@pytest.mark.parametrize(("total", "cap"), [(4, 2), (5, 3)])
def test_hard_cap_has_the_law_of_draws_one_at_a_time(make_pool, total, cap):
    runs = (
        times_of(make_pool({"s": SCORES}, seed=i), HardCapSampling(by="s", total=total, cap=cap)) for i in range(300)
    )
    assert agrees(outcomes(runs), capped_law(np.exp(SCORES.tolist()), total, cap))


@pytest.mark.parametrize("replacement", [True, False])
def test_weighted_sampling_has_numpys_law(make_pool, replacement):
    weights = np.array([1.0, 2.0, 0.0, 5.0], np.float32)
    total = 4 if replacement else 2
    chosen = WeightedSampling(by="w", total=total, replacement=replacement)
    runs = (times_of(make_pool({"w": weights}, seed=i), chosen) for i in range(300))
    assert agrees(outcomes(runs), capped_law(weights.tolist(), total, total if replacement else 1))


def test_waits_are_exponential_and_never_nothing():
    hashes = np.random.default_rng(0).integers(0, 2**64, 40_000, np.uint64)
    waited = waits(hashes, 3)
    assert waited.min() > 0
    bins = np.floor((1 - np.exp(-waited)) * 50).astype(int)
    assert chisquare(np.bincount(bins, minlength=50)).pvalue > 1e-3
    assert abs(np.corrcoef(waits(hashes, 1), waited)[0, 1]) < 0.02


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.floats(-30, 30, width=16), min_size=1, max_size=60),
    batch=st.integers(1, 60),
    total=st.integers(1, 300),
    alpha=st.sampled_from([0.0, 0.15, 3.0]),
)
def test_the_front_changes_nothing(scores, batch, total, alpha):
    """Against a race that sorts all rows for every batch."""
    values = np.array(scores, np.float32)
    hashes = uid_hash(to_records([stable_uid(str(i)) for i in range(len(values))]), 1, "x")
    batch = min(batch, len(values))
    rings, times, drawn = first_rings(hashes, values.astype(np.float64)), np.zeros(len(values), int), 0
    while drawn < total:
        rows = np.argsort(rings, kind="stable")[: min(batch, total - drawn)]
        end = rings[rows[-1]]
        times[rows] += 1
        log_weight = values[rows].astype(np.float64) - alpha * times[rows]
        rings[rows] = np.logaddexp(end, np.log(waits(hashes[rows], times[rows] + 1)) - log_weight)
        drawn += len(rows)
    assert soft_cap(hashes, values, SOFTMAX, total, batch, alpha).tolist() == times.tolist()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scores=st.lists(st.floats(-8, 8, width=16), min_size=1, max_size=40),
    cap=st.integers(1, 5) | st.none(),
    share=st.floats(0.01, 1),
    cuts=st.lists(st.integers(0, 40), max_size=3),
)
def test_capped_draws_are_the_first_rings_of_all(make_pool, scores, cap, share, cuts):
    values = np.array(scores, np.float32)
    n = len(values)
    total = max(1, int(n * (cap or 4) * share))
    uids = to_records([stable_uid(str(i)) for i in range(n)])
    if cap is None:
        chosen = WeightedSampling(by="s", temperature=1.0, total=total, replacement=True)
    else:
        chosen = HardCapSampling(by="s", total=total, cap=cap)
    hashes = uid_hash(uids, 0, f"{chosen.type}/0")
    every = []
    for i in range(n):
        waited = np.cumsum([waits(hashes[i : i + 1], k)[0] for k in range(1, (cap or total) + 1)])
        every += [(np.log(w) - float(values[i]), i) for w in waited]
    expected = np.bincount([i for _, i in sorted(every)[:total]], minlength=n)
    pool = make_pool({"s": values}, cuts=[min(c, n) for c in cuts])
    assert times_of(pool, chosen).tolist() == expected.tolist()


def test_rings_do_not_depend_on_how_many_are_made_at_once():
    hashes = np.arange(5, dtype=np.uint64)
    logs = np.array([0.0, 9.0, -np.inf, 4.0, -2.0])
    together = rings_until(hashes, logs, 0.5, None)
    assert len(together.time) > 10_000
    for i in range(5):
        alone = rings_until(hashes[i : i + 1], logs[i : i + 1], 0.5, None)
        assert sorted(alone.time) == sorted(together.time[together.place == i])
        assert sorted(alone.number) == list(range(1, len(alone.number) + 1))


CHOSEN = [
    SoftCapSampling(by="s", total=500, batch=40),
    SoftCapSampling(
        by="s", fraction=0.3, temperature=0.5
    ),  # fewer draws than rows: only those that can be reached travel
    HardCapSampling(by="s", total=600, cap=4),
    WeightedSampling(by="s", temperature=1.0, total=120),
    WeightedSampling(by="s", temperature=0.2, fraction=2.0, replacement=True),
]


@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda f: f.type)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 240), max_size=5), order=st.permutations(range(240)))
def test_the_cut_leaves_no_trace(make_pool, fates, chosen, cuts, order):
    s = np.round(np.random.default_rng(0).normal(size=240), 1).astype(np.float32)
    s[:3] = -np.inf
    expected = fates(make_pool({"s": s}), [chosen])
    assert fates(make_pool({"s": s}, cuts=cuts, order=order), [chosen]) == expected


@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda f: f.type)
def test_sizes_are_exact_facts_add_up_and_states_travel(make_pool, chosen):
    s = np.random.default_rng(1).normal(size=240).astype(np.float32)
    s[7] = -np.inf
    pool = make_pool({"s": s}, cuts=[100, 100])
    outcome = run_filters(pool, [chosen])
    step, times = outcome.steps[0], times_of(pool, chosen)
    total = chosen.total or int(240 * chosen.fraction)
    assert step.samples == times.sum() == step.facts["draws"] == len(outcome.subset()) == total
    assert step.kept == (times > 0).sum() == step.facts["distinct"]
    assert step.facts["repeats"] == [[t, int((times == t).sum())] for t in np.unique(times) if t]
    assert (step.facts["rows"], step.facts["possible"], times[7]) == (240, 239, 0)
    assert step.reasons == {"not_drawn": 240 - step.kept}
    json.dumps(step.facts, allow_nan=False)
    again, state = pickle.loads(pickle.dumps((chosen, chosen.fit(pool))))
    assert np.concatenate([again.decide(p, state).times for p in pool.members]).tolist() == times.tolist()
    assert times_of(make_pool({"s": s}), chosen.model_copy(update={"seed": 1})).tolist() != times.tolist()
    assert times_of(make_pool({"s": s}, seed=1), chosen).tolist() != times.tolist()


@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda f: f.type)
def test_empty_pools_and_holes(make_pool, chosen):
    for pool in (MemoryPool([]), make_pool({"s": np.zeros(0, np.float32)}, cuts=[0])):
        step = run_filters(pool, [chosen]).steps[0]
        assert (step.entered, step.kept, step.facts["draws"]) == (0, 0, 0)
    with pytest.raises(DataError, match="2 of 3 rows have no value in 's'"):
        run_filters(make_pool({"s": [1.0, None, np.nan]}), [chosen])
    with pytest.raises(DataError, match="1 of 2 values of 's' are"):
        run_filters(make_pool({"s": [1.0, np.inf]}), [chosen])


def test_what_cannot_be_drawn_is_said_up_front(make_pool):
    pool = make_pool({"s": [0.0, 1.0, -np.inf], "w": [0.0, 0.0, 3.0], "n": [1.0, -1.0, 0.0]})
    with pytest.raises(DataError, match="only 2 rows have a probability above 0, too few for a batch of 3"):
        run_filters(pool, [SoftCapSampling(by="s", total=9, batch=3)])
    assert times_of(pool, SoftCapSampling(by="s", total=9, batch=2)).sum() == 9
    with pytest.raises(DataError, match="2 rows with a probability above 0, each at most 15 times, allow 30"):
        run_filters(pool, [HardCapSampling(by="s", total=31)])
    assert times_of(pool, HardCapSampling(by="s", total=30)).tolist() == [15, 15, 0]
    with pytest.raises(DataError, match="only 1 of 3 rows have a weight above 0; draw fewer, or with `replacement`"):
        run_filters(pool, [WeightedSampling(by="w", total=2)])
    assert times_of(pool, WeightedSampling(by="w", total=2, replacement=True)).tolist() == [0, 0, 2]
    with pytest.raises(DataError, match="1 of 3 values of 'n' are negative or infinite"):
        run_filters(pool, [WeightedSampling(by="n", total=2)])
    with pytest.raises(ConfigError, match="none at all"):
        run_filters(pool, [HardCapSampling(by="s", fraction=0.1)])
    for wrong in ({}, {"total": 1, "fraction": 0.5}, {"total": 0}, {"total": "much"}):
        with pytest.raises(ValidationError):
            HardCapSampling(by="s", **wrong)


def test_auto_draws_what_the_training_sees_and_says_so(make_pool):
    pool = make_pool({"s": np.arange(50) / 50})
    chosen = SoftCapSampling(by="s", total="auto", batch=10)
    with pytest.raises(ConfigError, match=r"soft_cap_sampling: `auto` needs a training; give `pretrain.samples_seen`"):
        run_filters(pool, [chosen])
    step = run_filters(pool, [chosen.with_budget(123)]).steps[0]
    assert step.samples == 123
    assert step.facts["budget"] == {"rule": "total = samples_seen", "samples_seen": 123, "draws": 123}
    fixed = HardCapSampling(by="s", total=60)
    assert fixed.with_budget(123) == fixed


def test_smaller_weighted_samples_are_part_of_larger_ones(make_pool):
    pool = make_pool({"s": np.random.default_rng(2).random(300)})
    small, large = (times_of(pool, WeightedSampling(by="s", total=n)) > 0 for n in (50, 200))
    assert (small.sum(), large.sum(), (small & ~large).sum()) == (50, 200, 0)


def test_extreme_weights_and_repeated_uids(make_pool):
    """A factor of e^2000 between weights is no zero; rows with one uid are told apart by their place."""
    pool = make_pool({"s": np.array([1000.0, -1000.0, 999.0], np.float32)})
    assert times_of(pool, WeightedSampling(by="s", temperature=1.0, total=3)).tolist() == [1, 1, 1]
    assert times_of(pool, SoftCapSampling(by="s", total=30, batch=3)).tolist() == [10, 10, 10]
    same = make_pool({"uid": ["0" * 32] * 7, "s": np.zeros(7, np.float32)}, cuts=[2])
    assert times_of(same, WeightedSampling(by="s", temperature=1.0, total=3)).tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert times_of(same, HardCapSampling(by="s", total=16, cap=5)).sum() == 16
    assert times_of(same, SoftCapSampling(by="s", total=16, batch=5)).sum() == 16
