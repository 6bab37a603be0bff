import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.filters.memory import run_filters
from curate.filters.top_k_per_class import TopKPerClass, among_best

relaxed = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
some_probability = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, float("nan")])


def chosen_by_hand(uids, table, k, best):
    """(row -> classes that chose it), with lists."""
    found = dict.fromkeys(range(len(uids)), 0)
    for c in range(table.shape[1]):
        takes_part = []
        for i, row in enumerate(table):
            ranked = sorted((j for j in range(len(row)) if not np.isnan(row[j])), key=lambda j: (-row[j], j))
            if c in ranked[:best]:
                takes_part.append(i)
        for i in sorted(takes_part, key=lambda i: (-table[i, c], uids[i]))[:k]:
            found[i] += 1
    return found


@relaxed
@given(
    st.lists(st.tuples(some_probability, some_probability, some_probability), min_size=1, max_size=30),
    st.integers(1, 6),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_probability_columns_against_lists(make_pool, fates, rows, k, best, random):
    table = np.array(rows, np.float32)
    columns = {f"p{c}": table[:, c] for c in range(3)}
    options = {"probabilities": list(columns), "per_class": k, "classes_per_sample": best}
    pool = make_pool(columns)
    uids = pool.members[0].table["uid"].to_pylist()
    found = fates(pool, [TopKPerClass(repeat=True, **options)])
    expected = chosen_by_hand(uids, table, k, best)
    assert [found[uid][1] for uid in uids] == [expected[i] for i in range(len(uids))]
    order = list(range(len(uids)))
    random.shuffle(order)
    assert found == fates(
        make_pool(columns, cuts=[len(uids) // 2], order=order), [TopKPerClass(repeat=True, **options)]
    )
    once = fates(pool, [TopKPerClass(**options)])
    assert [once[uid][1] for uid in uids] == [min(1, expected[i]) for i in range(len(uids))]


@relaxed
@given(
    st.lists(st.tuples(st.sampled_from(["cat", "dog", None]), some_probability), min_size=1, max_size=30),
    st.integers(1, 6),
)
def test_top_classes_against_lists(make_pool, fates, rows, k):
    names, values = zip(*rows, strict=True)
    columns = {"c": pa.array(names, pa.string()), "c_probability": np.array(values, np.float32)}
    pool = make_pool(columns, cuts=[len(rows) // 2])
    uids = [uid for part in pool.members for uid in part.table["uid"].to_pylist()]
    found = fates(pool, [TopKPerClass(classes_of="c", per_class=k)])
    stays = set()
    for name in ("cat", "dog"):
        mine = [i for i in range(len(rows)) if names[i] == name and not np.isnan(values[i])]
        stays |= set(sorted(mine, key=lambda i: (-values[i], uids[i]))[:k])
    assert [found[uid][0] for uid in uids] == [i in stays for i in range(len(rows))]
    for i, uid in enumerate(uids):
        if i not in stays:
            assert found[uid][3] == ("no_class" if names[i] is None or np.isnan(values[i]) else "not_among_top")


def test_best_classes_of_a_row():
    table = np.array([[0.5, 0.5, 0.1], [np.nan, 0.2, 0.3]], np.float32)
    assert among_best(table, 0, 1).tolist() == [True, False]
    assert among_best(table, 1, 1).tolist() == [False, False]
    assert among_best(table, 1, 2).tolist() == [True, True]


def test_facts_and_options(make_pool):
    pool = make_pool({"c": ["cat"] * 5 + ["dog"] * 2, "c_probability": np.linspace(0.1, 0.7, 7)})
    step = run_filters(pool, [TopKPerClass(classes_of="c", per_class=3)]).steps[0]
    assert step.kept == 5
    assert step.facts["classes_short"] == 1
    json.dumps(step.facts, allow_nan=False)
    with pytest.raises(ValidationError, match="exactly one of"):
        TopKPerClass(per_class=3)
    with pytest.raises(ValidationError, match="there twice"):
        TopKPerClass(per_class=3, probabilities=["a", "a"])
