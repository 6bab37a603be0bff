"""How well an order mixes what lies together, and what it asks of a disk.

Three measures of an order over ``n`` stored samples:

* ``spread``: how many different regions of the storage (of `REGION` samples) a stretch of `STRETCH` samples of the
  order comes from, as a fraction of what a uniform shuffle has. Batches of a low spread are all from one corner.
* ``apart``: median distance in the order of samples that are neighbours in storage, as a fraction of a uniform
  shuffle's. Near-duplicates often are neighbours.
* ``run``: samples that are read one after another from one place, if everything that a window needs is read at once.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

STRETCH, REGION = 4096, 1000


def spread(order: np.ndarray) -> float:
    """See above."""
    regions = -(-len(order) // REGION)
    stretches = order[: len(order) // STRETCH * STRETCH].reshape(-1, STRETCH) // REGION
    found = float(np.mean([len(np.unique(stretch)) for stretch in stretches]))
    return found / (regions * (1 - (1 - 1 / regions) ** STRETCH))


def apart(order: np.ndarray) -> float:
    """See above; a uniform shuffle's median distance is ``(1 - 1 / sqrt(2)) n``."""
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return float(np.median(np.abs(np.diff(place)))) / ((1 - 0.5**0.5) * len(order))


def shuffle_buffer(samples: Iterator[int], rng: random.Random, size: int = 5000, initial: int = 1000) -> Iterator[int]:
    """What webdataset's shuffle does: a buffer that grows by two for each sample given out until it is full."""
    held: list[int] = []
    for sample in samples:
        held.append(sample)
        if len(held) < size:
            following = next(samples, None)
            if following is not None:
                held.append(following)
        if len(held) >= initial:
            at = rng.randrange(len(held))
            held[at], held[-1] = held[-1], held[at]
            yield held.pop()
    rng.shuffle(held)
    yield from held


def buffered_order(n: int, per_shard: int, seed: int, workers: int = 1, batch: int = 1) -> np.ndarray:
    """An epoch of shuffled shards through each worker's shuffle buffer of 5,000; batches come from them in turn."""
    rng = random.Random(seed)
    shards = [range(start, min(start + per_shard, n)) for start in range(0, n, per_shard)]
    rng.shuffle(shards)
    streams = [
        shuffle_buffer((i for shard in shards[w::workers] for i in shard), random.Random(seed + 1 + w))
        for w in range(workers)
    ]
    found: list[int] = []
    while len(found) < n:
        for stream in streams:
            found += [i for _, i in zip(range(batch), stream, strict=False)]
    return np.array(found)
