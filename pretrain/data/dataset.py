"""A subset of the pool as numbered samples, read where it lies: nothing is written again for training.

Opening reads where each image lies (from the tar's index, or by one walk over its headers) and keeps about 30 bytes per
distinct sample, its key, its captions and its labels, all in flat arrays, and 4 bytes per repeat; images are slices of
the mapped tars, or ranged reads of remote ones. Everything that would stop a training later (no samples, no captions,
no labels, a tar that lacks its samples) is found here, before the first step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ...errors import DataError
from ...shards.shard import Shard, succeeded
from .. import streams
from . import order
from .captions import DRAWS, Captions, caption_weights
from .labels import LabelColumn, Labels, LabelValues
from .shard_images import ShardImages, open_images

Selection = np.ndarray
"""Row numbers of one shard, ``(m,) int64``; a row that is named twice is seen twice as often."""


@dataclass(frozen=True)
class _Part:
    """The distinct rows of one shard that are trained on."""

    name: str
    images: ShardImages
    keys: pa.Array
    captions: Captions | None


class SubsetDataset:
    """Samples of a subset in pool order, with repeats. See `samples.Samples`.

    Attributes:
        without_caption: selected rows without a caption (with labels: without either); nothing can be learned from
            them and they are left out.
        distinct: number of different rows.
        captioned: how many of these have a caption.
        labelled: how many of these have a label.
        outside: labels that are not among the given classes.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        selections: Sequence[Selection] | None = None,
        captions: str | Mapping[str, float] | None = "caption",
        labels: str | LabelColumn | None = None,
    ) -> None:
        """
        Args:
            shards: of the pool.
            selections: one per shard; default: every fetched sample once.
            captions: column with captions, or several with their weights: each time that a sample is seen, one of those
                that it has is drawn. None = images are trained on without captions.
            labels: column with labels. Samples with a label but no caption are then admitted.

        Raises:
            DataError: nothing to train on, no captions or no labels where they are asked for, or a tar that lacks
                samples. ConfigError: a column does not hold what it should.
        """
        if selections is None:
            selections = [np.flatnonzero(succeeded(shard.read_table(["status"]))) for shard in shards]
        self._weights = caption_weights(captions)
        options = LabelColumn(column=labels) if isinstance(labels, str) else labels
        self._parts: list[_Part] = []
        self.without_caption = self.distinct = self.captioned = 0
        sources: list[np.ndarray] = []  # per sample: number of its distinct row
        values: list[LabelValues] = []
        selected, columns = False, set()
        for shard, selection in zip(shards, selections, strict=True):
            rows, place = np.unique(np.asarray(selection, np.int64), return_inverse=True)
            if not len(rows):
                continue
            selected = True
            columns |= set(shard.column_names())
            part, found, kept = _open(shard, rows, self._weights, options)
            number = np.cumsum(kept) - 1 + self.distinct
            sources.append(number[place][kept[place]])
            self.without_caption += int((~kept).sum())
            self.distinct += len(part.keys)
            if len(part.keys):
                self._parts.append(part)
                self.captioned += int(part.captions.there.sum()) if part.captions else 0
                if found is not None:
                    values.append(found)
        source = np.concatenate(sources) if sources else np.empty(0, np.int64)
        self._source = source.astype(np.int32) if self.distinct < 1 << 31 else source
        self._ends = np.cumsum([len(part.keys) for part in self._parts])
        self._labels = Labels(values, options.classes) if options is not None else None
        self.labelled = int((self._labels.counts > 0).sum()) if self._labels else 0
        self.outside = self._labels.outside if self._labels else 0
        self._check(selected, columns, options)

    def _check(self, selected: bool, columns: set[str], options: LabelColumn | None) -> None:
        if not selected:
            raise DataError("the subset is empty; nothing to train on")
        if self._weights and not self.captioned:
            count = self.without_caption + self.distinct
            raise DataError(f"none of the {count} selected samples has a caption; nothing to train on")
        absent = set(self._weights) - columns
        if absent:
            raise DataError(f"no row table has the caption column {min(absent)!r}")
        if options is not None and not self.labelled:
            count, among = self.without_caption + self.distinct, " among the classes" if options.classes else ""
            raise DataError(
                f"none of the {count} selected samples has a label{among} in the column {options.column!r}; "
                "nothing to train on"
            )

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes; empty without labels."""
        return self._labels.classes if self._labels else ()

    def __len__(self) -> int:
        """Samples per epoch, repeats included."""
        return len(self._source)

    def identity(self) -> str:
        """32 hexadecimal characters over which samples these are, in which order, with which labels."""
        digest = hashlib.blake2b(self._source.astype(np.int64).tobytes(), digest_size=16)
        for part in self._parts:
            digest.update("\n".join([part.name, *part.keys.to_pylist(), ""]).encode())
        if self._weights != {"caption": 1.0}:
            digest.update(repr(self._weights).encode())
        if self._labels is not None:
            digest.update(self._labels.digest_bytes())
        return digest.hexdigest()

    def order(self, seed: int, start: int, stop: int) -> np.ndarray:
        """Samples at positions ``start..stop-1`` of a training, ``(stop - start,) int64``."""
        return order.positions(seed, len(self), start, stop)

    def substitute(self, i: int, word: int) -> int:
        """A sample that may stand in for sample `i`, drawn by a uniform 64-bit word."""
        return word % len(self)

    def source(self, i: int) -> int:
        """Number of the distinct row behind sample `i`: equal for its repeats."""
        return int(self._source[i])

    def image(self, i: int) -> bytes:
        """The encoded image of sample `i`."""
        part, row = self._find(i)
        return part.images.read(row)

    def caption(self, i: int) -> str | None:
        """A caption of sample `i`: the first that it has."""
        part, row = self._find(i)
        return part.captions.choose(row, (0.0, 0.0)) if part.captions else None

    def texts(self, samples: np.ndarray, seed: int, positions: np.ndarray) -> list[str | None]:
        """The caption of each sample at its position in the training; None = it has none."""
        if not self._weights:
            return [None] * len(samples)
        draws, low = None, 0
        found: list[str | None] = []
        for i, position in zip(samples.tolist(), positions.tolist(), strict=True):
            part, row = self._find(i)
            assert part.captions is not None
            draw: Sequence[float] = (0.0, 0.0)
            if not part.captions.fixed:
                if draws is None:
                    low = int(positions.min())
                    draws = streams.uniform(streams.key(seed, "caption"), low, int(positions.max()) + 1, DRAWS)
                draw = draws[position - low].tolist()
            found.append(part.captions.choose(row, draw))
        return found

    def labels(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Class numbers of ``samples (b,)``: rows ``(k,) int64`` ascending in 0..b-1, and ids ``(k,) int64``."""
        if self._labels is None:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        return self._labels.of(self._source[samples].astype(np.int64))

    def name(self, i: int) -> str:
        """``shard/key`` of sample `i`, for messages."""
        part, row = self._find(i)
        return f"{part.name}/{part.keys[row].as_py()}"

    def _find(self, i: int) -> tuple[_Part, int]:
        number = int(self._source[i])
        p = int(np.searchsorted(self._ends, number, "right"))
        return self._parts[p], number - (int(self._ends[p - 1]) if p else 0)


