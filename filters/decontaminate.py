"""`decontaminate`: drop pictures that are, or nearly are, images of an evaluation set.

A model that saw a test image in training is tested on what it remembers. Any of these makes a row leave, each only if
asked for: the same file (SHA-256 of the bytes, the row table's ``sha256``), the same pixels (a `checksum` score), a
perceptual hash within `radius` bits, an embedding with a cosine of at least `similarity`. The images of the sets are
measured here by the functions that measured the pool, one part per tar; `report_only` counts and drops nothing.

A row's value is its largest cosine, without an encoder the distance to the nearest hash within the radius, without
either 1 or 0.

Price: checksums and hashes cost next to nothing. Embeddings cost 2 n d flop a row for n test images: 10^9 rows against
50,000 images of 512 dimensions are 142 core-hours at 100 GFLOP/s. Files and pixels rarely match a pool that was resized
or compressed again; hashes and embeddings do. A cosine threshold means something for one encoder only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from ..errors import DataError
from ..shards.evalsets.source import EvalSource, EvalSourceOption
from .base import FILTERS, Context, Decision, Emitted, Filter, Part, Routed
from .eval_images import EvalFile, Looks, blocks_of, embeddings_of, known, look
from .exact_dedup import digests
from .hamming import bucket_of
from .kmeans import unit
from .near_dedup import hashes_of
from .scorers.perceptual_hash import Invariant, Method
from .tiles import pairs_at_least, raise_to_largest

MEANS = ("file", "pixels", "hash", "embedding")
REASONS = ("same_file", "same_pixels", "near_hash", "near_embedding")
ROWS_PER_BUCKET = 1_000_000
MAX_BUCKETS = 4096
BLOCK = 4096
FAR = 255  # no hash within the radius


@dataclass(frozen=True)
class Leaks:
    """What of the evaluation sets is in the pool.

    Attributes:
        routed: ``means`` (bit i: matched by ``MEANS[i]``), ``distance``, ``similarity``, per row.
        files: the measured images.
        rows: matched rows of the pool by (set, split), in the order of the files.
        images: matched images by (set, split).
        by_means: matched rows by each of `MEANS`.
        matched: matched rows.
    """

    routed: Routed
    files: tuple[EvalFile, ...]
    rows: dict[tuple[str, str], int] = field(default_factory=dict)
    images: dict[tuple[str, str], int] = field(default_factory=dict)
    by_means: tuple[int, ...] = ()
    matched: int = 0


@FILTERS.register
class Decontaminate(Filter):
    """Drop near-duplicates of evaluation images."""

    type: Literal["decontaminate"] = "decontaminate"
    sets: list[EvalSourceOption] = Field(
        min_length=1, description="Evaluation sets: built-in names, folders, or what `eval.data` takes."
    )
    splits: list[str] | None = Field(None, description="Splits to look at; without it, all but those named train*.")
    file: bool = Field(True, description="Compare the bytes of the files (the row table's sha256).")
    pixels: str | None = Field(None, description="Compare pixels: the name of a `checksum` score.")
    hash: str | None = Field(None, description="Compare perceptual hashes: the name of a `perceptual_hash` score.")
    radius: int = Field(4, ge=0, le=12, description="Bits of 64 in which hashes of near copies may differ.")
    method: Method = Field("phash", description="The hash score's `method`; it must be the same.")
    invariant: Invariant = Field("none", description="The hash score's `invariant`; it must be the same.")
    encoder: str | None = Field(None, description="Compare embeddings of this encoder.")
    similarity: float = Field(0.95, gt=0, le=1, description="Drop at this cosine or above; depends on the encoder.")
    report_only: bool = Field(False, description="Count what would go, drop nothing.")

    @model_validator(mode="after")
    def _some_means(self) -> Decontaminate:
        if not (self.file or self.pixels or self.hash or self.encoder):
            raise ValueError("decontaminate: give at least one of file, pixels, hash and encoder to compare by")
        if any(one in self.sets[:i] for i, one in enumerate(self.sets)):
            raise ValueError(f"decontaminate: {[one.path for one in self.sets]} names a set twice")
        return self

    def columns(self) -> list[str]:
        chosen = [self.pixels, self.hash, f"{self.encoder}.image" if self.encoder else None]
        return [*(["sha256"] if self.file else []), *(c for c in chosen if c is not None)]

    def encoders(self) -> list[str]:
        return [self.encoder] if self.encoder is not None else []

    def evalsets(self) -> list[EvalSource]:
        return list(self.sets)

    def fit_in(self, context: Context) -> Leaks:
        load = context.encoder(self.encoder) if self.encoder is not None else None
        looks = Looks(self.pixels is not None, self.method if self.hash is not None else None, self.invariant, load)
        calls, owners = {}, {}
        for number, source in enumerate(self.sets):
            blocks = context.call(blocks_of, context.evalset(source), self.splits)
            for index, block in enumerate(blocks):
                part = f"evalset{number:03d}-{index:05d}"
                calls[part], owners[part] = (part, block, looks), (block.set, block.split)
        done = context.map(look, calls)
        files = tuple(EvalFile(set=owners[part][0], split=owners[part][1], **facts) for part, facts in done.items())
        if not sum(f.images for f in files):
            raise DataError(f"decontaminate: the evaluation sets {', '.join(s.path for s in self.sets)} hold no image")
        pool = context.pool
        buckets = min(MAX_BUCKETS, 1 + sum(pool.map(_length)) // ROWS_PER_BUCKET)
        routed = pool.shuffle(_emit, _reduce, buckets, self, files, buckets)
        leaks = pool.map(_leaks, self, files, routed)
        groups = list(dict.fromkeys((f.set, f.split) for f in files))
        rows = np.sum([np.zeros(len(groups), np.int64), *(found.rows for found in leaks)], axis=0)
        images = np.unique(np.concatenate([np.empty(0, np.int64), *(found.images for found in leaks)]))
        starts = np.cumsum([0, *(f.images for f in files)])
        owner = np.array([groups.index((f.set, f.split)) for f in files])
        per_group = np.bincount(owner[np.searchsorted(starts, images, "right") - 1], minlength=len(groups))
        by_means = np.sum([np.zeros(len(MEANS), np.int64), *(found.by_means for found in leaks)], axis=0)
        return Leaks(
            routed,
            files,
            dict(zip(groups, rows.tolist(), strict=True)),
            dict(zip(groups, per_group.tolist(), strict=True)),
            tuple(by_means.tolist()),
            sum(found.matched for found in leaks),
        )

    def decide(self, part: Part, state: Leaks) -> Decision:
        n, columns = len(part), state.routed.of(part)
        means = columns.get("means", np.zeros(n, np.uint8))
        reason = np.full(n, None, object)
        for bit in reversed(range(len(MEANS))):  # the surest means names the reason
            reason[(means >> bit & 1).astype(bool)] = REASONS[bit]
        if self.encoder is not None:
            value = columns.get("similarity", np.full(n, np.nan))
        elif self.hash is not None:
            distance = columns.get("distance", np.full(n, FAR))
            value = np.where(columns["found"] & (distance < FAR), distance, np.nan)
        else:
            value = means > 0
        keep = np.ones(n, bool) if self.report_only else means == 0
        return Decision(keep, value.astype(np.float32), reason)

    def describe(self, state: Leaks) -> dict[str, Any]:
        sets = []
        for (name, split), rows in state.rows.items():
            files = [f for f in state.files if (f.set, f.split) == (name, split)]
            images = sum(f.images for f in files)
            found = state.images[name, split]
            undecodable = sum(f.undecodable for f in files)
            line = {"set": name, "split": split, "images": images, "undecodable": undecodable}
            share = found / images if images else 0.0
            sets.append({**line, "images_in_pool": found, "share_in_pool": share, "pool_rows": rows})
        used = (self.file, self.pixels is not None, self.hash is not None, self.encoder is not None)
        by = {means: n for means, n, yes in zip(MEANS, state.by_means, used, strict=True) if yes}
        facts: dict[str, Any] = {"matched": state.matched, "matched_by": by, "sets": sets}
        facts["report_only"] = self.report_only
        if self.hash is not None:
            facts["radius"] = self.radius
        if self.encoder is not None:
            facts["similarity_threshold"] = float(np.float32(self.similarity))
        return facts


@dataclass(frozen=True)
class _Found:
    """Of one part: matched rows by (set, split) and by means, all of them, and the images that they match."""

    rows: np.ndarray
    by_means: np.ndarray
    matched: int
    images: np.ndarray


def _length(part: Part) -> int:
    return len(part)


Pairs = Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]


def _equal_pairs(part: Part, column: str, means: str, files: tuple[EvalFile, ...], radius: int) -> Pairs:
    texts = part.arrow(column)
    at = np.flatnonzero(np.asarray(texts.is_valid().to_numpy(), bool))
    if len(at):
        rows, images = known(files, radius).equal[means].pairs(digests([texts.take(at).to_pylist()]))
        yield at[rows], images, np.zeros(len(rows), np.uint8)


def _hash_pairs(part: Part, column: str, files: tuple[EvalFile, ...], radius: int) -> Pairs:
    """Rows, images and their distances; a pair may come twice."""
    index = known(files, radius)
    hashes, present = hashes_of(part, column)
    at = np.flatnonzero(present)
    assert index.hashes is not None
    for rows, which, distance in index.hashes.within(hashes[at]):
        counts = index.first[which + 1] - index.first[which]
        shift = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        images = index.owners[np.repeat(index.first[which], counts) + shift]
        yield np.repeat(at[rows], counts), images, np.repeat(distance, counts)


def _pairs(part: Part, chosen: Decontaminate, files: tuple[EvalFile, ...]) -> Iterator[tuple[int, Pairs]]:
    """Pairs of rows and images by all means but embeddings, with the number of the means."""
    if chosen.file:
        yield 0, _equal_pairs(part, "sha256", "file", files, chosen.radius)
    if chosen.pixels is not None:
        yield 1, _equal_pairs(part, chosen.pixels, "pixels", files, chosen.radius)
    if chosen.hash is not None:
        yield 2, _hash_pairs(part, chosen.hash, files, chosen.radius)


def _emit(part: Part, chosen: Decontaminate, files: tuple[EvalFile, ...], buckets: int) -> Emitted:
    n = len(part)
    means, distance = np.zeros(n, np.uint8), np.full(n, FAR, np.uint8)
    similarity = np.full(n, np.nan, np.float32)
    for number, pairs in _pairs(part, chosen, files):
        for rows, _, differ in pairs:
            means[rows] |= np.uint8(1 << number)
            if number == MEANS.index("hash"):
                np.minimum.at(distance, rows, differ)
    if chosen.encoder is not None:
        rows, usable = unit(part.array(f"{chosen.encoder}.image"))
        best = np.full(len(rows), -np.inf)
        for block, _ in embeddings_of(files, BLOCK):
            raise_to_largest(best, rows, _fitting(block, rows, chosen.encoder))
        similarity[usable] = np.where(np.isfinite(best), best, np.nan)
        means[similarity >= np.float32(chosen.similarity)] |= np.uint8(1 << MEANS.index("embedding"))
    told = (means > 0) | ~np.isnan(similarity)
    at = np.flatnonzero(told)
    uids = part.uids()[at]
    values = {"means": means[at], "distance": distance[at], "similarity": similarity[at]}
    return Emitted(bucket_of(uids["f1"], buckets), part.rows[at], uids, values)


def _fitting(block: np.ndarray, rows: np.ndarray, encoder: str) -> np.ndarray:
    if block.shape[1] != rows.shape[1]:
        raise DataError(
            f"decontaminate: the pool's {encoder}.image has {rows.shape[1]} dimensions, the evaluation images got "
            f"{block.shape[1]} from the encoder {encoder!r}; embed both with the same one"
        )
    return block


def _reduce(bucket: int, rows: dict[str, np.ndarray], *_: Any) -> dict[str, np.ndarray]:
    """Nothing: the values only have to reach `decide`."""
    return {name: rows[name] for name in ("means", "distance", "similarity")}


def _leaks(part: Part, chosen: Decontaminate, files: tuple[EvalFile, ...], routed: Routed) -> _Found:
    """Every image that a matched row matches; few rows match, so that this is cheap."""
    index = known(files, chosen.radius)
    groups = int(index.group.max(initial=-1)) + 1
    columns = routed.of(part)
    means = columns["means"] if columns["found"].any() else np.zeros(len(part), np.uint8)
    at = np.flatnonzero(means)
    by_means = np.array([int((means >> bit & 1).sum()) for bit in range(len(MEANS))])
    if not len(at):
        return _Found(np.zeros(groups, np.int64), by_means, 0, np.empty(0, np.int64))
    few = part.only(part.rows[at])
    hits = np.zeros((len(at), groups), bool)
    images: list[np.ndarray] = []

    def add(rows: np.ndarray, matched: np.ndarray) -> None:
        hits[rows, index.group[matched]] = True
        images.append(np.unique(matched))

    for _, pairs in _pairs(few, chosen, files):
        for rows, matched, _ in pairs:
            add(rows, matched)
    if chosen.encoder is not None:
        vectors, usable = unit(few.array(f"{chosen.encoder}.image"))
        place = np.flatnonzero(usable)
        for block, numbers in embeddings_of(files, BLOCK):
            for rows, columns_ in pairs_at_least(vectors, block, np.float32(chosen.similarity)):
                add(place[rows], numbers[columns_])
    return _Found(hits.sum(axis=0), by_means, len(at), np.unique(np.concatenate(images)))
