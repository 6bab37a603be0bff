"""Write a subset as a new WebDataset: payload bytes copied unchanged, full shards, one bounded piece of work each.

`plan_shards` needs only *how many* samples each input shard gives. From these counts alone every output shard knows
which samples of which input shards it holds, so `write_shard` calls are independent of each other and can run anywhere,
in any order, again after a kill, and always give the same bytes.

Order is the pool's, or shuffled: input shards in random order, then a random permutation within windows of `window` of
them. The price of not shuffling all with all: neighbours in the output come from the same `window` input shards. The
gain: an output shard opens few input shards however large the pool is, and no permutation is larger than a window.
Layout: DataComp's resharder (``{:08d}.tar``, ``{uid}-{j}.{ext}``) and open_clip's ``sizes.json``; see docs/formats.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..errors import DataError
from . import storage
from .shard import Shard, succeeded
from .tar import TarWriter

Kept = Callable[[int], tuple[np.ndarray, ...]]
"""``kept(i) -> rows, times``: row numbers of input shard `i` that stay, ascending, and how often each is written.

Optionally ``rows, times, first``: the number j of each row's first copy, where rows of the pool share a uid.
"""


@dataclass(frozen=True)
class Piece:
    """What one output shard takes from one input shard.

    Attributes:
        shard: index of the input shard.
        ordinals: ``(m,) int64``: the how-manieth samples of those that the input shard gives, repeats counted.
        slots: ``(m,) int64``: their places in the output shard, ascending.
    """

    shard: int
    ordinals: np.ndarray
    slots: np.ndarray


@dataclass(frozen=True)
class ReshardPlan:
    """Which samples go into which output shard.

    Attributes:
        counts: samples that each input shard gives, repeats counted.
        samples_per_shard: samples of every output shard but the last.
        order: ``(inputs,) int64``: input shards in the order in which they are used up.
        window: input shards that are shuffled together; 0 = no shuffle.
        seed: decides the shuffle.
    """

    counts: tuple[int, ...]
    samples_per_shard: int
    order: np.ndarray
    window: int
    seed: int

    @property
    def total(self) -> int:
        """Samples of the whole output."""
        return sum(self.counts)

    def __len__(self) -> int:
        """Number of output shards."""
        return -(-self.total // self.samples_per_shard)

    def name(self, k: int) -> str:
        """Name of output shard `k`, eight digits."""
        return f"{k:08d}"

    def size(self, k: int) -> int:
        """Samples of output shard `k`."""
        return min(self.samples_per_shard, self.total - k * self.samples_per_shard)

    def sizes(self) -> dict[str, int]:
        """open_clip's ``sizes.json``: tar name -> samples."""
        return {f"{self.name(k)}.tar": self.size(k) for k in range(len(self))}

    def pieces(self, k: int) -> list[Piece]:
        """What output shard `k` takes from which input shards, in the order of `order`."""
        if not 0 <= k < len(self):
            raise ValueError(f"output shard {k} of {len(self)}")
        start = k * self.samples_per_shard
        positions = np.arange(start, start + self.size(k))
        ends = np.cumsum([self.counts[i] for i in self.order])
        sources = self._shuffled(positions, ends) if self.window else positions
        turn = np.searchsorted(ends, sources, side="right")  # place in `order` of each slot's input shard
        pieces = []
        for place in np.unique(turn):
            slots = np.flatnonzero(turn == place)
            shard = int(self.order[place])
            first = ends[place] - self.counts[shard]
            pieces.append(Piece(shard, sources[slots] - first, slots))
        return pieces

    def _shuffled(self, positions: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Positions in the output -> positions in the unshuffled line of samples, window by window."""
        last = np.append(np.arange(self.window, len(ends), self.window), len(ends)) - 1
        bounds = np.concatenate([[0], ends[last]])  # of the windows, in samples
        windows = np.searchsorted(bounds, positions, side="right") - 1
        sources = np.empty_like(positions)
        for number in np.unique(windows):
            low, high = bounds[number], bounds[number + 1]
            rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, 1, int(number)))))
            here = windows == number
            sources[here] = low + rng.permutation(high - low)[positions[here] - low]
        return sources


def plan_shards(
    counts: Sequence[int], samples_per_shard: int = 10_000, *, shuffle: bool = True, seed: int = 0, window: int = 16
) -> ReshardPlan:
    """Plan the output from the number of samples (repeats counted) that each input shard gives.

    Args:
        counts: one per input shard, in pool order.
        samples_per_shard: samples of every output shard but the last.
        shuffle: random order (see the module) instead of the pool's.
        seed: decides the shuffle.
        window: input shards that are shuffled with each other.

    Raises:
        DataError: the subset holds nothing.
    """
    if samples_per_shard < 1 or window < 1:
        raise ValueError("samples_per_shard and window must be at least 1")
    if sum(counts) == 0:
        raise DataError(f"nothing to reshard: the subset keeps no sample of {len(counts)} shards")
    order = np.arange(len(counts))
    if shuffle:
        order = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, 0)))).permutation(len(counts))
    return ReshardPlan(tuple(int(c) for c in counts), samples_per_shard, order, window if shuffle else 0, seed)


@dataclass(frozen=True)
class _Wanted:
    """Samples that a piece takes: ``(m,)`` row numbers, repeat numbers, and texts of uid and key."""

    rows: np.ndarray
    repeats: np.ndarray
    uids: list[str]
    keys: list[str]


def _resolve(piece: Piece, shard: Shard, count: int, kept: Kept) -> _Wanted:
    rows, times, *first = kept(piece.shard)
    ends = np.cumsum(times)
    given = int(ends[-1]) if len(ends) else 0
    if given != count:
        raise DataError(f"shard {shard.name} gives {given} samples, but the plan was made for {count}; plan again")
    index = np.searchsorted(ends, piece.ordinals, side="right")
    repeats = piece.ordinals - (ends - times)[index]
    if first:
        repeats = repeats + first[0][index]
    wanted = np.asarray(rows)[index]
    table = shard.read_table(["uid", "key", "status"])
    if len(wanted) and (wanted.max() >= table.num_rows or wanted.min() < 0):
        raise DataError(f"shard {shard.name} has {table.num_rows} rows; the subset names row {wanted.max()}")
    bad = wanted[~succeeded(table)[wanted]]
    if len(bad):
        raise DataError(
            f"shard {shard.name}: the subset keeps row {bad[0]}, which has no image; filter by status first"
        )
    table = table.take(pa.array(wanted))
    return _Wanted(wanted, repeats, table["uid"].to_pylist(), table["key"].to_pylist())


def write_shard(plan: ReshardPlan, k: int, shards: Sequence[Shard], kept: Kept, out: str) -> pa.Table:
    """Write output shard `k` as ``{k:08d}.tar`` and ``{k:08d}_stats.json`` into folder `out`.

    Payloads go from the mapped input shards to the kernel without passing through Python: a sample that waits for its
    turn is a few numbers and views of a mapping, whatever its size.

    Returns:
        One row per sample in the order of the tar: ``uid``, ``repeat`` (its j), ``shard`` (index of the input shard)
        and ``row`` (row number in it).

    Raises:
        DataError: a kept sample has no image or no members, or `kept` does not fit the plan.
    """
    size = plan.size(k)
    uids: list[str] = [""] * size
    repeats, origins, rows = np.zeros((3, size), np.int64)
    waiting: dict[int, dict[str, memoryview]] = {}
    names: set[str] = set()
    written = 0
    with storage.publishing(storage.join(out, f"{plan.name(k)}.tar")) as path, TarWriter(path) as tar:
        for piece in plan.pieces(k):
            shard = shards[piece.shard]
            wanted = _resolve(piece, shard, plan.counts[piece.shard], kept)
            slots = piece.slots
            repeats[slots], origins[slots], rows[slots] = wanted.repeats, piece.shard, wanted.rows
            reader = shard.open()
            for slot, uid, key in zip(slots.tolist(), wanted.uids, wanted.keys, strict=True):
                number = reader.number(key)
                if number is None:
                    raise DataError(f"{shard.tar} has no sample {key} ({uid}); {reader.torn or 'the tar is whole'}")
                uids[slot] = uid
                waiting[slot] = reader.views(number)
            while written in waiting:
                # Rows that share a uid (the pool may repeat one) must not share a name: the later takes the next j.
                while (name := f"{uids[written]}-{repeats[written]}") in names:
                    repeats[written] += 1
                names.add(name)
                tar.write(name, waiting.pop(written))
                written += 1
    if written != size:
        raise DataError(f"output shard {k}: {written} of {size} samples were found")
    storage.write_json(storage.join(out, f"{plan.name(k)}_stats.json"), {"successes": size}, indent=None)
    return pa.table(
        {
            "uid": pa.array(uids, pa.string()),
            "repeat": pa.array(repeats, pa.int32()),
            "shard": pa.array(origins, pa.int32()),
            "row": pa.array(rows, pa.int32()),
        }
    )


def unwritten(plan: ReshardPlan, out: str) -> list[int]:
    """Output shards that are not there yet: the statistics of one are written after its tar, and are the proof."""
    there = set(storage.list_names(out))
    done = [{f"{plan.name(k)}.tar", f"{plan.name(k)}_stats.json"} <= there for k in range(len(plan))]
    return [k for k, is_done in enumerate(done) if not is_done]


def finish_shards(
    plan: ReshardPlan, out: str, subset: str | None = None, facts: Mapping[str, str | int] | None = None
) -> None:
    """Write what describes all output shards: ``meta.json``, ``sizes.json`` and, given a subset, ``sample_ids.npy``.

    Call it once all `write_shard` calls are done; a folder with ``sizes.json`` is complete.

    Args:
        plan: of the output.
        out: its folder.
        subset: subset file that is copied, byte by byte.
        facts: more fields of ``meta.json``; DataComp's are strings for arguments and integers for counts.
    """
    if subset is not None:
        with storage.publishing(storage.join(out, "sample_ids.npy")) as path:
            shutil.copyfile(storage.local(subset), path)
    shards = {"output_shard_count": len(plan), "output_shard_format": "{:08d}.tar", "output_count": plan.total}
    storage.write_json(storage.join(out, "meta.json"), {**(facts or {}), **shards})
    storage.write_json(storage.join(out, "sizes.json"), plan.sizes())
