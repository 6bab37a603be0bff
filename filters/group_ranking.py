"""Ranks of rows and the groups that they are ranked in: what `group_cuts.py` cuts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from .base import Part, json_number, numbers
from .draw import uid_hash
from .quantile import from_bits, to_bits


@dataclass(frozen=True)
class Ranking:
    """What rows are ranked by, and in which groups.

    Attributes:
        by: column; None = at random.
        per: column whose values, as text, are the groups; None = all rows are one group.
        largest: the largest values are the best.
        seed, purpose: of the random draw.
    """

    by: str | None
    per: str | None = None
    largest: bool = True
    seed: int = 0
    purpose: str = ""

    def columns(self) -> list[str]:
        """Columns that it reads."""
        return list(dict.fromkeys(c for c in (self.by, self.per, "uid") if c is not None))

    def values(self, part: Part) -> np.ndarray:
        """``(n,) float32``: the score, or the random number in [0, 1)."""
        if self.by is not None:
            return numbers(part, self.by)
        return np.ldexp(uid_hash(part.uids(), self.seed, self.purpose).astype(np.float64), -64).astype(np.float32)

    def bits(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """``(n,) uint32`` that order like the rank, best = largest, and ``(n,) bool``: which rows have one."""
        if self.by is None:
            return (uid_hash(part.uids(), self.seed, self.purpose) >> np.uint64(32)).astype(np.uint32), np.ones(
                len(part), bool
            )
        values = numbers(part, self.by)
        present = ~np.isnan(values)
        bits = to_bits(np.where(present, values, np.float32(0)))
        return (bits if self.largest else ~bits), present

    def value(self, bits: int) -> float | None:
        """The value of a rank, for people."""
        if self.by is None:
            return bits / 2**32
        return json_number(from_bits(bits if self.largest else ~bits & 0xFFFF_FFFF))


def group_key(name: str) -> int:
    """64 bits that stand for a group; equal for equal names only, but for one chance in 10^7 among a million groups."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def groups_of(part: Part, per: str | None) -> tuple[np.ndarray, np.ndarray]:
    """``(n,) uint64`` keys of the rows' groups, and ``(n,) bool``: which rows have a group (null has none)."""
    if per is None:
        return np.zeros(len(part), np.uint64), np.ones(len(part), bool)
    names, codes = names_of(part, per)
    keys = np.array([group_key(name) for name in names] + [0], np.uint64)
    return keys[codes], codes >= 0


def names_of(part: Part, per: str) -> tuple[list[str], np.ndarray]:
    """Names of the groups in the part, and each row's number among them, -1 = none."""
    column = part.arrow(per).cast(pa.string())
    encoded = column.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.dictionary.to_pylist(), encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
