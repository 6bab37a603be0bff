"""One pass over the pictures of a set for all models: read, decode and prepare once, run each model.

A picture that several splits or sets share (COCO's in three retrieval sets, ImageNet's in its relabelled kin) is told
by the hash of its bytes, and embedded once in an evaluation. An embedding is a function of the picture alone, bit for
bit (`pretrain/encoders/encoder.py`), so neither sharing nor the cache, the company of other models, the number of
threads or a kill half-way can change a feature. Memory holds the features of the split, and up to `REMEMBERED` bytes of
those of earlier splits; what is older is forgotten, and embedded again if it is met again.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...errors import DataError
from ...shards.evalsets.base import EvalSet, EvalSplit
from ..opened import OpenSet
from .feature_cache import CHUNK, HASH_BYTES, Chunk, FeatureCache
from .features import Features, has_head
from .picture_pass import BrokenPicture, own_threads, picture_features

if TYPE_CHECKING:
    from ...pretrain.encoders.encoder import Encoder

REMEMBERED = 1 << 30
"""Bytes of features of earlier splits, of all models together."""

Embedded = tuple[Features, np.ndarray | None]
"""A model's features of a split, and the lengths that they had (of models that classify)."""


def wanted_rows(one: OpenSet, split: str) -> np.ndarray | None:
    """Rows of a split that some suite of the set looks at, ``(m,) int64`` ascending; None = all."""
    opened, found = one.splits[split], np.zeros(0, np.int64)
    for suite in one.suites:
        if split in suite.splits_of(one.evalset):
            rows = suite.rows(one.evalset, opened)
            if rows is None:
                return None
            found = np.union1d(found, np.asarray(rows, np.int64))
    return None if len(found) == len(opened) else found


