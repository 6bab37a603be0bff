"""Images of evaluation sets, looked at once: checksums, perceptual hashes, embeddings, in files beside each other.

One part per `BLOCK` pictures, so looking at ImageNet survives a kill. What is measured is what the scores measure of
the pool's pictures, by the same functions. Sets of any kind and layout do. An image that cannot be decoded has a file
checksum and nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import DataError
from ..shards import storage
from ..shards.evalsets.source import EvalSource
from ..shards.images.image import ImageError, decode_rgb
from .base import LoadEncoder
from .exact_dedup import digests
from .hamming import HashIndex
from .kmeans import unit
from .scorers.checksum import pixel_checksum
from .scorers.perceptual_hash import Invariant, Method, perceptual_hash

TRAIN = "train"  # splits whose name starts so hold no test images
IMAGES_AT_ONCE = 64
BLOCK = 10_000  # pictures of a part


@dataclass(frozen=True)
class Looks:
    """What to measure of an image: pixel checksum, perceptual hash, embedding."""

    pixels: bool
    method: Method | None
    invariant: Invariant
    encoder: LoadEncoder | None


@dataclass(frozen=True)
class EvalFile:
    """What was measured of one block of pictures.

    Attributes:
        path: ``.npz`` with ``seen (m,) bool`` (decodable), ``file_sum (m, 2) uint64`` and, if asked for, ``pixels_sum
            (m, 2) uint64``, ``hash (m,) uint64``, ``embedding (m, d) float32``: of those `seen`, else meaningless.
        digest: of those arrays.
        set, split: where they belong.
        images: m.
        undecodable: of them.
    """

    path: str
    digest: str
    set: str
    split: str
    images: int
    undecodable: int


@dataclass(frozen=True)
class Block:
    """Pictures `start` to `stop` of a split of a set of a source."""

    source: EvalSource
    set: str
    split: str
    start: int
    stop: int


def blocks_of(source: EvalSource, splits: Sequence[str] | None) -> list[Block]:
    """The pictures of all sets of a source.

    Args:
        splits: wanted ones, of which a set may lack some; None = all that are not for training.

    Raises:
        DataError: a set has none of them.
    """
    found = []
    for evalset in source.open():
        there = evalset.split_names()
        wanted = [s for s in there if (not s.startswith(TRAIN) if splits is None else s in splits)]
        if not wanted:
            asked = "that is not for training" if splits is None else f"among {', '.join(splits)}"
            names = ", ".join(there) or "none"
            raise DataError(f"the evaluation set {evalset.folder} has no split {asked}; it has {names}")
        for split in wanted:
            n = len(evalset.split(split))
            ends = [*range(BLOCK, n, BLOCK), n]
            starts = range(0, max(n, 1), BLOCK)
            found += [Block(source, evalset.name, split, *ends) for ends in zip(starts, ends, strict=True)]
    return found


def look(task: Any, name: str, block: Block, looks: Looks) -> dict[str, Any]:
    """Measure one block of pictures (`base.Context.map`); the result goes to ``<name>.npz``."""
    encoder = looks.encoder.load() if looks.encoder is not None else None
    evalset = next(one for one in block.source.open() if one.name == block.set)
    split, spans = evalset.split(block.split), range(block.start, block.stop)
    seen = np.zeros(len(spans), bool)
    files, pixels = [], [""] * len(spans)
    hashes = np.zeros(len(spans), np.uint64)
    embedding: np.ndarray | None = None
    for start in range(0, len(spans), IMAGES_AT_ONCE):
        pictures, at = [], []
        for place, index in enumerate(spans[start : start + IMAGES_AT_ONCE], start):
            body = split.image(index)
            files.append(hashlib.sha256(body).hexdigest())
            try:
                rgb = decode_rgb(body)
            except ImageError:
                continue
            seen[place] = True
            if looks.pixels:
                pixels[place] = pixel_checksum(rgb)
            if looks.method is not None:
                hashes[place] = perceptual_hash(rgb, looks.method, looks.invariant)
            pictures.append(rgb)
            at.append(place)
        if encoder is not None and pictures:
            found = encoder.encode_images(pictures)
            if embedding is None:
                embedding = np.full((len(spans), found.shape[1]), np.nan, np.float32)
            embedding[at] = found
        task.progress(min(start + IMAGES_AT_ONCE, len(spans)), len(spans))
    arrays: dict[str, np.ndarray] = {"seen": seen, "file_sum": digests([files])}
    if looks.pixels:
        arrays["pixels_sum"] = digests([pixels])
    if looks.method is not None:
        arrays["hash"] = hashes
    if embedding is not None:
        arrays["embedding"] = embedding
    path = storage.join(task.out, f"{name}.npz")
    with storage.publishing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    content = hashlib.blake2b(digest_size=16)
    for array in arrays.values():
        content.update(np.ascontiguousarray(array).data)
    facts = {"path": path, "digest": content.hexdigest()}
    return {**facts, "images": len(spans), "undecodable": int((~seen).sum())}


@dataclass(frozen=True)
class Known:
    """Evaluation images to be found again in a pool: all measures but embeddings, in memory.

    Attributes:
        group: number of the (set, split) of each image, ``(n,) int32``.
        equal: tables of 128-bit checksums by name (``file``, ``pixels``).
        hashes: an index of the different perceptual hashes, and for each of them its images: `owners` from `first` on.
    """

    group: np.ndarray
    equal: dict[str, Equal]
    hashes: HashIndex | None
    owners: np.ndarray
    first: np.ndarray


class Equal:
    """128-bit values and whose they are."""

    def __init__(self, values: np.ndarray, owners: np.ndarray) -> None:
        """Args: values: ``(n, 2) uint64``; owners: ``(n,)`` numbers of images."""
        order = np.lexsort((values[:, 1], values[:, 0]))
        self._values, self._owners = values[order], owners[order]

    def pairs(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places of queries ``(n, 2)`` and the owners of equal values, every pair once."""
        first = np.searchsorted(self._values[:, 0], queries[:, 0])
        counts = np.searchsorted(self._values[:, 0], queries[:, 0], "right") - first
        query = np.repeat(np.arange(len(queries)), counts)
        at = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(len(query))
        same = self._values[at, 1] == queries[query, 1]
        return query[same], self._owners[at[same]]


