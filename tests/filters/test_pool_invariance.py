"""What must hold for every filter: the cut of the pool leaves no trace, the funnel adds up, holes harm nobody."""

import json
import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.filters.base import Decision, Filter
from curate.filters.basic import Basic
from curate.filters.concept_clusters import ConceptClusters
from curate.filters.exact_dedup import ExactDedup
from curate.filters.memory import MemoryPool, run_filters
from curate.filters.random import Random
from curate.filters.semantic_dedup import SemanticDedup
from curate.filters.threshold import Threshold
from curate.filters.top_fraction import TopFraction
from curate.shards.uid import stable_uid, to_text

N, D = 240, 10
FILTERS = [
    Basic(min_words=2, min_chars=4, min_side=100, max_aspect=2.5),
    Threshold(by="score", at_least=0.2),
    TopFraction(by="score", keep=0.4),
    Random(fraction=0.37),
    ExactDedup(on=["image", "caption"]),
    SemanticDedup(encoder="e", clusters=4, epsilon=0.05, points_per_centroid=20),
    SemanticDedup(encoder="e", clusters=3, epsilon=0.05, keep="random"),
    ConceptClusters(encoder="e", clusters=5, keep=0.5, points_per_centroid=20),
    ConceptClusters(encoder="e", clusters=4, keep=0.5, select="random"),
]
CHAIN = [FILTERS[0], FILTERS[4], FILTERS[5], TopFraction(by="score", keep=0.6), FILTERS[7]]


def rows(seed=0):
    rng = np.random.default_rng(seed)
    embedding = rng.standard_normal((N // 2, D))[rng.integers(0, N // 2, N)] + 0.05 * rng.standard_normal((N, D))
    embedding[: N // 4] = embedding[N // 4 : N // 2]  # exact copies, so that ties matter
    embedding = (embedding / np.linalg.norm(embedding, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    embedding[rng.choice(N, 7, replace=False)] = np.nan
    score = (rng.integers(0, 40, N) / 40).astype(np.float32)
    score[rng.choice(N, 5, replace=False)] = np.nan
    columns = {
        "uid": [stable_uid(str(i)) for i in range(N)],
        "caption": [" ".join("ab" for _ in range(n)) + str(n % 3) for n in rng.integers(0, 30, N)],
        "sha256": [f"{n:064x}" for n in rng.integers(0, 200, N)],
        "language": rng.choice(["en", "fr"], N, p=[0.9, 0.1]).tolist(),
        "original_width": rng.integers(50, 500, N),
        "original_height": rng.integers(90, 500, N),
        "score": score,
    }
    return columns, {"e.image": embedding}


@pytest.mark.parametrize("filters", [*([f] for f in FILTERS), CHAIN], ids=lambda fs: "+".join(f.type for f in fs))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, N), max_size=5),
    order=st.permutations(range(N)),
)
def test_fates_do_not_depend_on_the_cut_or_the_order(make_pool, fates, filters, cuts, order):
    columns, embeddings = rows()
    expected = fates(make_pool(columns, embeddings), filters)
    assert fates(make_pool(columns, embeddings, cuts=cuts, order=order), filters) == expected


@pytest.mark.parametrize("filters", [*([f] for f in FILTERS), CHAIN], ids=lambda fs: "+".join(f.type for f in fs))
def test_the_funnel_adds_up_and_facts_are_strict_json(make_pool, filters):
    outcome = run_filters(make_pool(*rows(), cuts=[50, 50, 111]), filters)
    entered = N
    for step in outcome.steps:
        assert step.entered == entered
        assert step.kept + sum(step.reasons.values()) == entered
        assert 0 < step.kept < entered
        json.dumps(step.facts, allow_nan=False)
        entered = step.kept
    table = pa.concat_tables(outcome.fates)
    assert len(table) == N
    assert sum(table["kept"].to_pylist()) == entered == len(outcome.subset())
    for row in table.to_pylist():
        assert row["kept"] == (row["times"] == 1) == (row["reason"] is None) == (row["dropped_by"] is None)
    assert to_text(outcome.subset()) == sorted(r["uid"] for r in table.to_pylist() if r["kept"])


@pytest.mark.parametrize("chosen", FILTERS[5:], ids=lambda f: f.type)
def test_a_row_without_embedding_never_changes_another_rows_fate(make_pool, fates, chosen):
    columns, embeddings = rows()
    before = fates(make_pool(columns, embeddings), [chosen])
    more = {k: np.concatenate([np.asarray(v), np.asarray(v)[:60]]) for k, v in columns.items()}
    more["uid"] = [*columns["uid"], *(stable_uid(f"hole {i}") for i in range(60))]
    holes = np.concatenate([embeddings["e.image"], np.full((30, D), np.nan), np.zeros((30, D))]).astype(np.float32)
    order = np.random.default_rng(5).permutation(N + 60)
    after = fates(make_pool(more, {"e.image": holes}, cuts=[33, 200], order=order), [chosen])
    assert {uid: after[uid] for uid in before} == before


@pytest.mark.parametrize("chosen", FILTERS, ids=lambda f: f.type)
def test_empty_pools_and_parts_that_lost_all_rows(make_pool, chosen):
    columns, embeddings = rows()
    empty = {k: pa.array(v)[:0] for k, v in columns.items()}
    for pool in (MemoryPool([]), make_pool(empty, {"e.image": embeddings["e.image"][:0]}, cuts=[0])):
        step = run_filters(pool, [chosen]).steps[0]
        assert (step.entered, step.kept) == (0, 0)
        json.dumps(step.facts, allow_nan=False)


@pytest.mark.parametrize("chosen", FILTERS, ids=lambda f: f.type)
def test_states_and_options_travel_between_processes(make_pool, chosen):
    pool = make_pool(*rows(), cuts=[100])
    state = chosen.fit(pool)
    again, state = pickle.loads(pickle.dumps((chosen, state)))
    for part in pool.members:
        decision = again.decide(part, state)
        np.testing.assert_array_equal(decision.keep, chosen.decide(part, chosen.fit(pool)).keep)
        assert decision.value.dtype == np.float32
    assert type(chosen).model_validate(chosen.model_dump(mode="json")) == chosen


class Twice(Filter):
    """Keep all, twice: what a sampling filter does."""

    type: str = "twice"

    def columns(self):
        return []

    def decide(self, part, state):
        n = len(part)
        return Decision(np.ones(n, bool), np.full(n, np.nan, np.float32), "", np.full(n, 2, np.int32))


def test_repeats_multiply_and_reach_the_subset_file(make_pool):
    pool = make_pool({"x": [1, 2, 3]}, cuts=[1])
    outcome = run_filters(pool, [Twice(), Threshold(by="x", at_least=2), Twice()])
    assert [s.samples for s in outcome.steps] == [6, 4, 8]
    assert [t for table in outcome.fates for t in table["times"].to_pylist()] == [0, 4, 4]
    assert len(outcome.subset()) == 8
    assert len(set(to_text(outcome.subset()))) == 2
