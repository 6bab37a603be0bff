"""Sort & Search against brute force, and what it is worth against a random sample."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import DataError
from curate.eval.probes.sort_search import (
    best_threshold,
    difficulty_order,
    evenly_spaced,
    left_out_errors,
    read_history,
    search,
)


def simulated(models: int, samples: int, seed: int = 0) -> np.ndarray:
    """Right with a chance that follows from the model's ability and the sample's difficulty."""
    rng = np.random.default_rng(seed)
    ability, difficulty = rng.normal(0.8, 1, models)[:, None], rng.normal(0, 1.5, samples)
    return rng.random((models, samples)) < 1 / (1 + np.exp(-3 * (ability - difficulty)))


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_threshold_leaves_the_fewest_samples_unexplained(right):
    unexplained = [right[:t].count(False) + right[t:].count(True) for t in range(len(right) + 1)]
    best = [t for t, errors in enumerate(unexplained) if errors == min(unexplained)]
    assert best_threshold(np.array(right)) == best[(len(best) - 1) // 2]


@given(st.integers(1, 300), st.data())
def test_places_are_even(total, data):
    count = data.draw(st.integers(1, total))
    places = evenly_spaced(total, count)
    assert len(set(places.tolist())) == count
    assert 0 <= places[0] <= places[-1] < total
    gaps = np.diff(places)
    assert not len(gaps) or gaps.max() - gaps.min() <= 1
    assert np.array_equal(places, [int((i + 0.5) * total / count + 1e-9) for i in range(count)])


def test_places_that_are_not_there_are_refused():
    for count in (0, 4):
        with pytest.raises(ValueError, match="of 3 places"):
            evenly_spaced(3, count)


def test_order_is_by_models_that_are_right_and_stable():
    correct = np.array([[1, 0, 1, 1, 0], [1, 0, 0, 1, 1]], bool)
    assert difficulty_order(correct).tolist() == [0, 3, 2, 4, 1]


def test_search_by_hand():
    order = np.array([4, 0, 2, 1, 5, 3, 7, 6])
    places = evenly_spaced(8, 4)  # 1, 3, 5, 7 -> samples 0, 1, 3, 6
    found = search(order, places, np.array([True, True, False, True]))
    assert (found.threshold, found.mean) == (0.5, 0.75)  # t = 2 leaves one unexplained, as t = 4 does
    assert np.flatnonzero(found.predicted).tolist() == [0, 1, 2, 4, 6]


@given(st.integers(2, 6), st.integers(4, 30), st.data())
def test_a_model_that_is_right_up_to_a_threshold_is_found_exactly(models, samples, data):
    borders = data.draw(st.lists(st.integers(0, samples), min_size=models, max_size=models))
    hidden = np.random.default_rng(samples).permutation(samples)  # sample -> difficulty
    correct = hidden < np.array(borders)[:, None]
    order = difficulty_order(correct)
    found = search(order, np.arange(samples), correct[0][order])
    assert found.threshold == found.mean == correct[0].mean()
    assert np.array_equal(found.predicted, correct[0])


def test_each_model_is_estimated_from_the_others_alone():
    correct = simulated(7, 90)
    threshold, mean = left_out_errors(correct, 12)
    for i, right in enumerate(correct):
        order = difficulty_order(np.delete(correct, i, 0))
        places = evenly_spaced(90, 12)
        found = search(order, places, right[order[places]])
        assert threshold[i] == pytest.approx(found.threshold - right.mean(), abs=1e-12)
        assert mean[i] == pytest.approx(found.mean - right.mean(), abs=1e-12)


def test_the_mean_in_the_order_of_difficulty_beats_a_random_sample():
    correct, count = simulated(60, 3000), 100
    _, mean = left_out_errors(correct, count)
    rng = np.random.default_rng(1)
    drawn = [right[rng.permutation(3000)[:count]].mean() - right.mean() for right in correct for _ in range(20)]
    assert np.sqrt(np.mean(mean**2)) < 0.8 * np.sqrt(np.mean(np.square(drawn)))


def write(path, keys, correct) -> str:
    pq.write_table(pa.table({"key": keys, "correct": correct}), path)
    return str(path)


def test_history_is_aligned_by_key(tmp_path):
    keys = ["a", "b", "c"]
    paths = [
        write(tmp_path / "0.parquet", ["a", "b", "c"], [True, False, False]),
        write(tmp_path / "1.parquet", ["c", "a", "b"], [True, False, True]),
    ]
    assert read_history(paths, keys).tolist() == [[True, False, False], [False, True, True]]
    assert read_history([], keys).shape == (0, 3)


@pytest.mark.parametrize("other", [["a", "b"], ["a", "b", "d"], ["a", "b", "b"], ["a", "b", "c", "d"]])
def test_history_of_other_samples_is_refused(tmp_path, other):
    path = write(tmp_path / "x.parquet", other, [True] * len(other))
    with pytest.raises(DataError, match=r"x.parquet holds outcomes of .* not the 3 of this split"):
        read_history([path], ["a", "b", "c"])


def test_files_that_are_not_outcomes_are_refused(tmp_path):
    (tmp_path / "no.parquet").write_bytes(b"nothing")
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "half.parquet")
    for name in ("no", "half"):
        with pytest.raises(DataError, match=f"{name}.parquet is not a file of stored outcomes"):
            read_history([str(tmp_path / f"{name}.parquet")], ["a"])
