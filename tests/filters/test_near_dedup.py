"""Perceptual dedup against all pairs compared one by one."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import DataError
from curate.filters import hamming, linked, near_dedup
from curate.filters.components import Components
from curate.filters.hamming import EVERY_BIT, HashIndex, Plan, near_pairs, plan
from curate.filters.memory import MemoryPool, run_filters
from curate.filters.near_dedup import NearDedup
from curate.filters.survivor_order import largest_first
from curate.shards.uid import stable_uid


def flipped(rng, value, bits):
    for bit in rng.choice(64, bits, replace=False):
        value ^= 1 << int(bit)
    return value


def families(rng, n, most=6):
    """Hashes with copies that differ in 0 to `most` bits."""
    base = [int(rng.integers(2**63)) * 2 for _ in range(max(1, n // 4))]
    return [flipped(rng, base[rng.integers(len(base))], int(rng.integers(most + 1))) for _ in range(n)]


def all_near(hashes, radius):
    found = {}
    for (i, a), (j, b) in itertools.combinations(enumerate(hashes), 2):
        if (differ := (a ^ b).bit_count()) <= radius:
            found[i, j] = differ
    return found


def collected(pairs):
    found = {}
    for one, other, differ in pairs:
        found.update({(i, j): d for i, j, d in zip(one.tolist(), other.tolist(), differ.tolist(), strict=True)})
    return found


def forced(blocks, radius):
    places = range(64)
    return Plan(tuple(sum(1 << p for p in places[i::blocks]) for i in range(blocks)), blocks - radius)


@pytest.mark.parametrize("radius", [0, 1, 4, 8])
@pytest.mark.parametrize("more_blocks", [0, 1, 2, 3])
def test_every_near_pair_is_found_whatever_the_blocks(monkeypatch, radius, more_blocks):
    monkeypatch.setattr(hamming, "WALK", 5)  # larger groups are searched by what is left of the bits
    monkeypatch.setattr(hamming, "CANDIDATES", 7)
    rng = np.random.default_rng(radius)
    hashes = families(rng, 150, radius + 3)
    expected = all_near(hashes, radius)
    keys = forced(radius + more_blocks, radius).masks() if more_blocks else [0]
    found = collected(near_pairs(np.array(hashes, np.uint64), radius, keys))
    assert found == expected
    assert expected
    index = HashIndex(np.array(sorted(set(hashes)), np.uint64), radius)
    near = collected(index.within(np.array(hashes[:40], np.uint64)))
    table = sorted(set(hashes))
    assert near == {
        (i, j): (a ^ b).bit_count()
        for i, a in enumerate(hashes[:40])
        for j, b in enumerate(table)
        if (a ^ b).bit_count() <= radius
    }


def test_keys_are_shared_out_among_their_first_blocks_and_cover_every_difference():
    chosen = plan(10_000_000, 4)
    assert (len(chosen.blocks), chosen.chosen) == (6, 2)
    assert sum(chosen.blocks) == EVERY_BIT
    assert sorted(chosen.masks()) == sorted(k for lead in chosen.leads() for k in chosen.masks(lead))
    assert len(chosen.leads()) == 5
    assert all(key & chosen.blocks[lead] for lead in chosen.leads() for key in chosen.masks(lead))
    assert plan(10, 4).masks() == [0]
    assert len(plan(10**9, 4).masks()) == 35
    rng = np.random.default_rng(0)
    for _ in range(200):
        difference = flipped(rng, 0, 4)
        assert any(not difference & key for key in chosen.masks())


def test_a_crowd_that_agrees_in_most_bits_is_no_square(monkeypatch):
    """Thirty thousand hashes that differ in half of the bits only: a key of the other half holds them all."""
    compared = 0
    original = np.bitwise_count

    def counting(values):
        nonlocal compared
        compared += values.size
        return original(values)

    monkeypatch.setattr(hamming.np, "bitwise_count", counting)
    rng = np.random.default_rng(0)
    hashes = np.unique(rng.integers(0, 2**32, 30_000, dtype=np.uint64))
    list(near_pairs(hashes, 2))
    assert compared < len(hashes) ** 2 / 50


def reference(rows, radius, groups):
    """uid -> (kept, distance): rows are (uid, hash or None, preference)."""

    def place(row):
        uid, _, prefer = row
        none = prefer is None or np.isnan(prefer)
        return (none, 0 if none else -prefer, uid)

    ranked = sorted((r for r in rows if r[1] is not None), key=place)
    near = {(i, j): d for (i, j), d in all_near([r[1] for r in ranked], radius).items()}
    result = {r[0]: (True, None) for r in rows}
    if groups == "earlier":
        for j, row in enumerate(ranked):
            found = [d for (_, b), d in near.items() if b == j]
            result[row[0]] = (not found, min(found, default=None))
        return result
    component = list(range(len(ranked)))
    for i, j in near:
        old, new = max(component[i], component[j]), min(component[i], component[j])
        component = [new if c == old else c for c in component]
    first_of = {}
    for i, row in enumerate(ranked):
        first_of.setdefault(row[1], i)
    for j, row in enumerate(ranked):
        others = [d for pair, d in near.items() if j in pair and ranked[pair[0]][1] != ranked[pair[1]][1]]
        distance = 0 if first_of[row[1]] != j else min(others, default=None)
        result[row[0]] = (component[j] == j, distance)
    return result


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 60),
    radius=st.integers(0, 6),
    groups=st.sampled_from(["earlier", "connected"]),
    small=st.sampled_from([10_000, 8]),
    in_memory=st.booleans(),
    preferring=st.booleans(),
    cuts=st.lists(st.integers(0, 60), max_size=3),
)
def test_against_all_pairs(make_pool, fates, seed, n, radius, groups, small, in_memory, preferring, cuts):
    rng = np.random.default_rng(seed)
    hashes = [None if rng.random() < 0.05 else h for h in families(rng, n)]
    hashes[0] = hashes[0] or 5
    prefer = np.where(rng.random(n) < 0.1, np.nan, rng.integers(0, 3, n).astype(np.float64))
    uids = [stable_uid(str(i)) for i in range(n)]
    rows = list(zip(uids, hashes, prefer.tolist() if preferring else [None] * n, strict=True))
    chosen = NearDedup(hash="h", radius=radius, groups=groups, prefer="p" if preferring else None)
    columns = {"uid": uids, "h": pa.array(hashes, pa.uint64()), "p": prefer}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_dedup, "ROWS_PER_BUCKET", small)
        patch.setattr(linked, "ROWS_PER_BUCKET", small)
        patch.setattr(near_dedup, "plan", lambda count, radius: forced(radius + 2, radius))
        if not in_memory:
            patch.setattr(linked, "ROWS_IN_MEMORY", 0)
        pool = make_pool(columns, cuts=[min(c, n) for c in cuts], order=rng.permutation(n))
        found = fates(pool, [chosen])
    expected = reference(rows, radius, groups)
    assert {u: (kept, value) for u, (kept, _, _, _, value) in found.items()} == expected


def test_a_chain_loses_all_but_its_ends_or_all_but_one(make_pool, kept):
    """0 - 1 - 2 - 3, each two bits from the next; uid order 1, 0, 3, 2."""
    chain = [0, 0b11, 0b1111, 0b111111]
    uids = [f"{i:032x}" for i in (2, 1, 4, 3)]
    pool = make_pool({"uid": uids, "h": np.array(chain, np.uint64)})
    # row 1 comes first; 0 is near it; 3 is near neither; 2 is near both
    assert kept(pool, NearDedup(hash="h", radius=2)) == [1, 3]
    assert kept(pool, NearDedup(hash="h", radius=2, groups="connected")) == [1]
    assert kept(pool, NearDedup(hash="h", radius=1)) == [0, 1, 2, 3]


def test_reasons_values_and_facts(make_pool):
    top = 2**63 + 2**62  # a float would lose the low bits
    hashes = pa.array([top, top + 1, top, None, 2**20 - 1, top + 2**12 - 1], pa.uint64())
    pool = make_pool({"uid": [f"{i:032x}" for i in range(6)], "h": hashes}, cuts=[2])
    outcome = run_filters(pool, [NearDedup(hash="h", radius=3)])
    rows = [r for table in outcome.fates for r in table.to_pylist()]
    assert [r["reason"] for r in rows] == [None, "near_hash", "same_hash", None, None, None]
    assert [r["value"] for r in rows[1:3]] == [1, 0]
    assert all(np.isnan(rows[i]["value"]) for i in (0, 3, 4, 5))
    facts = outcome.steps[0].facts
    assert facts["dropped_by_distance"] == [1, 1, 0, 0]
    assert (facts["compared"], facts["distinct_hashes"], facts["without_hash"]) == (5, 4, 1)
    json.dumps(facts, allow_nan=False)


def test_equal_hashes_cost_no_more_than_others(make_pool, kept, monkeypatch):
    def none(hashes, radius, keys=None):
        assert len(hashes) == 2
        return iter(())

    monkeypatch.setattr(near_dedup, "near_pairs", none)
    blank = np.zeros(50_000, np.uint64)
    blank[7] = ~np.uint64(0)
    pool = make_pool({"uid": [f"{i:032x}" for i in range(50_000)], "h": blank}, cuts=[100])
    assert kept(pool, NearDedup(hash="h", groups="connected")) == [0, 7]


def test_holes_and_wrong_columns(make_pool, kept):
    with pytest.raises(DataError, match="no row has a value in column 'h'"):
        kept(make_pool({"h": pa.nulls(3, pa.uint64())}), NearDedup(hash="h"))
    with pytest.raises(DataError, match="not 64-bit hashes"):
        kept(make_pool({"h": [0.5, 1.0]}), NearDedup(hash="h"))
    mixed = MemoryPool.of(
        [
            pa.table({"uid": ["1"], "h": pa.nulls(1)}),
            pa.table({"uid": ["2", "3"], "h": pa.array([7, 7], pa.uint64())}),
        ]
    )
    assert [t["kept"].to_pylist() for t in run_filters(mixed, [NearDedup(hash="h")]).fates] == [[True], [True, False]]
    for groups in ("earlier", "connected"):
        assert run_filters(MemoryPool([]), [NearDedup(hash="h", groups=groups)]).steps[0].entered == 0


def test_preference_sorts_as_the_numbers_do_the_other_way_round():
    values = np.array([np.nan, -np.inf, -2.5, -0.0, 0.0, 1e-300, 3.0, np.inf])
    words = largest_first(values)
    assert np.argsort(words, kind="stable").tolist() == [7, 6, 5, 3, 4, 2, 1, 0]
    assert words[3] == words[4]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=60), st.integers(1, 9))
def test_components_against_relabelling(n, pairs, waiting):
    expected = list(range(n))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.filters.components.WAITING", waiting)
        components = Components(n)
        for a, b in ((a % n, b % n) for a, b in pairs):
            components.join(np.array([a]), np.array([b]))
            old, new = max(expected[a], expected[b]), min(expected[a], expected[b])
            expected = [new if c == old else c for c in expected]
        assert components.labels().tolist() == expected
