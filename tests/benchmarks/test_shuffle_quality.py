"""Our order against a simulation of webdataset's shuffle over shuffled shards."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest

from curate.pretrain.data.order import positions

PATH = Path(__file__).parents[2] / "benchmarks" / "shuffle_quality.py"
SPEC = importlib.util.spec_from_file_location("shuffle_quality", PATH)
assert SPEC is not None
assert SPEC.loader is not None
quality = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(quality)

N = 150_000


@pytest.mark.parametrize(("per_shard", "workers"), [(10_000, 1), (5_000, 4), (1_000, 1)])
def test_a_large_pool_is_mixed_better_than_by_a_buffer_of_5000(per_shard, workers):
    ours = positions(0, N, 0, N)
    theirs = quality.buffered_order(N, per_shard, 0, workers, batch=64)
    assert np.array_equal(np.sort(theirs), np.arange(N))
    assert quality.spread(ours) > quality.spread(theirs)
    assert quality.spread(ours) > 0.75
    assert quality.apart(ours) > quality.apart(theirs)


def test_small_pools_are_shuffled_uniformly():
    n = 40_000
    ours, uniform = positions(0, n, 0, n), np.random.default_rng(0).permutation(n)
    for measure in (quality.spread, quality.apart):
        assert measure(ours) == pytest.approx(measure(uniform), rel=0.05)
        assert measure(uniform) == pytest.approx(1, rel=0.05)
        assert measure(np.arange(n)) < 0.15


def test_the_simulated_buffer_is_webdatasets():
    from webdataset.filters import _shuffle

    theirs = list(_shuffle(iter(range(30_000)), 5000, 1000, random.Random(0)))
    found = list(quality.shuffle_buffer(iter(range(30_000)), random.Random(0)))
    delays = [np.array(order) - np.arange(30_000) for order in (theirs, found)]
    assert sorted(found) == list(range(30_000))
    assert np.abs(delays[0]).mean() == pytest.approx(np.abs(delays[1]).mean(), rel=0.05)
