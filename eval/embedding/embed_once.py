"""One pass over the pictures of a set for all models: read, decode and prepare once, run each model.

A picture that several splits or sets share (COCO's in three retrieval sets, ImageNet's in its relabelled kin) is told
by the hash of its bytes, and embedded once in an evaluation (`seen_pictures.py`). An embedding is a function of the
picture alone, bit for bit (`pretrain/encoders/encoder.py`), so neither sharing nor the cache, the company of other
models, the number of threads or a kill half-way can change a feature. So the last batches of a split are filled up
with the first pictures of the split that comes next, where that is known: small sets cost no more than their pictures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from ...errors import DataError
from ...shards.evalsets.base import EvalSet, EvalSplit
from ..opened import OpenSet
from .feature_cache import CHUNK, HASH_BYTES, Chunk, FeatureCache
from .features import Features, has_head
from .picture_pass import BrokenPicture, own_threads, picture_features, runs_prepared
from .seen_pictures import REMEMBERED, SeenPictures

if TYPE_CHECKING:
    from ...pretrain.encoders.encoder import Encoder

Asked = tuple[EvalSplit, np.ndarray | None]
"""A split and those of its rows that are wanted, ``(m,) int64`` ascending; None = all."""

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
        order: Sequence[Asked] = (),
    ) -> None:
        """
        Args:
            cache_dir: folder where features are kept under a key of content; None = keep nothing.
            progress: called with (images done, images to do).
            todo: images of all splits that will be asked for.
            threads: on a CPU, threads that run the models, each with one core; on a GPU, threads that decode. None: as
                many as torch may use. Numbers do not depend on it.
            order: splits in the order in which they will be asked for, as far as it is known.
        """
        self._encoders, self._cache_dir, self._progress = list(encoders), cache_dir, progress
        self._order = list(order)
        self._todo, self._done, self._threads = todo, 0, threads
        self._seen = [SeenPictures(REMEMBERED // max(1, len(self._encoders))) for _ in self._encoders]

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
                later = self._later(split) if start + CHUNK >= len(wanted) else iter(())
                for model, chunk in zip(missing, self._embed(evalset, split, some, missing, later), strict=True):
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
        digest = evalset.split_digest(split.name) if self._cache_dir else ""  # it reads the split: not for nothing
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

    def _later(self, split: EvalSplit) -> Iterator[tuple[EvalSplit, int]]:
        """Splits and rows that will be asked for after this one."""
        place = next((i for i, (one, _) in enumerate(self._order) if one is split), len(self._order))
        for one, rows in self._order[place + 1 :]:
            yield from ((one, row) for row in (range(len(one)) if rows is None else rows.tolist()))

    def _round(self, models: list[int]) -> int:
        """Pictures that fill one batch of each thread."""
        ours: list[Encoder] = [e for e in (self._encoders[model] for model in models) if runs_prepared(e)]
        largest = max((encoder.batch for encoder in ours), default=1)
        on_cpu = all(encoder.device.type == "cpu" for encoder in ours)
        return largest * (self._threads or own_threads()) if ours and on_cpu else largest

    def _embed(
        self,
        evalset: EvalSet,
        split: EvalSplit,
        rows: np.ndarray,
        models: list[int],
        later: Iterator[tuple[EvalSplit, int]],
    ) -> list[Chunk]:
        """The chunk of each of these models: what was seen before is looked up, the rest is embedded, and with it as
        many `later` pictures as make the batches full."""
        content = np.empty((len(rows), HASH_BYTES), np.uint8)
        at: dict[bytes, int] = {}  # hash -> number among those that are embedded now
        fresh: list[int] = []  # their rows
        ahead: dict[bytes, None] = {}  # those of later pictures
        before, full = self._done, self._round(models)

        def is_new(name: bytes) -> bool:
            return name not in at and not all(name in self._seen[model] for model in models)

        def unseen() -> Iterator[bytes]:
            for place, row in enumerate(rows.tolist()):
                body = split.image(row)
                name = hashlib.blake2b(body, digest_size=HASH_BYTES).digest()
                content[place] = np.frombuffer(name, np.uint8)
                if is_new(name):
                    at[name] = len(fresh)
                    fresh.append(row)
                    yield body
            for other, row in islice(later, 2 * (-len(fresh) % full)):  # twice: some of them may be known
                if (len(fresh) + len(ahead)) % full == 0:
                    return
                body = other.image(row)
                name = hashlib.blake2b(body, digest_size=HASH_BYTES).digest()
                if is_new(name) and name not in ahead:
                    ahead[name] = None
                    yield body

        def taken(count: int) -> None:
            self._step(min(self._done + count, before + len(rows)))

        encoders = [self._encoders[model] for model in models]
        try:
            found = picture_features(encoders, unseen(), self._threads or own_threads(), taken)
        except BrokenPicture as error:
            if error.index >= len(fresh):  # it is named when its turn comes
                self._done = before
                return self._embed(evalset, split, rows, models, iter(()))
            key = split.keys[fresh[error.index]]
            raise DataError(f"{evalset.folder}: the image of {split.name} sample {key} is broken: {error}") from error
        finally:
            self._done = before
        chunks = []
        for model, all_ in zip(models, found, strict=True):
            image = all_[: len(fresh)]
            if not np.isfinite(image).all():
                key = split.keys[fresh[int(np.argmin(np.isfinite(image).all(1)))]]
                raise DataError(f"{evalset.folder}: the model's feature of {split.name} sample {key} is not a number")
            norms = None
            if has_head(self._encoders[model]):
                lengths = np.sqrt(np.einsum("nd,nd->n", all_, all_))
                all_ = all_ / np.maximum(lengths, 1e-12)[:, None]
                image, norms = all_[: len(fresh)], lengths
            chunks.append(self._seen[model].fill(content, at, Chunk(image, norms, content)))
            self._seen[model].remember(list(ahead), all_[len(fresh) :], None if norms is None else norms[len(fresh) :])
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
