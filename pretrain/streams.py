"""Randomness as a function of (seed, purpose, position): no generator is ever carried from one sample to the next.

`key` names a stream; `uniform` reads any stretch of it. Philox is a counter-based generator, so the numbers of
position 10^9 cost as much as those of position 0, and a batch that is asked for again, after a kill or by another
worker, gets the same numbers. Only raw bits are taken from numpy, whose raw streams never change between versions.
Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import hashlib

import numpy as np

_WORDS = 4  # uint64 per Philox counter


def key(seed: int, *purpose: str | int) -> int:
    """64-bit key of the stream that `purpose` names under `seed`."""
    text = "\0".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def words(stream: int, start: int, stop: int, columns: int) -> np.ndarray:
    """Rows of positions ``start..stop-1``: ``(stop - start, columns) uint64``, uniform."""
    blocks = -(-columns // _WORDS)
    generator = np.random.Philox(key=stream, counter=start * blocks)
    return generator.random_raw((stop - start) * blocks * _WORDS).reshape(stop - start, blocks * _WORDS)[:, :columns]


def uniform(stream: int, start: int, stop: int, columns: int) -> np.ndarray:
    """Rows of positions ``start..stop-1``: ``(stop - start, columns) float64`` in [0, 1)."""
    return (words(stream, start, stop, columns) >> np.uint64(11)) * 2.0**-53