@lru_cache(maxsize=2)
def known(files: tuple[EvalFile, ...], radius: int) -> Known:
    """The measures of all files; built once per worker."""
    places: dict[tuple[str, str], int] = {}
    group, seen = [], []
    values: dict[str, list[np.ndarray]] = {"file_sum": [], "pixels_sum": [], "hash": []}
    for file in files:
        number = places.setdefault((file.set, file.split), len(places))
        group.append(np.full(file.images, number, np.int32))
        with np.load(storage.local(file.path)) as arrays:
            seen.append(arrays["seen"])
            for name, found in values.items():
                if name in arrays.files:
                    found.append(arrays[name])
    some = np.flatnonzero(np.concatenate([*seen, np.zeros(0, bool)]))
    every = np.arange(sum(map(len, group)))
    equal = {"file": Equal(np.concatenate([*values["file_sum"], np.empty((0, 2), np.uint64)]), every)}
    if values["pixels_sum"]:
        equal["pixels"] = Equal(np.concatenate(values["pixels_sum"])[some], some)
    index, owners, first = None, np.empty(0, np.int64), np.zeros(1, np.int64)
    if values["hash"]:
        hashes = np.concatenate(values["hash"])[some]
        distinct, which = np.unique(hashes, return_inverse=True)
        order = np.argsort(which, kind="stable")
        owners = some[order]
        first = np.searchsorted(which[order], np.arange(len(distinct) + 1))
        index = HashIndex(distinct, radius)
    return Known(np.concatenate([*group, np.empty(0, np.int32)]), equal, index, owners, first)


def embeddings_of(files: Sequence[EvalFile], block: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of unit embeddings ``(b, d) float32`` and the numbers of their images ``(b,)``."""
    before = 0
    for file in files:
        with np.load(storage.local(file.path)) as arrays:
            if "embedding" in arrays.files:
                rows, usable = unit(arrays["embedding"])
                numbers = before + np.flatnonzero(usable)
                for start in range(0, len(rows), block):
                    yield rows[start : start + block], numbers[start : start + block]
        before += file.images