def _open(
    shard: Shard, rows: np.ndarray, weights: Mapping[str, float], options: LabelColumn | None
) -> tuple[_Part, LabelValues | None, np.ndarray]:
    """The shard's `rows` (ascending) that can be trained on, their labels, and a mask ``(len(rows),)`` of them."""
    wanted = ["key", *weights, *([options.column] if options else [])]
    names = set(shard.column_names())
    if options is not None and options.column not in names and not weights:
        raise DataError(f"{shard.table} has no column {options.column!r}; there is nothing to train on")
    table = shard.read_table([name for name in dict.fromkeys(wanted) if name in names])
    table = table.take(pa.array(rows)).combine_chunks()
    kept = np.ones(len(rows), bool) if not weights and options is None else np.zeros(len(rows), bool)
    captions = found = None
    if weights and (options is None or names & set(weights)):
        captions = Captions.read(table, weights, shard.table)
        kept |= captions.there
    if options is not None:
        found = _labels(table, options, shard.table)
        kept |= found.counts > 0
    where = np.flatnonzero(kept)
    keys = table["key"].cast(pa.large_string()).combine_chunks()
    keys = (keys if isinstance(keys, pa.Array) else pa.concat_arrays(keys.chunks)).take(pa.array(where))
    if found is not None and not kept.all():  # rows that are left out have no labels
        found.counts = found.counts[where]
    if captions is None and weights:
        captions = Captions([pa.nulls(len(rows), pa.large_string())], [1.0])
    if captions is not None:
        captions = captions.take(where)
    return _Part(shard.name, open_images(shard, rows[where], keys), keys, captions), found, kept


def _labels(table: pa.Table, options: LabelColumn, where: str) -> LabelValues:
    if options.column not in table.column_names:
        return LabelValues(pa.nulls(len(table)), where)
    return LabelValues(table[options.column], f"column {options.column!r} of {where}", options.classes)
