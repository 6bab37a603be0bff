"""Pools for the tests of filters: the same rows, cut into parts in any way."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from curate.filters.base import Filter
from curate.filters.memory import MemoryPool, run_filters
from curate.shards.uid import stable_uid


def cut_pool(
    columns: dict[str, Sequence | np.ndarray],
    embeddings: dict[str, np.ndarray] | None = None,
    cuts: Sequence[int] = (),
    order: Sequence[int] | None = None,
    seed: int = 0,
) -> MemoryPool:
    """A pool of ``len(cuts) + 1`` parts; `order` permutes the rows before they are cut."""
    arrays, embeddings = {k: pa.array(v) for k, v in columns.items()}, embeddings or {}
    n = len(next(iter({**arrays, **embeddings}.values())))
    if "uid" not in arrays:
        arrays["uid"] = pa.array([stable_uid(str(i)) for i in range(n)], pa.string())
    place = np.arange(n) if order is None else np.asarray(order, np.int64)
    table = pa.table(arrays).take(pa.array(place))
    bounds = [0, *sorted(cuts), n]
    spans = list(pairwise(bounds))
    return MemoryPool.of(
        [table.slice(a, b - a) for a, b in spans],
        [{k: v[place[a:b]] for k, v in embeddings.items()} for a, b in spans],
        seed,
    )


def fates_by_uid(pool: MemoryPool, filters: list[Filter]) -> dict[str, tuple]:
    """uid -> (kept, times, dropped_by, reason, value)."""
    found = {}
    for table in run_filters(pool, filters).fates:
        for row in table.to_pylist():
            value = None if np.isnan(row["value"]) else row["value"]
            found[row["uid"]] = (row["kept"], row["times"], row["dropped_by"], row["reason"], value)
    return found


def kept_rows(pool: MemoryPool, *filters: Filter) -> list[int]:
    """Numbers of the kept rows, parts one after another."""
    kept = np.concatenate([t["kept"].to_numpy() for t in run_filters(pool, filters).fates])
    return np.flatnonzero(kept).tolist()


@pytest.fixture(scope="session")
def make_pool() -> Callable[..., MemoryPool]:
    return cut_pool


@pytest.fixture(scope="session")
def fates() -> Callable[..., dict[str, tuple]]:
    return fates_by_uid


@pytest.fixture(scope="session")
def kept() -> Callable[..., list[int]]:
    return kept_rows
