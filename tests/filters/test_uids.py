import json
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.errors import DataError
from curate.filters.memory import run_filters
from curate.filters.registered import FILTERS
from curate.filters.threshold import Threshold
from curate.filters.uids import Uids
from curate.shards.uid import stable_uid, to_records, to_text, write_subset


def uid(number: int) -> str:
    return stable_uid(str(number))


def listed(path, numbers) -> str:
    write_subset(str(path), to_records([uid(n) for n in numbers]))
    return str(path)


def test_keeps_what_is_listed_as_often_as_it_is(make_pool, tmp_path):
    path = listed(tmp_path / "s.npy", [1, 3, 3, 3, 7, 99, 99])
    pool = make_pool({"uid": [uid(n) for n in range(8)]}, cuts=[2, 5])
    outcome = run_filters(pool, [Uids(path=path)])
    times = [t for table in outcome.fates for t in table["times"].to_pylist()]
    assert times == [0, 1, 0, 3, 0, 0, 0, 1]
    assert outcome.steps[0].reasons == {"not_listed": 5}
    assert outcome.steps[0].facts == {"mode": "keep", "listed": 4, "listed_samples": 7, "found": 3, "missing": 1}
    assert Counter(to_text(outcome.subset())) == {uid(1): 1, uid(3): 3, uid(7): 1}
    dropped = run_filters(pool, [Uids(path=path, mode="drop")])
    assert [t for table in dropped.fates for t in table["times"].to_pylist()] == [1, 0, 1, 0, 1, 1, 1, 0]
    assert dropped.steps[0].reasons == {"listed": 3}
    json.dumps([outcome.steps[0].facts, dropped.steps[0].facts], allow_nan=False)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    subset=st.lists(st.integers(0, 12), max_size=30),
    rows=st.lists(st.integers(0, 12), min_size=1, max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=3),
)
def test_every_uid_is_kept_as_often_as_the_file_says(make_pool, tmp_path, subset, rows, cuts):
    path = listed(tmp_path / "s.npy", subset)
    cuts = [min(c, len(rows)) for c in cuts]
    outcome = run_filters(make_pool({"uid": [uid(n) for n in rows]}, cuts=cuts), [Uids(path=path)])
    expected = {uid(n): times for n, times in Counter(subset).items() if n in rows}
    assert Counter(to_text(outcome.subset())) == expected
    facts = outcome.steps[0].facts
    assert facts["missing"] == len(set(subset) - set(rows))
    assert facts["found"] == len(set(subset) & set(rows))


def test_raw_files_and_the_place_in_a_chain(make_pool, tmp_path):
    path = listed(tmp_path / "s.npy", range(0, 40, 2))
    raw = tmp_path / "s.raw"
    raw.write_bytes((tmp_path / "s.npy").read_bytes()[128:])
    pool = make_pool({"uid": [uid(n) for n in range(40)], "x": np.arange(40)}, cuts=[7])
    chain = [Threshold(by="x", at_least=20)]
    first, second = (run_filters(pool, [*chain, Uids(path=str(p))]) for p in (path, raw))
    assert to_text(first.subset()) == to_text(second.subset()) == sorted(uid(n) for n in range(20, 40, 2))
    assert first.steps[1].facts["missing"] == 10  # dropped before, so it is not in what reaches this filter


def test_the_content_of_the_file_is_part_of_the_options(tmp_path):
    path = listed(tmp_path / "s.npy", [1, 2])
    before = Uids(path=path)
    assert before.content == Uids(path=path).content
    assert FILTERS["uids"].model_validate(before.model_dump(mode="json")) == before
    assert pickle.loads(pickle.dumps(before)) == before
    listed(tmp_path / "s.npy", [1, 3])
    assert Uids(path=path).content != before.content


def test_wrong_files(make_pool, tmp_path):
    with pytest.raises(ValidationError, match="does not exist; give a subset file"):
        Uids(path=str(tmp_path / "none.npy"))
    unsorted = to_records([uid(n) for n in range(9)])
    np.save(tmp_path / "unsorted.npy", unsorted[np.lexsort((unsorted["f1"], unsorted["f0"]))[::-1]])
    np.save(tmp_path / "floats.npy", np.zeros(3))
    pool = make_pool({"uid": [uid(1)]})
    for name, message in (("unsorted.npy", "not sorted"), ("floats.npy", "dtype float64")):
        with pytest.raises(DataError, match=message):
            run_filters(pool, [Uids(path=str(tmp_path / name))])