class EmbedOnce:
    """Features of splits for several models at once."""

    def __init__(
        self,
        encoders: Sequence[Encoder],
        cache_dir: str | None = None,
        progress: Callable[[int, int], None] | None = None,
        todo: int = 0,
        threads: int | None = None,
    ) -> None:
        """
        Args:
            cache_dir: folder where features are kept under a key of content; None = keep nothing.
            progress: called with (images done, images to do).
            todo: images of all splits that will be asked for.
            threads: on a CPU, threads that run the models, each with one core; on a GPU, threads that decode. None: as
                many as torch may use. Numbers do not depend on it.
        """
        self._encoders, self._cache_dir, self._progress = list(encoders), cache_dir, progress
        self._todo, self._done, self._threads = todo, 0, threads
        self._seen = [_Seen(REMEMBERED // max(1, len(self._encoders))) for _ in self._encoders]

    def __call__(self, one: OpenSet, split: str) -> list[Embedded]:
        """For each model: its features of a split, and the lengths that they had (of models that classify). Rows that
        no suite of the set looks at are NaN.

        Raises:
            DataError: the split is empty, an image cannot be decoded, a feature is not a number, a cached file is
                broken.
        """
        return self.embed(one.evalset, one.splits[split], wanted_rows(one, split))

    def embed(self, evalset: EvalSet, split: EvalSplit, rows: np.ndarray | None = None) -> list[Embedded]:
        """As the call, of the rows ``(m,) int64``, ascending; None = all.

        Raises:
            DataError: see the call.
        """
        if not len(split):
            raise DataError(f"{evalset.folder}: split {split.name!r} holds no sample")
        wanted = np.arange(len(split)) if rows is None else rows
        before = self._done
        images = [np.full((len(split), encoder.dim), np.nan, np.float32) for encoder in self._encoders]
        norms = [np.full(len(split), np.nan, np.float32) if has_head(e) else None for e in self._encoders]
        caches = [self._cache(encoder, evalset, split, rows) for encoder in self._encoders]
        whole = [None if rows is None else self._whole(e, evalset, split, rows) for e in self._encoders]
        seen = [one.segment(image, norm) for one, image, norm in zip(self._seen, images, norms, strict=True)]
        for number, start in enumerate(range(0, len(wanted), CHUNK)):
            some = wanted[start : start + CHUNK]
            found = [
                kept[start : start + CHUNK] if kept else cache.read(number, len(some))
                for kept, cache in zip(whole, caches, strict=True)
            ]
            missing = [model for model, chunk in enumerate(found) if chunk is None]
            if missing:
                for model, chunk in zip(missing, self._embed(evalset, split, some, missing), strict=True):
                    found[model] = chunk
                    caches[model].write(number, chunk)
            for model, chunk in enumerate(found):
                assert chunk is not None
                images[model][some] = chunk.image
                if (lengths := norms[model]) is not None:
                    lengths[some] = chunk.norms
                seen[model](chunk.content, some)
            self._step(before + start + len(some))
        labels = np.zeros(0, np.int64) if split.classes is None else split.classes
        return [(Features(image, labels), lengths) for image, lengths in zip(images, norms, strict=True)]

    def _step(self, done: int) -> None:
        self._done = done
        if self._progress:
            self._progress(done, max(done, self._todo))

    def _cache(self, encoder: Encoder, evalset: EvalSet, split: EvalSplit, rows: np.ndarray | None) -> FeatureCache:
        digest = evalset.digest if self._cache_dir else ""  # it reads the whole set: not for nothing
        return FeatureCache(self._cache_dir, encoder, digest, split.name, rows, has_head(encoder))

    def _whole(self, encoder: Encoder, evalset: EvalSet, split: EvalSplit, rows: np.ndarray) -> _Kept | None:
        """Some rows of a split whose features were all kept, by an evaluation that looked at all."""
        cache = self._cache(encoder, evalset, split, None)
        chunks = []
        for number in np.unique(rows // CHUNK).tolist():
            chunk = cache.read(number, min(CHUNK, len(split) - number * CHUNK))
            if chunk is None:
                return None
            chunks.append(_part(chunk, rows[rows // CHUNK == number] - number * CHUNK))
        return _Kept(chunks) if chunks else None

    def _embed(self, evalset: EvalSet, split: EvalSplit, rows: np.ndarray, models: list[int]) -> list[Chunk]:
        """The chunk of each of these models: what was seen before is looked up, the rest is embedded."""
        content = np.empty((len(rows), HASH_BYTES), np.uint8)
        at: dict[bytes, int] = {}  # hash -> number among those that are embedded now
        fresh: list[int] = []  # their rows
        before = self._done

        def unseen() -> Iterator[bytes]:
            for place, row in enumerate(rows.tolist()):
                body = split.image(row)
                name = hashlib.blake2b(body, digest_size=HASH_BYTES).digest()
                content[place] = np.frombuffer(name, np.uint8)
                if name not in at and not all(name in self._seen[model] for model in models):
                    at[name] = len(fresh)
                    fresh.append(row)
                    yield body

        def taken(count: int) -> None:
            self._step(self._done + count)

        encoders = [self._encoders[model] for model in models]
        try:
            found = picture_features(encoders, unseen(), self._threads or own_threads(), taken)
        except BrokenPicture as error:
            key = split.keys[fresh[error.index]]
            raise DataError(f"{evalset.folder}: the image of {split.name} sample {key} is broken: {error}") from error
        finally:
            self._done = before
        chunks = []
        for model, image in zip(models, found, strict=True):
            if not np.isfinite(image).all():
                key = split.keys[fresh[int(np.argmin(np.isfinite(image).all(1)))]]
                raise DataError(f"{evalset.folder}: the model's feature of {split.name} sample {key} is not a number")
            norms = None
            if has_head(self._encoders[model]):
                norms = np.sqrt(np.einsum("nd,nd->n", image, image))
                image = image / np.maximum(norms, 1e-12)[:, None]
            chunks.append(self._seen[model].fill(content, at, Chunk(image, norms, content)))
        return chunks


def _part(chunk: Chunk, rows: np.ndarray | slice) -> Chunk:
    return Chunk(chunk.image[rows], None if chunk.norms is None else chunk.norms[rows], chunk.content[rows])


class _Kept:
    """Chunks as one, of which parts can be had."""

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        norms = None if chunks[0].norms is None else np.concatenate([c.norms for c in chunks if c.norms is not None])
        image, content = np.concatenate([c.image for c in chunks]), np.concatenate([c.content for c in chunks])
        self._all = Chunk(image, norms, content)

    def __getitem__(self, rows: slice) -> Chunk:
        return _part(self._all, rows)


class _Seen:
    """Features of one model by the hash of the picture, of the latest splits."""

    def __init__(self, limit: int) -> None:
        """
        Args:
            limit: bytes of features that are remembered; the latest split is remembered in any case.
        """
        self._limit, self._next = limit, 0
        self._splits: deque[tuple[int, np.ndarray, np.ndarray | None, list[bytes]]] = deque()
        self._by_number: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}
        self._place: dict[bytes, tuple[int, int]] = {}

    def __contains__(self, name: bytes) -> bool:
        return name in self._place

    def segment(self, image: np.ndarray, norms: np.ndarray | None) -> Callable[[np.ndarray, np.ndarray], None]:
        """A new split, whose features will be written to `image`; call the result with hashes and rows that were."""
        number, names = self._next, []
        self._next += 1
        self._splits.append((number, image, norms, names))
        self._by_number[number] = image, norms
        while len(self._splits) > 1 and sum(one.nbytes for _, one, _, _ in self._splits) > self._limit:
            oldest, *_, forgotten = self._splits.popleft()
            del self._by_number[oldest]
            for name in forgotten:
                del self._place[name]

        def add(content: np.ndarray, rows: np.ndarray) -> None:
            for name, row in zip(_names(content), rows.tolist(), strict=True):
                if name not in self._place:
                    self._place[name] = number, row
                    names.append(name)

        return add

    def fill(self, content: np.ndarray, at: dict[bytes, int], fresh: Chunk) -> Chunk:
        """The chunk of pictures `content`, of which those in `at` lie in `fresh`, and the others were seen."""
        image = np.empty((len(content), fresh.image.shape[1]), np.float32)
        norms = None if fresh.norms is None else np.empty(len(content), np.float32)
        for row, name in enumerate(_names(content)):
            if name in at:
                source, lengths, place = fresh.image, fresh.norms, at[name]
            else:
                number, place = self._place[name]
                source, lengths = self._by_number[number]
            image[row] = source[place]
            if norms is not None and lengths is not None:
                norms[row] = lengths[place]
        return Chunk(image, norms, content)


def _names(content: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in content]
