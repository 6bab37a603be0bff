"""The arithmetic of MetaCLIP's balancing: which caption stays, as one number that is compared with the target.

A caption stays if any entry that it names wins a draw with chance ``t / max(count, t)``. Say the draw of (caption,
entry) is u, uniform in [0, 1): the entry wins iff ``u * count < t`` (if count <= t it always does). So the caption
stays iff its ``cost``, the smallest ``u * count`` over its entries, is below t. That makes t a threshold: a
smaller t keeps a part of what a larger one keeps, and "exactly N captions" is the N smallest costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..errors import DataError
from .base import Part
from .counters import Counters
from .draw import uid_hash
from .group_ranking import Ranking
from .quantile import from_bits, to_bits

PURPOSE = "metadata_balance"
ODD = np.uint64(0x9E37_79B9_7F4A_7C15)
UNKNOWN = ""  # language of a caption without one


@dataclass(frozen=True)
class Entries:
    """The (caption, entry) pairs of a part, each once.

    Attributes:
        row: ``(m,) int64`` place of the caption among the alive rows.
        entry: ``(m,) int64``.
    """

    row: np.ndarray
    entry: np.ndarray


def read_entries(part: Part, column: str) -> Entries:
    """The pairs of a list column; a null list and an empty one have none.

    Raises:
        DataError: the column holds something else.
    """
    lists = part.arrow(column).combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], lists.type)
    kind = lists.type
    if pa.types.is_null(kind):
        return Entries(np.empty(0, np.int64), np.empty(0, np.int64))
    if not ((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_integer(kind.value_type)):
        raise DataError(f"column {column!r} of part {part.name} holds {kind}, not lists of entry numbers")
    import pyarrow.compute as pc

    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]
    row = np.repeat(np.arange(len(lists), dtype=np.int64), lengths)
    entry = lists.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
    if (entry < 0).any():
        raise DataError(f"column {column!r} of part {part.name} holds a negative entry number")
    order = np.lexsort((entry, row))
    row, entry = row[order], entry[order]
    new = np.ones(len(row), bool)
    new[1:] = (row[1:] != row[:-1]) | (entry[1:] != entry[:-1])
    return Entries(row[new], entry[new])


def languages_of(part: Part, column: str) -> np.ndarray:
    """``(n,)`` objects: the language of each row as text, `UNKNOWN` where there is none."""
    return np.array([value or UNKNOWN for value in part.arrow(column).cast(pa.string()).to_pylist()], object)


@dataclass(frozen=True)
class Costs:
    """How a caption's cost is computed.

    Attributes:
        column: of the lists of entries.
        stride: more than any entry number.
        counts: captions of each entry; the key is ``language number * stride + entry``.
        language: column of the language, or None.
        languages: names by number.
        seed: of the run and the filter.
    """

    column: str
    stride: int
    counts: Counters
    language: str | None
    languages: tuple[str, ...]
    seed: int
    purpose: str = PURPOSE

    def keys(self, part: Part) -> tuple[Entries, np.ndarray]:
        """The pairs of a part and the key of each in `counts`."""
        pairs = read_entries(part, self.column)
        return pairs, language_numbers(part, self.language, self.languages)[pairs.row] * self.stride + pairs.entry

    def of(self, part: Part) -> np.ndarray:
        """Cost of each alive row, ``(n,) float32``, rounded down; NaN where no entry is named."""
        pairs, keys = self.keys(part)
        records = part.uids()[pairs.row]
        records["f1"] += pairs.entry.astype(np.uint64) * ODD
        u = np.ldexp((uid_hash(records, self.seed, self.purpose) >> np.uint64(11)).astype(np.float64), -53)
        cost = np.full(len(part), np.inf)
        np.minimum.at(cost, pairs.row, u * self.counts.at(keys))
        rounded = cost.astype(np.float32)
        rounded = np.where(rounded > cost, np.nextafter(rounded, np.float32(-np.inf)), rounded)
        return np.where(np.isinf(cost), np.float32(np.nan), rounded).astype(np.float32)


def language_numbers(part: Part, column: str | None, languages: tuple[str, ...]) -> np.ndarray:
    """``(n,) int64`` number of each row's language; 0 when none is asked for."""
    if column is None:
        return np.zeros(len(part), np.int64)
    number = {name: i for i, name in enumerate(languages)}
    return np.array([number[name] for name in languages_of(part, column)], np.int64)


@dataclass(frozen=True)
class CheapestFirst(Ranking):
    """Rows ranked by cost, the smallest first; captions without an entry have no rank."""

    costs: Costs | None = None

    def values(self, part: Part) -> np.ndarray:
        assert self.costs is not None
        return self.costs.of(part)

    def bits(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        cost = self.values(part)
        present = ~np.isnan(cost)
        return ~to_bits(np.where(present, cost, np.float32(0))), present

    def value(self, bits: int) -> float | None:
        return float(from_bits(~bits & 0xFFFF_FFFF))


def target_of(counts: np.ndarray, share: float) -> int:
    """The count up to which the entries hold a share of all matches closest to `share`, at least 1 (MetaCLIP 2)."""
    ordered = np.sort(counts[counts > 0])
    if not len(ordered):
        return 1
    cumulative = np.cumsum(ordered) / ordered.sum()
    return max(1, int(ordered[int(np.abs(cumulative - share).argmin())]))


def tail_share(counts: np.ndarray, target: float) -> float:
    """Share of all matches that entries with fewer than `target` captions hold."""
    total = int(counts.sum())
    return int(counts[counts < target].sum()) / total if total else 0.0
