import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import DataError
from curate.filters.hierarchical_sampling import HierarchicalSampling, build_levels
from curate.filters.hierarchy import capped_shares, node_lots, sum_children, top_down
from curate.filters.memory import run_filters
from curate.filters.prototypes import Prototypes

sizes_lists = st.lists(st.integers(0, 30), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(sizes_lists, st.integers(0, 200), st.integers(0, 5))
def test_capped_shares_are_the_rule_by_trial(sizes, target, seed):
    arr = np.array(sizes)
    lots = np.random.default_rng(seed).permutation(len(arr))
    shares = capped_shares(arr, target, lots)
    if arr.sum() <= target:
        assert shares.tolist() == sizes
        return
    c = max(c for c in range(target + 1) if np.minimum(c, arr).sum() <= target)
    expected = np.minimum(c, arr)
    rest = target - expected.sum()
    able = sorted((j for j in range(len(arr)) if arr[j] > c), key=lambda j: lots[j])
    assert rest < len(able)
    expected[able[:rest]] += 1
    assert shares.tolist() == expected.tolist()


@st.composite
def hierarchies(draw):
    k = draw(st.integers(1, 12))
    parents, below = [], k
    for _ in range(draw(st.integers(0, 2))):
        above = draw(st.integers(1, below))
        parent = np.array(
            [*range(above), *draw(st.lists(st.integers(0, above - 1), min_size=below - above, max_size=below - above))]
        )
        parents.append(np.random.default_rng(below).permutation(parent))
        below = above
    sizes = np.array(draw(st.lists(st.integers(0, 20), min_size=k, max_size=k)))
    return sizes, parents, draw(st.integers(0, 150)), draw(st.integers(1, 3)), draw(st.integers(0, 3))


def recursive(sizes, parents, target, repeats, seed):
    """Depth first, with lists."""
    leaves = np.zeros(len(sizes), int)

    def size(level, node):
        if level == 0:
            return int(sizes[node])
        return sum(size(level - 1, c) for c in np.flatnonzero(parents[level - 1] == node))

    def share(level, node, children, t):
        arr = [size(level - 1, c) * repeats for c in children]
        given = capped_shares(np.array(arr, int), t, node_lots(level, node, np.array(children), seed))
        for child, amount in zip(children, given, strict=True):
            if level == 1:
                leaves[child] = amount
            else:
                below = np.flatnonzero(parents[level - 2] == child).tolist()
                share(level - 1, int(child), below, int(amount))

    top = len(parents) + 1
    count = len(sizes) if not parents else int(parents[-1].max()) + 1
    share(top, 0, list(range(count)), target)
    return leaves


@settings(max_examples=200, deadline=None)
@given(hierarchies())
def test_top_down_equals_the_recursion(case):
    sizes, parents, target, repeats, seed = case
    found = top_down(sizes, parents, target, repeats, seed)
    assert found.tolist() == recursive(sizes, parents, target, repeats, seed).tolist()
    assert found.sum() == min(target, sizes.sum() * repeats)
    assert (found <= sizes * repeats).all()


def test_a_golden_case():
    """Two topics: one of a single leaf of 90 rows, one of three leaves of 30, 5 and 1; 40 samples."""
    shares = top_down(np.array([90, 30, 5, 1]), [np.array([0, 1, 1, 1])], 40, 1, 0)
    assert shares.tolist() == [20, 14, 5, 1]


def test_levels_are_numbered_without_gaps():
    rng = np.random.default_rng(0)
    leaves = rng.standard_normal((60, 6)).astype(np.float32)
    leaves[5] = 0
    parents = build_levels(leaves, [12, 4], [3, 0], 2, 10, 1)
    widths = [60, *(int(p.max()) + 1 for p in parents)]
    for (below, above), parent in zip(pairwise(widths), parents, strict=True):
        assert len(parent) == below
        assert set(parent.tolist()) == set(range(above))
    assert sum_children(np.ones(60, np.int64), parents[0]).sum() == 60


def pool_of(make_pool, n=400, cuts=(), order=None):
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((9, 8))
    which = rng.choice(9, n, p=np.array([60, 20, 8, 4, 3, 2, 1, 1, 1]) / 100)
    rows = (centres[which] + 0.1 * rng.standard_normal((n, 8))).astype(np.float16).astype(np.float32)
    rows[:10], rows[10:12] = np.nan, 0
    return make_pool({}, {"e.image": rows}, cuts=cuts, order=order)


def test_sampling_is_flatter_than_the_pool_and_exact(make_pool, fates):
    chosen = HierarchicalSampling(encoder="e", clusters=9, levels=[3], count=120, points_per_centroid=40)
    step = run_filters(pool_of(make_pool, cuts=[33]), [chosen]).steps[0]
    assert step.kept == step.samples == 120 == step.facts["samples"]
    assert step.reasons == {"no_embedding": 12, "over_share": 268}
    top = step.facts["top_level"]
    assert sum(t["rows"] for t in top) == 388
    assert step.facts["levels"][0] == 9
    json.dumps(step.facts, allow_nan=False)
    order = np.random.default_rng(0).permutation(400)
    plain = fates(pool_of(make_pool), [chosen])
    assert plain == fates(pool_of(make_pool, cuts=[1, 1, 250], order=order), [chosen])


@pytest.mark.parametrize("select", ["random", "easy", "hard"])
def test_leaves_repeat_their_rows_evenly(make_pool, select):
    chosen = HierarchicalSampling(
        encoder="e", clusters=6, levels=[2], count=500, repeats=3, select=select, points_per_centroid=40
    )
    pool = pool_of(make_pool, cuts=[100])
    state = chosen.fit(pool)
    taken = {j: [] for j in range(6)}
    for part in pool.members:
        decision = chosen.decide(part, state)
        times = np.where(decision.keep, decision.times, 0)
        for j in range(6):
            mine = decision.group == j
            taken[j] += list(zip(decision.value[mine].tolist(), times[mine].tolist(), strict=True))
    for j, rows in taken.items():
        times = [t for _, t in rows]
        assert sum(times) == state.targets[j]
        assert max(times, default=0) - min(times, default=0) <= 1
        assert max(times, default=0) <= 3
        if select != "random":
            ordered = [t for _, t in sorted(rows, reverse=select == "hard")]
            assert ordered == sorted(ordered, reverse=True)
    assert state.targets.sum() == 500


def test_resampling_and_what_cannot_be(make_pool, kept):
    common = {"encoder": "e", "clusters": 8, "levels": [3], "points_per_centroid": 40}
    state = HierarchicalSampling(count=50, resample=[4, 2], rounds=2, **common).fit(pool_of(make_pool))
    assert state.resampled == 2
    assert state.targets.sum() == 50
    with pytest.raises(DataError, match="each may be taken 1 times"):
        kept(pool_of(make_pool), HierarchicalSampling(count=389, **common))
    with pytest.raises(ValidationError, match="fewer clusters than the one below"):
        HierarchicalSampling(encoder="e", clusters=10, levels=[10], keep=0.5)
    empty = pool_of(make_pool, n=400)
    assert run_filters(type(empty)([]), [HierarchicalSampling(keep=0.5, **common)]).steps[0].kept == 0


def test_prototypes_drop_the_same_share_of_every_cluster(make_pool, fates):
    chosen = Prototypes(encoder="e", clusters=5, keep=0.75, points_per_centroid=60)
    pool = pool_of(make_pool, cuts=[50])
    facts = run_filters(pool, [chosen]).steps[0].facts
    assert facts["budget"] == int(388 * 0.75)
    for c in facts["clusters"]:
        assert abs(c["kept"] - 0.75 * c["size"]) < 1
    state = chosen.fit(pool)
    decisions = [chosen.decide(part, state) for part in pool.members]
    keep, value, group = (np.concatenate([getattr(d, f) for d in decisions]) for f in ("keep", "value", "group"))
    for j in range(5):
        dropped, stays = value[(group == j) & ~keep], value[(group == j) & keep]
        assert dropped.max(initial=-1) <= stays.min(initial=9)
    assert fates(pool, [chosen]) == fates(pool_of(make_pool, order=np.arange(400)[::-1]), [chosen])
