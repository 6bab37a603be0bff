"""The order in which samples are seen: a pure function of (seed, number of samples, position).

Positions count samples since the start of training. Epoch ``e`` covers positions ``e n`` to ``(e + 1) n - 1`` and
visits every sample once, in an order of its own; batches run across the border between epochs, so none is short. Any
position can be asked for directly, so a run resumes at any step, on any number of workers, with the same batches.

A permutation is a keyed Feistel network on just enough bits to number the samples; values that fall beyond the last
sample are sent through again until they land ("cycle walking", Black & Rogaway, CT-RSA 2002). So nothing the size of
the pool is stored, where a shuffled index would take 16 bytes a sample. The price: it is pseudo-random instead of
uniform over all n! orders, and a batch of 128 costs about 0.2 ms.

Large pools are permuted on two levels, so that disks and object stores see long reads: blocks of `BLOCK` consecutive
samples are permuted, and windows of `WINDOW` blocks are permuted within. A window is drawn from 512 places all over the
pool and is read once, block by block, while it lasts: 65,536 samples, two or three gigabytes, which the page cache
holds. A shuffle buffer of 5,000 samples over shuffled shards mixes the one or two shards that are open. Each epoch
begins its blocks at another sample, so that other samples are neighbours, and the blocks that fill no window of their
own join the last one. Pools of less than two windows are one window, and are permuted sample by sample.
"""

from __future__ import annotations

import numpy as np

from .. import streams

ROUNDS = 8
BLOCK = 128  # samples that lie, and are read, one after another
WINDOW = 512  # blocks whose samples are mixed


def positions(seed: int, n: int, start: int, stop: int) -> np.ndarray:
    """Samples at positions ``start..stop-1`` of the training order, ``(stop - start,) int64`` in 0..n-1."""
    if n < 1:
        raise ValueError(f"an order over {n} samples")
    found = np.zeros(max(0, stop - start), np.int64)
    at = start if n > 1 else stop
    while at < stop:
        epoch, first = divmod(at, n)
        end = min(stop, (epoch + 1) * n)
        found[at - start : end - start] = _of_epoch(seed, n, epoch, first, first + end - at)
        at = end
    return found


def _of_epoch(seed: int, n: int, epoch: int, start: int, stop: int) -> np.ndarray:
    """Samples at positions ``start..stop-1`` of one epoch."""
    size = BLOCK * WINDOW
    windows = n // size
    if windows < 2:
        return permuted(np.arange(start, stop, dtype=np.uint64), n, streams.key(seed, "order", epoch))
    blocks = n // BLOCK
    first_sample = int(streams.words(streams.key(seed, "shift", epoch), 0, 1, 1)[0, 0]) % n
    block_stream = streams.key(seed, "blocks", epoch)
    found = np.empty(stop - start, np.int64)
    at = start
    while at < stop:
        window = min(at // size, windows - 1)
        begin = window * size
        end = n if window == windows - 1 else begin + size
        upto = min(stop, end)
        places = np.arange(at - begin, upto - begin, dtype=np.uint64)
        inside = permuted(places, end - begin, streams.key(seed, "window", epoch, window)) + begin
        block, offset = np.divmod(inside, BLOCK)
        whole = block < blocks  # the rest is the tail of the last window, shorter than a block
        block[whole] = permuted(block[whole].astype(np.uint64), blocks, block_stream)
        found[at - start : upto - start] = (block * BLOCK + offset + first_sample) % n
        at = upto
    return found


def permuted(x: np.ndarray, n: int, stream: int) -> np.ndarray:
    """Image of ``x (m,) uint64`` under the keyed permutation of 0..n-1."""
    bits = (n - 1).bit_length()
    round_keys = streams.words(stream, 0, 1, ROUNDS)[0]
    x = _feistel(x, bits, round_keys)
    outside = np.flatnonzero(x >= n)
    while len(outside):
        x[outside] = _feistel(x[outside], bits, round_keys)
        outside = outside[x[outside] >= n]
    return x.astype(np.int64)


def _feistel(x: np.ndarray, bits: int, round_keys: np.ndarray) -> np.ndarray:
    """A bijection of 0..2^bits - 1: the low and the high half take turns to be xor-ed with a hash of the other."""
    low_bits = np.uint64(bits - bits // 2)
    low_mask = np.uint64((1 << int(low_bits)) - 1)
    high_mask = np.uint64((1 << (bits // 2)) - 1)
    low, high = x & low_mask, x >> low_bits
    for i in range(0, ROUNDS, 2):
        low ^= _hash(high, round_keys[i]) & low_mask
        high ^= _hash(low, round_keys[i + 1]) & high_mask
    return high << low_bits | low


def _hash(x: np.ndarray, round_key: np.uint64) -> np.ndarray:
    """64 well mixed bits (the finaliser of splitmix64: Steele et al., OOPSLA 2014); wraps around on purpose."""
    x = x * np.uint64(0x9E3779B97F4A7C15) + round_key
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)
