"""Drawing rows at random, the same ones however the pool is cut: the rows with the smallest keyed hash of their uid.

A row's hash depends on its uid, the seed and the purpose, never on a generator's state, so no restart or resharding
shifts the stream. Exactly `count` rows are drawn; equal hashes (a repeated uid) are settled by uid, part and row.
Only hashes in a narrow window around the expected cut leave the workers, about ``16 * sqrt(count)`` of them; should the
cut lie outside (heavily repeated uids do that), the window is widened and the pool read again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..shards.uid import RECORD
from .base import Part, Pool

Source = Callable[..., tuple[np.ndarray, dict[str, np.ndarray]]]
SPREADS = 8.0  # standard deviations of the cut's place on each side of the first window


def uid_hash(uids: np.ndarray, seed: int, purpose: str) -> np.ndarray:
    """``(n,) uint64``, uniform; a function of the uid record, the seed and the purpose only."""
    key = hashlib.blake2b(f"{purpose}\0{seed}".encode(), digest_size=16).digest()
    first, second = np.frombuffer(key, "<u8")
    return mix(mix(uids["f1"] ^ first) + (uids["f0"] ^ second))


def mix(z: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit words in which every input bit moves every output bit (the SplitMix64 finaliser)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@dataclass(frozen=True)
class Cut:
    """The last row drawn, in (hash, uid, part, row) order."""

    hash: int
    high: int
    low: int
    part: int
    row: int

    def includes(self, part: Part, uids: np.ndarray, hashes: np.ndarray) -> np.ndarray:
        """Mask ``(n,) bool`` of the part's alive rows that are drawn."""
        drawn = hashes < np.uint64(self.hash)
        for at in np.flatnonzero(hashes == np.uint64(self.hash)):
            place = (int(uids["f0"][at]), int(uids["f1"][at]), part.index, int(part.rows[at]))
            drawn[at] = place <= (self.high, self.low, self.part, self.row)
        return drawn


@dataclass
class Drawn:
    """A draw.

    Attributes:
        cut: where it ends; None when nothing was drawn.
        count: rows drawn.
        uids: ``(m,)`` uid records of the drawn rows that the pool sent: all of them when the draw was `whole`.
        values: the source's arrays for them.
    """

    cut: Cut | None
    count: int
    uids: np.ndarray = field(default_factory=lambda: np.empty(0, RECORD))
    values: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class _Window:
    """Rows of one part whose hash lies in the window, and how many lie below it."""

    below: int
    hashes: np.ndarray
    uids: np.ndarray
    part: np.ndarray
    rows: np.ndarray
    values: dict[str, np.ndarray]


def everything(part: Part) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The source that lets every alive row take part, with nothing attached."""
    return np.ones(len(part), bool), {}


def _length(part: Part) -> int:
    return len(part)


def _window(
    part: Part, low: int, high: int, seed: int, purpose: str, source: Source, arguments: tuple[Any, ...]
) -> _Window:
    eligible, values = source(part, *arguments)
    uids = part.uids()
    hashes = uid_hash(uids, seed, purpose)
    inside = np.flatnonzero(eligible & (hashes >= np.uint64(low)) & (hashes <= np.uint64(high)))
    below = int((eligible & (hashes < np.uint64(low))).sum())
    where = np.full(len(inside), part.index, np.int64)
    sent = {name: array[inside] for name, array in values.items()}
    return _Window(below, hashes[inside], uids[inside], where, part.rows[inside], sent)


def draw(
    pool: Pool,
    count: int,
    seed: int,
    purpose: str,
    source: Source = everything,
    arguments: tuple[Any, ...] = (),
    whole: bool = False,
) -> Drawn:
    """Draw `count` eligible rows of the pool, or all when there are fewer.

    Args:
        seed, purpose: what the draw depends on besides the uids; two purposes draw independently.
        source: module-level ``source(part, *arguments) -> (eligible (n,) bool, {name: (n, ...) array})``.
        whole: send every drawn row with its values, not only those near the cut.
    """
    total = sum(pool.map(_length))
    if not total or count <= 0:
        return Drawn(None, 0)
    share = min(1.0, count / total)
    spread = (SPREADS * np.sqrt(count * (1 - share)) + 64) / total
    while True:
        low = 0 if whole else int(max(0.0, share - spread) * 2**64)
        high = int(min(1.0, share + spread) * 2**64) - 1 if share + spread < 1 else 2**64 - 1
        windows = pool.map(_window, low, high, seed, purpose, source, arguments)
        below = sum(w.below for w in windows)
        sent = sum(len(w.rows) for w in windows)
        reaches = below + sent >= count or high == 2**64 - 1
        if reaches and (low == 0 or (sent and below < count)):
            break
        spread *= 16
    wanted = min(count - below, sent)
    if not wanted:
        return Drawn(None, 0)
    hashes, uids, part, rows = (
        np.concatenate([getattr(w, name) for w in windows]) for name in ("hashes", "uids", "part", "rows")
    )
    order = np.lexsort((rows, part, uids["f1"], uids["f0"], hashes))[:wanted]
    last = order[-1]
    cut = Cut(int(hashes[last]), int(uids["f0"][last]), int(uids["f1"][last]), int(part[last]), int(rows[last]))
    values = {name: np.concatenate([w.values[name] for w in windows])[order] for name in windows[0].values}
    return Drawn(cut, below + wanted, uids[order], values)
